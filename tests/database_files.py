"""The files of the test database, where it is SQLite."""

from __future__ import annotations

import subprocess
from pathlib import Path

from django.db import connection


def read_all() -> bytes:
    """All bytes of the database and of its log.

    Another process reads them. A process that closes a file loses its locks on it, SQLite's included; then the next
    process that closes the database takes it for the last one, and deletes the log that is still in use here.
    """
    name = Path(str(connection.settings_dict["NAME"]))
    files = [path for path in (name, name.with_name(f"{name.name}-wal")) if path.exists()]
    return subprocess.run(["cat", *files], capture_output=True, check=True).stdout
