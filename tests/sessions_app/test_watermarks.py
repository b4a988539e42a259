from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from identity.resolvers import IdentityUnavailable
from identity.support import clock
from sessions_app import inbox
from sessions_app.messages import InboundMessage
from sessions_app.models import InboundEvent, OutboundDelivery, Watermark
from sessions_app.receiving import watermarks
from sessions_app.receiving.watermarks import Mark
from tests.sessions_app.talk import DATABASE, message

pytestmark = pytest.mark.django_db


def at(position: int, *, who: str = "alice", group: str = "", from_history: bool = False) -> InboundMessage:
    said = message(who, "hello", platform="discord", group=group)
    return replace(said, position=position, sent_at=clock.read(), is_from_history=from_history)


def test_it_advances_with_what_is_stored_and_never_goes_back() -> None:
    for position in (5, 9, 7):
        inbox.receive(at(position), resolver=DATABASE)

    assert watermarks.known("discord") == {"chat-alice": Mark(9)}
    assert watermarks.known("slack") == {}


def test_it_lists_the_most_recently_used_chat_first() -> None:
    for who, position in (("alice", 5), ("bob", 9), ("carol", 7)):
        inbox.receive(at(position, who=who), resolver=DATABASE)

    assert list(watermarks.known("discord")) == ["chat-bob", "chat-carol", "chat-alice"]


def test_it_has_no_mark_for_a_group_or_without_a_position() -> None:
    inbox.receive(at(5, group="room"), resolver=DATABASE)
    inbox.receive(message("alice", "hello"), resolver=DATABASE)

    assert not Watermark.objects.exists()


def test_it_does_not_advance_when_the_message_is_not_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr("sessions_app.models.InboundEvent.save", full)
    with pytest.raises(OSError, match="full"):
        inbox.receive(at(5), resolver=DATABASE)

    assert not Watermark.objects.exists()


def test_it_is_one_transaction_with_the_message(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(watermarks, "advance", full)
    with pytest.raises(OSError, match="full"):
        inbox.receive(at(5), resolver=DATABASE)

    assert not InboundEvent.objects.exists()


def test_it_stores_once_what_is_read_back_and_told() -> None:
    told = at(5)
    inbox.receive(told, resolver=DATABASE)

    assert inbox.receive(replace(told, is_from_history=True), resolver=DATABASE) is None
    assert InboundEvent.objects.count() == 1


def test_it_reads_nothing_back_that_is_forgotten() -> None:
    inbox.receive(at(4), resolver=DATABASE)
    old = at(5, from_history=True)
    watermarks.forget(platform="discord", chat_id="chat-alice")

    assert inbox.receive(old, resolver=DATABASE) is None
    assert InboundEvent.objects.count() == 1
    assert watermarks.known("discord")["chat-alice"].since > old.sent_at  # type: ignore[operator]


def test_it_takes_in_what_is_said_after_forgetting() -> None:
    inbox.receive(at(4), resolver=DATABASE)
    watermarks.forget(platform="discord", chat_id="chat-alice")
    inbox.receive(at(5, from_history=True), resolver=DATABASE)

    mark = watermarks.known("discord")["chat-alice"]
    assert mark.position == 5
    assert mark.since > clock.EPOCH + timedelta(days=1)


class Down:
    def resolve(self, platform: str, platform_user_id: str) -> str:
        raise IdentityUnavailable("down")


def test_it_asks_nobody_to_send_again_what_was_stored() -> None:
    said = at(5)
    inbox.receive(said, resolver=DATABASE)

    assert inbox.receive(said, resolver=Down()) is None

    assert not OutboundDelivery.objects.exists()


def test_it_does_not_read_back_what_it_asked_to_send_again() -> None:
    inbox.receive(at(5), resolver=Down())

    assert watermarks.known("discord") == {"chat-alice": Mark(5)}
    assert OutboundDelivery.objects.count() == 1
