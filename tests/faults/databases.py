"""The databases under test, read and corrupted by plain SQL: a file, and one of its own on a PostgreSQL server."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg

from tests import zygote

SERVER = "postgres://postgres@127.0.0.1:5432/postgres"
SECRET = "only-for-fault-tests-and-therefore-not-a-secret-at-all"
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Database:
    """A migrated database. Rows come as tuples; every call has a connection of its own."""

    name: str  # sqlite or postgresql
    url: str
    connect: Callable[[], Any]

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        """What a query gives."""
        with closing(self.connect()) as connection:
            return list(connection.execute(statement).fetchall())

    def count(self, statement: str) -> int:
        """The one number that a query gives."""
        return int(self.rows(statement)[0][0])

    def execute(self, statement: str) -> int:
        """Change something; how many rows it was."""
        with closing(self.connect()) as connection:
            return int(connection.execute(statement).rowcount)


def migrate(url: str, folder: Path) -> None:
    """Make the tables."""
    zygote.run(["manage.py", "migrate", "--verbosity", "0"], environment=os.environ | settings(url, folder), check=True)


def settings(url: str, folder: Path) -> dict[str, str]:
    """What a process needs to work on a database and on nothing else of this machine."""
    return {
        "DJANGO_SETTINGS_MODULE": "botos_project.settings",
        "BOTOS_ENV_FILE": "",
        "BOTOS_DATA_DIR": str(folder),
        "SECRET_KEY": SECRET,
        "DATABASE_URL": url,
        "REDIS_URL": "",
        "PYTHONWARNINGS": "ignore",
    }


def sqlite_file(path: Path) -> Database:
    """A database in a file that is there already."""
    return Database("sqlite", f"sqlite:///{path}", lambda: _open(path))


def _open(path: Path) -> sqlite3.Connection:
    file = sqlite3.connect(path, timeout=20, isolation_level=None, uri=False)
    file.create_function("REGEXP", 2, lambda pattern, text: re.search(pattern, text) is not None)  # for its constraints
    return file


def sqlite_copy(template: Path, folder: Path) -> Database:
    """A new file like the template."""
    path = folder / f"faults-{next(_numbers)}.sqlite3"
    shutil.copy(template, path)
    return sqlite_file(path)


def postgresql_at(url: str) -> Database:
    """A database on a server."""
    return Database("postgresql", url, lambda: psycopg.connect(url, autocommit=True, connect_timeout=3))


def server() -> str:
    """The address of the PostgreSQL server to test on."""
    given = os.environ.get("TEST_DATABASE_URL", "")
    return given if given.startswith("postgres") else SERVER


def answers(url: str) -> bool:
    """Whether there is a server."""
    try:
        psycopg.connect(url, connect_timeout=3).close()
    except psycopg.OperationalError:
        return False
    return True


@contextmanager
def new_postgresql(at: str = "", template: str = "template1") -> Iterator[Database]:
    """A database of its own, like the one named, removed at the end."""
    at = at or server()
    name = f"botos_faults_{os.getpid()}_{next(_numbers)}"
    _maintain(at, f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
    try:
        yield postgresql_at(urlsplit(at)._replace(path=f"/{name}").geturl())
    finally:
        _maintain(at, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


def _maintain(at: str, statement: str) -> None:
    with closing(psycopg.connect(at, autocommit=True)) as connection:
        connection.execute(statement.encode())
