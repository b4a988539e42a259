"""What pages that are open now must know: that something changed, never what.

A change writes a row in its own transaction, and wakes whoever reads when that commits: in this process through memory,
in others through the channel layer if there is Redis, else they look twice a second. Losing a wake-up loses nothing.

Ids may become visible out of order on PostgreSQL, a smaller one after a greater one, so what was read in the last
seconds is read again and what is known of it is dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections import deque
from collections.abc import AsyncGenerator, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from time import monotonic
from typing import Any
from uuid import UUID

from channels.db import database_sync_to_async
from channels.layers import InMemoryChannelLayer, get_channel_layer
from django.db import transaction
from django.db.models import Max, Q

from identity.models import LiveEvent
from identity.support import clock

log = logging.getLogger(__name__)

POLL_SECONDS = 0.5
POLL_WITH_REDIS_SECONDS = 5.0
REREAD_SECONDS = 5.0  # longer than any transaction here is open after it has announced something
KEPT_SECONDS = 3600
MAX_WAITING = 5000  # events that a subscriber may be behind
_GROUP = "live"


@dataclass(frozen=True, slots=True)
class Event:
    """`topic` is `browser:<uuid>` or `account:<pk>`; `kind` says what to look at again: pairing, links, messages."""

    id: int
    topic: str
    kind: str


# --- Writing


def topics(*, accounts: Iterable[int | None] = (), browsers: Iterable[UUID | None] = ()) -> list[str]:
    """The topics of accounts and browsers, given by primary key; None is nobody."""
    of_accounts = [f"account:{one}" for one in accounts if one is not None]
    of_browsers = [f"browser:{one}" for one in browsers if one is not None]
    return list(dict.fromkeys([*of_accounts, *of_browsers]))


def announce(topic: str | Iterable[str], kind: str) -> None:
    """Say that something of this kind changed, when (and if) the caller's transaction commits."""
    named = [topic] if isinstance(topic, str) else list(topic)
    if named:
        LiveEvent.objects.bulk_create(LiveEvent(topic=one, kind=kind) for one in named)
        transaction.on_commit(wake, robust=True)


def forget_old() -> int:
    """Delete events that no page can want any more. How many there were."""
    return LiveEvent.objects.filter(at__lt=clock.bound(-KEPT_SECONDS)).delete()[0]


def position() -> int:
    """From which id on a page that is rendered now must hear: everything before it is seen already."""
    settled = clock.read() - timedelta(seconds=REREAD_SECONDS)
    return LiveEvent.objects.filter(at__lt=settled).aggregate(last=Max("id"))["last"] or 0


# --- Waking


def wake() -> None:
    """Have all readers look now, in this process and, through Redis, in the others. Never waits, never fails."""
    for reader in list(_readers.values()):
        reader.wake()
    if _is_shared() and not _doorbell_rings.is_set():
        _doorbell_rings.set()  # one ring is enough for all that is announced until it is heard
        _doorbell.submit(_ring)


def _is_shared() -> bool:
    return not isinstance(get_channel_layer(), InMemoryChannelLayer)


_doorbell = ThreadPoolExecutor(1, thread_name_prefix="live-doorbell")
_doorbell_rings = threading.Event()


def _ring() -> None:
    _doorbell_rings.clear()
    try:
        asyncio.run(_send_to_all())  # needs no other thread, which a program that is about to end would not get
    except Exception as error:  # noqa: BLE001 - whoever listens looks by himself after a while
        log.warning("other processes were not told of live events: %s", type(error).__name__)


async def _send_to_all() -> None:
    layer: Any = get_channel_layer()
    await layer.group_send(_GROUP, {"type": "live.wake"})


# --- Reading


async def subscribe(wanted: Collection[str], *, after: int | None = None) -> AsyncGenerator[list[Event], None]:
    """Events of these topics as they come, by id and each once, all together that have come since the last were taken;
    with `after`, those behind that id first.

    An id that became visible late comes late. Ends when the subscriber is too slow: subscribe again, after the last id.
    """
    reader, queue = _reader_here(), _Queue(frozenset(wanted))
    reader.add(queue)
    try:
        known, behind = await database_sync_to_async(_at_start)(after, sorted(wanted))
        if behind:
            yield behind
        while (batch := await queue.take()) is not None:
            if new := [event for event in batch if event.id not in known]:
                yield new
    finally:
        reader.remove(queue)


def _at_start(after: int | None, wanted: Collection[str]) -> tuple[set[int], list[Event]]:
    """The ids that the subscriber knows or is given now, and the events behind `after`."""
    recent = Q(at__gt=clock.read() - timedelta(seconds=2 * REREAD_SECONDS))
    behind = Q(id__gt=after) if after is not None else Q(pk__in=())
    rows = LiveEvent.objects.filter(recent | behind, topic__in=wanted).order_by("id")
    events = [Event(*row) for row in rows.values_list("id", "topic", "kind")]
    return {event.id for event in events}, [event for event in events if after is not None and event.id > after]


class _Queue:
    """What one subscriber has not taken yet."""

    def __init__(self, wanted: frozenset[str]) -> None:
        self._wanted = wanted
        self._events: list[Event] = []
        self._some = asyncio.Event()
        self._is_over = False

    def put(self, events: Iterable[Event]) -> None:
        self._events.extend(event for event in events if event.topic in self._wanted)
        self._is_over = self._is_over or len(self._events) > MAX_WAITING
        if self._events:
            self._some.set()

    async def take(self) -> list[Event] | None:
        while not self._events and not self._is_over:
            self._some.clear()
            await self._some.wait()
        taken, self._events = self._events, []
        return None if self._is_over else taken


class _Reader:
    """Reads for all subscribers of this process (of one event loop), as long as there are any."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queues: set[_Queue] = set()
        self._woken = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._is_told = False  # of what other processes announce, through the channel layer

    def add(self, queue: _Queue) -> None:
        self._queues.add(queue)
        if not self._tasks:
            self._tasks = [asyncio.create_task(self._read())]
            if _is_shared():
                self._tasks.append(asyncio.create_task(self._listen()))

    def remove(self, queue: _Queue) -> None:
        self._queues.discard(queue)
        if not self._queues:
            for task in self._tasks:
                task.cancel()
            self._tasks = []

    def wake(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._woken.set)

    async def _read(self) -> None:
        seen: _Seen | None = None
        while True:
            self._woken.clear()
            try:
                seen = seen or _Seen(await database_sync_to_async(position)())
                new = seen.unknown(await database_sync_to_async(_newer)(seen.floor))
            except Exception:
                log.exception("live events could not be read; trying again")
                new = []
            for queue in self._queues if new else ():
                queue.put(new)
            await self._rest()

    async def _rest(self) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._woken.wait(), POLL_WITH_REDIS_SECONDS if self._is_told else POLL_SECONDS)

    async def _listen(self) -> None:
        """Be woken by other processes. Without Redis for a while the reader looks more often."""
        while True:
            layer: Any = get_channel_layer()
            try:
                channel = await layer.new_channel()
                self._is_told = True
                while True:
                    # Again and again: the layer drops a member that joined longer ago than its `group_expiry`.
                    await layer.group_add(_GROUP, channel)
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(layer.group_expiry / 2):
                            while True:
                                await layer.receive(channel)
                                self._woken.set()
            except Exception as error:  # noqa: BLE001 - whatever Redis has, it may come back
                self._is_told = False
                log.warning("no word from other processes: %s; looking every %s s", type(error).__name__, POLL_SECONDS)
                await asyncio.sleep(POLL_WITH_REDIS_SECONDS)


class _Seen:
    """Which events were read already. `floor` lags some seconds behind, so that late ones are found."""

    def __init__(self, floor: int) -> None:
        self.floor = floor
        self._known: set[int] = set()
        self._marks: deque[tuple[float, int]] = deque()  # when which id was the greatest

    def unknown(self, events: list[Event]) -> list[Event]:
        new = [event for event in events if event.id not in self._known]
        self._known.update(event.id for event in new)
        now = monotonic()
        if new:
            self._marks.append((now, max(event.id for event in new)))
        while self._marks and self._marks[0][0] < now - REREAD_SECONDS:
            self.floor = max(self.floor, self._marks.popleft()[1])
            self._known = {one for one in self._known if one > self.floor}
        return new


def _newer(floor: int) -> list[Event]:
    rows = LiveEvent.objects.filter(id__gt=floor).order_by("id").values_list("id", "topic", "kind")
    return [Event(*row) for row in rows]


_readers: dict[asyncio.AbstractEventLoop, _Reader] = {}


def _reader_here() -> _Reader:
    loop = asyncio.get_running_loop()
    for old in [one for one in _readers if one.is_closed()]:
        del _readers[old]
    if loop not in _readers:
        _readers[loop] = _Reader()
    return _readers[loop]
