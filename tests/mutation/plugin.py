"""A pytest plugin of the mutation run: start with a migrated database and run the tests that reach a function.

The first run, without a mutant, notes which tests call which function of the mutated modules, and how long each takes.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest
from django.conf import settings

CONFIG = tomllib.loads((Path(__file__).parent / "config.toml").read_text(encoding="utf-8"))
MODULES = {str(Path(path).resolve()): path for path in CONFIG["modules"].values()}

reached: dict[str, list[str]] = {}  # "path:function" to the tests that call it
seconds: dict[str, float] = {}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record-calls", help="write to this file which tests call which function")
    parser.addoption("--calls", help="the file that was written")
    parser.addoption("--reaching", help="run only tests that call this function, the quickest first: path:function")


def pytest_sessionstart(session: pytest.Session) -> None:
    database = settings.DATABASES["default"]
    if database["ENGINE"].endswith("sqlite3"):
        shutil.copyfile(os.environ["MUTATION_DATABASE"], database["TEST"]["NAME"])


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("calls"):
        return
    calls = json.loads(Path(config.getoption("calls")).read_text(encoding="utf-8"))
    took: dict[str, float] = calls["seconds"]
    # Nothing calls a class body or a module: every test may depend on it.
    wanted = set(calls["reached"].get(config.getoption("reaching"), took))
    config.hook.pytest_deselected(items=[item for item in items if item.nodeid not in wanted])
    items[:] = sorted((item for item in items if item.nodeid in wanted), key=lambda item: took[item.nodeid])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    if not item.config.getoption("record_calls"):
        return (yield)
    called: set[str] = set()

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and (path := MODULES.get(frame.f_code.co_filename)):
            called.add(f"{path}:{frame.f_code.co_name}")

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        return (yield)
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
        for one in called:
            reached.setdefault(one, []).append(item.nodeid)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call":
        seconds[report.nodeid] = report.duration


def pytest_sessionfinish(session: pytest.Session) -> None:
    if path := session.config.getoption("record_calls"):
        Path(path).write_text(json.dumps({"reached": reached, "seconds": seconds}), encoding="utf-8")
