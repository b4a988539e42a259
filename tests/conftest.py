"""What every test may rely on."""

from __future__ import annotations

import os
import shutil

import pytest
from django.conf import settings as django_settings
from hypothesis import settings

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


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(django_settings.BOTOS_DATA_DIR, ignore_errors=True)
