from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from django.conf import LazySettings
from django.db import connection, transaction

from identity.flows import linking, pair_in_chat
from identity.models import PlatformAccount, UnifiedUser
from identity.resolvers import InMemoryIdentityResolver
from sessions_app import inbox, messages
from sessions_app.messages import Address, InboundMessage, MessageEdit, Sender, Unacceptable
from sessions_app.models import Conversation, HistoryEntry, InboundEvent, Lane, OutboundDelivery
from sessions_app.outbox import queue as outbox_queue
from sessions_app.turns import leases, lifecycle
from tests.identity import pairs
from tests.sessions_app.racing import at_once
from tests.sessions_app.talk import DATABASE, PLATFORMS, claim, message, receive, say, texts

pytestmark = pytest.mark.django_db

LONG = "x" * (inbox.MAX_ID + 1)


def link(who: str, platform: str, person: str = "alice") -> None:
    linking.link(platform=platform, platform_user_id=who, unified_user_id=person, method="pairing", actor="test")


# --- What is stored, and what is not


def test_it_stores_what_an_adapter_hands_in() -> None:
    conversation = receive("alice", "hello", key="update-1")

    event = InboundEvent.objects.get()
    assert (event.platform, event.native_key, event.text, event.kind) == ("telegram", "update-1", "hello", "message")
    assert (event.chat_id, event.chat_name, event.conversation_id) == ("chat-alice", "Alice", conversation)
    assert (event.status, event.starts, event.done_at) == (InboundEvent.Status.PENDING, 0, None)
    assert str(event.account) == "telegram:alice"
    assert Lane.objects.get().pk == conversation


@pytest.mark.parametrize(
    "bad",
    [
        {"native_key": ""},
        {"sender": Sender("")},
        {"address": Address("telegram", "")},
        {"native_key": LONG},
        {"sender": Sender(LONG)},
        {"address": Address("telegram", LONG)},
        {"address": Address("telegram", "c", LONG)},
        {"message_id": LONG},
        {"text": "x" * (messages.MAX_TEXT + 1)},
        {"text": "a\x00b"},
        {"native_key": "a\x00b"},
        {"sender": Sender("a\x00b")},
        {"address": Address("telegram", "a\x00b")},
    ],
    ids=",".join,
)
def test_it_refuses_for_good_what_can_never_be_stored(bad: dict[str, Any]) -> None:
    impossible = replace(message("alice", "hello"), **bad)

    with pytest.raises(Unacceptable) as refused:
        inbox.receive(impossible, resolver=DATABASE)

    assert "hello" not in str(refused.value)
    assert not InboundEvent.objects.exists()
    assert not PlatformAccount.objects.exists()


@pytest.mark.parametrize(
    "edge",
    [
        {"native_key": LONG[1:]},
        {"sender": Sender(LONG[1:], "n" * 500, "u" * 500)},
        {"address": Address("telegram", LONG[1:], LONG[1:]), "message_id": LONG[1:], "chat_name": "c" * 500},
        {"address": Address("telegram", LONG[1:], LONG[1:]), "is_private": False},
        {"text": "😀" * messages.MAX_TEXT},
        {"text": ""},
    ],
    ids=",".join,
)
def test_it_stores_what_just_fits(edge: dict[str, Any]) -> None:
    assert inbox.receive(replace(message("alice", "hello"), **edge), resolver=DATABASE)

    assert InboundEvent.objects.count() == 1


def test_it_takes_the_same_key_on_two_platforms_for_two_events() -> None:
    receive("alice", "here", key="1")
    receive("alice", "there", key="1", platform="discord")

    assert InboundEvent.objects.count() == 2


def test_it_knows_an_account_by_its_id_whatever_it_is_called() -> None:
    link("alice", "telegram")
    conversation = say("alice", "hello", answer="ok")
    renamed = Sender("alice", "Mallory", "mallory_99")

    inbox.receive(replace(message("alice", "still me"), sender=renamed), resolver=DATABASE)
    other = inbox.receive(replace(message("bob", "me too"), sender=Sender("bob", "Alice", "alice")), resolver=DATABASE)

    account = PlatformAccount.objects.get(platform_user_id="alice")
    assert (account.display_name, account.username) == ("Mallory", "mallory_99")
    assert DATABASE.resolve("telegram", "alice") == "alice"
    assert DATABASE.resolve("telegram", "bob") == "telegram:bob"
    assert Conversation.objects.count() == 2
    assert texts(conversation) == ["hello", "ok"]
    assert other is not None
    assert texts(other) == []


def in_a_number(alice: PlatformAccount) -> InboundMessage:
    """For an invitation that somebody else has claimed."""
    link("alice", "telegram")
    request = pair_in_chat.invite(person=UnifiedUser.objects.get(), operator="ann")
    pair_in_chat.claim(account=pairs.account("alice", "discord"), secret=pairs.code(request))
    return message("alice", pairs.wrong(request))


def in_a_code_for_all(alice: PlatformAccount) -> InboundMessage:
    return message("alice", pairs.code(pairs.offered(alice)), group="pub")


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("said", [in_a_number, in_a_code_for_all])
def test_it_waits_for_no_account_after_it_has_decided(said: Callable[[PlatformAccount], InboundMessage]) -> None:
    """Whoever holds the account may wait for what was decided: the person, or the request."""
    if connection.vendor != "postgresql":
        pytest.skip("SQLite has one writer at a time")
    say("alice", "hello")
    alice = PlatformAccount.objects.get()
    renamed = [replace(one, sender=Sender("alice", "Mallory")) for one in (said(alice), message("alice", "hello"))]

    with transaction.atomic():
        PlatformAccount.objects.select_for_update(no_key=True).get(pk=alice.pk)
        receiving = threading.Thread(target=at_once, args=(partial(inbox.receive, renamed[0], resolver=DATABASE),))
        receiving.start()
        receiving.join(5)
        has_waited = receiving.is_alive()
    receiving.join(10)
    assert not has_waited

    inbox.receive(renamed[1], resolver=DATABASE)
    alice.refresh_from_db()
    assert alice.display_name == "Mallory"


def test_it_moves_a_private_chat_to_where_it_was_last_heard_from() -> None:
    receive("alice", "hello")
    inbox.receive(replace(message("alice", "moved"), address=Address("telegram", "new", "t")), resolver=DATABASE)

    conversation = Conversation.objects.get()
    assert (conversation.chat_id, conversation.thread_id) == ("new", "t")


def test_it_takes_each_thread_of_a_group_for_a_conversation() -> None:
    for thread in ("", "1", "2", "1"):
        said = replace(message("alice", "hello", group="g"), address=Address("slack", "g", thread))
        inbox.receive(said, resolver=DATABASE)

    assert Conversation.objects.filter(kind="group", account=None).count() == 3


def test_it_keeps_one_conversation_for_a_person_of_another_resolver() -> None:
    resolver = InMemoryIdentityResolver()
    resolver.link("telegram", "7", "alice")
    resolver.link("discord", "8", "alice")

    here = receive("7", "here", resolver=resolver)
    there = receive("8", "there", platform="discord", resolver=resolver)

    assert here == there
    assert Conversation.objects.get().key == "alice"


def test_it_keeps_conversations_of_different_resolvers_apart_whatever_they_call_them() -> None:
    computed = receive("7", "here")
    resolved = receive("7", "there", resolver=InMemoryIdentityResolver())

    assert {conversation.key for conversation in Conversation.objects.all()} == {"telegram:7"}
    assert computed != resolved
    assert texts(computed) == texts(resolved) == []


# --- Edits


def edit(text: str, *, of: str = "one") -> None:
    event = InboundEvent.objects.get(text=of)
    inbox.edit(MessageEdit(Address(event.platform, event.chat_id), event.message_id, text))


def test_it_replaces_the_words_of_a_message_that_no_turn_has_taken() -> None:
    conversation = receive("alice", "one")

    edit("better")

    claimed = claim(conversation)
    assert lifecycle.begin(claimed, resolver=DATABASE).text == "better"


def test_it_notes_an_edit_that_comes_later_and_starts_no_turn() -> None:
    conversation = say("alice", "one", answer="ok")

    edit("better")

    assert texts(conversation) == ["one", "ok"]
    assert [entry.metadata for entry in HistoryEntry.objects.order_by("id")] == [{"edited": "better"}, {}]
    assert leases.waiting(PLATFORMS) == []


def test_it_leaves_the_words_of_a_running_turn_alone() -> None:
    conversation = receive("alice", "one")
    claimed = claim(conversation)

    edit("better")
    lifecycle.finish(claimed, "ok", limit=outbox_queue.TEXT_LIMIT)

    assert texts(conversation) == ["one", "ok"]


def test_it_takes_no_edit_for_a_message_of_another_chat_or_platform() -> None:
    receive("alice", "one")
    number = InboundEvent.objects.get().message_id

    inbox.edit(MessageEdit(Address("telegram", "chat-bob"), number, "mine now"))
    inbox.edit(MessageEdit(Address("discord", "chat-alice"), number, "mine now"))
    inbox.edit(MessageEdit(Address("telegram", "chat-alice"), "unknown", "mine now"))

    assert InboundEvent.objects.get().text == "one"


@pytest.mark.parametrize("text", ["a\x00b", "x" * (messages.MAX_TEXT + 1)])
def test_it_refuses_an_edit_that_cannot_be_stored(text: str) -> None:
    receive("alice", "one")

    with pytest.raises(Unacceptable):
        edit(text)

    assert InboundEvent.objects.get().text == "one"


# --- At the same time


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("known", [True, False])
def test_it_stores_one_event_of_eight_that_race(known: bool) -> None:
    if known:
        receive("alice", "before")
    same = message("alice", "hello", key="update-1")

    returned, raised = at_once(*[lambda: inbox.receive(same, resolver=DATABASE)] * 8)

    assert raised == []
    assert len([conversation for conversation in returned if conversation is not None]) == 1
    assert InboundEvent.objects.filter(native_key="update-1").count() == 1
    assert PlatformAccount.objects.count() == Conversation.objects.count() == Lane.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_it_stores_all_that_a_new_account_sends_at_once_twice_over() -> None:
    said = [message("alice", f"{number}", key=f"update-{number}") for number in range(4)]

    def receiving(one: InboundMessage) -> Callable[[], object]:
        return lambda: inbox.receive(one, resolver=DATABASE)

    for _ in range(5):
        returned, raised = at_once(*[receiving(one) for one in said for _ in range(2)])

        assert raised == []
        assert len([conversation for conversation in returned if conversation is not None]) == 4
        assert InboundEvent.objects.count() == 4
        assert Conversation.objects.count() == 1
        InboundEvent.objects.all().delete()
        Lane.objects.all().delete()
        Conversation.objects.all().delete()
        PlatformAccount.objects.all().delete()


@pytest.mark.parametrize(("platform", "command"), [("telegram", "/forget"), ("slack", "!forget")])
def test_it_says_once_what_it_keeps(settings: LazySettings, platform: str, command: str) -> None:
    settings.BOTOS_PRIVACY_NOTICE = ""
    receive("alice", "here?", platform=platform, group="pub")
    receive("alice", "hello", platform=platform)
    receive("alice", "hello again", platform=platform)

    [said] = OutboundDelivery.objects.filter(platform=platform)
    assert said.chat_id == InboundEvent.objects.get(text="hello").chat_id
    assert f"{command} to delete it" in said.text


@pytest.mark.parametrize(
    ("notice", "said"), [("Ours: see our /privacy page.", ["Ours: see our /privacy page."]), ("Off", [])]
)
def test_it_says_what_the_operator_wants_said(settings: LazySettings, notice: str, said: list[str]) -> None:
    settings.BOTOS_PRIVACY_NOTICE = notice
    inbox.receive(message("alice", "/link", platform="slack"), resolver=DATABASE)

    queued = list(OutboundDelivery.objects.order_by("pk").values_list("text", flat=True))
    assert queued == [*said, ""]  # then the code, whose words are made when it is sent


def test_it_promises_nothing_where_another_resolver_decides_who_is_who(settings: LazySettings) -> None:
    settings.BOTOS_PRIVACY_NOTICE = ""
    for text in ("hello", "/forget"):
        inbox.receive(message("alice", text), resolver=InMemoryIdentityResolver())

    first, answer = OutboundDelivery.objects.order_by("pk").values_list("text", flat=True)
    assert first.endswith("so that I can remember it.")
    assert answer.startswith("I can't do that here by myself.")
