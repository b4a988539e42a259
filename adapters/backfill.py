"""Read the messages of private chats that arrived during a downtime from their histories.

Several histories are read at a time. A new message in a chat waits until the history of that chat is
read, and for no other: chats in which a person waits come first, so a person waits for at most one.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Generic, TypeVar

from identity.support import backoff
from sessions_app.receiving.watermarks import Mark

log = logging.getLogger(__name__)
T = TypeVar("T")
P = TypeVar("P")

HORIZON = timedelta(hours=48)  # what is older is not brought up again
READERS = 4
ATTEMPTS = 6  # for one page; then the chat goes on without it, and the next connection asks again
FIRST_RETRY, MAX_RETRY = 0.5, 30.0  # seconds between attempts


class AskLater(Exception):
    """The platform asked everybody to wait for so many seconds."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"asked to wait for {seconds:g} s")
        self.seconds = seconds


class Unreadable(Exception):
    """The platform does not let the bot read this history, and asking again is useless."""


def start_of(mark: Mark) -> datetime:
    """The moment that a history is read from, unless the mark's position is later."""
    return max(mark.since, datetime.now(tz=UTC) - HORIZON)


class Backfill(Generic[T]):
    """One reading of the chats in `marks`. `read` takes in what a chat's history has; `store` takes what waited.

    `gaps` are chats whose history could not be read: messages there must not advance their marks.
    """

    def __init__(
        self,
        platform: str,
        marks: Mapping[str, Mark],
        read: Callable[[str, Mark], Awaitable[None]],
        store: Callable[[T], Awaitable[None]],
    ) -> None:
        self.gaps: set[str] = set()
        self._platform = platform
        self._unread = dict(marks)
        self._waiting: dict[str, deque[T]] = {chat_id: deque() for chat_id in marks}
        self._urgent: deque[str] = deque()
        self._read = read
        self._store = store
        self._quiet_until = 0.0

    def hold(self, chat_id: str, item: T) -> bool:
        """Whether the history of this chat is still to be read; then `item` is kept until that is done."""
        if chat_id not in self._waiting:
            return False
        self._waiting[chat_id].append(item)
        self._urgent.append(chat_id)
        return True

    def awaits(self, chat_id: str) -> bool:
        """Whether `hold` would keep an item of this chat."""
        return chat_id in self._waiting

    @property
    def is_complete(self) -> bool:
        """Whether every history was read to its end."""
        return not self._waiting and not self.gaps

    def held(self) -> list[T]:
        """What still waits, in order within each chat."""
        return [item for waiting in self._waiting.values() for item in waiting]

    async def run(self) -> None:
        """Read everything. Raises what `store` raises."""
        chats = len(self._unread)
        async with asyncio.TaskGroup() as reading:
            for _ in range(min(READERS, chats)):
                reading.create_task(self._read_some())
        log.info("%s: what was missed in %d private chats is read, %d gaps", self._platform, chats, len(self.gaps))

    async def _read_some(self) -> None:
        while chat_id := self._next():
            mark = self._unread.pop(chat_id)
            try:
                await self._read(chat_id, mark)
            except Exception as error:  # noqa: BLE001 - one chat must not hold up the others
                self.gaps.add(chat_id)
                log.warning("%s: missed messages of a chat were not read (%s)", self._platform, type(error).__name__)
            await self._release(chat_id)

    def _next(self) -> str:
        while self._urgent:
            if (chat_id := self._urgent.popleft()) in self._unread:
                return chat_id
        return next(iter(self._unread), "")

    async def _release(self, chat_id: str) -> None:
        waiting = self._waiting[chat_id]
        while waiting:
            await self._store(waiting[0])
            waiting.popleft()  # only now: what is cancelled meanwhile still waits
        del self._waiting[chat_id]

    async def ask(self, page: Callable[[], Awaitable[P]]) -> P:
        """A page of a history. A pause that the platform asks for holds for all readers, however often it asks."""
        failures = 0
        while True:
            await asyncio.sleep(max(0.0, self._quiet_until - time.monotonic()))
            try:
                return await page()
            except AskLater as later:
                self._quiet_until = max(self._quiet_until, time.monotonic() + later.seconds)
            except Unreadable:
                raise
            except Exception:
                failures += 1
                if failures == ATTEMPTS:
                    raise
                await asyncio.sleep(backoff.seconds(failures, first=2 * FIRST_RETRY, longest=MAX_RETRY))
