from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest
from asgiref.sync import async_to_sync

from adapters.courier import LONGEST_PAUSE, Courier
from adapters.protocols import DeliveryError, Inbox
from sessions_app import bridge, outbox
from sessions_app.messages import Address, OutgoingMessage
from sessions_app.models import OutboundDelivery

pytestmark = pytest.mark.django_db(transaction=True)


class Platform:
    """Answers as it is told, whatever a message says."""

    platform = "telegram"
    text_limit = 4096

    def __init__(self, answer: object) -> None:
        self.answer = answer
        self.sent: list[str] = []
        self.called = asyncio.Event()

    async def run(self, inbox: Inbox, stop: asyncio.Event) -> None:
        await stop.wait()

    async def send(self, message: OutgoingMessage) -> Any:
        self.sent.append(message.text)
        self.called.set()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def deliver(*platforms: Platform) -> None:
    """Let a courier take what is queued, until each platform was called and the outcome is written."""

    async def scene() -> None:
        stop = asyncio.Event()
        courier = Courier(lambda: {platform.platform: platform for platform in platforms})
        running = asyncio.create_task(courier.run(stop))
        for platform in platforms:
            await asyncio.wait_for(platform.called.wait(), 10)
        stop.set()
        await asyncio.wait_for(running, 10)
        await bridge.drain()

    async_to_sync(scene)()


@pytest.mark.parametrize("answer", [None, 7, "\ud800", "a\x00b"])
def test_it_settles_whatever_an_adapter_answers(answer: object) -> None:
    outbox.queue(Address("telegram", "1"), "hello")

    deliver(Platform(answer))

    assert OutboundDelivery.objects.get().status == OutboundDelivery.Status.SENT


@pytest.mark.parametrize("pause", [1e300, math.inf, math.nan, -5.0])
def test_it_bounds_the_pause_that_a_platform_asks_for(pause: float) -> None:
    outbox.queue(Address("telegram", "1"), "hello")

    deliver(Platform(DeliveryError("half \ud800 pair", retry_after=pause)))

    waits = OutboundDelivery.objects.get()
    assert waits.status == OutboundDelivery.Status.PENDING
    assert (waits.not_before - waits.created_at).total_seconds() <= LONGEST_PAUSE + 60


def test_it_keeps_one_platform_s_trouble_from_another() -> None:
    class Other(Platform):
        platform = "discord"

    outbox.queue(Address("telegram", "1"), "hello")
    outbox.queue(Address("discord", "1"), "hello")
    broken, fine = Platform(RuntimeError("a bug")), Other("7")

    deliver(broken, fine)

    states = dict(OutboundDelivery.objects.values_list("platform", "status"))
    assert states == {"telegram": "pending", "discord": "sent"}
    assert fine.sent == ["hello"]


def test_it_writes_an_outcome_that_could_not_be_written_at_first(monkeypatch: pytest.MonkeyPatch) -> None:
    outbox.queue(Address("telegram", "1"), "hello")
    settle, failures = outbox.settle, iter([True, False])

    def once_broken(outcomes: Any) -> None:
        if next(failures, False):
            raise RuntimeError("the database is away")
        settle(outcomes)

    monkeypatch.setattr("sessions_app.outbox.settle", once_broken)
    monkeypatch.setattr("adapters.courier.RETRY_SECONDS", 0.01)
    platform = Platform("7")

    deliver(platform)

    assert OutboundDelivery.objects.get().status == OutboundDelivery.Status.SENT
    assert platform.sent == ["hello"]
