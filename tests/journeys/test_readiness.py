"""/readyz of a process whose database can be read, and takes nothing."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection

import pytest
from django.db import connection

from tests.journeys.running import PATIENCE, TO_BE_KILLED, Platforms, eventually, running

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.journey]

# Holds the database of SQLite until its standard input ends.
_HOLD = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)
database.execute("BEGIN EXCLUSIVE")
print("held", flush=True)
sys.stdin.read()
database.execute("ROLLBACK")
"""


@contextmanager
def unwritable() -> Iterator[None]:
    """Nobody else can write into the test's database."""
    with _locked() if connection.vendor == "sqlite" else _read_only():
        yield


@contextmanager
def _locked() -> Iterator[None]:
    command = [sys.executable, "-c", _HOLD, str(connection.settings_dict["NAME"])]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "held\n"
        try:
            yield
        finally:
            holder.communicate(timeout=PATIENCE)


@contextmanager
def _read_only() -> Iterator[None]:
    """For connections that are made from now on; the others are ended."""
    name = connection.ops.quote_name(connection.settings_dict["NAME"])
    try:
        _alter(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        yield
    finally:
        _alter(f"ALTER DATABASE {name} RESET default_transaction_read_only")


def _alter(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET default_transaction_read_only = off")
        cursor.execute(statement)
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


def readyz(port: int) -> tuple[int, list[str]]:
    """Its status, and the reasons that it gives."""
    with closing(HTTPConnection("127.0.0.1", port, timeout=PATIENCE)) as client:
        client.request("GET", "/readyz", headers={"Host": "localhost"})
        answer = client.getresponse()
        return answer.status, json.loads(answer.read())["reasons"]


def test_it_is_not_ready_while_nothing_can_be_written(platforms: Platforms) -> None:
    arguments = ("--platforms", "telegram", "--web", "127.0.0.1:0")
    with running(platforms, *arguments, up="telegram web", **TO_BE_KILLED) as bots:
        found = re.search(r":(\d+)/", bots.wait_for_line("pages: http"))
        assert found
        port = int(found[1])
        seen: list[tuple[int, list[str]]] = []

        def answers(holds: Callable[[int, list[str]], bool]) -> bool:
            seen.append(readyz(port))
            return holds(*seen[-1])

        eventually(lambda: answers(lambda status, _: status == 200), lambda: str(seen[-1]))
        with unwritable():
            eventually(
                lambda: answers(lambda _, reasons: "nothing could be written" in str(reasons)), lambda: str(seen[-1])
            )
            assert seen[-1][0] == 503
        eventually(lambda: answers(lambda status, _: status == 200), lambda: str(seen[-1]))
