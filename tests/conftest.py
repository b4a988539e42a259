"""What every test may rely on."""

from __future__ import annotations

import gc
import os
import shutil
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.db import connection
from django.test import TransactionTestCase
from hypothesis import settings
from pytest_django import DjangoDbBlocker

from tests.faults.databases import migrate

# No deadline: a busy machine is not a failing test. In CI the same examples each time, so that a red run can be rerun.
settings.register_profile("here", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
WITH_DATABASE = {"db", "transactional_db", "database"}  # fixtures; the last is of tests/faults

settings.load_profile("ci" if os.environ.get("CI") == "true" else "here")


def pytest_configure(config: pytest.Config) -> None:
    django_settings.BOTOS_DATA_DIR.mkdir(mode=0o700, exist_ok=True)


@pytest.hookimpl(wrapper=True, tryfirst=True)  # around -m, and around the order of pytest-django
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Iterator[None]:
    """Mark what cannot depend on the engine. Long files come first, so that none is left over for one worker alone.

    A test that pytest-django lets at no database, and that starts nothing with one, is the same on each engine.
    """
    for item in items:
        if not (item.get_closest_marker("django_db") or WITH_DATABASE & set(getattr(item, "fixturenames", ()))):
            item.add_marker("anywhere")
    yield
    if "PYTEST_XDIST_WORKER" in os.environ:
        long = {item.path for item in items if any(map(item.get_closest_marker, ("browser", "journey")))}
        sizes = Counter(item.path for item in items)
        items.sort(key=lambda item: (item.path not in long, -sizes[item.path], item.path))


def pytest_collection_finish() -> None:
    """What is there before the first test stays to the end: do not look through it for garbage each time, and look less
    often, as Django makes much that goes by itself.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """The tables, emptied quickly after each test that commits, and not kept through a power cut."""
    from tests.empty import Emptied

    with django_db_blocker.unblock():
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                name = connection.ops.quote_name(connection.settings_dict["NAME"])
                cursor.execute(f"ALTER DATABASE {name} SET synchronous_commit = off")
            connection.close()
        emptied = Emptied()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(TransactionTestCase, "_fixture_teardown", lambda _: emptied.bring_back())
        yield
    with django_db_blocker.unblock():
        wait_for_other_sessions()
        connection.close()


def wait_for_other_sessions(seconds: float = 60.0) -> None:
    """Wait until nobody else uses the database: PostgreSQL drops none that is in use.

    It may still be ending the session of a process that a test has killed, or vacuum a table.
    """
    if connection.vendor != "postgresql":
        return
    others: list[Any] = [()]
    until = time.monotonic() + seconds
    connection.close()
    connection.close_pool()  # type: ignore[attr-defined]  # of PostgreSQL
    while others and time.monotonic() < until:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT backend_type, application_name, state, NOW() - backend_start, LEFT(query, 200)"
                " FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            others = cursor.fetchall()
        time.sleep(0.1 if others else 0)
    assert not others, f"a test has left sessions behind: {others}"


@pytest.fixture(scope="session")
def migrated_file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite file with all tables and no rows of a test, to be copied."""
    path = tmp_path_factory.mktemp("migrated") / "empty.sqlite3"
    if connection.vendor == "sqlite":
        request.getfixturevalue("django_db_setup")
        with request.getfixturevalue("django_db_blocker").unblock(), closing(sqlite3.connect(path)) as file:
            connection.ensure_connection()
            # pytest-django makes no tables where no test of the run asks for the database.
            if connection.introspection.table_names():
                connection.connection.backup(file)
                return path
    migrate(f"sqlite:///{path}", path.parent)
    return path


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(django_settings.BOTOS_DATA_DIR, ignore_errors=True)
