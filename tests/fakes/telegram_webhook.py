"""How Telegram calls a bot that set a webhook: one update at a time, in order, again until the bot answers 2xx."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from adapters.playground.telegram.queue import JSON, Pending, UpdateQueue

FIRST_PAUSE, MAX_PAUSE = 0.1, 1.0  # seconds between attempts, doubling; Telegram's own are longer
CALL_SECONDS = 30.0


@dataclass(slots=True)
class Caller:
    """Empties the queue by calling. `statuses` are the bot's answers in order, 0 where there was none.

    `carry_out` is given what a bot put into its answer: a method and its parameters.
    """

    queue: UpdateQueue
    carry_out: Callable[[str, JSON], Awaitable[object]]
    url: str = ""
    secret: str = field(default="", repr=False)
    statuses: list[int] = field(default_factory=list)
    last_error: JSON = field(default_factory=dict)
    task: asyncio.Task[None] | None = None

    async def set(self, url: str, secret: str) -> None:
        """Call there from now on; nowhere, if the address is empty."""
        await self.stop()
        self.url, self.secret, self.last_error = url, secret, {}
        if urlsplit(url).hostname == "127.0.0.1":  # the playground calls nobody else
            self.task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Call no more. What waits stays."""
        if self.task is not None:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)
            self.task = None

    async def _run(self) -> None:
        pause = FIRST_PAUSE
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(CALL_SECONDS)) as session:
            while True:
                async with self.queue.changed:
                    await self.queue.changed.wait_for(lambda: self.queue.pending)
                waiting = self.queue.pending[0]
                if await self._tell(session, waiting):
                    pause = FIRST_PAUSE
                    await self._settle(waiting)
                else:
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, MAX_PAUSE)

    async def _tell(self, session: aiohttp.ClientSession, waiting: Pending) -> bool:
        headers = {"X-Telegram-Bot-Api-Secret-Token": self.secret} if self.secret else {}
        status, told = 0, None
        with suppress(aiohttp.ClientError, OSError, TimeoutError):
            async with session.post(self.url, json=waiting.event, headers=headers, allow_redirects=False) as answer:
                told = await answer.json(content_type=None) if answer.content_type == "application/json" else None
                status = answer.status
        await self._note(status)
        if isinstance(told, dict) and "method" in told:
            await self._obey(told)
        return 200 <= status < 300

    async def _note(self, status: int) -> None:
        self.statuses.append(status)
        if not 200 <= status < 300:
            problem = f"Wrong response from the webhook: {status}" if status else "Connection refused"
            self.last_error = {"last_error_date": int(time.time()), "last_error_message": problem}
        await self.queue.announce()

    async def _obey(self, told: dict[str, Any]) -> None:
        with suppress(Exception):  # Telegram does not say what came of it
            await self.carry_out(str(told.pop("method")), told)

    async def _settle(self, told: Pending) -> None:
        self.queue.pending = [pending for pending in self.queue.pending if pending is not told]
        await self.queue.announce()
