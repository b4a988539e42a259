"""The updates that a bot has not confirmed yet, with the offset semantics of getUpdates."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any

JSON = dict[str, Any]

TERMINATED = "terminated by other getUpdates request; make sure that only one bot instance is running"


class ApiError(Exception):
    """A call that Telegram answers with an error: HTTP status and description, and seconds to wait with a 429."""

    def __init__(self, status: int, description: str, retry_after: int = 0) -> None:
        super().__init__(description)
        self.status = status
        self.retry_after = retry_after


@dataclass(slots=True)
class Pending:
    """An update that waits to be confirmed by an offset above its id."""

    event: object
    update_id: int

    def hand_out(self) -> object:
        """What the bot is given."""
        return self.event

    def is_confirmed_by(self, offset: int) -> bool:
        return self.update_id < offset


class UpdateQueue:
    """What the bot has not confirmed yet, oldest first, handed out by long polling to one poller at a time."""

    def __init__(self) -> None:
        self.changed = asyncio.Condition()
        self.pending: list[Pending] = []
        self.allowed: list[str] = []
        self._pollers = 0
        self._last_id = time.time_ns() // 1_000_000  # a server that starts again must not repeat ids

    async def announce(self) -> None:
        """Let everybody who waits for a change look again."""
        async with self.changed:
            self.changed.notify_all()

    async def put(self, event: JSON) -> JSON:
        """Queue an update of a kind that the bot asked for, under the next id. Returns it either way."""
        update = {"update_id": self.next_id(), **event}
        if not self.allowed or set(event) & set(self.allowed):
            await self.add(Pending(update, update["update_id"]))
        return update

    def next_id(self) -> int:
        self._last_id += 1
        return self._last_id

    async def add(self, pending: Pending) -> None:
        """Queue an update behind those that wait."""
        self.pending.append(pending)
        await self.announce()

    async def poll(self, offset: int, limit: int, seconds: float) -> list[object]:
        """Confirm what is below the offset, then wait for updates. Raises ApiError for the older of two polls."""
        self._pollers += 1
        mine = self._pollers
        await self._confirm(offset)
        try:
            async with asyncio.timeout(seconds or 0.001), self.changed:
                await self.changed.wait_for(lambda: self.pending or mine != self._pollers)
        except TimeoutError:
            return []
        if mine != self._pollers:
            raise ApiError(409, f"Conflict: {TERMINATED}")
        return [pending.hand_out() for pending in self.pending[:limit]]

    async def _confirm(self, offset: int) -> None:
        if offset < 0:  # counts from the end, and forgets all before
            self.pending = self.pending[offset:]
        elif offset > 0:
            self.pending = [pending for pending in self.pending if not pending.is_confirmed_by(offset)]
        await self.announce()
