from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.db import DatabaseError, OperationalError, connection, transaction
from django.test.utils import CaptureQueriesContext

from identity.models import PlatformAccount
from identity.resolvers import InMemoryIdentityResolver, Resolves
from identity.support import clock
from sessions_app import inbox
from sessions_app.commands import intent
from sessions_app.commands import linking as linking_commands
from sessions_app.messages import Address, InboundMessage, MessageEdit, Sender, Unacceptable
from sessions_app.models import Conversation, ForgottenEvent, InboundEvent, OutboundDelivery, Watermark
from sessions_app.receiver import Receiver
from sessions_app.receiving import group, tombstones, watermarks
from tests.sessions_app.racing import at_once
from tests.sessions_app.talk import DATABASE, message, receive

pytestmark = pytest.mark.django_db(transaction=True)

Item = InboundMessage | MessageEdit
Outcome = BaseException | None


class Woken:
    """What a Receiver tells the others."""

    def __init__(self) -> None:
        self.turns: list[int] = []
        self.outgoing = 0

    def on_outgoing(self) -> None:
        self.outgoing += 1

    def receiver(self, resolver: Resolves | None = DATABASE) -> Receiver:
        return Receiver(resolver, on_turn=self.turns.append, on_outgoing=self.on_outgoing)


def hand_in(items: Sequence[Item], *, resolver: Resolves | None = DATABASE) -> tuple[list[Outcome], Woken]:
    """Hand in all at once, and wait. What came of each, and who was woken."""
    woken = Woken()

    async def all_at_once() -> list[Outcome]:
        receiver = woken.receiver(resolver)
        return await asyncio.gather(*(receiver.receive(item) for item in items), return_exceptions=True)

    return async_to_sync(all_at_once)(), woken


@pytest.fixture
def groups(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many messages were stored in each transaction of a group."""
    stored: list[int] = []
    really = group.store

    def store(messages: Sequence[InboundMessage]) -> group.Prefix:
        prefix = really(messages)
        stored.append(len(prefix.events))
        return prefix

    monkeypatch.setattr(group, "store", store)
    return stored


def texts() -> list[str]:
    return list(InboundEvent.objects.order_by("pk").values_list("text", flat=True))


def is_text_in(text: str, items: Sequence[Item]) -> bool:
    return any(item.text == text for item in items)


def test_it_stores_in_one_transaction_what_arrives_together_but_not_too_much(groups: list[int]) -> None:
    alice, bob = receive("alice", "first"), receive("bob", "first")
    said = [message("alice" if nth % 2 else "bob", f"{nth}") for nth in range(inbox.MAX_TOGETHER + 5)]

    outcomes, woken = hand_in(said)

    assert set(outcomes) == {None}
    assert groups == [inbox.MAX_TOGETHER, 5]
    assert texts() == ["first", "first", *(one.text for one in said)]
    assert woken.turns == [bob, alice, bob, alice]
    assert woken.outgoing == 0
    moments = list(InboundEvent.objects.order_by("pk").values_list("received_at", flat=True))
    assert moments == sorted(set(moments))


def test_it_stores_one_message_with_few_statements() -> None:
    receive("alice", "first")
    receive("alice", "first", group="pub")
    for said, most in ((message("alice", "one"), 2), (message("alice", "two", group="pub"), 3)):
        for nth in range(3):
            with CaptureQueriesContext(connection) as queries:
                assert inbox.receive_together([replace(said, native_key=f"{said.text} {nth}")], resolver=DATABASE)
            statements = [query["sql"] for query in queries if query["sql"] not in {"BEGIN", "COMMIT"}]
            assert len([one for one in statements if not one.startswith("BEGIN")]) == most


def test_it_finds_accounts_chats_and_deleted_messages_by_an_index() -> None:
    for place in ("", "pub"):
        receive("alice", "first", group=place)
    others = [
        Conversation(kind="group", key=f"telegram/{nth}/", platform="telegram", chat_id=f"{nth}") for nth in range(5000)
    ]
    Conversation.objects.bulk_create(others)
    people = [PlatformAccount(platform="telegram", platform_user_id=f"{nth}") for nth in range(5000)]
    PlatformAccount.objects.bulk_create(people)
    ForgottenEvent.objects.bulk_create([ForgottenEvent(key_hash=f"{nth}") for nth in range(5000)])
    statements: list[tuple[str, Any]] = []

    def keep(execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
        statements.append((sql, params))
        return execute(sql, params, many, context)

    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
        with connection.execute_wrapper(keep):
            said = [message("alice", "again", group=place) for place in ("", "pub")]
            assert len(inbox.receive_together(said, resolver=DATABASE)) == 2
        plans = []
        for sql, params in statements:
            if "sessions_app" in sql or "identity" in sql:
                cursor.execute(("EXPLAIN QUERY PLAN " if connection.vendor == "sqlite" else "EXPLAIN ") + sql, params)
                plans.append("\n".join(str(row[-1]) for row in cursor.fetchall()))

    assert len(plans) == 4
    assert not re.search(r"SCAN [acf]\b|Seq Scan", "".join(plans)), plans
    unique = "account_id=?" if connection.vendor == "sqlite" else "account_id = a.id"
    assert unique in plans[0]
    assert unique not in "".join(plans[1:]), plans


def test_it_needs_no_more_statements_for_more_messages() -> None:
    people = [f"person-{nth}" for nth in range(20)]
    for who in people:
        receive(who, "first")
        receive(who, "first", group="pub")
    said = [message(who, "hello", group=place) for who in people for place in ("", "pub")]
    said = [replace(one, position=nth) for nth, one in enumerate(said)]

    with CaptureQueriesContext(connection) as queries:
        assert len(inbox.receive_together(said, resolver=DATABASE)) == 40

    statements = [query["sql"] for query in queries if not query["sql"].startswith(("BEGIN", "COMMIT"))]
    assert len(statements) == 5, statements
    assert Watermark.objects.count() == 20


@pytest.mark.parametrize(
    "other",
    ["/link", "/new", "482913", "my code is WDJB-MJHT, and theirs?", "call 482 913 now"],
)
def test_no_plain_message_overtakes_one_that_is_decided_at_receipt(other: str, groups: list[int]) -> None:
    receive("alice", "first")
    receive("bob", "first")
    said = [
        message("bob", "before"),
        message("bob", "too"),
        message("alice", other, key="other"),
        message("bob", "after"),
    ]

    outcomes, _ = hand_in(said)

    assert outcomes == [None] * 4
    assert groups == [2, 1]
    keys = list(InboundEvent.objects.order_by("pk").values_list("native_key", flat=True))[2:]
    assert keys == [one.native_key for one in said]


def test_it_wakes_delivery_workers_for_what_is_decided_at_receipt() -> None:
    receive("alice", "first")

    _, woken = hand_in([message("alice", "one"), message("alice", "/accounts"), message("alice", "two")])

    assert woken.outgoing == 1
    assert len(woken.turns) == 2
    assert OutboundDelivery.objects.count() == 1


def test_it_reads_no_text_again_for_each_message_that_is_stored_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    really = intent.classify

    def classify(text: str) -> Any:
        read.append(text)
        return really(text)

    monkeypatch.setattr("sessions_app.inbox.classify", classify)
    said = [message(f"stranger-{nth}", f"hello from {nth}") for nth in range(20)]  # each is stored alone

    hand_in(said)

    assert texts() == [one.text for one in said]
    assert max(map(read.count, read)) == 2  # once for its group, and once alone


def test_redeliveries_wake_no_lane(groups: list[int]) -> None:
    receive("alice", "first")
    said = [message("alice", f"{nth}") for nth in range(3)]
    hand_in(said)

    outcomes, woken = hand_in(said)

    assert outcomes == [None] * 3
    assert groups == [3, 3]
    assert (woken.turns, woken.outgoing) == ([], 0)
    assert texts() == ["first", "0", "1", "2"]


def test_it_edits_in_order() -> None:
    receive("alice", "first")
    one, two = message("alice", "one"), message("alice", "two")
    edits = [MessageEdit(one.address, one.message_id, text) for text in ("better", "best")]

    hand_in([one, edits[0], two, edits[1]])

    assert texts() == ["first", "best", "two"]


def test_it_keeps_deleted_messages_deleted(groups: list[int]) -> None:
    receive("alice", "first")
    said = [message("alice", f"{nth}") for nth in range(3)]
    hand_in(said)
    deleted = InboundEvent.objects.filter(text="1")
    tombstones.remember(deleted)
    deleted.delete()

    outcomes, woken = hand_in(said)

    assert outcomes == [None] * 3
    assert groups == [3, 3]
    assert woken.turns == []
    assert texts() == ["first", "0", "2"]


def test_it_advances_marks_as_far_as_messages_are_stored() -> None:
    receive("alice", "first", platform="discord")
    receive("bob", "first", platform="discord")
    positions = {"alice": (5, 9, 7), "bob": (3,)}
    said = [
        replace(message(who, "hello", platform="discord"), position=position)
        for who, several in positions.items()
        for position in several
    ]
    hand_in(said)
    hand_in([replace(message("alice", "hello", platform="discord"), position=8), replace(said[3], position=99)])

    assert watermarks.known("discord") == {"chat-alice": watermarks.Mark(9), "chat-bob": watermarks.Mark(3)}


@pytest.mark.parametrize(
    "change",
    [
        {"sender": Sender("alice", "Alice", "mallory")},
        {"sender": Sender("alice", "Mallory")},
        {"address": Address("telegram", "elsewhere")},
        {"address": Address("telegram", "chat-alice", "thread")},
    ],
    ids=str,
)
def test_it_stores_alone_what_changes_an_account_or_chat(change: dict[str, Any], groups: list[int]) -> None:
    receive("alice", "first")
    said = [message("alice", f"{nth}") for nth in range(3)]
    said[1:] = [replace(one, **change) for one in said[1:]]

    outcomes, _ = hand_in(said)

    assert outcomes == [None] * 3
    assert groups == [1, 0, 1]
    assert texts() == ["first", "0", "1", "2"]
    account, chat = PlatformAccount.objects.get(), Conversation.objects.get()
    assert (account.display_name, account.username) == (said[2].sender.name, said[2].sender.username)
    assert (chat.chat_id, chat.thread_id) == (said[2].address.chat_id, said[2].address.thread_id)


def test_it_notes_once_a_day_that_an_account_is_in_use(groups: list[int]) -> None:
    receive("alice", "first")
    PlatformAccount.objects.update(seen_at=clock.seconds_from_now(-timedelta(days=1, minutes=1).total_seconds()))

    hand_in([message("alice", "one"), message("alice", "two")])

    assert groups == [0, 1]
    assert PlatformAccount.objects.get().seen_at > clock.read() - timedelta(minutes=1)


def test_it_receives_private_messages_one_by_one_where_another_resolver_decides(groups: list[int]) -> None:
    resolver = InMemoryIdentityResolver()
    for _ in range(2):
        outcomes, _ = hand_in([message("alice", "a"), message("alice", "b")], resolver=resolver)
        assert outcomes == [None] * 2
    assert groups == []
    hand_in([message("alice", "c", group="pub")], resolver=resolver)
    hand_in([message("alice", "c", group="pub")] * 2, resolver=resolver)
    assert groups == [0, 1, 1]
    assert texts() == ["a", "b", "a", "b", "c", "c"]


def test_a_refused_message_takes_no_other_with_it() -> None:
    receive("alice", "first")
    said = [message("alice", "one"), message("alice", "a\x00b"), message("alice", "two")]

    outcomes, _ = hand_in(said)

    assert [type(outcome) for outcome in outcomes] == [type(None), Unacceptable, type(None)]
    assert texts() == ["first", "one", "two"]


class Failing:
    """Lets what stores messages fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: Exception, text: str) -> None:
        self.error, self.text = error, text
        self.tries: list[str] = []
        self._together, self._alone = group.store, inbox._store
        monkeypatch.setattr(group, "store", self.store_together)
        monkeypatch.setattr(inbox, "_store", self.store)

    def store_together(self, messages: Sequence[InboundMessage]) -> group.Prefix:
        prefix = self._together(messages)
        if is_text_in(self.text, messages):
            raise self.error
        return prefix

    def store(self, message: InboundMessage, *rest: Any) -> int | None:
        self.tries.append(message.text)
        if message.text == self.text:
            raise self.error
        return self._alone(message, *rest)


def test_a_failing_message_fails_alone_but_for_what_follows_in_its_chat(monkeypatch: pytest.MonkeyPatch) -> None:
    """It will come again, and must not come after what was said later."""
    for who in ("alice", "bob", "carol"):
        receive(who, "first")
    Failing(monkeypatch, DatabaseError("no"), "bad")
    said = [
        message(who, text)
        for who, text in (("alice", "1"), ("bob", "bad"), ("carol", "2"), ("bob", "3"), ("alice", "4"))
    ]

    outcomes, woken = hand_in(said)

    assert [type(outcome) for outcome in outcomes] == [type(None), DatabaseError, type(None), DatabaseError, type(None)]
    assert texts()[3:] == ["1", "2", "4"]
    assert len(woken.turns) == 3
    monkeypatch.undo()
    assert hand_in(said)[0] == [None] * 5
    assert texts()[3:] == ["1", "2", "4", "bad", "3"]


def test_it_tries_a_dead_database_once_for_all_that_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    for who in ("alice", "bob"):
        receive(who, "first")
    failing = Failing(monkeypatch, OperationalError("gone"), "one")
    said = [message("alice", "one"), message("bob", "two"), message("bob", "three")]

    outcomes, _ = hand_in(said)

    assert {type(outcome) for outcome in outcomes} == {OperationalError}
    assert failing.tries == ["one"]
    monkeypatch.undo()
    assert hand_in(said)[0] == [None] * 3
    assert texts()[2:] == ["one", "two", "three"]


# --- Cancelled


class Busy:
    """Lets the database be busy with the first group until `free` is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.has_begun, self.free = threading.Event(), threading.Event()
        self._really = inbox.receive_together
        monkeypatch.setattr(inbox, "receive_together", self.receive_together)

    def receive_together(self, messages: Sequence[InboundMessage], **others: Any) -> list[int | None]:
        self.has_begun.set()
        assert self.free.wait(20)
        return self._really(messages, **others)


async def cancel_meanwhile(
    busy: Busy, first: Sequence[Item], later: Sequence[Item], chosen: int
) -> tuple[bool, list[Outcome]]:
    """While the database stores `first`, hand in `later`, and cancel one of all. Whether that ended at once."""
    receiver = Woken().receiver()
    tasks = [asyncio.create_task(receiver.receive(item)) for item in first]
    await asyncio.to_thread(busy.has_begun.wait, 20)
    tasks += [asyncio.create_task(receiver.receive(item)) for item in later]
    for _ in range(3):
        await asyncio.sleep(0)
    tasks[chosen].cancel()
    for _ in range(3):
        await asyncio.sleep(0)
    has_ended = tasks[chosen].done()
    busy.free.set()
    return has_ended, await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 20)


@pytest.mark.parametrize(("chosen", "is_stored"), [(0, True), (1, True), (2, False)])
def test_a_cancellation_loses_and_doubles_nothing(
    chosen: int, is_stored: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the database has already ends first; what waits is not stored. Handed in again, each is there once."""
    receive("alice", "first")
    said = [message("alice", f"{nth}") for nth in range(4)]

    has_ended, outcomes = async_to_sync(cancel_meanwhile)(Busy(monkeypatch), said[:2], said[2:], chosen)

    assert has_ended is not is_stored
    assert [type(outcome) for outcome in outcomes] == [
        asyncio.CancelledError if nth == chosen else type(None) for nth in range(4)
    ]
    assert texts()[1:] == [one.text for nth, one in enumerate(said) if nth != chosen or is_stored]
    assert hand_in(said)[0] == [None] * 4
    assert sorted(texts()[1:]) == [one.text for one in said]


def test_nobody_waits_for_a_receiver_whose_event_loop_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    receive("alice", "first")
    busy = Busy(monkeypatch)

    async def end_the_job() -> list[Outcome]:
        receiver = Woken().receiver()
        tasks = [asyncio.create_task(receiver.receive(message("alice", f"{nth}"))) for nth in range(2)]
        await asyncio.to_thread(busy.has_begun.wait, 20)
        assert receiver._job
        receiver._job.cancel()
        busy.free.set()
        return await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 20)

    assert {type(outcome) for outcome in async_to_sync(end_the_job)()} == {asyncio.CancelledError}


# --- Others


@pytest.mark.parametrize("locked", [PlatformAccount, Conversation])
@pytest.mark.parametrize("where", ["", "pub"])
def test_a_locked_account_or_chat_holds_up_no_message_before_it(
    locked: type[PlatformAccount | Conversation], where: str
) -> None:
    if connection.vendor != "postgresql":
        pytest.skip("SQLite has one writer at a time")
    for who in ("alice", "bob", "carol"):
        receive(who, "first", group=where and f"{where}-{who}")
    held = InboundEvent.objects.select_related("account", "conversation").order_by("pk")[1]
    pk = held.account_id if locked is PlatformAccount else held.conversation_id
    said = [message(who, "again", group=where and f"{where}-{who}") for who in ("alice", "bob", "carol")]
    results: list[object] = []

    def receive_together() -> None:
        returned, raised = at_once(lambda: inbox.receive_together(said, resolver=DATABASE))
        results.extend([*returned, *raised])

    with transaction.atomic():
        locked._default_manager.select_for_update().get(pk=pk)
        receiving = threading.Thread(target=receive_together)
        receiving.start()
        receiving.join(10)
        has_waited = receiving.is_alive()
    receiving.join(10)

    assert not has_waited
    assert [len(result) for result in results if isinstance(result, list)] == [1]
    assert len(inbox.receive_together(said[1:], resolver=DATABASE)) == 2


def test_it_waits_for_nobody_who_only_changes_links() -> None:
    if connection.vendor != "postgresql":
        pytest.skip("SQLite has one writer at a time")
    receive("alice", "first")
    returned: list[object] = []

    with transaction.atomic():
        PlatformAccount.objects.select_for_update(no_key=True).get()
        said = [message("alice", "again")]
        returned, raised = at_once(lambda: inbox.receive_together(said, resolver=DATABASE))

    assert raised == []
    assert len(returned) == 1


def test_it_compares_clocks(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(linking_commands, "_warned_at", None)
    receive("alice", "first")
    said = replace(message("alice", "hello"), sent_at=clock.read() + timedelta(minutes=11, seconds=30))

    hand_in([said])

    assert [record.getMessage() for record in caplog.records if "11 minutes ahead" in record.getMessage()]
