"""Keeps one adapter running: starts it, starts it again with growing pauses, and knows how it is."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

from adapters.aio import is_set_within
from adapters.protocols import Inbox, NeedsConfiguration, PlatformAdapter, Superseded
from adapters.runtime.polling_lease import PollingLease
from identity.support import backoff

log = logging.getLogger(__name__)

FIRST_PAUSE = 1.0  # seconds
MAX_PAUSE = 60.0
REFUSED_PAUSE = 300.0  # after a refusal of what had been accepted before
STEADY_AFTER = 60.0  # an adapter that was up for so long starts again without a history of failures


class State(StrEnum):
    STARTING = "starting"
    STANDBY = "standby"  # another process receives for the bot
    UP = "up"
    RESTARTING = "restarting"
    NEEDS_CONFIGURATION = "needs configuration"
    STOPPED = "stopped"


@dataclass(slots=True)
class Health:
    """How an adapter is. `detail` says why it is not up; `restarts` counts since the last steady time."""

    platform: str
    state: State = State.STARTING
    detail: str = ""
    restarts: int = 0

    def __str__(self) -> str:
        return f"{self.platform}: {self.state}" + (f" ({self.detail})" if self.detail else "")


class Supervisor:
    """Runs one adapter until it is told to stop. Whatever the adapter raises ends here and harms no other."""

    def __init__(
        self,
        platform: str,
        build: Callable[[], PlatformAdapter],
        *,
        lease: PollingLease | None = None,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self.health = Health(platform)
        self.adapter: PlatformAdapter | None = None
        self._build = build
        self._lease = lease
        self._on_change = on_change
        self._up_since = 0.0

    @property
    def is_up(self) -> bool:
        return self.health.state is State.UP

    def connected(self) -> None:
        """The adapter can send and receive from now on."""
        self._up_since = time.monotonic()
        self._be(State.UP)
        log.info("%s", self.health)

    async def run(self, inbox: Inbox, stop: asyncio.Event) -> None:
        """Run the adapter, again and again, until `stop` is set or its configuration is refused.

        A refusal of what was accepted before may be the platform's own trouble: then it is tried again after a while.
        """
        while not stop.is_set():
            try:
                self.adapter = self.adapter or self._build()
                await self._receive(self.adapter, inbox, stop)
            except NeedsConfiguration as refused:
                self._be(State.NEEDS_CONFIGURATION, str(refused))
                log.error("%s", self.health)
                if not self._up_since:
                    return
                await is_set_within(stop, REFUSED_PAUSE)
            except Superseded as error:
                log.error("%s: %s", self.health.platform, error)
                await self._pause(error, stop)
            except Exception as error:  # noqa: BLE001 - whatever it is, it must not reach the other adapters
                await self._pause(error, stop)
            else:
                await self._pause(None, stop)
        self._be(State.STOPPED)

    async def _receive(self, adapter: PlatformAdapter, inbox: Inbox, stop: asyncio.Event) -> None:
        if self._lease is None:
            await adapter.run(inbox, stop)
        else:
            await self._lease.hold(partial(adapter.run, inbox), stop, on_wait=self._stand_by)

    def _stand_by(self) -> None:
        self._be(State.STANDBY, "another process is connected for this bot")
        log.info("%s", self.health)

    async def _pause(self, error: Exception | None, stop: asyncio.Event) -> None:
        if stop.is_set():
            return
        if self.is_up and time.monotonic() - self._up_since > STEADY_AFTER:
            self.health.restarts = 0
        self.health.restarts += 1
        seconds = backoff.seconds(self.health.restarts, first=FIRST_PAUSE, longest=MAX_PAUSE, least=FIRST_PAUSE / 2)
        self._be(State.RESTARTING, _described(error))
        log.warning("%s, again in %.1f s", self.health, seconds)
        log.debug("%s", self.health.platform, exc_info=error)
        await is_set_within(stop, seconds)

    def _be(self, state: State, detail: str = "") -> None:
        self.health.state, self.health.detail = state, detail
        self._on_change()


def _described(error: Exception | None) -> str:
    return f"{type(error).__name__}: {error}" if error else "the connection ended"
