"""Values written into the SQL statement: no engine matches a parameter with the condition of an index."""

from __future__ import annotations

from typing import Any

from django.db.models import CharField, Value


class Literal(Value):
    """A constant of the program, never user input."""

    def __init__(self, text: str) -> None:
        if not text.replace(" ", "").isalpha() and text:
            raise ValueError("only words can be literals")
        super().__init__(str(text), output_field=CharField())

    def as_sql(self, compiler: Any, connection: Any) -> Any:
        return f"'{self.value}'", []
