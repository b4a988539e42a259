"""What every test may rely on."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from unittest import mock

import pytest
from django.conf import settings as django_settings
from django.db import connection
from django.test import TransactionTestCase
from hypothesis import settings
from pytest_django import DjangoDbBlocker

# No deadline: a busy machine is not a failing test. In CI the same examples each time, so that a red run can be rerun.
settings.register_profile("here", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") == "true" else "here")


def pytest_configure(config: pytest.Config) -> None:
    django_settings.BOTOS_DATA_DIR.mkdir(mode=0o700, exist_ok=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take long come first, so that none of them is left over for one worker alone."""
    long = {item.path for item in items if item.get_closest_marker("browser") or item.get_closest_marker("journey")}
    items.sort(key=lambda item: item.path not in long)


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
    with mock.patch.object(TransactionTestCase, "_fixture_teardown", lambda _: emptied.bring_back()):
        yield


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(django_settings.BOTOS_DATA_DIR, ignore_errors=True)
