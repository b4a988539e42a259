from __future__ import annotations

import asyncio
import threading
from collections.abc import Collection, Sequence
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.db import DatabaseError

from identity.support import clock
from sessions_app.models import HistoryEntry, InboundEvent, Lane, OutboundDelivery
from sessions_app.turns import lifecycle
from sessions_app.turns.batch_writer import MAX_AT_ONCE, Writer
from sessions_app.turns.lifecycle import Answer
from tests.sessions_app.talk import claim, is_busy, receive

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many turns were asked to be written in each transaction."""
    asked: list[int] = []
    really = lifecycle.finish_together

    def finish_together(answers: Collection[Answer], *, sender: Any) -> Any:
        asked.append(len(answers))
        return really(answers, sender=sender)

    monkeypatch.setattr("sessions_app.turns.lifecycle.finish_together", finish_together)
    return asked


def answered(*people: str) -> list[Answer]:
    return [Answer(claim(receive(who, f"I am {who}")), f"Hello, {who}", 2000) for who in people]


def write(answers: Sequence[Answer]) -> list[BaseException | None]:
    """What came of each, when all are to be written at once."""

    async def all_at_once() -> list[BaseException | None]:
        writer = Writer(on_outgoing=lambda: None)
        return await asyncio.gather(*(writer.finish(answer) for answer in answers), return_exceptions=True)

    return async_to_sync(all_at_once)()


def said() -> set[str]:
    return set(HistoryEntry.objects.filter(role="assistant").values_list("text", flat=True))


def test_it_writes_what_waits_in_one_transaction_but_not_too_much(batches: list[int]) -> None:
    people = [f"person-{number}" for number in range(MAX_AT_ONCE + 5)]

    outcomes = write(answered(*people))

    assert set(outcomes) == {None}
    assert batches == [MAX_AT_ONCE, 5]
    assert said() == {f"Hello, {who}" for who in people}
    assert OutboundDelivery.objects.count() == len(people)
    assert not InboundEvent.objects.filter(done_at=None).exists()


def test_it_lets_one_that_cannot_be_written_take_no_other_with_it(batches: list[int]) -> None:
    alice, bob, carol = answered("alice", "bob", "carol")
    Lane.objects.filter(pk=bob.claim.lease.conversation.pk).update(fence=99, lease_until=clock.seconds_from_now(30))

    outcomes = write([alice, bob, carol])

    assert [type(outcome) for outcome in outcomes] == [type(None), lifecycle.LeaseLost, type(None)]
    assert batches == [3, 1, 1, 1]
    assert said() == {"Hello, alice", "Hello, carol"}
    assert OutboundDelivery.objects.count() == 2
    assert is_busy(bob.claim.lease.conversation.pk)


def test_it_tells_each_of_a_dead_database_and_goes_on_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = answered("alice", "bob")
    outage = [DatabaseError("gone")] * 3
    really = lifecycle.finish_together

    def finish_together(answers: Collection[Answer], *, sender: Any) -> Any:
        if outage:
            raise outage.pop()
        return really(answers, sender=sender)

    monkeypatch.setattr("sessions_app.turns.lifecycle.finish_together", finish_together)
    assert [type(outcome) for outcome in write(answers)] == [DatabaseError, DatabaseError]
    assert write(answers) == [None, None]
    assert said() == {"Hello, alice", "Hello, bob"}


def test_it_goes_on_after_it_had_nothing_to_do(batches: list[int]) -> None:
    alice, bob = answered("alice", "bob")

    async def one_after_the_other() -> None:
        writer = Writer(on_outgoing=lambda: None)
        for answer in (alice, bob):
            await asyncio.wait_for(writer.finish(answer), 20)
            await asyncio.sleep(0)

    async_to_sync(one_after_the_other)()

    assert said() == {"Hello, alice", "Hello, bob"}
    assert batches == [1, 1]


def test_it_leaves_out_what_nobody_waits_for_any_more(batches: list[int]) -> None:
    alice, bob, carol = answered("alice", "bob", "carol")

    async def give_up_on_bob() -> None:
        writer = Writer(on_outgoing=lambda: None)
        jobs = [asyncio.create_task(writer.finish(answer)) for answer in (alice, bob, carol)]
        await asyncio.sleep(0)
        jobs[1].cancel()
        await asyncio.gather(*jobs, return_exceptions=True)

    async_to_sync(give_up_on_bob)()

    assert said() == {"Hello, alice", "Hello, carol"}
    assert batches == [2]
    lifecycle.release(bob.claim)
    assert claim(bob.claim.lease.conversation.pk).events == bob.claim.events


def test_it_writes_nothing_when_nobody_waits_any_more(batches: list[int]) -> None:
    (alice,) = answered("alice")

    async def give_up() -> None:
        job = asyncio.create_task(Writer(on_outgoing=lambda: None).finish(alice))
        await asyncio.sleep(0)
        job.cancel()
        await asyncio.gather(job, return_exceptions=True)
        await asyncio.sleep(0.1)

    async_to_sync(give_up)()

    assert batches == []


def test_it_tells_the_others_when_one_gives_up_while_it_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    answers, writing, given_up = answered("alice", "bob", "carol"), threading.Event(), threading.Event()
    really = lifecycle.finish_together

    def finish_together(answers: Collection[Answer], *, sender: Any) -> Any:
        writing.set()
        assert given_up.wait(20)
        return really(answers, sender=sender)

    monkeypatch.setattr("sessions_app.turns.lifecycle.finish_together", finish_together)

    async def give_up_on_bob() -> list[object]:
        writer = Writer(on_outgoing=lambda: None)
        jobs = [asyncio.create_task(writer.finish(answer)) for answer in answers]
        await asyncio.to_thread(writing.wait, 20)
        jobs[1].cancel()
        await asyncio.sleep(0)
        given_up.set()
        return await asyncio.wait_for(asyncio.gather(*jobs, return_exceptions=True), 20)

    outcomes = async_to_sync(give_up_on_bob)()

    assert [type(outcome) for outcome in outcomes] == [type(None), asyncio.CancelledError, type(None)]
    assert said() == {"Hello, alice", "Hello, bob", "Hello, carol"}
