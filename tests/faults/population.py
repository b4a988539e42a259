"""The three platforms in the harness's own process, so that they outlive every kill, and what was said there when."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from random import Random
from time import time
from typing import Any, TypeVar

from adapters.playground.server import Said
from tests.fakes.discord import FakeDiscord
from tests.fakes.slack import FakeSlack
from tests.fakes.telegram import FakeTelegram

T = TypeVar("T")
SENDS = {"telegram": "sendMessage", "discord": "POST /channels/messages", "slack": "chat.postMessage"}


class Ledger(list[Said]):
    """Takes the place of a server's `said`: knows the moments, and tells of what the bot says."""

    def __init__(self, on_reply: Callable[[Said], None]) -> None:
        super().__init__()
        self.moments: list[float] = []
        self._on_reply = on_reply

    def append(self, said: Said) -> None:
        super().append(said)
        self.moments.append(time())
        if said.author_id == "bot":
            self._on_reply(said)


class Population:
    """The local servers, on an event loop in a thread of their own. `listeners` are called there."""

    def __init__(self, seed: int) -> None:
        self.listeners: list[Callable[[str, Said], None]] = []
        self.telegram, self.discord, self.slack = FakeTelegram(), FakeDiscord(), FakeSlack(redeliver_after=2.0)
        self.servers: dict[str, Any] = {one.platform: one for one in (self.telegram, self.discord, self.slack)}
        self.telegram.said = self.telegram.api.said = self._ledger("telegram")
        self.discord.said = self.discord.world.said = self._ledger("discord")
        self.slack.said = self.slack.workspace.said = self._ledger("slack")
        for name, server in self.servers.items():
            server.faults.dice = Random(f"{seed} {name}")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        for server in self.servers.values():
            self.do(server.start())

    def _ledger(self, platform: str) -> Ledger:
        def on_reply(said: Said) -> None:
            for listener in self.listeners:
                listener(platform, said)

        return Ledger(on_reply)

    def close(self) -> None:
        """Stop the servers, then the loop."""
        for server in self.servers.values():
            self.do(server.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def start(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Have the servers' loop begin something."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def do(self, work: Coroutine[Any, Any, T], within: float = 30.0) -> T:
        """Have the servers' loop do something, and wait for it."""
        return self.start(work).result(within)

    def environment(self) -> dict[str, str]:
        """What points a process at these servers."""
        return {name: value for server in self.servers.values() for name, value in server.environment().items()}

    def storm(self, *, limited: float, broken: float, unanswered: float) -> None:
        """Let sending fail by chance: 429 with a pause of a second, 500, and accepted without an answer."""
        for platform, method in SENDS.items():
            plan = self.servers[platform].faults
            plan.expect(method, rate=limited, status=429, retry_after=1)
            plan.expect(method, rate=broken, status=500)
            plan.expect(method, rate=unanswered, lose_response=True)

    def calm(self) -> None:
        """From now on every call is answered as it should be."""
        for server in self.servers.values():
            server.faults.chances.clear()
            server.faults.planned.clear()

    def is_told(self) -> bool:
        """Whether all was received that a platform waits to see received. Discord waits for nothing."""
        return not self.telegram.api.updates.pending and self.slack.is_told()

    def replies(self) -> dict[tuple[str, str], list[str]]:
        """What the bot said, by platform and chat, in order."""
        found: dict[tuple[str, str], list[str]] = {}
        for platform, server in self.servers.items():
            for said in list(server.said):
                if said.author_id == "bot":
                    found.setdefault((platform, said.chat_id), []).append(said.text)
        return found
