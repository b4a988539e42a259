"""Keeps one adapter running: restarts it with growing pauses, and reports its health."""

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
REFUSED_PAUSE = 300.0  # after a refusal of credentials that were accepted before
STEADY_AFTER = 60.0  # seconds after which an adapter's earlier failures no longer count


class State(StrEnum):
    STARTING = "starting"
    STANDBY = "standby"  # another process receives for the bot
    UP = "up"
    RESTARTING = "restarting"
    NEEDS_CONFIGURATION = "needs configuration"
    STOPPED = "stopped"


@dataclass(slots=True)
class Health:
    """The health of an adapter. detail: why it is not up. restarts: how many since it was last steady."""

    platform: str
    state: State = State.STARTING
    detail: str = ""
    restarts: int = 0

    def __str__(self) -> str:
        return f"{self.platform}: {self.state}" + (f" ({self.detail})" if self.detail else "")


class Supervisor:
    """Runs one adapter until it is told to stop. Errors of the adapter do not reach other adapters."""

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
        """Note that the adapter can send and receive now."""
        self._up_since = time.monotonic()
        self._be(State.UP)
        log.info("%s", self.health)

    async def run(self, inbox: Inbox, stop: asyncio.Event) -> None:
        """Run the adapter, and restart it when it ends, until `stop` is set or its configuration is refused.

        If the configuration was accepted before, the platform itself may have a problem: then it is tried again later.
        """
        while not stop.is_set():
            try:
                self.adapter = self.adapter or self._build()
                if self._lease is None:
                    await self.adapter.run(inbox, stop)
                else:
                    await self._lease.hold(partial(self.adapter.run, inbox), stop, on_wait=self._stand_by)
            except NeedsConfiguration as refused:
                self._be(State.NEEDS_CONFIGURATION, str(refused))
                log.error("%s", self.health)
                if not self._up_since:
                    return
                await is_set_within(stop, REFUSED_PAUSE)
            except Superseded as error:
                log.error("%s: %s", self.health.platform, error)
                await self._pause(error, stop)
            except Exception as error:  # noqa: BLE001 - no error may reach the other adapters
                await self._pause(error, stop)
            else:
                await self._pause(None, stop)
        self._be(State.STOPPED)

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
        self._be(State.RESTARTING, f"{type(error).__name__}: {error}" if error else "the connection ended")
        log.warning("%s, again in %.1f s", self.health, seconds)
        log.debug("%s", self.health.platform, exc_info=error)
        await is_set_within(stop, seconds)

    def _be(self, state: State, detail: str = "") -> None:
        self.health.state, self.health.detail = state, detail
        self._on_change()
