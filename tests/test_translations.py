"""Every text that people read is marked for translation: in a pseudo-language, no words stand outside of the marks."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.conf import settings
from django.contrib.sessions.models import Session
from django.db.models import Model
from django.template.base import Lexer, TokenType
from django.test import Client
from django.utils.functional import Promise
from django.utils.text import capfirst

from adapters.playground import stage
from identity import wording
from identity.flows import linking
from identity.models import AccountLink, Browser, Pairing
from identity.notices import Template
from identity.support import clock
from sessions_app import inbox, texts
from sessions_app.commands import registry as command_registry
from sessions_app.messages import OutgoingMessage
from sessions_app.models import HistoryEntry, OutboundDelivery
from sessions_app.outbox import queue as outbox_queue
from sessions_app.turns import leases, lifecycle
from tests import pages
from tests.identity.pairs import account
from tests.pseudo import CLOSE, OPEN, speak, texts_on, unmarked
from tests.sessions_app.talk import DATABASE, PLATFORMS, message, say

WRITTEN = ["octarine", "indeed"]  # what alice and the agent write
ROOT = Path(__file__).parents[1]
TEMPLATES = ROOT / "templates"
WORD = re.compile(r"[^\W\d_]{2,}")
# Names, and what people and the database hold: the same in every language.
NAMES = {"BotOS", "Telegram", "Discord", "Slack", "alice", "Alice", "carol", "UTC", "XXXX"}
DJANGOS_OWN = ("Search", "True", "False")  # which Django's admin does not translate: texts of icons


@pytest.fixture
def pseudo(monkeypatch: pytest.MonkeyPatch) -> None:
    speak(monkeypatch)


@pytest.fixture
def playground() -> Iterator[None]:
    running = stage.Playground()
    stage.current.append(running)
    yield
    stage.current.remove(running)


def words_outside(text: str) -> list[str]:
    """The words that are neither between marks nor a name."""
    return [word for word in WORD.findall(unmarked(text)) if word not in NAMES]


def data_in_the_admin() -> list[str]:
    """What the admin shows and no translation changes: values and names of rows, and fields named by their column."""
    models = [model for model in apps.get_models() if model._meta.managed and model is not Session]
    values = [value for model in models for row in model._base_manager.all() for value in (str(row), *_strings(row))]
    fields = [field for model in models for field in model._meta.fields if not isinstance(field.verbose_name, Promise)]
    named = [str(name(field.verbose_name)) for field in fields for name in (str, capfirst)]
    outside = {" ".join(unmarked(text).split()) for text in (*values, *named)}
    return sorted((text for text in outside if WORD.search(text)), key=len, reverse=True)


def _strings(row: Model) -> Iterator[str]:
    for field in row._meta.fields:
        value = getattr(row, field.attname)
        if isinstance(value, dict):
            yield from (str(part) for pair in value.items() for part in pair)
        elif isinstance(value, str):
            yield value


def without(text: str, phrases: list[str]) -> str:
    text = " ".join(unmarked(text).split())
    return re.sub("|".join(rf"(?<!\w){re.escape(phrase)}(?!\w)" for phrase in phrases), "", text)


@pytest.mark.django_db(transaction=True)  # async views have connections of their own
@pytest.mark.parametrize("visitor", ["stranger", "alice", "carol"])
def test_every_page_is_translated(pseudo: None, playground: None, visitor: str) -> None:
    client = Client(headers={"host": "localhost"}, raise_request_exception=False)
    client.cookies[settings.SESSION_COOKIE_NAME] = pages.furnish()[visitor]
    said = [entry.text for entry in HistoryEntry.objects.all()]
    in_the_admin = [*DJANGOS_OWN, *data_in_the_admin()]
    seen, found = set(), {}

    for address in pages.addresses():
        answer = client.get(address)
        if not answer["Content-Type"].startswith("text/html"):
            continue
        seen.add(address)
        data = in_the_admin if address.startswith("/admin/") else said
        texts = [without(text, data) for text in texts_on(answer.content.decode())]
        if left := [word for text in texts for word in words_outside(text)]:
            found[address] = left

    assert {"/", "/pair/", "/me/", "/chat/", "/playground/", "/admin/identity/pairing/"} < seen
    assert found == {}


def as_translated(template: str) -> str:
    """The source of a template with its tags taken out, and what they translate or insert between marks."""
    parts, inside, is_comment = [], False, False
    for token in Lexer(template).tokenize():
        tag = token.contents.split()[0] if token.token_type == TokenType.BLOCK else ""
        is_comment = tag == "comment" or (is_comment and tag != "endcomment")
        if tag == "blocktranslate":
            inside = True
            parts.append(OPEN)
        elif tag == "endblocktranslate":
            inside = False
            parts.append(CLOSE)
        elif token.token_type == TokenType.TEXT and not is_comment:
            parts.append(token.contents)
        elif not inside and (tag == "translate" or token.token_type == TokenType.VAR):
            parts.append(f"{OPEN}x{CLOSE}")
    return "".join(parts)


def test_no_branch_of_a_template_has_words_outside_of_translate() -> None:
    templates = sorted(TEMPLATES.rglob("*.html"))
    sources = {path.relative_to(TEMPLATES): as_translated(path.read_text(encoding="utf-8")) for path in templates}

    found = {name: [word for text in texts_on(page) for word in words_outside(text)] for name, page in sources.items()}

    assert len(found) > 30
    assert {name: words for name, words in found.items() if words} == {}


@pytest.mark.parametrize(
    ("template", "found"),
    [
        ('<p>{% translate "Yes" %} no</p>', ["no"]),
        ('<p title="Hint">{{ name }}</p>', ["Hint"]),
        ("<p data-offline=\"{% translate 'Off' %}\">{% blocktranslate %}A {{ b }} c{% endblocktranslate %}</p>", []),
        ("{% if x %}Some{% else %}{% comment %}why{% endcomment %}{% endif %}", ["Some"]),
        ('<input type="submit" value="Send">', ["Send"]),
    ],
)
def test_words_that_are_not_translated_are_found(template: str, found: list[str]) -> None:
    assert [word for text in texts_on(as_translated(template)) for word in words_outside(text)] == found


def test_every_text_of_the_chats_is_translated(pseudo: None) -> None:
    named = {name: value for name, value in vars(texts).items() if name.isupper()}
    each = {name: value if isinstance(value, tuple) else (value,) for name, value in named.items()}

    assert len(each) > 40
    assert [name for name, values in each.items() if not all(isinstance(value, Promise) for value in values)] == []
    assert [name for name, values in each.items() if any(words_outside(str(value)) for value in values)] == []


@pytest.mark.django_db
def test_every_answer_to_a_command_is_translated(pseudo: None, settings: Any) -> None:
    settings.BOTOS_PRIVACY_NOTICE = ""
    say("alice", "octarine", answer="indeed")
    for command in command_registry.menu():
        for text in (f"/{command.name}", f"/{command.name} octarine"):
            chat = inbox.receive(message("alice", text), resolver=DATABASE)  # none if it is answered at once
            for claimed in leases.claim([chat or 0], owner="test", platforms=PLATFORMS).claims:
                turn = lifecycle.begin(claimed, resolver=DATABASE)
                lifecycle.answer_command(claimed, turn, limit=outbox_queue.TEXT_LIMIT)

    answers = [text for one in OutboundDelivery.objects.all() for text in words_of(outbox_queue.outgoing(one))]

    assert len(answers) > 15
    typed = [f"/{command.name} {command.argument_hint}".strip() for command in command_registry.menu()]
    assert [(text, left) for text in answers if (left := words_outside(without(text, [*WRITTEN, *typed])))] == []


def words_of(message: OutgoingMessage | wording.Notice) -> list[str]:
    return [message.text, *(button.label for button in message.buttons)]


@pytest.mark.django_db
@pytest.mark.parametrize("state", ["offered", "claimed", "denied"])
@pytest.mark.parametrize("starts", ["chat", "browser", "operator"])
def test_every_notice_is_translated(pseudo: None, settings: Any, state: str, starts: str) -> None:
    settings.BOTOS_PUBLIC_URL = "https://bots.example.org"
    telegram, discord, slack = (account("alice", platform) for platform in ("telegram", "discord", "slack"))
    for one in (telegram, discord):
        linking.link(
            platform=one.platform,
            platform_user_id=one.platform_user_id,
            unified_user_id="alice",
            method="pairing",
            actor="test",
        )
    link = AccountLink.objects.get(account=discord)
    browser = Browser.objects.create(name="Firefox on Linux")
    initiators: dict[str, dict[str, Any]] = {
        "chat": {"initiator": telegram},
        "browser": {"initiator_browser": browser},
        "operator": {"person": link.user, "operator": "carol"},
    }
    pairing = Pairing.objects.create(
        state=state,
        responder=None if state == "offered" else slack,
        expires_at=clock.read() + timedelta(minutes=5),
        last_at=clock.read() + timedelta(minutes=5),
        ended_at=clock.read() if state == "denied" else None,
        **initiators[starts],
    )
    subject = {
        "pairing": str(pairing.pk),
        "link": link.pk,
        "browser": str(browser.pk),
        "by": discord.pk,
        "browsers": 2,
        "minutes": 2,
        "seconds": 30,
        "left": 1,
    }
    reasons = ("both_linked", "named", "same_person", "same_platform", "platform", "changed")
    subjects = [(template, subject | {"reason": reason}) for template in Template for reason in reasons]

    for template, about in subjects:
        for reader in (telegram, slack):
            told = [words for words in words_of(wording.render(template, reader, about)) if words]
            assert told, template
            assert [words for words in told if words_outside(words)] == [], template


# Which argument of a call people read, by its place or its name.
SHOWN = {
    "Button": (0, "label"),
    "Notice": (0, "text"),
    "action": (None, "description"),
    "display": (None, "description"),
    "error": (1, "message"),
    "info": (1, "message"),
    "success": (1, "message"),
    "warning": (1, "message"),
}


def plain_texts(source: str) -> list[int]:
    """The lines of calls that show people a text as it stands in the source."""
    lines = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func).removeprefix("messages.").removeprefix("admin.")
        place, keyword = SHOWN.get(name, (None, ""))
        given = [part.value for part in node.keywords if part.arg == keyword]
        if place is not None:
            given += node.args[place : place + 1]
        literals = [part for text in given for part in (text.values if isinstance(text, ast.JoinedStr) else [text])]
        if any(isinstance(part, ast.Constant) and WORD.search(str(part.value)) for part in literals):
            lines.append(node.lineno)
    return lines


def test_no_call_shows_a_text_that_is_not_translated() -> None:
    folders = ("identity", "sessions_app", "adapters")
    sources = {path: path.read_text(encoding="utf-8") for folder in folders for path in (ROOT / folder).rglob("*.py")}

    assert {path: lines for path, source in sources.items() if (lines := plain_texts(source))} == {}


@pytest.mark.parametrize(
    "call",
    [
        'messages.error(request, "Gone")',
        'Notice(f"{name} is gone")',
        'Button("Undo", "/undo")',
        '@admin.display(description="name")\ndef f(): ...',
    ],
)
def test_calls_that_show_plain_text_are_found(call: str) -> None:
    assert plain_texts(call) == [1]


def test_calls_with_translated_text_are_not() -> None:
    assert plain_texts('messages.error(request, _("Gone"))\nNotice(_("A %s") % name)\nButton(_("Undo"), "/undo")') == []
