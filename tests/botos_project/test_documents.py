"""Every variable is documented, and what the documents say about it is true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from django.conf import settings

from sessions_app.commands import registry as command_registry
from tests.botos_project.test_settings import PROJECT, load

EXAMPLE = (PROJECT / ".env.example").read_text(encoding="utf-8")
README = (PROJECT / "README.md").read_text(encoding="utf-8")
READ_DIRECTLY = re.compile(r'(?:environ\.get\(|environ\[|getenv\(|_VARIABLE = )"([A-Z_]+)"')


def read_in_the_code() -> set[str]:
    """What settings asked for, and what some module reads from the environment by itself."""
    modules = [path for app in ("botos_project", "identity", "sessions_app", "adapters") for path in _python_in(app)]
    found = {name for path in modules for name in READ_DIRECTLY.findall(path.read_text(encoding="utf-8"))}
    return settings.ENV.asked | found - {"DJANGO_SETTINGS_MODULE"}


def _python_in(folder: str) -> list[Path]:
    return sorted((PROJECT / folder).rglob("*.py"))


def test_it_shows_every_variable_in_the_example_file() -> None:
    shown = set(re.findall(r"(?m)^(?:# )?([A-Z][A-Z_]+)=", EXAMPLE))

    assert shown == read_in_the_code()


def test_it_explains_every_variable_in_the_readme() -> None:
    explained = set(re.findall(r"(?m)^\| `([A-Z][A-Z_]+)` \|", README))

    assert explained == read_in_the_code()


def test_it_shows_the_true_defaults_in_the_example_file() -> None:
    shown = dict(re.findall(r'(?m)^# ([A-Z][A-Z_]+)="?(.*?)"?$', EXAMPLE))
    del shown["BOTOS_ENV_FILE"]  # this one turns the file off, and the default is to read it

    assert _plain(load(**shown)) == _plain(load())


def test_it_shows_the_same_defaults_in_the_readme() -> None:
    shown = dict(re.findall(r'(?m)^# ([A-Z][A-Z_]+)="?(.+?)"?$', EXAMPLE))
    explained = dict(re.findall(r"(?m)^\| `([A-Z][A-Z_]+)` \| `(.+?)` \|", README))

    assert explained == shown


def test_it_names_every_secret_as_one() -> None:
    assert set(re.findall(r"(?m)^\| `([A-Z][A-Z_]+)` \|.* Secret\. \|$", README)) == settings.ENV.secret_names


def test_it_lists_the_commands() -> None:
    start = README.index("| Command |")
    listed = README[start : README.index("\n\n", start)].splitlines()[2:]

    assert listed == [f"| `{command.usage}` | {command.summary} |" for command in command_registry.menu()]


TOLD = [PROJECT / name for name in ("README.md", "ARCHITECTURE.md", "docs/running.md", "compose.yaml", "Dockerfile")]
TOLD += sorted((PROJECT / "deploy").rglob("*.service"))


@pytest.mark.parametrize("path", TOLD, ids=lambda path: path.name)
def test_it_names_no_variable_that_nothing_reads(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    named = re.findall(r"\bBOTOS_[A-Z_]+", text) + re.findall(r"`([A-Z]+_[A-Z_]+)[`=]", text)

    assert {name.removesuffix("_FILE") for name in named} <= read_in_the_code() | {"BOTOS_ENV"}


def _plain(found: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in found.items() if name.isupper() and name != "ENV"}
