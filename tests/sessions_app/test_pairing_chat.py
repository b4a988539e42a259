from __future__ import annotations

import re

import pytest

from identity import clock
from identity.models import AccountLink, Pairing
from sessions_app import inbox, outbox
from sessions_app.messages import Address, MessageEdit
from sessions_app.models import Conversation, HistoryEntry, InboundEvent, OutboundDelivery
from tests.sessions_app.talk import DATABASE, message, say, texts

pytestmark = pytest.mark.django_db


def hear(who: str, text: str, *, platform: str = "telegram") -> None:
    inbox.receive(message(who, text, platform=platform), resolver=DATABASE)


def told(who: str, platform: str = "telegram") -> str:
    """What the bot says to somebody last, in the words of this moment."""
    chat = Conversation.objects.get(key=f"{platform}:{who}")
    delivery = OutboundDelivery.objects.filter(account=chat.account).latest("pk")
    return outbox.outgoing(delivery).text


def code_of(text: str) -> str:
    [code] = re.findall(r"[A-Z]{4}-[A-Z]{4}", text)
    return str(code)


def number_of(text: str) -> str:
    [number] = re.findall(r"\d{3} \d{3}", text)
    return str(number)


def pair(initiator: str = "telegram", responder: str = "discord") -> None:
    hear("alice", "/link", platform=initiator)
    hear("alice", code_of(told("alice", initiator)), platform=responder)
    hear("alice", number_of(told("alice", responder)), platform=initiator)


def test_it_links_two_accounts_by_a_code_and_a_number() -> None:
    pair()

    assert AccountLink.objects.live().count() == 2
    assert AccountLink.objects.values("user").distinct().count() == 1
    assert told("alice").startswith("Linked. From now on these chats share one conversation.")
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


def test_it_takes_six_digits_for_a_message_when_nobody_waits_for_a_number() -> None:
    hear("alice", "482 913")

    assert InboundEvent.objects.get().text == "482 913"


def test_it_keeps_no_code_or_number_that_a_message_is_edited_to() -> None:
    hear("alice", "/link")
    code = code_of(told("alice"))
    inbox.receive(message("alice", "hello", platform="discord"), resolver=DATABASE)
    heard = InboundEvent.objects.get(text="hello")
    hear("alice", code, platform="discord")
    number = number_of(told("alice", "discord"))

    for words in (f"the number is {number}", f"my code was {code}"):
        inbox.edit(MessageEdit(Address("discord", heard.chat_id), heard.message_id, words))

    heard.refresh_from_db()
    assert (heard.text, heard.edited) == ("hello", "")


def test_it_shows_no_code_or_number_that_has_run_out() -> None:
    hear("alice", "/link")
    code = code_of(told("alice"))
    hear("alice", code, platform="discord")
    Pairing.objects.update(expires_at=clock.EPOCH)

    assert told("alice", "discord") == "That request has ended. It takes a new code."
    assert "used your code" not in told("alice")
