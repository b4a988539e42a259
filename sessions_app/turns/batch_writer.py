"""Writes answered turns down, all that wait in one transaction: of many at once, the commits take longest."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from sessions_app import db
from sessions_app.turns import lifecycle
from sessions_app.turns.lifecycle import Answer

MAX_AT_ONCE = 20

_Waiting = tuple[Answer, asyncio.Future[None]]


class Writer:
    """For one event loop. It works while something waits, and needs no stopping."""

    def __init__(self) -> None:
        self._waiting: list[_Waiting] = []
        self._job: asyncio.Task[None] | None = None

    async def finish(self, answer: Answer) -> None:
        """Write down a turn. Durable on return; raises what `lifecycle.finish` raises for it."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((answer, done))
        if self._job is None or self._job.done():
            self._job = asyncio.create_task(self._write())
        await done

    async def _write(self) -> None:
        while self._waiting:
            batch = [one for one in self._waiting[:MAX_AT_ONCE] if not one[1].cancelled()]
            del self._waiting[:MAX_AT_ONCE]
            if batch:
                await _write_down(batch)


async def _write_down(batch: Collection[_Waiting]) -> None:
    """One that cannot be written takes no other with it: then each is written alone."""
    try:
        await db.call(lifecycle.finish_together, [answer for answer, _ in batch])
    except Exception as error:  # noqa: BLE001 - goes to whoever waits
        if len(batch) == 1:
            _settle(batch, error)
            return
        for one in batch:
            await _write_down([one])
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
