"""Sends due deliveries through the adapters that are up, and stores the outcomes."""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress

from django.conf import settings

from adapters.aio import is_set_within
from adapters.protocols import DeliveryError, PlatformAdapter
from adapters.runtime.typing_signs import TypingSigns
from identity.support.text import storable
from sessions_app import counters, db, duties
from sessions_app.messages import Address
from sessions_app.models import OutboundDelivery
from sessions_app.outbox import queue as outbox_queue
from sessions_app.outbox.queue import Failed, Outcome, Sender, Sent, Unsent

log = logging.getLogger(__name__)

CALL_SHARE = 5 / 6  # of a delivery's lease, so that a call has ended before another process may start one
MIN_PAUSE, MAX_PAUSE = 0.5, 86_400.0  # seconds that a platform may ask to wait
RETRY_SECONDS = 1.0  # between attempts to store an outcome
LATE_SECONDS = 1.0  # after a delivery became due, until which a look that did not see it is repeated
MIN_REST = 0.05  # seconds between such looks, as a delivery that is due may have to wait for an earlier one
MAX_CALLS = 100  # under way, from which on answers wait to be claimed
LAST_CALLS = 4.0  # seconds that running calls have to end when the process stops


class DeliveryWorker:
    """Sends due deliveries through `adapters()`, the adapters that are up, by platform, in order for each address.

    signs: the typing signs, which pause at an address while a message is sent there.
    """

    def __init__(
        self, adapters: Callable[[], Mapping[str, PlatformAdapter]], *, signs: TypingSigns | None = None
    ) -> None:
        self.owner = secrets.token_hex(8)
        self._signs = signs or TypingSigns(adapters)
        self._adapters = adapters
        self._wake = asyncio.Event()
        self._calls: set[asyncio.Task[None]] = set()
        self._outcomes: asyncio.Queue[Outcome] = asyncio.Queue()
        self._stop: asyncio.Event | None = None  # of the run
        self._in_hand: set[int] = set()  # ids of deliveries, from the claim until their outcome is stored
        self._has_claimed = False  # whether the last look found something: then it did not see all that waits

    def wake(self) -> None:
        """Look for due deliveries soon: one was queued, or an adapter came up."""
        self._wake.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Send until `stop` is set; then wait for the running calls and store their outcomes."""
        settling = asyncio.create_task(self._settle())
        self._stop = stop
        await self._claim_until(stop)
        if self._calls:  # a call that takes longer counts as interrupted, as after a crash
            await asyncio.wait(self._calls, timeout=LAST_CALLS)
        await self._outcomes.join()
        settling.cancel()

    @property
    def _is_running(self) -> bool:
        return self._stop is not None and not self._stop.is_set()

    def sender(self) -> Sender | None:
        """Return who sends answers as soon as they are stored; None if nobody can, or too many calls are under way."""
        platforms = frozenset(self._adapters())
        if not self._is_running or not platforms or len(self._calls) >= MAX_CALLS:
            return None
        return Sender(self.owner, platforms, moment())

    def take(self, deliveries: Iterable[OutboundDelivery], sender: Sender) -> None:
        """Send deliveries that were stored as taken by this worker. Give those back whose adapter is gone."""
        adapters = self._adapters()
        for delivery in deliveries:
            self._in_hand.add(delivery.pk)
            if self._is_running and delivery.platform in adapters:
                self._start(adapters[delivery.platform], delivery, sender.since)
            else:
                self._outcomes.put_nowait(Unsent(delivery))

    def _start(self, adapter: PlatformAdapter, delivery: OutboundDelivery, since: float) -> None:
        self._signs.pause(_address(delivery))
        call = asyncio.create_task(self._send(adapter, delivery, since))
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)

    async def _claim_until(self, stop: asyncio.Event) -> None:
        """Claim and send until `stop` is set. Nobody cancels it, as a claimed delivery would count as possibly sent."""
        stopping = asyncio.create_task(stop.wait())
        stopping.add_done_callback(lambda _: self.wake())
        while not stop.is_set():
            self._wake.clear()
            try:
                pause = await self._send_what_is_due()
                duties.succeeded("claim deliveries")
            except Exception as error:  # noqa: BLE001 - noted, and repeated
                pause = settings.BOTOS_SWEEP_SECONDS
                duties.failed("claim deliveries", error, then=f"trying again in {pause:g} s")
            if not stop.is_set():
                await is_set_within(self._wake, pause)
        with suppress(Exception):  # the last turns' deliveries; without the database, they wait for the next start
            await self._send_what_is_due()

    async def _send_what_is_due(self) -> float:
        """Start a call for each due delivery. Return the seconds until the next look."""
        adapters, since = self._adapters(), moment()
        due: list[OutboundDelivery] = []
        if adapters:
            # Without those in hand, whose leases may run out while the database takes no outcomes.
            platforms, besides = adapters.keys(), frozenset(self._in_hand)
            due = await db.call(outbox_queue.claim, owner=self.owner, platforms=platforms, besides=besides)
        for delivery in due:
            self._in_hand.add(delivery.pk)
            self._start(adapters[delivery.platform], delivery, since)
        # Where other processes answer, a delivery may wait for two sweeps: theirs for the message, and this one.
        sweep = float(settings.BOTOS_SWEEP_SECONDS / (2 if settings.REDIS_URL else 1))
        self._has_claimed = bool(due)
        if due or not adapters:
            return sweep
        ago = moment() - since + LATE_SECONDS  # the call may wait for the thread of the database
        next_due = await db.call(outbox_queue.seconds_until_next, adapters.keys(), ago=ago)
        return sweep if next_due is None else min(sweep, max(next_due, MIN_REST))

    async def _send(self, adapter: PlatformAdapter, delivery: OutboundDelivery, since: float) -> None:
        """Send a delivery that was claimed after the moment `since`."""
        try:
            outgoing, is_local = outbox_queue.outgoing, not outbox_queue.needs_database(delivery)
            message = outgoing(delivery) if is_local else await db.call(outgoing, delivery)
        except outbox_queue.TooOld as error:
            _log(logging.WARNING, delivery, f"given up: {error}")
            self._outcomes.put_nowait(Failed(delivery, str(error), permanent=True))
            return
        except Exception as error:  # noqa: BLE001 - nothing was sent, so it is sent later
            _log(logging.WARNING, delivery, f"not sent: render failed: {type(error).__name__}")
            self._outcomes.put_nowait(Failed(delivery, type(error).__name__))
            return
        try:
            async with asyncio.timeout(_time_left(since)):
                message_id = await adapter.send(message)
        except DeliveryError as error:
            pause = _bounded(error.retry_after)
            if error.retry_after is not None:
                counters.up("rate limits", delivery.platform)
            failed = Failed(delivery, storable(str(error)), error.permanent, pause, error.ambiguous, error.gone)
            _log(logging.WARNING, delivery, f"not sent: {failed.reason}")
            self._outcomes.put_nowait(failed)
        except Exception as error:  # noqa: BLE001 - an adapter's bug, or no answer in time: the message may be sent
            _log(logging.WARNING, delivery, f"possibly not sent: {type(error).__name__}")
            self._outcomes.put_nowait(Failed(delivery, type(error).__name__, ambiguous=True))
        else:
            _log(logging.INFO, delivery, "sent")
            self._outcomes.put_nowait(Sent(delivery, storable(str(message_id))))

    async def _settle(self) -> None:
        """Store outcomes, all that wait in one transaction."""
        while True:
            outcomes = [await self._outcomes.get()]
            while not self._outcomes.empty():
                outcomes.append(self._outcomes.get_nowait())
            may_be_due: bool | None = None
            while may_be_due is None:  # until they are stored: without its outcome, a message would be sent again
                try:
                    may_be_due = await db.call(outbox_queue.settle, outcomes)
                except Exception:
                    log.exception("store outcomes of %d deliveries failed; trying again", len(outcomes))
                    await asyncio.sleep(RETRY_SECONDS)
            self._in_hand.difference_update(outcome.delivery.pk for outcome in outcomes)
            for outcome in outcomes:
                pause = outcome.retry_after if isinstance(outcome, Failed) else None
                self._signs.resume(_address(outcome.delivery), rest=pause)
                self._outcomes.task_done()
            # The next deliveries of the same addresses, and what the last look left: more than one claim takes, or
            # what is tried again soon.
            if may_be_due or self._has_claimed:
                self.wake()


def _address(delivery: OutboundDelivery) -> Address:
    return Address(delivery.platform, delivery.chat_id, delivery.thread_id)


def moment() -> float:
    """Seconds of a clock that runs while the machine sleeps, as leases do. Linux's monotonic clock stops then."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


def _time_left(since: float) -> float:
    """Seconds for a call whose claim began at `since`. Raises DeliveryError if none are left.

    A process that was stopped in between is too late: another one may have sent this delivery and the next. Settling
    the failure queues the delivery again only if no other process has it.
    """
    left = since + settings.BOTOS_SEND_SECONDS * CALL_SHARE - moment()
    if left <= 0:
        raise DeliveryError("it was claimed too long ago")
    return left


def _log(level: int, delivery: OutboundDelivery, what: str) -> None:
    """Log a line with the id of the event that the delivery answers, if it answers one."""
    about = {"event": delivery.event_id, "delivery": delivery.pk}
    log.log(level, "event %s: delivery %s: %s", delivery.event_id or "none", delivery.pk, what, extra=about)


def _bounded(seconds: float | None) -> float | None:
    """The pause that a platform asks for, between half a second and a day; None for no number."""
    if seconds is None or math.isnan(seconds):
        return None
    return min(max(seconds, MIN_PAUSE), MAX_PAUSE)
