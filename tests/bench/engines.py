"""Where the benchmark's databases are: files in a temporary folder, and databases of its own on a PostgreSQL server.

An engine is a context manager that gives a function from a name to the address of a new, empty database. All of them
are removed at the end.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
from psycopg import sql

NewDatabase = Callable[[str], str]
Engine = Callable[[], AbstractContextManager[NewDatabase]]
_DEFAULT_SERVER = "postgres://postgres@127.0.0.1:5432/postgres"


@contextmanager
def sqlite() -> Iterator[NewDatabase]:
    with tempfile.TemporaryDirectory(prefix="botos-bench-") as folder:
        yield lambda name: f"sqlite:///{Path(folder).resolve() / name}.sqlite3"


@contextmanager
def postgresql() -> Iterator[NewDatabase]:
    """Raises psycopg.OperationalError when no server answers."""
    made: list[str] = []
    with psycopg.connect(server(), autocommit=True, connect_timeout=3) as maintenance:

        def new(name: str) -> str:
            made.append(f"botos_bench_{os.getpid()}_{name}")
            maintenance.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(made[-1])))
            return urlsplit(server())._replace(path=f"/{made[-1]}").geturl()

        try:
            yield new
        finally:
            for name in made:
                maintenance.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def server() -> str:
    """The address of the PostgreSQL server to measure on."""
    given = os.environ.get("TEST_DATABASE_URL", "")
    return given if given.startswith("postgres") else _DEFAULT_SERVER


ENGINES: dict[str, Engine] = {"sqlite": sqlite, "postgres": postgresql}
