"""Writes answered turns in batches: with many turns at once, one commit for each takes longest."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from sessions_app import db
from sessions_app.turns import lifecycle
from sessions_app.turns.lifecycle import Answer

MAX_AT_ONCE = 20

_Waiting = tuple[Answer, asyncio.Future[None]]


class Writer:
    """Serves one event loop. Its task runs while something waits, so nobody needs to stop it."""

    def __init__(self) -> None:
        self._waiting: list[_Waiting] = []
        self._job: asyncio.Task[None] | None = None

    async def finish(self, answer: Answer) -> None:
        """Write down a turn, durably on return. Raises what `lifecycle.finish` raises for it."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((answer, done))
        if self._job is None or self._job.done():
            self._job = asyncio.create_task(self._write())
        await done

    async def _write(self) -> None:
        while self._waiting:
            batch = [(answer, done) for answer, done in self._waiting[:MAX_AT_ONCE] if not done.cancelled()]
            del self._waiting[:MAX_AT_ONCE]
            if batch:
                await _write_down(batch)


async def _write_down(batch: Collection[_Waiting]) -> None:
    """Write the batch; if it fails, write each turn alone, so that one bad turn does not fail the others."""
    try:
        await db.call(lifecycle.finish_together, [answer for answer, _ in batch])
    except Exception as error:  # noqa: BLE001 - goes to the caller that waits
        if len(batch) == 1:
            _settle(batch, error)
            return
        for waiting in batch:
            await _write_down([waiting])
    else:
        _settle(batch, None)


def _settle(batch: Collection[_Waiting], error: Exception | None) -> None:
    for _, done in batch:
        if done.cancelled():
            continue
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)
