"""Doubles for tests of adapters: those that come with BotOS, and an adapter that keeps what it is handed."""

from __future__ import annotations

import asyncio

from adapters.protocols import Inbox
from adapters.testing import PATIENCE, RecordingInbox, Run, StorageError, running
from sessions_app.messages import OutgoingMessage

__all__ = ["PATIENCE", "RecordingAdapter", "RecordingInbox", "Run", "StorageError", "running"]


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
