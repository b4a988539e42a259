"""A browser as people have one, driving pages that another process serves.

One process and one browser for all tests of a module: starting them takes longer than most of what is looked at. The
tests keep out of each other's way by bringing another visitor each (`tests.browser.visitor`). They look at pages and
not at the database: Playwright keeps an event loop in this thread, beside which Django would take a second connection.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.management import call_command
from playwright.sync_api import Browser, expect, sync_playwright
from pytest_django import DjangoDbBlocker

from tests.browser.visitor import Site, Visitor, address_of
from tests.journeys.running import PATIENCE, Platforms, running

NAMES = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

expect.set_options(timeout=PATIENCE * 1000)  # how soon a page shows something is measured, not tested


@pytest.fixture(scope="module")
def db(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """In place of pytest-django's, which is for one test: here the rows stay until the end of the module."""
    with django_db_blocker.unblock():
        yield
        call_command("flush", interactive=False, verbosity=0)


@pytest.fixture(scope="module")
def furnished(db: None) -> Any:
    """What is there before there is a browser. Modules that need something say what."""
    return None


@pytest.fixture(scope="module")
def settings_of_site() -> dict[str, str]:
    """Environment variables of the process, and `arguments` of `runbots`. Modules that need others say which."""
    return {}


@pytest.fixture(scope="module")
def site(furnished: Any, settings_of_site: dict[str, str]) -> Iterator[Site]:
    """BotOS with its pages, and the three platforms that it is connected to."""
    arguments = settings_of_site.pop("arguments", "").split()
    platforms = Platforms()
    with running(platforms, *arguments, "--web", "127.0.0.1:0", **settings_of_site) as bots:
        yield Site(platforms, address_of(bots), furnished)
    platforms.close()


@pytest.fixture(scope="module")
def chromium(furnished: Any) -> Iterator[Browser]:
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip(f"there is no Chromium on this machine (looked for {', '.join(NAMES)})")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def visitor(site: Site, chromium: Browser) -> Iterator[Visitor]:
    """Nothing that it shows may make the browser complain: of an error, or of the content security policy."""
    visitor = Visitor(chromium, site)
    yield visitor
    visitor.close()
    assert visitor.complaints == []
