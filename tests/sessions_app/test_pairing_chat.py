from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from pytest_django import Settings

from identity.browsers import sessions as browser_sessions
from identity.flows import pair_in_browser
from identity.models import AccountLink, AuditEvent, Browser, Pairing, PlatformAccount
from identity.pairing.secrets import secrets_of
from identity.support import clock
from sessions_app import inbox
from sessions_app.commands import linking as linking_commands
from sessions_app.commands import registry as command_registry
from sessions_app.messages import Address, MessageEdit
from sessions_app.models import Conversation, ForgetRequest, HistoryEntry, InboundEvent, OutboundDelivery
from sessions_app.outbox import queue as outbox_queue
from sessions_app.privacy import confirmation
from tests.sessions_app.talk import DATABASE, message, say, texts

pytestmark = pytest.mark.django_db


def receive(who: str, text: str, *, platform: str = "telegram") -> None:
    inbox.receive(message(who, text, platform=platform), resolver=DATABASE)


def told(who: str, platform: str = "telegram") -> str:
    """What the bot says to somebody last, in the words of this moment."""
    chat = Conversation.objects.get(key=f"{platform}:{who}")
    delivery = OutboundDelivery.objects.filter(account=chat.account).latest("pk")
    return outbox_queue.outgoing(delivery).text


def code_of(text: str) -> str:
    [code] = re.findall(r"[A-Z]{4}-[A-Z]{4}", text)
    return str(code)


def number_of(text: str) -> str:
    [number] = re.findall(r"\d{3} \d{3}", text)
    return str(number)


def pair(initiator: str = "telegram", responder: str = "discord") -> None:
    receive("alice", "/link", platform=initiator)
    receive("alice", code_of(told("alice", initiator)), platform=responder)
    receive("alice", number_of(told("alice", responder)), platform=initiator)


def test_it_links_two_accounts_by_a_code_and_a_number() -> None:
    pair()

    assert AccountLink.objects.live().count() == 2
    assert AccountLink.objects.values("user").distinct().count() == 1
    assert told("alice").startswith("Linked. From now on these chats share one conversation.")
    assert set(InboundEvent.objects.filter(kind="pairing").values_list("reason", flat=True)) == {"about linking"}
    assert told("alice", "discord").startswith("Linked.")


def test_it_shares_what_is_said_from_then_on() -> None:
    before = say("alice", "before")
    pair()
    say("alice", "after")
    discord = say("alice", "and here", platform="discord")

    assert texts(before) == ["before", "re: before", "after", "re: after", "and here", "re: and here"]
    assert texts(discord) == ["after", "re: after", "and here", "re: and here"]


def test_it_stores_no_word_of_it() -> None:
    pair()

    assert set(InboundEvent.objects.values_list("kind", "text")) == {("pairing", "")}
    assert set(OutboundDelivery.objects.values_list("text", flat=True)) == {""}
    assert not HistoryEntry.objects.exists()
    assert not Pairing.objects.filter(code_hash__isnull=False).exists()


def test_it_tells_names_on_discord_without_mark_up() -> None:
    pair("telegram", "discord")
    for command in ("/link", "/accounts", "/share", "/unlink"):
        receive("alice", command)
    receive("alice", "/forget", platform="discord")
    PlatformAccount.objects.update(display_name="[482](https://x)", username="<@1> **a**")

    told_there = OutboundDelivery.objects.filter(account__platform="discord")
    quoted = [text for one in told_there if "482" in (text := outbox_queue.outgoing(one).text)]
    assert {one.template for one in told_there} >= {"number", "past_shared", "unlinked", "forget_number"}
    assert len(quoted) >= 3
    for text in quoted:
        assert "[482" not in text.replace(r"\[482", "")
        assert r'"\[482\]\(https\://x\)" (' in text
        assert r"\<\@1\> \*\*a\*\*, ID .." in text


def test_it_takes_six_digits_for_a_message_when_nobody_waits_for_a_number() -> None:
    receive("alice", "482 913")

    assert InboundEvent.objects.get().text == "482 913"


def test_it_keeps_no_code_or_number_that_a_message_is_edited_to() -> None:
    receive("alice", "/link")
    code = code_of(told("alice"))
    inbox.receive(message("alice", "hello", platform="discord"), resolver=DATABASE)
    event = InboundEvent.objects.get(text="hello")
    receive("alice", code, platform="discord")
    number = number_of(told("alice", "discord"))

    for words in (f"the number is {number}", f"my code was {code}"):
        inbox.edit(MessageEdit(Address("discord", event.chat_id), event.message_id, words))

    event.refresh_from_db()
    assert (event.text, event.edited) == ("hello", "")


def test_it_shows_no_code_or_number_that_has_run_out() -> None:
    receive("alice", "/link")
    code = code_of(told("alice"))
    receive("alice", code, platform="discord")
    Pairing.objects.update(expires_at=clock.EPOCH)

    assert told("alice", "discord") == "That request has ended. You need a new code."
    assert "used your code" not in told("alice")


def test_it_signs_out_every_browser_of_the_account() -> None:
    receive("alice", "/link")
    page = Browser.objects.create(name="Firefox on Linux")
    pair_in_browser.claim(browser=page, secret=code_of(told("alice")).replace("-", ""), address="home")
    assert told("alice").startswith("A browser (Firefox on Linux) used your code.")
    receive("alice", secrets_of(Pairing.objects.get()).number)
    delivery = OutboundDelivery.objects.latest("pk")
    assert outbox_queue.outgoing(delivery).text == "A browser (Firefox on Linux) can now read and write here."
    [button] = outbox_queue.outgoing(delivery).buttons

    receive("alice", button.command)

    assert browser_sessions.attached(page) == []
    assert told("alice") == "Signed out of 1 browser."
    assert outbox_queue.outgoing(delivery).buttons == ()


@pytest.mark.parametrize("secondhand", [{"is_firsthand": False}, {"sent_at": timedelta(minutes=-11)}])
def test_it_counts_nothing_that_was_not_typed_here_and_now(secondhand: dict[str, Any]) -> None:
    receive("alice", "/link")
    if "sent_at" in secondhand:
        secondhand = {"sent_at": clock.read() + secondhand["sent_at"]}
    said = replace(message("alice", code_of(told("alice")), platform="discord"), **secondhand)

    inbox.receive(said, resolver=DATABASE)

    begins = "Your message seems to have taken very long" if "sent_at" in secondhand else "Please type that yourself"
    assert told("alice", "discord").startswith(begins)
    assert Pairing.objects.get().state == "offered"
    assert set(InboundEvent.objects.values_list("text", flat=True)) == {""}


@pytest.mark.parametrize(
    ("minutes", "sentence"),
    [
        (11, "11 minutes ahead of the database clock: the clock is wrong"),
        (-700, "700 minutes behind the database clock"),
    ],
)
def test_it_names_the_clock_once_an_hour(
    minutes: int, sentence: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(linking_commands, "_warned_at", None)
    said = replace(message("alice", "/link"), sent_at=clock.read() + timedelta(minutes=minutes, seconds=30))
    for nth in range(3):
        inbox.receive(replace(said, native_key=f"key {nth}"), resolver=DATABASE)

    warned = [record.getMessage() for record in caplog.records if "clock" in record.getMessage()]
    assert len(warned) == 1
    assert sentence in warned[0]
    monkeypatch.setattr(linking_commands, "WARN_EVERY", 0.0)
    inbox.receive(replace(said, native_key="later"), resolver=DATABASE)
    assert len([record for record in caplog.records if "clock" in record.getMessage()]) == 2


def test_it_says_nothing_of_clocks_about_what_is_read_back(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(linking_commands, "_warned_at", None)
    said = replace(message("alice", "hello"), sent_at=clock.read() - timedelta(days=1), is_from_history=True)

    inbox.receive(said, resolver=DATABASE)

    assert "clock" not in caplog.text


def test_it_counts_what_was_typed_within_ten_minutes() -> None:
    receive("alice", "/link")
    said = message("alice", code_of(told("alice")), platform="discord")

    inbox.receive(replace(said, sent_at=clock.read() - timedelta(minutes=9)), resolver=DATABASE)

    assert Pairing.objects.get().state == "claimed"


def test_it_burns_a_code_in_a_group_where_nobody_speaks_to_the_bot() -> None:
    receive("alice", "/link")
    said = message("bob", f"try {code_of(told('alice'))}", group="friends")

    inbox.receive(replace(said, is_addressed=False), resolver=DATABASE)

    assert Pairing.objects.get().state == "burned"
    assert told("alice").startswith("Your code was posted in a group")


def test_it_burns_a_code_that_a_message_in_a_group_is_edited_to() -> None:
    receive("alice", "/link")
    code = code_of(told("alice"))
    inbox.receive(message("bob", "hello", group="friends"), resolver=DATABASE)
    event = InboundEvent.objects.get(text="hello")

    inbox.edit(MessageEdit(Address("telegram", "friends"), event.message_id, f"my code: {code}"))

    assert Pairing.objects.get().state == "burned"


@pytest.mark.parametrize("text", ["is it WDJB-MJHT", "WDJB-MJHT", "/link WDJB-MJHT"])
def test_it_does_not_tell_a_group_by_its_silence_which_code_lives(text: str) -> None:
    receive("bob", "hello")  # bob has a chat in which an answer would be seen
    before = OutboundDelivery.objects.count()

    inbox.receive(message("bob", text, group="friends"), resolver=DATABASE)

    assert InboundEvent.objects.latest("pk").text == ""
    assert OutboundDelivery.objects.count() == before


def test_it_says_where_the_page_is_if_there_is_one(settings: Settings) -> None:
    settings.BOTOS_PUBLIC_URL = ""
    receive("alice", "/link")
    assert "Or enter it in a browser" not in told("alice")

    settings.BOTOS_PUBLIC_URL = "https://bots.example.org"
    assert told("alice").endswith("Or enter it in a browser, at https://bots.example.org/pair/.")


def test_it_names_the_command_that_signs_browsers_out() -> None:
    assert "signout" in [command.name for command in command_registry.menu()]


def test_it_takes_the_number_of_forgetting_while_another_one_is_typed_elsewhere() -> None:
    receive("mallory", "/link", platform="discord")
    receive("alice", code_of(told("mallory", "discord")))
    receive("alice", "/forget")
    request = ForgetRequest.objects.get()

    receive("alice", confirmation.number_of(request))

    request.refresh_from_db()
    assert request.state == "confirmed"


def test_it_writes_down_that_a_browser_was_signed_out() -> None:
    receive("alice", "hello")
    browser = Browser.objects.create(name="Firefox", address="home")
    assert browser_sessions.sign_out(browser)
    assert not browser_sessions.sign_out(browser)

    assert AuditEvent.objects.filter(kind="browser_ended", actor=browser_sessions.actor(browser)).count() == 1
