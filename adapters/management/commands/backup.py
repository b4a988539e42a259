"""`manage.py backup FILE`: a copy of a SQLite database that is in use, whole and checked."""

from __future__ import annotations

import os
import sqlite3
from argparse import ArgumentParser
from contextlib import closing
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError, connection


class Command(BaseCommand):
    help = "Copy the SQLite database to FILE while BotOS runs. For PostgreSQL, use pg_dump."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", type=Path, help="a file that doesn't exist yet")

    def handle(self, *args: Any, **options: Any) -> None:
        if connection.vendor != "sqlite":
            hint = "pg_dump --format=custom --file FILE --host HOST --username USER --dbname NAME"
            raise CommandError(f"This command is for SQLite only. Hint: {hint}")
        file = options["file"].absolute()
        part = file.with_name(f"{file.name}.part")
        _reserve(file, part)
        try:
            _check_source()
            _copy(part)
            os.link(part, file)  # unlike a rename, this never replaces a file
        except (OSError, DatabaseError, sqlite3.Error) as error:
            raise CommandError(f"No backup was made ({type(error).__name__}: {error}).") from None
        finally:
            part.unlink(missing_ok=True)
        self.stdout.write(f"{file}: {file.stat().st_size:,} bytes, checked")


def _check_source() -> None:
    """SQLite makes a database where there is none, and a copy of that would be whole, and empty."""
    source = Path(connection.settings_dict["NAME"])
    if not source.exists() or not connection.introspection.django_table_names(only_existing=True):
        raise CommandError(f"{source} is not a BotOS database. Hint: check BOTOS_DATA_DIR and DATABASE_URL.")


def _reserve(file: Path, part: Path) -> None:
    """Make the file that will hold what people wrote, for nobody else to read. VACUUM INTO takes an empty one."""
    if file.exists():
        raise CommandError(f"{file} already exists. Hint: name another file; a backup never replaces one.")
    try:
        os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except OSError as error:
        raise CommandError(f"{part} cannot be created ({error.strerror}).") from None


def _copy(part: Path) -> None:
    with connection.cursor() as cursor:
        cursor.execute("VACUUM INTO %s", [str(part)])
    with closing(sqlite3.connect(f"file:{part}?mode=ro", uri=True)) as copy:
        if copy.execute("PRAGMA integrity_check").fetchall() != [("ok",)]:
            raise sqlite3.DatabaseError("the copy is not whole")
    with part.open("rb+") as written:
        os.fsync(written.fileno())
