"""Identity and the sessions know no platform by name: what differs stands in the descriptions."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from adapters import registry
from identity import labels
from identity.models import PlatformAccount
from identity.support import platforms
from identity.support.platforms import PlatformTraits
from identity.support.sanitize import literal
from sessions_app.history.conversations import is_private

PROJECT = Path(__file__).resolve().parents[2]
SOURCES = [
    path
    for app in ("identity", "sessions_app")
    for path in sorted((PROJECT / app).rglob("*.py"))
    if "migrations" not in path.parts
]
TEMPLATES = sorted((PROJECT / "templates").rglob("*.html"))
NAMED = re.compile(rf"(?i)\b({'|'.join(registry.known())})\b")


def names_in(source: str) -> list[str]:
    """The string constants that name a platform and that code could compare: docstrings and sentences are none."""
    tree = ast.parse(source)
    texts = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in texts]
    values = [node.value for node in found if isinstance(node.value, str)]
    return [value for value in values if NAMED.search(value) and " " not in value.strip()]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PROJECT)))
def test_it_names_no_platform(path: Path) -> None:
    assert names_in(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: str(path.relative_to(PROJECT)))
def test_its_templates_ask_for_no_platform(path: Path) -> None:
    tags = re.findall(r"\{%.*?%\}", path.read_text(encoding="utf-8"))

    assert [tag for tag in tags if NAMED.search(tag)] == []


@pytest.mark.parametrize(
    "source",
    ['if platform.startswith("slack"): pass', 'x = platform == "telegram"', 'T = {"discord": 1}', 'f"{x}telegram:"'],
)
def test_the_search_finds_a_name(source: str) -> None:
    assert names_in(source)


@pytest.mark.parametrize("source", ['"""How telegram does it."""', 'print("for example telegram:12345")'])
def test_the_search_leaves_sentences_alone(source: str) -> None:
    assert names_in(source) == []


# --- what the descriptions say, and what holds without one


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A platform that differs in everything."""
    traits = PlatformTraits(
        name="own",
        title="Our Own",
        command_prefix="#",
        handle_prefix="~",
        markup="*",
        start_link="/begin/{token}",
        private_chat="dm.+",
    )
    monkeypatch.setattr(platforms, "_source", lambda: {"own": traits})


@pytest.mark.usefixtures("own")
def test_it_speaks_of_a_platform_as_its_description_says() -> None:
    account = PlatformAccount(platform="own", platform_user_id="12345", username="alice", display_name="Alice *A*")

    assert labels.described(account, on="own") == r'Our Own account "Alice \*A\*" (~alice, ID ..2345)'
    assert labels.with_commands("Send /link, or see https://example.org/link.", on="own") == (
        "Send #link, or see https://example.org/link."
    )
    assert platforms.with_start("own", "https://own.example.org", "t0ken") == "https://own.example.org/begin/t0ken"
    assert is_private("own", "dm7", "12345")


@pytest.mark.django_db
@pytest.mark.usefixtures("own")
def test_it_has_defaults_for_a_platform_that_nobody_describes() -> None:
    account = PlatformAccount(platform="parlour", platform_user_id="12345", username="alice", display_name="Alice *A*")

    assert labels.described(account, on="parlour") == 'Parlour account "Alice *A*" (alice, ID ..2345)'
    assert labels.with_commands("Send /link.", on="parlour") == "Send /link."
    assert platforms.with_start("parlour", "https://parlour.example.org", "t0ken") == ""
    assert not is_private("parlour", "dm7", "12345")


@pytest.mark.usefixtures("own")
def test_it_takes_a_second_workspace_for_one_of_the_same_platform_with_a_name_of_its_own() -> None:
    assert labels.with_commands("Send /link.", on="own-acme") == "Send #link."
    assert labels.title("own-acme") == "Own-Acme"
    assert labels.with_commands("Send /link.", on="owner") == "Send /link."


@pytest.mark.parametrize(
    ("platform", "text", "name"),
    [
        ("telegram", "/link", "*Alice*"),
        ("discord", "/link", r"\*Alice\*"),
        ("slack", "!link", "*Alice*"),
        ("slack-acme", "!link", "*Alice*"),
        ("web", "/link", "*Alice*"),
    ],
)
def test_it_knows_those_that_come_along(platform: str, text: str, name: str) -> None:
    assert labels.with_commands("/link", on=platform) == text
    assert literal("*Alice*", platform) == name


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("platform", "chat", "expected"),
    [("telegram", "12", True), ("telegram", "-12", False), ("slack", "D1", True), ("slack", "C1", False)],
)
def test_it_knows_a_private_chat_by_its_id(platform: str, chat: str, expected: bool) -> None:
    assert is_private(platform, chat, "someone") is expected
