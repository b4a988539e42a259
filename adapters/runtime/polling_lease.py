"""Receives for a bot only while this process holds the lease on its token.

A lease of BOTOS_RECEIVER_LEASE_SECONDS is renewed three times in its life. A process that could not renew it for two
thirds of it stops by the monotonic clock, even without the database, and has ended before a standby may take over.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from django.conf import settings

from adapters.aio import is_set_within
from adapters.protocols import Superseded
from sessions_app import db, receiver_leases

log = logging.getLogger(__name__)
Work = Callable[[asyncio.Event], Awaitable[None]]


class Fence(asyncio.Event):
    """Set when the work must end. It is set by itself from `deadline` on, also in a process that was stopped."""

    def __init__(self) -> None:
        super().__init__()
        self.deadline = 0.0  # of the monotonic clock

    def is_set(self) -> bool:
        return super().is_set() or time.monotonic() >= self.deadline


class PollingLease:
    """The lease on one token, for one process."""

    def __init__(self, token: str) -> None:
        # The machine and the process, for people to read, and a random part, so that it is unique.
        self.owner = f"{socket.gethostname()[:15]}/{os.getpid()}/{secrets.token_hex(8)}"
        self._key = receiver_leases.key_of(token)
        self._is_answered = True  # so that an outage of the database is logged once

    async def hold(self, work: Work, stop: asyncio.Event, *, on_wait: Callable[[], None]) -> None:
        """Wait for the lease, then run `work` until it ends, until `stop` is set, or until the lease is lost.

        on_wait: called if another process has the lease. Raises any error of `work`, and Superseded if the lease is
        lost.
        """
        fence = Fence()
        if not await self._wait_for_it(fence, stop, on_wait):
            return
        keeping, working = asyncio.ensure_future(self._keep(fence)), asyncio.ensure_future(work(fence))
        is_lost = False
        try:
            await _first_of(working, stop, fence)
            is_lost = fence.is_set() and not stop.is_set()
            fence.set()
            await asyncio.wait({working}, timeout=settings.BOTOS_RECEIVER_LEASE_SECONDS / 4 if is_lost else None)
        finally:
            for task in (keeping, working):
                task.cancel()
            await asyncio.gather(keeping, working, return_exceptions=True)
            if not is_lost:  # it runs out by itself, and asking a database that is away takes long
                with suppress(Exception):
                    await db.call(receiver_leases.release, self._key, self.owner)
        if is_lost and (working.cancelled() or working.exception() is None):
            raise Superseded("the lease on the token was not renewed in time, another process may have taken over")
        working.result()

    async def _wait_for_it(self, fence: Fence, stop: asyncio.Event, on_wait: Callable[[], None]) -> bool:
        is_known = False
        while not stop.is_set():
            if is_ours := await self._ask(receiver_leases.take, fence):
                return True
            if is_ours is False and not is_known:
                is_known = True
                on_wait()
            await is_set_within(stop, settings.BOTOS_RECEIVER_LEASE_SECONDS / 15)
        return False

    async def _keep(self, fence: Fence) -> None:
        while not fence.is_set():
            await asyncio.sleep(settings.BOTOS_RECEIVER_LEASE_SECONDS / 3)
            if await self._ask(receiver_leases.renew, fence) is False:
                fence.set()

    async def _ask(self, step: Callable[[str, str], bool], fence: Fence) -> bool | None:
        """Whether this process has the lease; None if the database fails. The lease counts from before the call."""
        began = time.monotonic()
        try:
            is_ours = await db.call(step, self._key, self.owner)
        except Exception as error:  # noqa: BLE001 - the fence decides
            if self._is_answered:
                log.warning("ask for a token's lease failed: %s: %s; trying again", type(error).__name__, error)
            self._is_answered = False
            return None
        self._is_answered = True
        if is_ours:
            fence.deadline = began + settings.BOTOS_RECEIVER_LEASE_SECONDS * 2 / 3
        return is_ours


async def _first_of(working: asyncio.Future[None], stop: asyncio.Event, fence: Fence) -> None:
    """Wait until the work ends, `stop` is set, or the fence is."""
    stopping, losing = asyncio.ensure_future(stop.wait()), asyncio.ensure_future(fence.wait())
    try:
        while not (working.done() or stop.is_set() or fence.is_set()):
            left = max(0.0, fence.deadline - time.monotonic())
            waited: set[asyncio.Future[Any]] = {working, stopping, losing}
            await asyncio.wait(waited, timeout=left, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (stopping, losing):
            task.cancel()
        await asyncio.gather(stopping, losing, return_exceptions=True)
