"""Live events: they tell open pages that something changed, never what.

A change writes a row in its own transaction. When that commits, it wakes the readers: those of this process through
memory, those of others through the channel layer if there is Redis; without Redis they poll twice a second. A lost
wake-up loses nothing.

On PostgreSQL a smaller id may become visible after a greater one. So the rows of the last seconds are read again, and
known ones are dropped.
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
from identity.support import clock, sql

log = logging.getLogger(__name__)

POLL_SECONDS = 0.5
POLL_WITH_REDIS_SECONDS = 5.0
NOTIFY_SECONDS = 15.0  # that Redis may take to pass a wake-up on
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
    """Return the topics of accounts and browsers, given by primary key; None is skipped."""
    of_accounts = [f"account:{pk}" for pk in accounts if pk is not None]
    of_browsers = [f"browser:{pk}" for pk in browsers if pk is not None]
    return list(dict.fromkeys([*of_accounts, *of_browsers]))


def announce(topic: str | Iterable[str], kind: str) -> None:
    """Announce that something of this kind changed, when (and if) the caller's transaction commits."""
    names = [topic] if isinstance(topic, str) else list(topic)
    if names:
        sql.insert(LiveEvent, [{"topic": name, "kind": kind, "at": clock.now()} for name in names])
        transaction.on_commit(wake, robust=True)


def forget_old() -> int:
    """Delete events that are too old for any page. Returns how many."""
    return LiveEvent.objects.filter(at__lt=clock.bound(-KEPT_SECONDS)).delete()[0]


def position() -> int:
    """Return the id behind which a page that is rendered now must hear events: it shows all that came before."""
    settled = clock.read() - timedelta(seconds=REREAD_SECONDS)
    return LiveEvent.objects.filter(at__lt=settled).aggregate(last=Max("id"))["last"] or 0


# --- Waking


def wake() -> None:
    """Wake all readers, in this process and, through Redis, in the others. Never waits, never fails."""
    for reader in list(_readers.values()):
        reader.wake()
    if _is_shared() and not _is_notifying.is_set():
        _is_notifying.set()  # one message is enough for all that is announced until it is sent
        _notifier.submit(_notify_other_processes)


def _is_shared() -> bool:
    return not isinstance(get_channel_layer(), InMemoryChannelLayer)


_notifier = ThreadPoolExecutor(1, thread_name_prefix="live-notifier")
_is_notifying = threading.Event()


def _notify_other_processes() -> None:
    async def send() -> None:
        layer: Any = get_channel_layer()
        async with asyncio.timeout(NOTIFY_SECONDS):
            await layer.group_send(_GROUP, {"type": "live.wake"})

    _is_notifying.clear()
    try:
        asyncio.run(send())  # needs no other thread, which a program that is about to end would not get
    except Exception as error:  # noqa: BLE001 - the others poll
        log.warning(
            "Wake-up of other processes failed: %s; they read live events at their next poll", type(error).__name__
        )


# --- Reading


async def subscribe(wanted: Collection[str], *, after: int | None = None) -> AsyncGenerator[list[Event], None]:
    """Yield the events of these topics as they come, each once, in batches in the order of their ids.

    With `after`, the events behind that id come first. An id that becomes visible late comes late. The generator ends
    when the subscriber is more than MAX_WAITING events behind: subscribe again, after the last id.
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
    """Return the ids that the subscriber knows or gets now, and the events behind `after`."""
    recent = Q(at__gt=clock.read() - timedelta(seconds=2 * REREAD_SECONDS))
    behind = Q(id__gt=after) if after is not None else Q(pk__in=())
    rows = LiveEvent.objects.filter(recent | behind, topic__in=wanted).order_by("id")
    events = [Event(*row) for row in rows.values_list("id", "topic", "kind")]
    return {event.id for event in events}, [event for event in events if after is not None and event.id > after]


class _Queue:
    """The events that one subscriber has not taken yet."""

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
    """Reads live events for all subscribers of one event loop, while there are any."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queues: set[_Queue] = set()
        self._woken = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._is_listening = False  # to other processes, through the channel layer

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
                log.exception("Reading live events failed; reading again at the next poll")
                new = []
            for queue in self._queues if new else ():
                queue.put(new)
            pause = POLL_WITH_REDIS_SECONDS if self._is_listening else POLL_SECONDS
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._woken.wait()

    async def _listen(self) -> None:
        """Let other processes wake the reader. While Redis is away, the reader polls more often."""
        while True:
            layer: Any = get_channel_layer()
            try:
                channel = await layer.new_channel()
                self._is_listening = True
                while True:
                    # Again and again: the layer drops a member that joined longer ago than its `group_expiry`.
                    await layer.group_add(_GROUP, channel)
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(layer.group_expiry / 2):
                            while True:
                                await layer.receive(channel)
                                self._woken.set()
            except Exception as error:  # noqa: BLE001 - Redis may come back from any error
                self._is_listening = False
                log.warning(
                    "Listening to other processes failed: %s; polling every %s s", type(error).__name__, POLL_SECONDS
                )
                await asyncio.sleep(POLL_WITH_REDIS_SECONDS)


class _Seen:
    """The events that were read already. Reading goes on behind `floor`, which lags some seconds, to find late ones."""

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
            self._known = {pk for pk in self._known if pk > self.floor}
        return new


def _newer(floor: int) -> list[Event]:
    rows = LiveEvent.objects.filter(id__gt=floor).order_by("id").values_list("id", "topic", "kind")
    return [Event(*row) for row in rows]


_readers: dict[asyncio.AbstractEventLoop, _Reader] = {}


def _reader_here() -> _Reader:
    loop = asyncio.get_running_loop()
    for closed in [known for known in _readers if known.is_closed()]:
        del _readers[closed]
    if loop not in _readers:
        _readers[loop] = _Reader()
    return _readers[loop]
