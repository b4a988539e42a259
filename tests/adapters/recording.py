"""Doubles for tests of adapters: those that come with BotOS, and an adapter that keeps what it is handed."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest

from adapters.protocols import Inbox
from adapters.testing import PATIENCE, RecordingInbox, Run, StorageError, running
from sessions_app.messages import InboundMessage, OutgoingMessage

__all__ = ["PATIENCE", "OneByOneInbox", "RecordingAdapter", "RecordingInbox", "Run", "StorageError", "running"]


class OneByOneInbox(RecordingInbox):
    """Keeps as many messages as `release` lets it. `begun` has the texts of all that were handed in."""

    def __init__(self) -> None:
        super().__init__()
        self.begun: list[str] = []
        self._free = asyncio.Semaphore(0)

    async def receive(self, message: InboundMessage) -> None:
        self.begun.append(message.text)
        await self._announce()
        await self._free.acquire()
        await super().receive(message)

    async def wait_for_begun(self, count: int) -> list[str]:
        await self._until(lambda: len(self.begun) >= count)
        return self.begun

    def release(self, count: int) -> None:
        for _ in range(count):
            self._free.release()


def called(patch: pytest.MonkeyPatch, owner: type, method: str, *, times: int) -> asyncio.Event:
    """An event that is set when a method has been called so many times."""
    function, event, calls = getattr(owner, method), asyncio.Event(), itertools.count(1)

    def counting(*args: Any) -> Any:
        result = function(*args)
        if next(calls) == times:
            event.set()
        return result

    patch.setattr(owner, method, counting)
    return event


class RecordingAdapter:
    """Fulfils PlatformAdapter in memory: connected at once, hears nothing, takes every message."""

    text_limit = 100

    def __init__(self, platform: str) -> None:
        self.platform = platform
        self.sent: list[OutgoingMessage] = []
        self.sent_something = asyncio.Event()

    async def run(self, inbox: Inbox, stop: asyncio.Event) -> None:
        inbox.connected()
        await stop.wait()

    async def send(self, message: OutgoingMessage) -> str:
        self.sent.append(message)
        self.sent_something.set()
        return message.nonce
