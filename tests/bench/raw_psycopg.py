"""A turn with nothing but `psycopg`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg


class PsycopgDriver:
    begin = "BEGIN"
    locks = {
        "lock_account": "FOR NO KEY UPDATE OF a",
        "lock_person": "FOR NO KEY UPDATE OF u",
        "lock_delivery": "FOR UPDATE OF d SKIP LOCKED",
    }

    def __init__(self, url: str) -> None:
        self._connection = psycopg.connect(url, autocommit=True)

    def execute(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        # A statement of the benchmark's own, put together from nothing else.
        cursor = self._connection.execute(statement.replace("?", "%s").encode(), values or None)
        return cursor.fetchall() if cursor.description else []

    def moment(self, seconds: float = 0.0) -> object:
        return datetime.now(tz=UTC) + timedelta(seconds=seconds)

    def close(self) -> None:
        self._connection.close()
