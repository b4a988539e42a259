"""The chat's pages: what they show to whom, and that a message is kept once, with and without scripts."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.contrib.sessions.models import Session
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from identity.browsers import sessions as browser_sessions
from identity.models import Browser, BrowserAccount, LiveEvent, PlatformAccount
from identity.support import clock
from sessions_app.history import window
from sessions_app.models import HistoryEntry, InboundEvent, OutboundDelivery
from sessions_app.outbox import queue as outbox_queue
from sessions_app.turns import lifecycle
from sessions_app.web import chat_page
from tests.identity import pairs
from tests.sessions_app.browsing import account, attach, browser_of, claim, converse, events, write
from tests.sessions_app.talk import say

pytestmark = pytest.mark.django_db

TABLES = (Session, Browser, BrowserAccount, LiveEvent, InboundEvent, HistoryEntry, OutboundDelivery)


def sign_in(client: Client, page: Browser) -> Browser:
    session = client.session
    session[browser_sessions.SESSION_KEY] = str(page.pk)
    session.save()
    return page


@pytest.fixture
def alice() -> PlatformAccount:
    return account("alice")


@pytest.fixture
def page(client: Client, alice: PlatformAccount) -> Browser:
    """The test client's browser, in which alice is attached."""
    return sign_in(client, browser_of(alice))


def get(client: Client, name: str = "chat", *, query: str = "") -> str:
    answer = client.get(f"{reverse(name)}?account={query}")
    assert answer.status_code == 200
    return answer.content.decode()


def words(html: str) -> list[str]:
    return re.findall(r'<p class="words">(.*?)</p>', html, re.DOTALL)


def post(client: Client, author: PlatformAccount, text: str, *, key: str = "one", script: bool = False) -> Any:
    headers = {"Accept": "application/json"} if script else {}
    return client.post(reverse("chat-say"), {"account": author.pk, "text": text, "key": key}, headers=headers)


# --- who sees what


@pytest.mark.parametrize("name", ["chat", "chat-now", "chat-say"])
def test_it_changes_nothing_when_somebody_looks(
    client: Client, page: Browser, alice: PlatformAccount, name: str
) -> None:
    write(page, alice, "hello")
    before = pairs.dump(*TABLES)

    for method in ("get", "head", "options"):
        for _ in range(3):
            getattr(client, method)(reverse(name))
            getattr(Client(), method)(reverse(name))

        assert pairs.dump(*TABLES) == before, method


@pytest.mark.parametrize("name", ["chat", "chat-now"])
def test_it_shows_nothing_to_a_stranger(client: Client, alice: PlatformAccount, name: str) -> None:
    shown = get(client, name)

    assert words(shown) == []
    assert 'id="say"' not in shown


@pytest.mark.parametrize("name", ["chat", "chat-now"])
def test_it_shows_nothing_when_the_confirmation_is_old(client: Client, page: Browser, name: str) -> None:
    assert words(get(client, name))
    pairs.later(901, BrowserAccount.objects.all())

    shown = get(client, name)

    assert words(shown) == []
    assert ("Confirm with my app" in shown) == (name == "chat")


def test_it_shows_nothing_after_signing_out_elsewhere(client: Client, page: Browser, alice: PlatformAccount) -> None:
    browser_sessions.sign_out_everywhere(alice)

    assert 'data-state="begin"' in get(client, "chat-now")


def test_it_shows_the_conversation_with_the_app_of_each_line(
    client: Client, page: Browser, alice: PlatformAccount
) -> None:
    converse(page, alice, "from the page", "to the page")

    shown = get(client)

    assert words(shown) == ["hello from the app", "hello to the app", "from the page", "to the page"]
    assert re.findall(r'badge \w+">(\w+)</span> <time', shown) == ["Telegram", "Telegram", "Web", "Web"]


def test_it_shows_words_as_words(client: Client, page: Browser, alice: PlatformAccount) -> None:
    converse(page, alice, "<script>alert(1)</script>", "<b>no</b>")

    assert words(get(client))[-2:] == ["&lt;script&gt;alert(1)&lt;/script&gt;", "&lt;b&gt;no&lt;/b&gt;"]


def test_it_talks_as_the_account_attached_last_or_the_one_that_is_chosen(
    client: Client, page: Browser, alice: PlatformAccount
) -> None:
    bob = account("bob", "discord")
    attach(page, bob)

    def author(chosen: object = "") -> str:
        [named] = set(re.findall(r'name="account" value="(\d+)"', get(client, query=str(chosen))))
        return str(named)

    assert author() == str(bob.pk)
    assert author(alice.pk) == str(alice.pk)


@pytest.mark.parametrize("chosen", ["mallory's", "x"])
def test_it_shows_no_other_account_than_the_one_that_is_chosen(
    client: Client, page: Browser, alice: PlatformAccount, chosen: str
) -> None:
    """It may have been readable a moment ago, and its name still stands on the page."""
    stranger = str(account("mallory", "slack").pk) if chosen == "mallory's" else chosen

    assert 'data-state="confirm"' in get(client, "chat-now", query=stranger)


def test_it_keeps_apart_what_two_accounts_say_in_one_browser(
    client: Client, page: Browser, alice: PlatformAccount
) -> None:
    bob = account("bob", "discord")
    attach(page, bob)
    ask_for_help(page, bob)
    write(page, bob, "of bob")

    assert not [text for text in words(get(client, query=str(alice.pk))) if "bob" in text or "/help" in text]
    assert "of bob" in words(get(client, query=str(bob.pk)))


def ask_for_help(page: Browser, author: PlatformAccount) -> None:
    write(page, author, "/help")


def test_it_shows_commands_and_what_the_bot_itself_says(client: Client, page: Browser, alice: PlatformAccount) -> None:
    ask_for_help(page, alice)

    command, answer = words(get(client))[-2:]

    assert command == "/help"
    assert answer.startswith("Write to me and I&#x27;ll answer.")


def test_it_shows_what_was_quarantined(client: Client, page: Browser, alice: PlatformAccount) -> None:
    write(page, alice, "poison")
    lifecycle.quarantine(claim(alice))

    assert words(get(client))[-2] == "poison"
    assert words(get(client))[-1].startswith("I was interrupted several times")


def test_it_shows_no_notes_of_other_browsers(client: Client, page: Browser, alice: PlatformAccount) -> None:
    ask_for_help(browser_of(alice), alice)

    assert "/help" not in words(get(client))


def test_it_shows_no_notes_from_before_the_first_line(
    client: Client, page: Browser, alice: PlatformAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat_page, "LINES", 2)
    ask_for_help(page, alice)
    converse(page, alice, "later", "much later")

    assert words(get(client)) == ["later", "much later"]


# --- while somebody waits


def test_it_shows_what_was_sent_before_it_is_answered(client: Client, page: Browser, alice: PlatformAccount) -> None:
    write(page, alice, "hello")
    waiting = chat_page.chat(page)
    lifecycle.finish(claim(alice), "hi", limit=outbox_queue.TEXT_LIMIT)
    answered = chat_page.chat(page)

    assert [line.text for line in waiting.lines][-1] == "hello"
    assert [line.text for line in answered.lines][-2:] == ["hello", "hi"]
    assert (waiting.is_answering, answered.is_answering) == (True, False)
    assert waiting.lines[-1].key == answered.lines[-2].key  # the same line to whoever follows
    assert waiting.version != answered.version
    assert answered.version == chat_page.chat(page).version


def test_it_shows_a_message_once_that_is_answered_meanwhile(
    page: Browser, alice: PlatformAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(page, alice, "hello")
    read = window.readable

    def late(*args: Any, **kwargs: Any) -> Any:
        lifecycle.finish(claim(alice), "hi", limit=outbox_queue.TEXT_LIMIT)
        return read(*args, **kwargs)

    monkeypatch.setattr(window, "readable", late)

    shown = [line.text for line in chat_page.chat(page).lines]

    assert shown[-2:] == ["hello", "hi"]
    assert shown.count("hello") == 1


def test_it_asks_as_much_of_the_database_however_much_was_said(
    client: Client, page: Browser, alice: PlatformAccount
) -> None:
    def queries() -> int:
        with CaptureQueriesContext(connection) as asked:
            get(client, "chat-now")
        return len(asked)

    ask_for_help(page, alice)
    before = queries()
    for number in range(5):
        ask_for_help(page, alice)
        say("alice", f"word {number}")

    assert queries() == before


# --- sending


def test_it_sends_without_scripts(client: Client, page: Browser, alice: PlatformAccount) -> None:
    answer = post(client, alice, "hello")

    assert answer.headers["Location"] == f"{reverse('chat')}?account={alice.pk}#end"
    shown = get(client)
    assert words(shown)[-1] == "hello"
    assert "… is answering</p>" in shown


def test_it_offers_to_stop_while_it_answers_and_stops_without_scripts(
    client: Client, page: Browser, alice: PlatformAccount
) -> None:
    def form(shown: str) -> str:
        [found] = re.findall(r'<form id="stop"[^>]*>.*?</form>', shown, re.DOTALL)
        return str(found)

    assert " hidden>" in form(get(client))
    post(client, alice, "a long question")
    shown = form(get(client))
    assert " hidden>" not in shown
    pressed = dict(re.findall(r'name="(\w+)" value="([^"]+)"', shown))

    assert client.post(reverse("chat-say"), pressed).status_code == 302

    shown = get(client)
    assert " hidden>" in form(shown)
    assert words(shown)[-4:] == ["a long question", "(stopped)", "/stop", "OK, I&#x27;ve stopped."]


def test_it_sends_once_what_is_sent_twice(client: Client, page: Browser, alice: PlatformAccount) -> None:
    for script in (False, True, True):
        assert post(client, alice, "hello", script=script).status_code in (200, 302)

    assert [event.text for event in events()] == ["hello"]


def test_it_gives_each_page_another_key(client: Client, page: Browser) -> None:
    keys = {re.findall(r'name="key" value="(\w+)"', get(client))[0] for _ in range(3)}

    assert len(keys) == 3


def test_it_says_sent_when_it_is_stored(client: Client, page: Browser, alice: PlatformAccount) -> None:
    answer = post(client, alice, "hello", script=True)

    assert (answer.status_code, answer.json()) == (200, {"answer": "sent", "words": ""})
    assert len(events()) == 1


@pytest.mark.parametrize("script", [False, True])
def test_it_repeats_no_secret(client: Client, page: Browser, alice: PlatformAccount, script: bool) -> None:
    answer = post(client, alice, "BCDF-GHJK", script=script)

    assert answer.status_code == (200 if script else 400)
    assert "That is about linking" in answer.content.decode()
    assert "BCDF" not in answer.content.decode() + get(client)
    assert events()[0].text == ""


def test_it_gives_words_back_that_were_not_kept(client: Client, page: Browser, alice: PlatformAccount) -> None:
    for number in range(10):
        post(client, alice, f"word {number}")
    InboundEvent.objects.update(received_at=clock.read())  # all of them just now, however slow the machine is

    answer = post(client, alice, "too much")

    assert answer.status_code == 429
    assert "too much</textarea>" in answer.content.decode()


@pytest.mark.parametrize("author", ["", "0", "-1", "x", "9" * 40])
def test_it_takes_no_author_that_is_none(client: Client, page: Browser, author: str) -> None:
    answer = client.post(reverse("chat-say"), {"account": author, "text": "hello", "key": "one"})

    assert answer.status_code == 403
    assert events() == []


def test_it_takes_nothing_from_a_stranger(client: Client, alice: PlatformAccount) -> None:
    assert post(client, alice, "hello").status_code == 403
    assert post(client, alice, "hello", script=True).json()["answer"] == "ended"
    assert events() == []


def test_it_takes_nothing_from_another_site(page: Browser, client: Client, alice: PlatformAccount) -> None:
    strict = Client(enforce_csrf_checks=True)
    sign_in(strict, page)

    assert post(strict, alice, "hello").status_code == 403
    assert events() == []


def test_it_keeps_to_the_rules_of_pages(client: Client, page: Browser) -> None:
    answer = client.get(reverse("chat"))
    shown = answer.content.decode()

    assert "no-store" in answer.headers["Cache-Control"]
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert not re.search(r"<script(?![^>]*src=)|<style|\son\w+=|\sstyle=", shown)
