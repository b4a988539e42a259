"""Takes due deliveries to the adapters that are up, and writes down what became of them."""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress

from django.conf import settings

from adapters.aio import is_set_within
from adapters.protocols import DeliveryError, PlatformAdapter
from identity.support.text import storable
from sessions_app import counters, db, duties
from sessions_app.messages import OutgoingMessage
from sessions_app.models import OutboundDelivery
from sessions_app.outbox import queue as outbox_queue
from sessions_app.outbox.queue import Failed, Sent

log = logging.getLogger(__name__)

CALL_SHARE = 5 / 6  # of the time that a delivery is leased for: a call has ended before anybody else may start
MIN_PAUSE, MAX_PAUSE = 0.5, 86_400.0  # seconds that a platform may ask to wait
RETRY_SECONDS = 1.0  # between attempts to write an outcome down
LAST_CALLS = 4.0  # seconds that calls under way are given when the process stops


class Courier:
    """Sends what is due through `adapters()`, those that are up now, by platform. Order is kept per address."""

    def __init__(self, adapters: Callable[[], Mapping[str, PlatformAdapter]]) -> None:
        self.owner = secrets.token_hex(8)
        self._adapters = adapters
        self._wake = asyncio.Event()
        self._calls: set[asyncio.Task[None]] = set()
        self._outcomes: asyncio.Queue[Sent | Failed] = asyncio.Queue()
        self._in_hand: set[int] = set()  # ids of deliveries, from the claim until what became of them is written

    def wake(self) -> None:
        """Something was queued, or an adapter came up."""
        self._wake.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set; then wait for the calls under way and write down how they ended."""
        settling = asyncio.create_task(self._settle())
        await self._claim_until(stop)
        if self._calls:  # one that takes longer counts as interrupted, as after a crash
            await asyncio.wait(self._calls, timeout=LAST_CALLS)
        await self._outcomes.join()
        settling.cancel()

    async def _claim_until(self, stop: asyncio.Event) -> None:
        """Never cancelled: a delivery that is claimed and forgotten would look as if it may have been sent."""
        stopping = asyncio.create_task(stop.wait())
        stopping.add_done_callback(lambda _: self.wake())
        while not stop.is_set():
            self._wake.clear()
            try:
                pause = await self._send_what_is_due()
                duties.succeeded("claim deliveries")
            except Exception as error:  # noqa: BLE001 - noted, and done again
                pause = settings.BOTOS_SWEEP_SECONDS
                duties.failed("claim deliveries", error, then=f"trying again in {pause:g} s")
            if not stop.is_set():
                await is_set_within(self._wake, pause)
        with suppress(Exception):  # what the last turns queued; if the database is gone, it waits for the next start
            await self._send_what_is_due()

    async def _send_what_is_due(self) -> float:
        """Start a call for each due delivery. Seconds until it is worth looking again."""
        adapters, since = self._adapters(), moment()
        due = await self._claim(adapters.keys()) if adapters else []
        for delivery in due:
            self._in_hand.add(delivery.pk)
            call = asyncio.create_task(self._send(adapters[delivery.platform], delivery, since))
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)
        # Where others answer, what is queued there may wait for two sweeps: the one that found the message, and this.
        sweep = float(settings.BOTOS_SWEEP_SECONDS / (2 if settings.REDIS_URL else 1))
        if due or not adapters:
            return sweep
        next_due = await db.call(outbox_queue.seconds_until_next, adapters.keys())
        return sweep if not next_due else min(sweep, next_due)

    async def _claim(self, platforms: Collection[str]) -> list[OutboundDelivery]:
        """What is due and not in hand: its lease may run out while the database does not take its outcome."""
        besides = frozenset(self._in_hand)
        return await db.call(outbox_queue.claim, owner=self.owner, platforms=platforms, besides=besides)

    async def _send(self, adapter: PlatformAdapter, delivery: OutboundDelivery, since: float) -> None:
        """Send what was claimed after the moment `since`."""
        try:
            message = await self._words_of(delivery)
        except Exception as error:  # noqa: BLE001 - whatever it is, nothing was sent
            _log(logging.WARNING, delivery, f"not sent, it has no words: {type(error).__name__}")
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
        except Exception as error:  # noqa: BLE001 - an adapter's bug, or no answer in time: it may have been sent
            _log(logging.WARNING, delivery, f"not sent, or nobody knows: {type(error).__name__}")
            self._outcomes.put_nowait(Failed(delivery, type(error).__name__, ambiguous=True))
        else:
            _log(logging.INFO, delivery, "sent")
            self._outcomes.put_nowait(Sent(delivery, storable(str(message_id))))

    async def _words_of(self, delivery: OutboundDelivery) -> OutgoingMessage:
        needs_database = delivery.template or delivery.may_be_repeat
        return await db.call(outbox_queue.outgoing, delivery) if needs_database else outbox_queue.outgoing(delivery)

    async def _settle(self) -> None:
        """Write down all outcomes that there are in one transaction, again and again."""
        while True:
            outcomes = [await self._outcomes.get()]
            while not self._outcomes.empty():
                outcomes.append(self._outcomes.get_nowait())
            await self._write(outcomes)
            self._in_hand.difference_update(outcome.delivery.pk for outcome in outcomes)
            for _ in outcomes:
                self._outcomes.task_done()
            self.wake()  # what stood behind these at the same address is due now

    async def _write(self, outcomes: list[Sent | Failed]) -> None:
        """Until it is written: an outcome that is forgotten would be sent again."""
        while True:
            try:
                await db.call(outbox_queue.settle, outcomes)
                return
            except Exception:
                log.exception("the outcome of %d deliveries could not be written; trying again", len(outcomes))
                await asyncio.sleep(RETRY_SECONDS)


def moment() -> float:
    """Seconds that count on while the machine sleeps, as leases do. Linux's monotonic clock stands still then."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


def _time_left(since: float) -> float:
    """Seconds for a call that belongs to a claim begun at `since`. Raises DeliveryError if there are none.

    Whoever stood still in between is too late: others may have sent it, and what comes after it. Settling this failure
    puts the delivery back in line only if nobody has taken it over.
    """
    left = since + settings.BOTOS_SEND_SECONDS * CALL_SHARE - moment()
    if left <= 0:
        raise DeliveryError("it was claimed too long ago")
    return left


def _log(level: int, delivery: OutboundDelivery, what: str) -> None:
    """With the id of the message that it answers, if it does."""
    about = {"event": delivery.event_id, "delivery": delivery.pk}
    log.log(level, "event %s: delivery %s: %s", delivery.event_id or "none", delivery.pk, what, extra=about)


def _bounded(seconds: float | None) -> float | None:
    """A pause that a platform asks for, if it is one: at most a day, and long enough that no call follows at once."""
    if seconds is None or math.isnan(seconds):
        return None
    return min(max(seconds, MIN_PAUSE), MAX_PAUSE)
