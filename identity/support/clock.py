"""The clock by which all times are compared: the database's.

Workers' clocks may differ; PostgreSQL's is one for all. SQLite is used on one machine and has only milliseconds, so
there the worker's clock, in microseconds, is used.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import connection
from django.db.models import DateTimeField, Func

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)  # before everything: "no bound", "no lease"


class Moment(Func):
    """The moment `seconds` from now by the database's clock, as an expression for `filter`, `update` and `create`.

    once: it is read once in a statement.
    """

    output_field = DateTimeField()

    def __init__(self, seconds: float, *, once: bool = False) -> None:
        super().__init__()
        self.seconds, self._once = seconds, once

    def statement(self) -> tuple[str, Any]:
        """Return the moment for plain SQL: an expression with one `%s`, and its value."""
        ahead = timedelta(seconds=self.seconds)
        if connection.vendor == "postgresql":
            return "CLOCK_TIMESTAMP() + %s", ahead  # unlike NOW(), it moves in a transaction
        return "%s", connection.ops.adapt_datetimefield_value(datetime.now(tz=UTC) + ahead)

    def as_sql(
        self,
        compiler: Any,
        connection: Any,
        function: str | None = None,
        template: str | None = None,
        arg_joiner: str | None = None,
        **extra: Any,
    ) -> Any:
        statement, value = self.statement()
        return f"(SELECT {statement})" if self._once else statement, [value]


def now() -> Moment:
    """Return the present moment, as an expression for `filter`, `update` and `create`."""
    return Moment(0.0)


def seconds_from_now(seconds: float) -> Moment:
    """Return the moment `seconds` ahead (or behind, if negative), as an expression."""
    return Moment(seconds)


def bound(seconds: float = 0.0) -> Moment:
    """Return the moment `seconds` ahead (or behind), read once in a statement, so that an index finds due rows.

    PostgreSQL calls `clock_timestamp()` for each row, and would read the whole index that it is compared with.
    """
    return Moment(seconds, once=True)


def read() -> datetime:
    """Return the present moment as an aware datetime in UTC: one query on PostgreSQL, none on SQLite."""
    if connection.vendor != "postgresql":
        return datetime.now(tz=UTC)
    with connection.cursor() as cursor:
        cursor.execute("SELECT CLOCK_TIMESTAMP()")
        moment: datetime = cursor.fetchone()[0]
    return moment.astimezone(UTC)
