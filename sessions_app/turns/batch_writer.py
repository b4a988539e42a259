"""Writes answered turns in batches: with many turns at once, one commit for each takes longest."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection

from sessions_app import db
from sessions_app.outbox.queue import SendsAtOnce
from sessions_app.turns import lifecycle
from sessions_app.turns.lifecycle import Answer

MAX_AT_ONCE = 20

_Waiting = tuple[Answer, asyncio.Future[None]]


class Writer:
    """Serves one event loop. Its task runs while something waits.

    on_outgoing: called when deliveries wait to be claimed. sending: sends the beginnings of replies at once.
    """

    def __init__(self, *, on_outgoing: Callable[[], object], sending: SendsAtOnce | None = None) -> None:
        self._on_outgoing = on_outgoing
        self._sending = sending
        self._waiting: list[_Waiting] = []
        self._job: asyncio.Task[None] | None = None

    async def finish(self, answer: Answer) -> None:
        """Write down a turn, durably on return. Raises what `lifecycle.finish` raises for it."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((answer, done))
        if self._job is None or self._job.done():
            self._job = asyncio.create_task(self._write())
        await done

    async def join(self) -> None:
        """Wait until everything is written, also turns whose caller was cancelled."""
        if self._job is not None:
            await asyncio.wait([self._job])

    async def _write(self) -> None:
        while self._waiting:
            batch = [(answer, done) for answer, done in self._waiting[:MAX_AT_ONCE] if not done.cancelled()]
            del self._waiting[:MAX_AT_ONCE]
            if batch:
                await self._write_down(batch)

    async def _write_down(self, batch: Collection[_Waiting]) -> None:
        """Write the batch; if it fails, write each turn alone, so that one bad turn does not fail the others."""
        # Before the transaction: the time for a call is counted from here, as the lease of the delivery is.
        sender = self._sending.sender() if self._sending else None
        try:
            queued = await db.call(lifecycle.finish_together, [answer for answer, _ in batch], sender=sender)
        except Exception as error:  # noqa: BLE001 - goes to the caller that waits
            if len(batch) == 1:
                _settle(batch, error)
                return
            for waiting in batch:
                await self._write_down([waiting])
            return
        if self._sending and sender:
            self._sending.take(queued.taken, sender)
        if queued.waits:
            self._on_outgoing()
        _settle(batch, None)


def _settle(batch: Collection[_Waiting], error: Exception | None) -> None:
    for _, done in batch:
        if done.cancelled():
            continue
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)
