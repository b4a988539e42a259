"""The beginning of an answer is sent by who wrote the turn, without another claim, where nothing stands before it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.conf import settings

from adapters.runtime.delivery_worker import MAX_CALLS, DeliveryWorker
from sessions_app import db
from sessions_app.messages import Address
from sessions_app.models import InboundEvent, OutboundDelivery
from sessions_app.outbox import queue as outbox_queue
from sessions_app.outbox.queue import Queued, Sender, Unsent
from sessions_app.turns import drafts, lifecycle
from sessions_app.turns.batch_writer import Writer
from sessions_app.turns.lifecycle import Answer
from tests.adapters.test_delivery_worker import Platform
from tests.sessions_app.moments import StillClock
from tests.sessions_app.talk import claim, receive

pytestmark = pytest.mark.django_db(transaction=True)

HERE = Sender("here", ("telegram",), 0.0)


def answer(who: str = "alice", text: str = "hi", *, limit: int = 2000) -> Answer:
    return Answer(claim(receive(who, "hello")), text, limit)


def written(*answers: Answer, sender: Sender | None = HERE) -> Queued:
    return lifecycle.finish_together(answers, sender=sender)


def states() -> list[tuple[str, str, str, int]]:
    """Text, status, owner and attempts of each delivery, in order."""
    rows = OutboundDelivery.objects.order_by("id").values_list("text", "status", "owner", "attempts")
    return list(rows)


def test_it_takes_the_beginning_of_an_answer_and_leaves_the_rest() -> None:
    queued = written(answer(text="one two", limit=4))

    assert states() == [("one", "sending", "here", 1), ("two", "pending", "", 0)]
    assert queued.waits
    (taken,) = queued.taken
    stored = OutboundDelivery.objects.get(text="one")
    known = ("pk", "platform", "chat_id", "thread_id", "text", "nonce", "event_id", "entry_id", "owner", "attempts")
    assert [getattr(taken, name) for name in known] == [getattr(stored, name) for name in known]
    assert not stored.possibly_sent


def test_it_leaves_nothing_to_be_claimed_where_all_is_taken() -> None:
    assert not written(answer("alice"), answer("bob")).waits

    assert [status for _, status, _, _ in states()] == ["sending", "sending"]


def test_it_takes_nothing_for_nobody() -> None:
    assert written(answer(), sender=None) == Queued([], waits=True)

    assert states() == [("hi", "pending", "", 0)]


def test_it_takes_nothing_for_one_who_cannot_send_there() -> None:
    assert written(answer(), sender=Sender("here", ("discord",), 0.0)).taken == []

    assert states() == [("hi", "pending", "", 0)]


@pytest.mark.parametrize("status", ["pending", "sending"])
def test_it_takes_nothing_where_something_stands_before_it(status: str) -> None:
    told = answer()
    outbox_queue.queue(Address("telegram", told.claim.head.chat_id), "a notice")
    OutboundDelivery.objects.update(status=status)

    assert written(told).taken == []

    assert [status for _, status, _, _ in states()] == [status, "pending"]


def test_it_takes_what_stands_behind_settled_ones_and_at_other_addresses() -> None:
    told = answer()
    outbox_queue.queue(Address("telegram", told.claim.head.chat_id), "sent before")
    for delivery in outbox_queue.claim(owner="here", platforms=["telegram"]):
        outbox_queue.settle([outbox_queue.Sent(delivery, "7")])
    outbox_queue.queue(Address("telegram", told.claim.head.chat_id, "a thread"), "elsewhere")
    outbox_queue.queue(Address("discord", told.claim.head.chat_id), "elsewhere")

    assert [delivery.text for delivery in written(told).taken] == ["hi"]


@pytest.mark.parametrize("sender", [HERE, None])
def test_it_puts_the_answer_in_the_place_of_its_draft(sender: Sender | None) -> None:
    told, other = answer("alice"), answer("bob")
    drafts.write(told.claim, "h")
    drafts.write(other.claim, "so far")

    written(told, sender=sender)

    assert [(text, status) for text, status, _, _ in states()] == [
        ("so far", "drafting"),
        ("hi", "sending" if sender else "pending"),
    ]


def test_a_sender_that_vanished_leaves_what_it_took_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    still = StillClock().put_in_place(monkeypatch)
    written(answer())

    assert outbox_queue.claim(owner="other", platforms=["telegram"]) == []
    still.move(settings.BOTOS_SEND_SECONDS)
    (delivery,) = outbox_queue.claim(owner="other", platforms=["telegram"])

    assert delivery.possibly_sent


def test_it_gives_back_what_it_did_not_send() -> None:
    (taken,) = written(answer()).taken

    assert outbox_queue.settle([Unsent(taken)])

    assert states() == [("hi", "pending", "", 0)]
    (delivery,) = outbox_queue.claim(owner="other", platforms=["telegram"])
    assert not delivery.possibly_sent


def test_it_gives_back_nothing_that_another_has_taken_over(monkeypatch: pytest.MonkeyPatch) -> None:
    still = StillClock().put_in_place(monkeypatch)
    (taken,) = written(answer()).taken
    still.move(settings.BOTOS_SEND_SECONDS)
    outbox_queue.claim(owner="other", platforms=["telegram"])

    outbox_queue.settle([Unsent(taken)])

    assert states() == [("hi", "sending", "other", 2)]


@pytest.mark.parametrize(("ahead", "is_due"), [(True, True), (False, False)])
def test_it_says_whether_others_wait_behind_what_was_sent(ahead: bool, is_due: bool) -> None:
    queued = written(answer(text="one two" if ahead else "one", limit=4))

    assert outbox_queue.settle([outbox_queue.Sent(queued.taken[0], "7")]) is is_due


def through_a_worker(answers: list[Answer], scene: Callable[[DeliveryWorker, asyncio.Event], Any]) -> Platform:
    """Write these answers beside a running delivery worker, which stops when its `scene` sets the event."""
    platform = Platform("7")

    async def run() -> None:
        stop, is_up = asyncio.Event(), asyncio.Event()

        def adapters() -> dict[str, Platform]:
            is_up.set()
            return {"telegram": platform}

        worker = DeliveryWorker(adapters)
        running = asyncio.create_task(worker.run(stop))
        await is_up.wait()
        await scene(worker, stop)
        writer = Writer(on_outgoing=worker.wake, sending=worker)
        await asyncio.gather(*map(writer.finish, answers))
        await writer.join()
        if not stop.is_set():
            await asyncio.wait_for(platform.called.wait(), 10)
        stop.set()
        await asyncio.wait_for(running, 10)

    async_to_sync(run)()
    return platform


async def goes_on(worker: DeliveryWorker, stop: asyncio.Event) -> None:
    """The worker runs until the answer is sent."""


def test_it_sends_an_answer_without_claiming_it(monkeypatch: pytest.MonkeyPatch) -> None:
    told = answer()

    def refuse(**asked: object) -> list[OutboundDelivery]:
        return []

    monkeypatch.setattr("sessions_app.outbox.queue.claim", refuse)

    assert through_a_worker([told], goes_on).sent == ["hi"]
    assert OutboundDelivery.objects.get().status == OutboundDelivery.Status.SENT


def test_it_sends_all_parts_in_order() -> None:
    platform = through_a_worker([answer(text="one two six", limit=4)], goes_on)

    while OutboundDelivery.objects.filter(settled_at=None).exists():  # the worker stopped after the first
        for delivery in outbox_queue.claim(owner="other", platforms=["telegram"]):
            platform.sent.append(delivery.text)
            outbox_queue.settle([outbox_queue.Sent(delivery, "8")])
    assert platform.sent == ["one", "two", "six"]


def test_it_keeps_answers_for_later_when_it_stops() -> None:
    async def stops(worker: DeliveryWorker, stop: asyncio.Event) -> None:
        sender = worker.sender()
        assert sender is not None
        queued = await db.call(lifecycle.finish_together, [told], sender=sender)
        stop.set()
        assert worker.sender() is None
        worker.take(queued.taken, sender)

    told = answer()
    platform = through_a_worker([], stops)

    assert platform.sent == []
    assert states() == [("hi", "pending", "", 0)]


def test_it_offers_nothing_while_it_has_enough_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    async def is_busy(worker: DeliveryWorker, stop: asyncio.Event) -> None:
        assert worker.sender() is not None
        calls: Any = worker._calls
        busy = [asyncio.create_task(stop.wait()) for _ in range(MAX_CALLS)]
        calls.update(busy)
        assert worker.sender() is None
        calls.difference_update(busy)
        stop.set()

    through_a_worker([], is_busy)


def test_it_does_not_call_for_an_answer_whose_commit_took_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its lease began with the transaction, so another process may send it by now."""
    late, really = [0.0], lifecycle.finish_together
    monkeypatch.setattr("adapters.runtime.delivery_worker.moment", lambda: late[0])

    def stand_still(answers: Any, *, sender: Any) -> Queued:
        queued = really(answers, sender=sender)
        late[0] += settings.BOTOS_SEND_SECONDS
        return queued

    monkeypatch.setattr("sessions_app.turns.lifecycle.finish_together", stand_still)
    monkeypatch.setattr("sessions_app.outbox.queue.backoff", lambda attempts: 3600.0)

    async def tries(worker: DeliveryWorker, stop: asyncio.Event) -> None:
        writer = Writer(on_outgoing=worker.wake, sending=worker)
        await writer.finish(told)
        stop.set()

    told = answer()
    platform = through_a_worker([], tries)

    assert platform.sent == []
    assert OutboundDelivery.objects.get().status == OutboundDelivery.Status.PENDING
    assert not OutboundDelivery.objects.get().possibly_sent
    assert not InboundEvent.objects.filter(done_at=None).exists()
