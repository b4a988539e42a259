from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from asgiref.sync import SyncToAsync, async_to_sync
from django.db import OperationalError, connections, transaction
from django.test import override_settings

from identity.support import clock
from sessions_app import db
from sessions_app.agents import AgentsStandStill, PermanentFailure, as_agent
from sessions_app.messages import Agent, Reply, Turn
from sessions_app.models import CRASHES_BEFORE_QUARANTINE, HistoryEntry, InboundEvent, Lane, OutboundDelivery
from sessions_app.turns import lifecycle
from sessions_app.turns.pool import MAX_LOSSES, MAX_TROUBLES, Service, TurnPool
from tests.sessions_app.talk import DATABASE, PLATFORMS, Signal, receive

pytestmark = pytest.mark.django_db(transaction=True)

PEOPLE = 100


class Counted:
    """Wakes who waits for a number of deliveries."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()

    def up(self) -> None:
        self._changed.set()

    async def wait_for(self, count: int) -> None:
        async with asyncio.timeout(30):
            while await db.call(OutboundDelivery.objects.count) < count:
                await self.change()

    async def change(self) -> None:
        await self._changed.wait()
        self._changed.clear()


@asynccontextmanager
async def pool_of(agent: Agent, size: int = 128, *, is_shared: bool = False) -> AsyncIterator[tuple[TurnPool, Counted]]:
    """A running pool, and a counter of what it wants sent."""
    counted, stop = Counted(), asyncio.Event()
    services = {platform: Service(agent, DATABASE) for platform in PLATFORMS}
    pool = TurnPool(services, size=size, on_outgoing=counted.up, is_shared=is_shared)
    running = asyncio.create_task(pool.run(stop))
    try:
        yield pool, counted
    finally:
        stop.set()
        await running


async def tell(pool: TurnPool, who: str, text: str) -> None:
    pool.notify(await db.call(receive, who, text))


async def nothing_waits(counted: Counted) -> None:
    async with asyncio.timeout(30):
        while await db.call(InboundEvent.objects.filter(done_at=None).exists):
            await counted.change()


class AllAtOnce:
    """Answers nobody before everybody has asked."""

    def __init__(self) -> None:
        self._barrier = asyncio.Barrier(PEOPLE)

    async def reply(self, turn: Turn) -> Reply:
        await self._barrier.wait()
        return Reply(f"You said {turn.text}")


def test_it_answers_a_hundred_people_at_once() -> None:
    async def scene() -> None:
        async with pool_of(AllAtOnce()) as (pool, counted):
            for number in range(PEOPLE):
                await tell(pool, f"p{number}", f"hello {number}")
            await counted.wait_for(PEOPLE)

    async_to_sync(scene)()

    said = HistoryEntry.objects.filter(role="assistant").values_list("author__platform_user_id", "text")
    assert set(said) == {(f"p{number}", f"You said hello {number}") for number in range(PEOPLE)}


def test_it_answers_a_hundred_people_at_once_with_a_synchronous_agent() -> None:
    barrier = threading.Barrier(PEOPLE, timeout=30)

    class Blocking:
        def chat(self, prompt: str) -> str:
            barrier.wait()
            return f"You said {prompt}"

    async def scene() -> None:
        async with pool_of(as_agent(Blocking)) as (pool, counted):
            for number in range(PEOPLE):
                await tell(pool, f"p{number}", f"hello {number}")
            await counted.wait_for(PEOPLE)

    async_to_sync(scene)()

    assert HistoryEntry.objects.filter(role="assistant").count() == PEOPLE


class Recorder:
    """Notes who is being answered, and fails the test if one person is answered twice at a time."""

    def __init__(self) -> None:
        self.inside: set[str] = set()
        self.most = 0

    async def reply(self, turn: Turn) -> Reply:
        person = turn.context.unified_user_id
        assert person not in self.inside
        self.inside.add(person)
        self.most = max(self.most, len(self.inside))
        await asyncio.sleep(0)
        self.inside.discard(person)
        return Reply(f"re: {turn.text}")


def test_it_keeps_each_person_in_order_while_people_overlap() -> None:
    people = [f"p{number}" for number in range(10)]

    async def scene() -> None:
        async with pool_of(Recorder()) as (pool, counted):
            for number in range(10):
                for who in people:
                    await tell(pool, who, f"{number}")
            await nothing_waits(counted)

    async_to_sync(scene)()

    for who in people:
        said = HistoryEntry.objects.filter(author__platform_user_id=who, role="user").order_by("said_at", "id")
        assert [entry.text for entry in said] == [f"{number}" for number in range(10)]


def test_it_answers_what_came_while_the_lane_was_held() -> None:
    class Gate:
        def __init__(self) -> None:
            self.entered, self.open = Signal(), Signal()

        async def reply(self, turn: Turn) -> Reply:
            self.entered.set()
            await self.open.wait()
            return Reply(f"re: {turn.text}")

    async def scene() -> None:
        gate = Gate()
        async with pool_of(gate) as (pool, counted):
            await tell(pool, "alice", "one")
            await gate.entered.wait()
            await tell(pool, "alice", "two")
            await tell(pool, "alice", "three")
            gate.open.set()
            await counted.wait_for(2)

    with override_settings(BOTOS_SWEEP_SECONDS=3600):  # the hint alone must do
        async_to_sync(scene)()

    said = HistoryEntry.objects.order_by("said_at", "id").values_list("text", flat=True)
    assert list(said) == ["one", "re: one", "two", "three", "re: two\nthree"]


def test_it_works_on_one_message_at_a_time_that_crashed_before_and_on_others_meanwhile() -> None:
    people = ["alice", "bob", "carol"]
    crashed = [receive(who, "hello") for who in people]
    InboundEvent.objects.update(starts=CRASHES_BEFORE_QUARANTINE - 1)

    class Watchful:
        def __init__(self) -> None:
            self.now: list[str] = []
            self.most, self.entered, self.dave = 0, Signal(), Signal()

        async def reply(self, turn: Turn) -> Reply:
            if turn.context.user_id == "dave":
                self.dave.set()
                return Reply("hello")
            self.now.append(turn.context.user_id)
            self.most = max(self.most, len(self.now))
            self.entered.set()
            await self.dave.wait()
            self.now.remove(turn.context.user_id)
            return Reply("hello")

    async def scene() -> None:
        agent = Watchful()
        async with pool_of(agent) as (pool, counted):
            pool.notify(crashed[0])
            await agent.entered.wait()
            pool.notify(crashed[1])
            pool.notify(crashed[2])
            await tell(pool, "dave", "hello")
            await counted.wait_for(4)
        assert agent.most == 1

    with override_settings(BOTOS_SWEEP_SECONDS=3600):  # the end of one such turn must start the next
        async_to_sync(scene)()

    assert OutboundDelivery.objects.filter(text="hello").count() == 4


def test_it_looks_again_when_a_message_that_settles_is_ready() -> None:
    @transaction.atomic
    def receive_both() -> int:
        conversation, _ = (receive("alice", text) for text in ("one", "two"))
        InboundEvent.objects.update(ready_at=clock.seconds_from_now(0.3))
        return conversation

    async def scene() -> None:
        async with pool_of(Recorder()) as (pool, counted):
            pool.notify(await db.call(receive_both))
            await counted.wait_for(1)

    with override_settings(BOTOS_SWEEP_SECONDS=3600):  # the sweep would be too late
        async_to_sync(scene)()

    assert OutboundDelivery.objects.get().text == "re: one\ntwo"


def test_it_finds_what_nobody_told_it_of() -> None:
    receive("alice", "hello")

    async def scene() -> None:
        async with pool_of(Recorder()) as (_, counted):
            await counted.wait_for(1)

    async_to_sync(scene)()

    assert OutboundDelivery.objects.get().text == "re: hello"


class Broken:
    async def reply(self, turn: Turn) -> Reply:
        if turn.text == "raise":
            raise RuntimeError("boom")
        if turn.text == "hang":
            await asyncio.Event().wait()
        return Reply("" if turn.text == "nothing" else "fine")


@pytest.mark.parametrize("is_shared", [False, True])
def test_a_message_that_fails_holds_no_other_back(is_shared: bool) -> None:
    class Strict:
        def __init__(self) -> None:
            self.is_late = False

        async def reply(self, turn: Turn) -> Reply:
            if turn.text == "hard" and not self.is_late:
                raise RuntimeError("boom")
            return Reply(f"re: {turn.text}")

    async def scene() -> None:
        agent = Strict()
        async with pool_of(agent, is_shared=is_shared) as (pool, counted):
            await tell(pool, "alice", "hard")
            await counted.wait_for(1)
            for number in (1, 2):
                await tell(pool, "alice", f"easy {number}")
                await counted.wait_for(1 + number)
            assert await db.call(InboundEvent.objects.filter(text="hard", done_at=None).exists)
            agent.is_late = True
            await nothing_waits(counted)

    with override_settings(BOTOS_SWEEP_SECONDS=3600):  # the sweep would be too late
        async_to_sync(scene)()

    _, *answers = OutboundDelivery.objects.order_by("id").values_list("text", flat=True)
    assert answers == ["re: easy 1", "re: easy 2", "re: hard"]
    said = HistoryEntry.objects.order_by("said_at", "id").values_list("text", flat=True)
    assert list(said) == ["hard", "re: hard", "easy 1", "re: easy 1", "easy 2", "re: easy 2"]


@pytest.mark.parametrize("way", ["raise", "hang", "nothing"])
def test_it_is_honest_when_the_agent_fails_and_goes_on_with_others(way: str) -> None:
    async def scene() -> None:
        async with pool_of(Broken()) as (pool, counted):
            await tell(pool, "alice", way)
            await tell(pool, "bob", "hello")
            await counted.wait_for(2)

    with override_settings(BOTOS_TURN_SECONDS=0.2):
        async_to_sync(scene)()

    told = OutboundDelivery.objects.get(chat_id="chat-alice")
    assert told.text.startswith("I couldn't answer that just now. I saved your message")
    assert InboundEvent.objects.get(text=way).done_at is None
    assert OutboundDelivery.objects.get(chat_id="chat-bob").text == "fine"


def test_it_ends_a_turn_at_once_that_would_fail_again() -> None:
    asked: list[str] = []

    class Strict:
        async def reply(self, turn: Turn) -> Reply:
            asked.append(turn.text)
            if turn.text == "long":
                raise PermanentFailure("too long", "That's too long for me. Send /new.")
            return Reply("fine")

    async def scene() -> None:
        async with pool_of(Strict()) as (pool, counted):
            pool.notify(await db.call(receive, "alice", "long", platform="slack"))
            await counted.wait_for(1)
            pool.notify(await db.call(receive, "alice", "short", platform="slack"))
            await counted.wait_for(2)

    async_to_sync(scene)()

    assert asked == ["long", "short"]
    said = OutboundDelivery.objects.order_by("id").values_list("text", flat=True)
    assert list(said) == ["That's too long for me. Send !new.", "fine"]
    event = InboundEvent.objects.get(text="long")
    assert (event.status, event.done_at is None) == (InboundEvent.Status.GIVEN_UP, False)
    assert HistoryEntry.objects.filter(role="user", text="long").exists()


def test_it_gives_back_what_it_cannot_finish_in_time() -> None:
    class Forever:
        def __init__(self) -> None:
            self.entered = Signal()

        async def reply(self, turn: Turn) -> Reply:
            self.entered.set()
            await asyncio.Event().wait()
            raise AssertionError

    async def scene() -> None:
        agent = Forever()
        async with pool_of(agent) as (pool, _):
            await tell(pool, "alice", "hello")
            await agent.entered.wait()

    with override_settings(BOTOS_DRAIN_SECONDS=0.05):
        async_to_sync(scene)()

    event, lane = InboundEvent.objects.get(), Lane.objects.get()
    assert (event.starts, event.done_at, lane.owner) == (0, None, "")


def test_it_ends_an_agent_that_does_not_let_itself_be_cancelled() -> None:
    class Stubborn:
        def __init__(self) -> None:
            self.enough = Signal()

        async def reply(self, turn: Turn) -> Reply:
            while not self.enough.is_set():
                try:
                    await self.enough.wait()
                except asyncio.CancelledError:
                    continue
            return Reply("too late")

    async def scene() -> None:
        agent = Stubborn()
        async with pool_of(agent) as (pool, counted):
            await tell(pool, "alice", "hello")
            await counted.wait_for(1)
        agent.enough.set()

    with override_settings(BOTOS_TURN_SECONDS=0.1):
        async_to_sync(scene)()

    assert OutboundDelivery.objects.get().text.startswith("I couldn't answer that just now")


def test_it_lets_a_lease_run_out_when_a_turn_could_not_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    def unwritable(*args: object, **kwargs: object) -> None:
        raise OperationalError("the database is away")

    monkeypatch.setattr("sessions_app.turns.lifecycle.finish_together", unwritable)

    async def scene() -> None:
        asked, left_out = Signal(), Signal()

        def renew(leases: list[object]) -> None:
            if asked.is_set() and not leases:
                left_out.set()

        monkeypatch.setattr("sessions_app.turns.leases.renew", renew)

        class Quick:
            async def reply(self, turn: Turn) -> Reply:
                asked.set()
                return Reply("fine")

        async with pool_of(Quick()) as (pool, _):
            await tell(pool, "alice", "hello")
            await asked.wait()
            await asyncio.wait_for(left_out.wait(), 10)

    with override_settings(BOTOS_LEASE_SECONDS=0.03):
        async_to_sync(scene)()

    assert Lane.objects.get().owner != ""  # nobody gave it back
    assert InboundEvent.objects.get().reason == "not answered: OperationalError"


@pytest.mark.parametrize(
    ("error", "times", "becomes"),
    [
        (OperationalError("database or disk is full"), 10, "done"),
        (OperationalError("too much for it"), MAX_TROUBLES + CRASHES_BEFORE_QUARANTINE, "quarantined"),
        (lifecycle.LeaseLost(), MAX_LOSSES + CRASHES_BEFORE_QUARANTINE - 1, "done"),
        (lifecycle.LeaseLost(), MAX_LOSSES + CRASHES_BEFORE_QUARANTINE, "quarantined"),  # it may be what stands still
        (ValueError("a text that no database keeps"), CRASHES_BEFORE_QUARANTINE, "quarantined"),
    ],
)
def test_it_holds_no_trouble_of_the_database_against_a_message(
    monkeypatch: pytest.MonkeyPatch, error: Exception, times: int, becomes: str
) -> None:
    left, finish = [error] * times, lifecycle.finish_together

    def finish_at_last(*args: Any, **kwargs: Any) -> Any:
        if left:
            raise left.pop()
        return finish(*args, **kwargs)

    monkeypatch.setattr("sessions_app.turns.lifecycle.finish_together", finish_at_last)

    async def scene() -> None:
        async with pool_of(Recorder()) as (pool, counted):
            await tell(pool, "alice", "hello")
            await nothing_waits(counted)

    with override_settings(BOTOS_LEASE_SECONDS=0.1, BOTOS_SWEEP_SECONDS=0.03):
        async_to_sync(scene)()

    event = InboundEvent.objects.get()
    assert event.status == becomes
    assert event.reason.startswith("quarantined: processes ended" if becomes == "quarantined" else "")


class Interrupted:
    """While it thinks, the same person writes again, and another process is told of it."""

    async def reply(self, turn: Turn) -> Reply:
        if turn.text == "first":
            await db.call(receive, "alice", "second")
        return Reply(f"You said {turn.text}")


@pytest.fixture
def _threads_of_agents() -> Iterator[None]:
    """An agent's calls to the database run in a thread that outlives the test."""
    yield
    SyncToAsync.single_thread_executor.submit(connections.close_all).result(5)


@pytest.mark.usefixtures("_threads_of_agents")
@override_settings(BOTOS_SWEEP_SECONDS=600)
def test_it_looks_again_after_a_turn_where_others_are_told_too() -> None:
    async def talk() -> None:
        async with pool_of(Interrupted(), is_shared=True) as (pool, counted):
            await tell(pool, "alice", "first")
            await counted.wait_for(2)

    async_to_sync(talk)()

    assert OutboundDelivery.objects.filter(text="You said second").exists()


class OwnEnd(BaseException):
    """Of an agent's own making."""


class Ending:
    """Ends in the way that it is told to, and answers everything else."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    async def reply(self, turn: Turn) -> Reply:
        if turn.text == "end":
            raise self.error
        return Reply("fine")


@pytest.mark.parametrize(
    "error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), asyncio.CancelledError(), OwnEnd()]
)
def test_it_takes_whatever_an_agent_raises_for_its_failure(error: BaseException) -> None:
    async def scene() -> None:
        async with pool_of(Ending(error)) as (pool, counted):
            await tell(pool, "alice", "end")
            await counted.wait_for(1)
            await tell(pool, "bob", "hello")
            await counted.wait_for(2)

    async_to_sync(scene)()

    event = InboundEvent.objects.get(text="end")
    assert (event.starts, event.failures, event.done_at) == (1, 1, None)
    assert OutboundDelivery.objects.get(chat_id="chat-alice").text.startswith("I couldn't answer that just now")
    assert OutboundDelivery.objects.get(chat_id="chat-bob").text == "fine"


def test_it_takes_no_start_back_while_nobody_asked_it_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Signal()

    async def cancelled(*args: object, **kwargs: object) -> str:
        asked.set()
        raise asyncio.CancelledError

    monkeypatch.setattr("sessions_app.agents.reply_to", cancelled)

    async def scene() -> None:
        async with pool_of(Recorder()) as (pool, _):
            await tell(pool, "alice", "hello")
            await asked.wait()
            await asyncio.gather(*pool._turns, return_exceptions=True)

    async_to_sync(scene)()

    assert InboundEvent.objects.get().starts == 1


def test_it_goes_on_with_everything_else_while_an_agent_computes() -> None:
    entered, enough = threading.Event(), threading.Event()

    class Computing:
        async def reply(self, turn: Turn) -> Reply:
            entered.set()
            enough.wait(30)  # awaits nothing
            return Reply("done")

    async def scene() -> None:
        async with pool_of(Computing()) as (pool, counted):
            await tell(pool, "alice", "hello")
            await asyncio.to_thread(entered.wait, 30)
            await tell(pool, "bob", "/retry")
            await counted.wait_for(1)
            assert not enough.is_set()
            enough.set()
            await counted.wait_for(2)

    async_to_sync(scene)()

    first, second = OutboundDelivery.objects.order_by("id")
    assert (first.chat_id, second.text) == ("chat-bob", "done")


def test_it_ends_and_gives_back_what_runs_when_no_agent_can_be_asked_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*args: object, **kwargs: object) -> str:
        raise AgentsStandStill("the agents' loops stand still")

    monkeypatch.setattr("sessions_app.agents.reply_to", refuse)

    async def scene() -> None:
        async with pool_of(Recorder()) as (pool, _):
            await tell(pool, "alice", "hello")
            await pool._is_hopeless.wait()

    with pytest.raises(AgentsStandStill):
        async_to_sync(scene)()

    event, lane = InboundEvent.objects.get(), Lane.objects.get()
    assert (event.starts, event.failures, lane.owner) == (0, 0, "")
    assert not OutboundDelivery.objects.exists()


@override_settings(BOTOS_SWEEP_SECONDS=3600)
@pytest.mark.parametrize("is_given_up", [False, True])
def test_it_asks_at_once_what_a_command_has_made_ready(*, is_given_up: bool) -> None:
    def fail() -> None:
        receive("alice", "hello")
        aside = {"failures": 1, "starts": 1, "ready_at": clock.seconds_from_now(3600)}
        given_up = {"status": "given up", "done_at": clock.now()}
        InboundEvent.objects.update(**given_up if is_given_up else aside)

    async def scene() -> None:
        async with pool_of(Recorder()) as (pool, counted):
            await db.call(fail)
            await tell(pool, "alice", "/retry")
            await nothing_waits(counted)

    async_to_sync(scene)()

    assert HistoryEntry.objects.filter(text="re: hello").exists()
