"""A turn with nothing but `sqlite3`."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any


class SQLiteDriver:
    begin = "BEGIN IMMEDIATE"
    locks = {"lock_account": "", "lock_person": "", "lock_delivery": ""}

    def __init__(self, path: Path) -> None:
        """As durable as the project's own options."""
        self._connection = sqlite3.connect(path, isolation_level=None)
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            self._connection.execute(f"PRAGMA {pragma}")

    def execute(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        return self._connection.execute(statement, values).fetchall()

    def moment(self, seconds: float = 0.0) -> object:
        return (datetime.now(tz=UTC) + timedelta(seconds=seconds)).replace(tzinfo=None).isoformat(" ")

    def close(self) -> None:
        self._connection.close()
