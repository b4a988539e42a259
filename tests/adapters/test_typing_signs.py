"""The typing sign: when it is shown, how often, and when it ends."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from time import monotonic

import pytest
from asgiref.sync import async_to_sync
from django.db import connection
from django.test.utils import CaptureQueriesContext

from adapters.protocols import DeliveryError, HidesTyping, PlatformAdapter, ShowsTyping
from adapters.runtime import typing_signs
from adapters.runtime.delivery_worker import DeliveryWorker
from adapters.runtime.typing_signs import MAX_CALLS, TypingSigns
from identity.support import clock
from sessions_app import db, inbox
from sessions_app.messages import Address, InboundMessage, OutgoingMessage, Reply, Turn
from sessions_app.models import InboundEvent, OutboundDelivery
from sessions_app.receiver import Receiver
from sessions_app.turns.pool import Service, TurnPool
from sessions_app.turns.unanswered import SOON, unanswered
from tests.adapters.recording import PATIENCE, RecordingAdapter
from tests.sessions_app.talk import DATABASE, Signal, message, receive, say

pytestmark = pytest.mark.django_db(transaction=True)

ALICE = Address("telegram", "chat-alice")
TYPING = "(typing)"


class Typist(RecordingAdapter):
    """Shows the sign. `log`: what people see of it, in order: signs, and texts when they arrive.

    trouble: what a call raises. gate: what every message waits for, after `(sending)` is in the log.
    """

    typing_seconds = 0.05

    def __init__(self) -> None:
        super().__init__("telegram")
        self.log: list[str] = []
        self.shown: list[Address] = []
        self.trouble: Exception | None = None
        self.gate: asyncio.Event | None = None

    async def show_typing(self, address: Address) -> None:
        self.log.append(TYPING)
        self.shown.append(address)
        if self.trouble:
            raise self.trouble

    async def send(self, message: OutgoingMessage) -> str:
        if self.gate:
            self.log.append("(sending)")
            await self.gate.wait()
        self.log.append(message.text)
        return await super().send(message)


class Slow(Typist):
    """Its calls end when `free` is set. most: how many were under way at once. cancelled: how many were."""

    def __init__(self) -> None:
        super().__init__()
        self.free = asyncio.Event()
        self.under_way = self.most = self.cancelled = 0

    async def show_typing(self, address: Address) -> None:
        await super().show_typing(address)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await self.free.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.under_way -= 1


class Keeper(Typist):
    """Its platform keeps the sign until the bot says something."""

    async def hide_typing(self, address: Address) -> None:
        self.log.append("(hidden)")


@dataclass
class Agent:
    """Answers when `told`."""

    told: Signal
    answer: str = "fine"

    async def reply(self, turn: Turn) -> Reply:
        await self.told.wait()
        return Reply(self.answer)


@dataclass
class Bots:
    """What runs in one process, without a connection."""

    adapters: dict[str, PlatformAdapter]
    signs: TypingSigns
    receive: Callable[[InboundMessage], Awaitable[None]]
    wake: Callable[[], None]
    told: Signal

    async def until_off(self) -> None:
        """Until no sign is on."""
        await until(lambda: not self.signs._signs)


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not holds():  # noqa: ASYNC110 - what is waited for tells nobody
            await asyncio.sleep(0.01)


@asynccontextmanager
async def bots(
    adapter: PlatformAdapter, *, answer: str = "fine", has_pool: bool = True, max_seconds: float = 60.0
) -> AsyncIterator[Bots]:
    """Receiver, pool, delivery worker and signs, put together as BotOS does. Without a pool nothing is answered."""
    told, stop = Signal(), asyncio.Event()
    adapters = {adapter.platform: adapter}
    signs = TypingSigns(lambda: adapters, begin_after=0.0, max_seconds=max_seconds, check_seconds=0.05)
    worker = DeliveryWorker(lambda: adapters, signs=signs)
    services = {adapter.platform: Service(Agent(told, answer), DATABASE, adapter.text_limit)}
    pool = TurnPool(services, size=4, on_outgoing=worker.wake, sending=worker)
    receiver = Receiver(DATABASE, on_turn=pool.notify, on_outgoing=worker.wake, on_waiting=signs.begin)
    showing = asyncio.create_task(signs.run())
    running = [asyncio.create_task(worker.run(stop))]
    if has_pool:
        running.append(asyncio.create_task(pool.run(stop)))
    try:
        yield Bots(adapters, signs, receiver.receive, worker.wake, told)
    finally:
        told.set()
        stop.set()
        await asyncio.wait_for(asyncio.gather(*running), PATIENCE)
        showing.cancel()
        await asyncio.gather(showing, return_exceptions=True)
        await db.drain()


def known(*people: str) -> None:
    """People whose privacy notice was sent long ago."""
    for who in people:
        say(who, "hello")
    OutboundDelivery.objects.all().delete()


def test_it_is_shown_again_and_again_until_the_last_part_is_sent() -> None:
    known("alice")
    adapter = Typist()

    async def scene() -> None:
        async with bots(adapter, answer="word " * 50) as running:
            await running.receive(message("alice", "how are you?"))
            await until(lambda: adapter.log.count(TYPING) >= 3)
            assert adapter.log == [TYPING] * len(adapter.log)
            running.told.set()
            await until(lambda: len(adapter.sent) == 3)
            await running.until_off()

    async_to_sync(scene)()

    assert {*adapter.shown} == {ALICE}
    assert adapter.log[-1] != TYPING


def test_it_comes_back_between_the_parts_and_never_while_one_is_being_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second part is refused once, and is tried again when the sign was seen."""
    monkeypatch.setattr(typing_signs, "BETWEEN_CALLS", 0.0)
    monkeypatch.setattr("sessions_app.outbox.queue.backoff", lambda attempts: SOON - 1)
    known("alice")
    adapter = Typist()
    adapter.gate = asyncio.Event()
    really = adapter.send

    async def send(outgoing: OutgoingMessage) -> str:
        if len(adapter.sent) == 1 and "refused" not in adapter.log:
            adapter.log.append("refused")
            raise DeliveryError("busy")
        return await really(outgoing)

    monkeypatch.setattr(adapter, "send", send)

    async def scene() -> None:
        async with bots(adapter, answer=f"{'a' * 90} {'b' * 90}") as running:
            await running.receive(message("alice", "how are you?"))
            await until(lambda: TYPING in adapter.log)
            running.told.set()
            await until(lambda: "(sending)" in adapter.log)
            await asyncio.sleep(4 * adapter.typing_seconds)  # in which it would be shown again
            assert adapter.gate
            adapter.gate.set()
            await until(lambda: "refused" in adapter.log[:-1] and adapter.log[-1] == TYPING)
            waits = OutboundDelivery.objects.filter(settled_at=None)
            await db.call(lambda: waits.update(not_before=clock.EPOCH))
            running.wake()
            await until(lambda: len(adapter.sent) == 2)
            await running.until_off()

    async_to_sync(scene)()

    first = adapter.log.index("(sending)")
    assert adapter.log[first + 1] == "a" * 90
    assert adapter.log[-1] == "b" * 90


def test_it_ends_when_the_turn_ends_without_an_answer() -> None:
    known("alice")
    adapter = Typist()

    async def scene() -> None:
        async with bots(adapter, has_pool=False) as running:
            await running.receive(message("alice", "how are you?"))
            await until(lambda: adapter.log)
            waits = InboundEvent.objects.filter(done_at=None)
            await db.call(lambda: waits.update(status="done", done_at=clock.now()))
            await running.until_off()

    async_to_sync(scene)()

    assert adapter.log
    assert {*adapter.log} == {TYPING}


def test_it_rests_while_the_adapter_is_away_and_comes_back_with_it() -> None:
    known("alice")
    adapter, up, looks = Typist(), True, 0

    def adapters() -> dict[str, PlatformAdapter]:
        nonlocal looks
        looks += 1
        return {"telegram": adapter} if up else {}

    async def scene() -> None:
        nonlocal up
        signs = TypingSigns(adapters, begin_after=0.0, check_seconds=0.2)
        signs.begin(await db.call(receive, "alice", "how are you?"), message("alice", "how are you?"))
        up = False
        showing = asyncio.create_task(signs.run())
        await asyncio.sleep(0.5)
        seen = looks
        up = True
        await until(lambda: adapter.log)
        showing.cancel()
        await asyncio.gather(showing, return_exceptions=True)
        assert seen < 20

    async_to_sync(scene)()


def test_it_ends_after_its_time() -> None:
    known("alice")
    adapter = Typist()

    async def scene() -> None:
        async with bots(adapter, has_pool=False, max_seconds=0.3) as running:
            await running.receive(message("alice", "how are you?"))
            await until(lambda: adapter.log)
            await running.until_off()
            assert await db.call(InboundEvent.objects.filter(done_at=None).exists)

    async_to_sync(scene)()


def test_it_ends_where_the_message_is_asked_again_later() -> None:
    known("alice")
    adapter = Typist()

    async def scene() -> None:
        async with bots(adapter, has_pool=False) as running:
            await running.receive(message("alice", "how are you?"))
            await until(lambda: adapter.log)
            waits = InboundEvent.objects.filter(done_at=None)
            await db.call(lambda: waits.update(failures=1, ready_at=clock.seconds_from_now(60)))
            await running.until_off()

    async_to_sync(scene)()


@pytest.mark.parametrize(
    ("text", "is_shown"), [("hello", True), ("/new", False), ("/help", False), ("/hlep", False), ("/new hello", True)]
)
def test_it_is_shown_for_what_the_agent_is_asked_and_not_for_commands(text: str, is_shown: bool) -> None:
    known("alice")
    adapter = Typist()

    async def scene() -> None:
        async with bots(adapter, has_pool=False) as running:
            await running.receive(message("alice", text))
            assert bool(running.signs._signs) == is_shown

    async_to_sync(scene)()


def test_it_is_shown_for_all_who_wait_and_for_a_newcomer() -> None:
    known("bob", "carol")
    adapter = Typist()
    said = [message("bob", "hi"), message("alice", "hi"), message("carol", "hi"), message("carol", "hi", group="pub")]

    async def scene() -> None:
        async with bots(adapter, has_pool=False) as running:
            await asyncio.gather(*(running.receive(one) for one in said))
            await until(lambda: len({*adapter.shown}) == 4)

    async_to_sync(scene)()

    assert {*adapter.shown} == {one.address for one in said}


def test_it_is_not_shown_to_who_is_answered_at_once() -> None:
    known("alice")
    adapter = Typist()

    async def scene() -> None:
        async with bots(adapter) as running:
            running.signs._begin_after = PATIENCE
            running.told.set()
            await running.receive(message("alice", "how are you?"))
            await until(lambda: adapter.sent)
            await running.until_off()

    async_to_sync(scene)()

    assert adapter.log == ["fine"]


@pytest.mark.parametrize("trouble", [RuntimeError("a bug"), DeliveryError("gone", permanent=True), TimeoutError()])
def test_an_error_harms_nothing_and_is_logged_once(trouble: Exception, caplog: pytest.LogCaptureFixture) -> None:
    known("alice", "bob")
    adapter = Typist()
    adapter.trouble = trouble

    async def scene() -> None:
        async with bots(adapter) as running:
            await running.receive(message("alice", "how are you?"))
            await running.receive(message("bob", "how are you?"))
            await until(lambda: len({*adapter.shown}) == 2)
            running.told.set()
            await until(lambda: len(adapter.sent) == 2)
            await running.until_off()

    async_to_sync(scene)()

    [line] = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert line.startswith("telegram: show the typing sign failed: ")


def test_a_call_that_takes_long_is_given_up_and_holds_up_no_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(typing_signs, "CALL_SECONDS", 0.05)
    known("alice")
    adapter = Slow()

    async def scene() -> None:
        async with bots(adapter) as running:
            await running.receive(message("alice", "how are you?"))
            await until(lambda: adapter.cancelled)
            running.told.set()
            await until(lambda: adapter.sent)

    async_to_sync(scene)()


def test_a_message_ends_the_call_that_it_would_overtake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(typing_signs, "CALL_SECONDS", PATIENCE)
    known("alice")
    adapter = Slow()

    async def scene() -> None:
        async with bots(adapter) as running:
            await running.receive(message("alice", "how are you?"))
            await until(lambda: adapter.under_way)
            running.told.set()
            await until(lambda: adapter.sent)
            assert adapter.cancelled == 1

    async_to_sync(scene)()


@pytest.mark.parametrize("is_sending", [False, True])
def test_few_calls_are_under_way_and_fewer_beside_messages(monkeypatch: pytest.MonkeyPatch, is_sending: bool) -> None:
    monkeypatch.setattr(typing_signs, "CALL_SECONDS", PATIENCE)
    monkeypatch.setattr(typing_signs, "BESIDE_MESSAGES", 0.0)
    crowd = [f"person-{number}" for number in range(2 * MAX_CALLS)]
    known(*crowd)
    adapter = Slow()

    async def scene() -> None:
        async with bots(adapter, has_pool=False) as running:
            if is_sending:
                running.signs.pause(Address("telegram", "elsewhere"))
            await asyncio.gather(*(running.receive(message(who, "how are you?")) for who in crowd))
            await until(lambda: adapter.under_way)
            await asyncio.sleep(0.1)  # in which more would begin
            adapter.free.set()
            await until(lambda: len({*adapter.shown}) == len(crowd))

    async_to_sync(scene)()

    assert adapter.most == (1 if is_sending else MAX_CALLS)


def test_calls_beside_messages_have_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(typing_signs, "BESIDE_MESSAGES", PATIENCE)
    known("alice", "bob")
    adapter, elsewhere = Typist(), Address("telegram", "elsewhere")

    async def scene() -> None:
        async with bots(adapter, has_pool=False) as running:
            running.signs.pause(elsewhere)
            await asyncio.gather(*(running.receive(message(who, "how are you?")) for who in ("alice", "bob")))
            await until(lambda: adapter.shown)
            await asyncio.sleep(0.2)  # in which the other one would be shown
            assert len(adapter.shown) == 1
            running.signs.resume(elsewhere)
            await until(lambda: len({*adapter.shown}) == 2)

    async_to_sync(scene)()


def test_it_is_not_shown_while_a_message_is_on_its_way_there() -> None:
    known("alice", "bob")
    adapter = Typist()

    async def scene() -> None:
        async with bots(adapter, has_pool=False) as running:
            running.signs.pause(ALICE)
            await asyncio.gather(*(running.receive(message(who, "how are you?")) for who in ("alice", "bob")))
            await until(lambda: len(adapter.shown) > 2)
            assert ALICE not in adapter.shown
            running.signs.resume(ALICE)
            await until(lambda: ALICE in adapter.shown)

    async_to_sync(scene)()


def test_it_is_given_up_where_the_platform_never_shows_it() -> None:
    known("alice")
    adapter = Typist()
    adapter.trouble = DeliveryError("chat not found", permanent=True)

    async def scene() -> None:
        async with bots(adapter, has_pool=False) as running:
            await running.receive(message("alice", "how are you?"))
            await until(lambda: adapter.log)
            await running.until_off()

    async_to_sync(scene)()

    assert adapter.log == [TYPING]


def test_there_are_only_so_many_signs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(typing_signs, "MAX_SIGNS", 2)
    known("alice", "bob", "carol")
    adapter = Typist()

    async def scene() -> None:
        async with bots(adapter, has_pool=False) as running:
            for who in ("alice", "bob", "carol"):
                await running.receive(message(who, "how are you?"))
            await until(lambda: len({*adapter.shown}) == 2)
            assert len(running.signs._signs) == 2

    async_to_sync(scene)()


def test_it_asks_the_database_now_and_then_and_only_while_a_sign_is_on(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    crowd = [f"person-{number}" for number in range(10)]

    def count(conversations: Collection[int], addresses: Collection[Address]) -> set[tuple[int, Address]]:
        asked.append(len(addresses))
        return unanswered(conversations, addresses)

    monkeypatch.setattr(typing_signs, "unanswered", count)
    known(*crowd)
    adapter = Typist()

    async def scene() -> None:
        async with bots(adapter, has_pool=False) as running:
            running.signs._check_seconds = 0.4
            began = monotonic()
            await asyncio.gather(*(running.receive(message(who, "how are you?")) for who in crowd))
            for who in crowd:
                running.signs.resume(Address("telegram", f"chat-{who}"))  # which makes it look again
                await asyncio.sleep(0.05)
            await until(lambda: len(asked) > 1)
            assert len(asked) <= (monotonic() - began) / 0.4 + 1
            waits = InboundEvent.objects.filter(done_at=None)
            await db.call(lambda: waits.update(status="done", done_at=clock.now()))
            await running.until_off()
            asked.clear()
            await asyncio.sleep(1)  # in which it would ask twice

    async_to_sync(scene)()

    assert asked == []


def test_an_old_look_does_not_end_the_sign_of_a_new_message(monkeypatch: pytest.MonkeyPatch) -> None:
    looking, go_on = threading.Event(), threading.Event()

    def look(conversations: Collection[int], addresses: Collection[Address]) -> set[tuple[int, Address]]:
        if go_on.is_set():
            return unanswered(conversations, addresses)
        looking.set()
        go_on.wait(PATIENCE)
        return set()

    monkeypatch.setattr(typing_signs, "unanswered", look)
    known("alice")
    adapter = Typist()
    said = message("alice", "how are you?")

    async def scene() -> None:
        async with bots(adapter, has_pool=False) as running:
            await running.receive(said)
            await until(looking.is_set)
            running.signs.begin(running.signs._signs[ALICE].conversation_id, said)  # another one that is stored now
            go_on.set()
            before = len(adapter.log)
            await until(lambda: len(adapter.log) > before + 3)

    async_to_sync(scene)()


def test_it_rests_as_long_as_the_platform_asks() -> None:
    known("alice", "bob")
    adapter = Typist()
    adapter.trouble = DeliveryError("too many", retry_after=3600)

    async def scene() -> None:
        async with bots(adapter, has_pool=False) as running:
            await running.receive(message("alice", "how are you?"))
            await until(lambda: adapter.log)
            adapter.trouble = None
            running.signs.pause(ALICE)  # a message there changes nothing
            running.signs.resume(ALICE)
            await running.receive(message("bob", "how are you?"))
            await until(lambda: adapter.shown[-1].chat_id == "chat-bob")  # after a second

    async_to_sync(scene)()

    assert adapter.shown.count(ALICE) == 1


def test_it_is_shown_when_the_rest_is_over() -> None:
    known("alice")
    adapter = Typist()
    adapter.typing_seconds = 3600
    adapter.trouble = DeliveryError("too many", retry_after=0.05)

    async def scene() -> None:
        async with bots(adapter, has_pool=False) as running:
            await running.receive(message("alice", "how are you?"))
            await until(lambda: adapter.log)
            adapter.trouble = None
            await until(lambda: len(adapter.log) > 1)

    async_to_sync(scene)()


def test_it_rests_where_a_message_came_too_soon() -> None:
    known("alice")
    adapter = Typist()

    async def scene() -> None:
        async with bots(adapter, has_pool=False) as running:
            running.signs.resume(ALICE, rest=3600)
            await running.receive(message("alice", "how are you?"))
            await running.receive(message("bob", "how are you?"))
            await until(lambda: adapter.log)

    async_to_sync(scene)()

    assert ALICE not in adapter.shown


def test_the_topics_of_a_chat_share_its_calls() -> None:
    known("alice")
    adapter = Typist()
    adapter.typing_seconds = 3600
    said = [message("alice", "hi", group="pub") for _ in range(3)]
    said = [replace(one, address=replace(one.address, thread_id=f"{nth}")) for nth, one in enumerate(said)]

    async def scene() -> None:
        async with bots(adapter, has_pool=False) as running:
            for one in [*said, message("bob", "hi")]:
                await running.receive(one)
            await until(lambda: adapter.shown and adapter.shown[-1].chat_id == "chat-bob")
            assert len(running.signs._signs) == 4

    async_to_sync(scene)()

    assert len(adapter.shown) == 2


def test_it_is_taken_back_where_the_platform_would_keep_it() -> None:
    known("alice", "bob")
    adapter = Keeper()
    assert isinstance(adapter, ShowsTyping)
    assert isinstance(adapter, HidesTyping)

    async def scene() -> None:
        async with bots(adapter) as running:
            await running.receive(message("alice", "how are you?"))
            await until(lambda: adapter.log)
            running.told.set()
            await running.until_off()
            assert "(hidden)" not in adapter.log  # the answer did it
        adapter.log.clear()
        async with bots(adapter, has_pool=False) as running:
            await running.receive(message("bob", "how are you?"))
            await until(lambda: adapter.log)
            waits = InboundEvent.objects.filter(done_at=None)
            await db.call(lambda: waits.update(status="done", done_at=clock.now()))
            await until(lambda: "(hidden)" in adapter.log)

    async_to_sync(scene)()

    assert adapter.log[-1] == "(hidden)"


def test_an_adapter_without_a_sign_costs_nothing() -> None:
    adapter = RecordingAdapter("telegram")

    async def scene() -> None:
        async with bots(adapter, has_pool=False) as running:
            await running.receive(message("alice", "how are you?"))
            assert not running.signs._signs

    async_to_sync(scene)()


def test_it_is_shown_for_a_message_that_a_page_received() -> None:
    adapter = Typist()

    async def scene() -> None:
        async with bots(adapter, has_pool=False) as running:
            running.signs.look_at(await db.call(receive, "alice", "how are you?"))
            await until(lambda: ALICE in adapter.shown)

    async_to_sync(scene)()


def test_one_statement_says_where_an_answer_is_to_come() -> None:
    conversations = [receive("alice", "hello"), receive("bob", "hello"), receive("carol", "hello")]
    OutboundDelivery.objects.all().delete()
    bob, carol, dave = (Address("telegram", f"chat-{who}") for who in ("bob", "carol", "dave"))
    event = InboundEvent.objects.get(conversation=conversations[1])
    InboundEvent.objects.filter(conversation__in=conversations[1:]).update(status="done", done_at=clock.now())

    def answer(address: Address, **fields: object) -> None:
        place = {"platform": address.platform, "chat_id": address.chat_id}
        OutboundDelivery.objects.create(**place, text="hi", **({"event": event} | fields))

    assert inbox.receive(message("alice", "/new"), resolver=DATABASE) == conversations[0]
    InboundEvent.objects.filter(kind="command").update(chat_id="chat-dave")  # waits, and asks no agent
    answer(bob)
    answer(carol, status="sent", settled_at=clock.now())
    answer(carol, event=None)  # no answer
    answer(dave, not_before=clock.seconds_from_now(60 + SOON))

    with CaptureQueriesContext(connection) as queries:
        found = unanswered(conversations, [ALICE, bob, carol, dave])

    assert found == {(conversations[0], ALICE), (0, bob)}
    assert len(queries) == 1
