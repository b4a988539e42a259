from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.conf import settings
from django.db import OperationalError

from adapters.protocols import DeliveryError, Inbox
from adapters.runtime.delivery_worker import MAX_PAUSE, DeliveryWorker, moment
from identity import notices
from identity.models import PlatformAccount
from identity.notices import Template
from identity.support import clock
from sessions_app import db
from sessions_app.messages import Address, OutgoingMessage
from sessions_app.models import OutboundDelivery
from sessions_app.outbox import queue as outbox_queue
from tests.sessions_app.moments import StillClock
from tests.sessions_app.talk import receive

pytestmark = pytest.mark.django_db(transaction=True)


class Platform:
    """Answers as it is told, whatever a message says."""

    platform = "telegram"
    text_limit = 4096

    def __init__(self, answer: object) -> None:
        self.answer = answer
        self.sent: list[str] = []
        self.marked: list[bool] = []  # whether each was called a possible repeat
        self.called = asyncio.Event()

    async def run(self, inbox: Inbox, stop: asyncio.Event) -> None:
        await stop.wait()

    async def send(self, message: OutgoingMessage) -> Any:
        self.sent.append(message.text)
        self.marked.append(message.possibly_sent)
        self.called.set()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def deliver(*platforms: Platform, until: threading.Event | None = None) -> None:
    """Let a delivery worker take what is queued, until each platform was called (or `until` is set), and let it end."""

    async def scene() -> None:
        stop = asyncio.Event()
        worker = DeliveryWorker(lambda: {platform.platform: platform for platform in platforms})
        running = asyncio.create_task(worker.run(stop))
        for platform in () if until else platforms:
            await asyncio.wait_for(platform.called.wait(), 10)
        if until:
            assert await asyncio.to_thread(until.wait, 10)
        stop.set()
        await asyncio.wait_for(running, 10)
        await db.drain()

    async_to_sync(scene)()


@pytest.mark.parametrize("answer", [None, 7, "\ud800", "a\x00b"])
def test_it_settles_whatever_an_adapter_answers(answer: object) -> None:
    outbox_queue.queue(Address("telegram", "1"), "hello")

    deliver(Platform(answer))

    assert OutboundDelivery.objects.get().status == OutboundDelivery.Status.SENT


@pytest.mark.parametrize("pause", [1e300, math.inf, math.nan, -5.0])
def test_it_bounds_the_pause_that_a_platform_asks_for(pause: float) -> None:
    outbox_queue.queue(Address("telegram", "1"), "hello")

    deliver(Platform(DeliveryError("half \ud800 pair", retry_after=pause)))

    waits = OutboundDelivery.objects.get()
    assert waits.status == OutboundDelivery.Status.PENDING
    assert (waits.not_before - waits.created_at).total_seconds() <= MAX_PAUSE + 60


def test_it_keeps_one_platform_s_trouble_from_another() -> None:
    class Other(Platform):
        platform = "discord"

    outbox_queue.queue(Address("telegram", "1"), "hello")
    outbox_queue.queue(Address("discord", "1"), "hello")
    broken, fine = Platform(RuntimeError("a bug")), Other("7")

    deliver(broken, fine)

    states = dict(OutboundDelivery.objects.values_list("platform", "status"))
    assert states == {"telegram": "pending", "discord": "sent"}
    assert fine.sent == ["hello"]


def test_it_takes_more_than_one_claim_without_waiting_for_the_sweep(settings: Any) -> None:
    settings.BOTOS_SWEEP_SECONDS = 3600
    for nth in range(101):  # a claim takes 100
        outbox_queue.queue(Address("telegram", f"{nth}"), "hello")
    everything = threading.Event()

    class Counting(Platform):
        async def send(self, message: OutgoingMessage) -> Any:
            answer = await super().send(message)
            if len(self.sent) == 101:
                everything.set()
            return answer

    deliver(Counting("7"), until=everything)

    assert not OutboundDelivery.objects.filter(settled_at=None).exists()


def test_it_forgets_no_retry_over_what_was_sent_since(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.BOTOS_SWEEP_SECONDS = 3600
    monkeypatch.setattr("sessions_app.outbox.queue.backoff", lambda attempts: 0.5)
    outbox_queue.queue(Address("telegram", "1"), "again")
    platform = Platform(RuntimeError("a bug"))
    looks = asyncio.Queue[bool]()
    next_due = outbox_queue.seconds_until_next

    async def scene() -> None:
        loop, stop = asyncio.get_running_loop(), asyncio.Event()

        def look(platforms: Any, **since: float) -> float | None:
            seconds = next_due(platforms, **since)
            loop.call_soon_threadsafe(looks.put_nowait, seconds is not None)
            return seconds

        monkeypatch.setattr("sessions_app.outbox.queue.seconds_until_next", look)
        worker = DeliveryWorker(lambda: {"telegram": platform})
        running = asyncio.create_task(worker.run(stop))
        async with asyncio.timeout(10):
            while not await looks.get():
                pass  # until the worker knows of the retry
            platform.answer = "7"
            await db.call(outbox_queue.queue, Address("telegram", "2"), "meanwhile")
            worker.wake()
            while len(platform.sent) < 3:
                platform.called.clear()
                await platform.called.wait()
        stop.set()
        await running

    async_to_sync(scene)()

    assert sorted(platform.sent) == ["again", "again", "meanwhile"]


def test_it_misses_no_delivery_that_becomes_due_while_it_looks(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.BOTOS_SWEEP_SECONDS = 3600
    outbox_queue.queue(Address("telegram", "1"), "again")
    OutboundDelivery.objects.update(not_before=clock.seconds_from_now(3600))
    claim = outbox_queue.claim

    def becomes_due(**asked: Any) -> list[OutboundDelivery]:
        due = claim(**asked)
        OutboundDelivery.objects.filter(not_before__gt=clock.now()).update(not_before=clock.now())
        return due

    monkeypatch.setattr("sessions_app.outbox.queue.claim", becomes_due)
    platform = Platform("7")

    deliver(platform)

    assert platform.sent == ["again"]


def test_it_writes_an_outcome_that_could_not_be_written_at_first(monkeypatch: pytest.MonkeyPatch) -> None:
    outbox_queue.queue(Address("telegram", "1"), "hello")
    settle, failures = outbox_queue.settle, iter([True, False])

    def once_broken(outcomes: Any) -> bool:
        if next(failures, False):
            raise RuntimeError("the database is away")
        return settle(outcomes)

    monkeypatch.setattr("sessions_app.outbox.queue.settle", once_broken)
    monkeypatch.setattr("adapters.runtime.delivery_worker.RETRY_SECONDS", 0.01)
    platform = Platform("7")

    deliver(platform)

    assert OutboundDelivery.objects.get().status == OutboundDelivery.Status.SENT
    assert platform.sent == ["hello"]


def test_it_calls_nothing_a_repeat_that_had_no_words_to_send(monkeypatch: pytest.MonkeyPatch) -> None:
    receive("alice", "hello")
    notices.tell(PlatformAccount.objects.get(), Template.NOTHING_THERE)
    words, failures = outbox_queue.outgoing, iter([True])

    def once_broken(delivery: OutboundDelivery) -> OutgoingMessage:
        if next(failures, False):
            raise OperationalError("the database is away")
        return words(delivery)

    monkeypatch.setattr("sessions_app.outbox.queue.outgoing", once_broken)
    monkeypatch.setattr("sessions_app.outbox.queue.FIRST_BACKOFF", 0.01)
    platform = Platform("7")

    deliver(platform)

    assert platform.marked == [False]


def test_it_gives_up_a_notice_that_would_mislead_now_and_sends_what_stands_behind_it() -> None:
    receive("alice", "hello")
    OutboundDelivery.objects.all().delete()
    notices.tell(PlatformAccount.objects.get(), Template.NOTHING_THERE)
    OutboundDelivery.objects.update(created_at=clock.seconds_from_now(-9 * 86_400))
    outbox_queue.queue(Address("telegram", "chat-alice"), "hello again")
    platform = Platform("7")

    deliver(platform)

    assert platform.sent == ["hello again"]
    given_up, sent = OutboundDelivery.objects.order_by("pk")
    assert (given_up.status, given_up.reason, sent.status) == ("dead", "older than a day", "sent")


def test_it_does_not_send_again_what_it_could_not_write_down_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The database is away until the lease has run out, and when it is back, the worker looks for work at once."""
    still, looked = StillClock().put_in_place(monkeypatch), threading.Event()
    outbox_queue.queue(Address("telegram", "1"), "hello")
    settle, claim, ran_out = (
        outbox_queue.settle,
        outbox_queue.claim,
        still.now + timedelta(seconds=settings.BOTOS_SEND_SECONDS),
    )

    def settle_later(outcomes: Any) -> bool:
        still.now = ran_out
        if not looked.is_set():
            raise RuntimeError("the database is away")
        return settle(outcomes)

    def claim_and_tell(**asked: Any) -> list[OutboundDelivery]:
        claimed = claim(**asked)
        if still.now == ran_out:
            looked.set()
        return claimed

    monkeypatch.setattr("sessions_app.outbox.queue.settle", settle_later)
    monkeypatch.setattr("sessions_app.outbox.queue.claim", claim_and_tell)
    monkeypatch.setattr("adapters.runtime.delivery_worker.RETRY_SECONDS", 0.01)
    platform = Platform("7")

    deliver(platform, until=looked)

    assert (platform.sent, platform.marked) == (["hello"], [False])
    assert OutboundDelivery.objects.get().status == OutboundDelivery.Status.SENT


@dataclass
class Standstill:
    """A delivery worker stands still for a whole lease, right behind its claim. `meanwhile` happens then."""

    still: StillClock
    meanwhile: Callable[[], None] = lambda: None
    seconds: float = 0.0
    over: threading.Event = field(default_factory=threading.Event)

    def behind(self, claim: Callable[..., list[OutboundDelivery]]) -> Callable[..., list[OutboundDelivery]]:
        def claim_and_stand_still(**asked: Any) -> list[OutboundDelivery]:
            claimed = claim(**asked)
            if claimed and not self.seconds:
                self.seconds = settings.BOTOS_SEND_SECONDS
                self.still.move(self.seconds)
                self.meanwhile()
                self.over.set()
            return claimed

        return claim_and_stand_still


@pytest.fixture
def standstill(monkeypatch: pytest.MonkeyPatch) -> Standstill:
    standstill = Standstill(StillClock().put_in_place(monkeypatch))
    monkeypatch.setattr("adapters.runtime.delivery_worker.moment", lambda: time.monotonic() + standstill.seconds)
    monkeypatch.setattr("sessions_app.outbox.queue.claim", standstill.behind(outbox_queue.claim))
    monkeypatch.setattr("sessions_app.outbox.queue.backoff", lambda attempts: 0.0)
    return standstill


def test_it_sends_nothing_that_another_took_over_while_it_stood_still(standstill: Standstill) -> None:
    def another_sends_all() -> None:
        while due := outbox_queue.claim(owner="another", platforms=["telegram"]):
            outbox_queue.settle([outbox_queue.Sent(delivery, "another's") for delivery in due])

    for text in ("first", "second"):
        outbox_queue.queue(Address("telegram", "1"), text)
    standstill.meanwhile = another_sends_all
    platform = Platform("7")

    deliver(platform, until=standstill.over)

    assert platform.sent == []
    assert set(OutboundDelivery.objects.values_list("status", "message_id")) == {("sent", "another's")}


def test_it_sends_unmarked_what_nobody_took_over_while_it_stood_still(standstill: Standstill) -> None:
    outbox_queue.queue(Address("telegram", "1"), "hello")
    platform = Platform("7")

    deliver(platform)

    assert standstill.over.is_set()
    assert (platform.sent, platform.marked) == (["hello"], [False])
    assert OutboundDelivery.objects.get().status == OutboundDelivery.Status.SENT


@pytest.mark.skipif(not hasattr(time, "CLOCK_BOOTTIME"), reason="only Linux has a clock that counts its sleep")
def test_it_counts_the_time_that_the_machine_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.clock_gettime", {time.CLOCK_BOOTTIME: 4000.0}.__getitem__)

    assert moment() == 4000.0
