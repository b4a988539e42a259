"""A pytest plugin of the mutation run: each run of the tests starts with a copy of a migrated SQLite file."""

from __future__ import annotations

import os
import shutil

import pytest
from django.conf import settings


def pytest_sessionstart(session: pytest.Session) -> None:
    database = settings.DATABASES["default"]
    if "MUTATION_DATABASE" in os.environ and database["ENGINE"].endswith("sqlite3"):
        shutil.copyfile(os.environ["MUTATION_DATABASE"], database["TEST"]["NAME"])
