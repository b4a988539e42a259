"""What the documents say about settings, commands and metrics is true, and their links lead somewhere."""

from __future__ import annotations

import asyncio
import importlib
import re
import textwrap
from collections import Counter
from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path
from types import SimpleNamespace
from unittest import mock
from urllib.parse import unquote, urlsplit

import pytest
from django.conf import settings
from django.core.management import get_commands

from adapters.botos import BotOS
from adapters.monitoring import metrics
from botos_project.env import ELSEWHERE, RENAMED
from identity.resolvers import FileIdentityResolver
from sessions_app.commands import handlers
from sessions_app.commands import registry as command_registry
from sessions_app.manager import BotSessionManager
from tests.botos_project.test_settings import PROJECT, load

APPS = ("botos_project", "identity", "sessions_app", "adapters")
EXAMPLE = (PROJECT / ".env.example").read_text(encoding="utf-8")
README = (PROJECT / "README.md").read_text(encoding="utf-8")
SETTINGS = (PROJECT / "docs" / "reference" / "settings.md").read_text(encoding="utf-8")
METRICS = (PROJECT / "docs" / "reference" / "metrics.md").read_text(encoding="utf-8")
READ = settings.ENV.asked | ELSEWHERE  # ruff's TID251 keeps other modules from the environment


def test_it_shows_every_variable_in_the_example_file() -> None:
    shown = set(re.findall(r"(?m)^(?:# )?([A-Z][A-Z_]+)=", EXAMPLE))

    assert shown == READ


def test_it_explains_every_variable() -> None:
    explained = set(re.findall(r"(?m)^\| `([A-Z][A-Z_]+)` \|", SETTINGS))

    assert explained == READ


def test_it_shows_the_true_defaults_in_the_example_file() -> None:
    shown = dict(re.findall(r'(?m)^# ([A-Z][A-Z_]+)="?(.*?)"?$', EXAMPLE))
    del shown["BOTOS_ENV_FILE"]  # this one turns the file off, and the default is to read it

    assert _plain(load(**shown)) == _plain(load())


def test_it_shows_the_same_defaults_in_the_reference() -> None:
    shown = dict(re.findall(r'(?m)^# ([A-Z][A-Z_]+)="?(.+?)"?$', EXAMPLE))
    explained = dict(re.findall(r"(?m)^\| `([A-Z][A-Z_]+)` \| `(.+?)` \|", SETTINGS))

    assert explained == shown


def test_it_lists_every_old_name_with_the_new_one() -> None:
    assert dict(re.findall(r"(?m)^- `(\w+)` is now `(\w+)`\.$", SETTINGS)) == RENAMED
    assert set(RENAMED.values()) <= settings.ENV.asked
    assert not set(RENAMED) & READ


def test_it_names_every_secret_as_one() -> None:
    assert set(re.findall(r"(?m)^\| `([A-Z][A-Z_]+)` \|.* Secret\. \|$", SETTINGS)) == settings.ENV.secret_names


def test_it_lists_the_commands() -> None:
    start = README.index("| Command |")
    listed = README[start : README.index("\n\n", start)].splitlines()[2:]

    assert listed == [f"| `{command.usage}` | {command.summary} |" for command in command_registry.menu()]


def code_in(page: str) -> list[str]:
    """The Python of a page, block by block."""
    text = (PROJECT / page).read_text(encoding="utf-8")
    return [textwrap.dedent(block) for block in re.findall(r"(?ms)^ *```python\n(.*?)^ *```", text)]


@pytest.mark.django_db(transaction=True)
@pytest.mark.asyncio
async def test_it_runs_the_agent_of_the_tutorial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own_agent, own_bots = code_in("docs/tutorial/own-agent.md")
    for block in (own_agent, own_bots):
        (tmp_path / re.findall(r"# (\w+\.py)", block)[0]).write_text(block, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PRAISONAI_IDENTITY_PATH", str(tmp_path / "identity.json"))
    made: list[BotOS] = []

    def run(bots: BotOS) -> None:
        made.append(bots)

    monkeypatch.setattr(BotOS, "run", run)

    await asyncio.to_thread(importlib.import_module, "my_bots")

    [bots] = made
    assert bots.list_bots() == ["telegram", "discord"]
    sessions = BotSessionManager("telegram", identity_resolver=FileIdentityResolver())
    agent = importlib.import_module("my_agent").agent
    answer = await sessions.chat(agent, "12345", "whoami", user_name="Alice")
    assert answer.startswith("You are Alice on telegram.")


def test_it_registers_the_command_of_the_guide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command_registry, "_commands", {one.name: one for one in command_registry.menu()})
    [block] = code_in("docs/howto/add-a-command.md")

    names = {name: getattr(handlers, name) for name in ("at_once", "Invocation", "_")}
    exec(block, names | {"texts": SimpleNamespace(PONG="Pong!")})

    [listed] = [one for one in command_registry.menu() if one.name == "ping"]
    assert command_registry.parse("!ping") == (listed, "")
    assert listed.at_once
    assert listed.at_once(mock.Mock()) == "Pong!"


@pytest.mark.django_db
def test_it_lists_the_metrics() -> None:
    served = dict(re.findall(r"(?m)^# TYPE (\w+) (\w+)$", metrics.exposition()))
    listed = dict(re.findall(r"(?m)^\| `(botos_\w+)` \| (\w+)", METRICS))

    assert listed == served


PAGES = sorted(
    path
    for path in [*PROJECT.glob("*.md"), *PROJECT.glob("*/**/*.md"), *PROJECT.glob(".github/**/*.md")]
    if not {"static", "tests", ".venv", "node_modules"} & set(path.relative_to(PROJECT).parts)
)
TOLD = [PROJECT / name for name in ("README.md", "ARCHITECTURE.md", "SECURITY.md", "compose.yaml", "Dockerfile")]
TOLD += [path for path in PAGES if path.parent.name in {"tutorial", "howto"} and not path.name.startswith("add-")]
TOLD += sorted((PROJECT / "deploy").rglob("*.service"))


@pytest.mark.parametrize("path", TOLD, ids=lambda path: str(path.relative_to(PROJECT)))
def test_it_names_no_variable_that_nothing_reads(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    named = re.findall(r"\bBOTOS_[A-Z_]+", text) + re.findall(r"`([A-Z]+_[A-Z_]+)[`=]", text)

    assert {name.removesuffix("_FILE") for name in named} <= READ | {"BOTOS_ENV"} | RENAMED.keys()


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(PROJECT)))
def test_it_names_modules_that_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:adapters|botos_project|identity|sessions_app|tests)/[\w/.]+?)`", text))
    made_up = {name for name in named if "matrix" in name}  # the platform that a guide adds

    assert [name for name in sorted(named - made_up) if not (PROJECT / name).exists()] == []


def test_it_walks_through_functions_that_exist() -> None:
    walk = (PROJECT / "docs/explanation/walk.md").read_text(encoding="utf-8")
    steps = re.findall(r"(?m)^\| `([\w/]+)\.py` \| `([\w.]+)` \|", walk)

    assert len(steps) == sum(line.startswith("| `") for line in walk.splitlines())
    for path, name in steps:
        assert callable(attrgetter(name)(importlib.import_module(path.replace("/", ".")))), (path, name)


@pytest.mark.parametrize("app", APPS)
def test_it_names_every_package_and_module_of_an_app_in_the_architecture(app: str) -> None:
    tree = (PROJECT / "ARCHITECTURE.md").read_text(encoding="utf-8").split(f"\n{app}/ ", 1)[1]
    named = set(re.findall(r"\w+/?", re.split(r"(?m)^\S", tree, maxsplit=1)[0]))
    packages = {f"{path.parent.name}/" for path in (PROJECT / app).glob("*/__init__.py")}
    modules = {path.stem for path in (PROJECT / app).glob("*.py")}

    assert packages | modules <= named | {"__init__", "admin", "apps", "checks", "urls", "migrations/"}


def test_it_lists_the_commands_of_manage_py() -> None:
    listed = re.findall(r"(?m)^\| `([a-z_]+)[ `]", (PROJECT / "docs/reference/manage.md").read_text(encoding="utf-8"))
    own = {name for name, app in get_commands().items() if app in APPS}

    assert set(listed) == own | {"rqworker"}


LINK = re.compile(r"\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^)\s]+)\)|<(https?://[^>\s]+)>")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(PROJECT)))
def test_its_links_lead_somewhere(path: Path) -> None:
    broken = [target for target in links_in(path) if not leads_somewhere(path, target)]

    assert broken == []


def test_it_sees_a_broken_link(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A page\n\n## A page\n\n```sh\n# no heading\n```\n", encoding="utf-8")

    good = ["page.md", "#a-page", "page.md#a-page-1", "https://example.org/", "http://127.0.0.1:8000/"]
    bad = ["other.md", "#no-heading", "page.md#b", "http://example.org/", "/etc/hosts", "ftp://example.org/"]

    assert [one for one in [*good, *bad] if not leads_somewhere(page, one)] == bad


def test_it_finds_links_of_every_form(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("[a](b.md), ![an\nimage](c.png), [`d`](e.md#f)\n<https://g.org/>\n`[h](i.md)`\n", encoding="utf-8")

    assert list(links_in(page)) == ["b.md", "c.png", "e.md#f", "https://g.org/"]


def links_in(path: Path) -> Iterator[str]:
    """The targets of links and pictures, in their order."""
    for found in LINK.finditer(_without_code(path.read_text(encoding="utf-8"))):
        yield found[1] or found[2]


def leads_somewhere(path: Path, target: str) -> bool:
    """Whether a relative link names a file, and a heading in it. Other links are not followed; they must be https."""
    parts = urlsplit(target)
    if parts.scheme:
        return parts.scheme == "https" or parts.hostname in {"127.0.0.1", "localhost"}
    if parts.path.startswith("/"):
        return False
    file = path.parent / unquote(parts.path) if parts.path else path
    return file.exists() and (not parts.fragment or parts.fragment in anchors_in(file))


def anchors_in(path: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    found: set[str] = set()
    seen: Counter[str] = Counter()
    for title in re.findall(r"(?m)^#{1,6} (.+)$", _without_blocks(path.read_text(encoding="utf-8"))):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).strip().lower()
        anchor = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        found.add(f"{anchor}-{seen[anchor]}" if seen[anchor] else anchor)
        seen[anchor] += 1
    return found


def _without_blocks(text: str) -> str:
    return re.sub(r"(?ms)^ *```.*?^ *```", "", text)


def _without_code(text: str) -> str:
    return re.sub(r"(?<!\[)`[^`\n]+`(?!\])", "", _without_blocks(text))


def _plain(found: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in found.items() if name.isupper() and name != "ENV"}
