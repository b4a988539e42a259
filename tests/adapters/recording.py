"""An inbox that keeps what it is handed, for tests of adapters against the local platform servers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from adapters.protocols import Inbox, PlatformAdapter
from sessions_app.messages import InboundMessage, MessageEdit, OutgoingMessage
from sessions_app.receiving.watermarks import Mark

PATIENCE = 60.0  # seconds until what must happen counts as never, on a machine that does much else


class StorageError(Exception):
    """What a RecordingInbox raises in place of storing."""


class RecordingInbox:
    """Fulfils Inbox in memory. The next `fail_next` messages are refused with StorageError instead of being kept."""

    def __init__(self) -> None:
        self.messages: list[InboundMessage] = []
        self.edits: list[MessageEdit] = []
        self.known: dict[str, Mark] = {}  # how far each private chat was taken in
        self.connected_event = asyncio.Event()
        self.found_at: tuple[str, str] | None = None  # name and address of the bot
        self.fail_next = 0
        self.failed = asyncio.Event()
        self._changed = asyncio.Condition()

    def connected(self, *, name: str = "", url: str = "") -> None:
        self.found_at = (name, url)
        self.connected_event.set()

    async def marks(self) -> Mapping[str, Mark]:
        return dict(self.known)

    async def receive(self, message: InboundMessage) -> None:
        if self.fail_next > 0:
            self.fail_next -= 1
            self.failed.set()
            raise StorageError("the disk is full")
        self.messages.append(message)
        if message.is_private and message.position is not None:
            self.known[message.address.chat_id] = Mark(message.position)
        await self._announce()

    async def edit(self, edit: MessageEdit) -> None:
        self.edits.append(edit)
        await self._announce()

    async def wait_for(self, count: int) -> list[InboundMessage]:
        """All messages, once there are `count` of them. Raises TimeoutError."""
        await self._until(lambda: len(self.messages) >= count)
        return self.messages

    async def wait_for_text(self, text: str) -> InboundMessage:
        """The first message with this text, once it is there. Raises TimeoutError."""
        await self._until(lambda: any(message.text == text for message in self.messages))
        return next(message for message in self.messages if message.text == text)

    async def wait_for_edits(self, count: int) -> list[MessageEdit]:
        """All edits, once there are `count` of them. Raises TimeoutError."""
        await self._until(lambda: len(self.edits) >= count)
        return self.edits

    async def _until(self, happened: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE), self._changed:
            await self._changed.wait_for(happened)

    async def _announce(self) -> None:
        async with self._changed:
            self._changed.notify_all()


@dataclass(slots=True)
class Run:
    """One `adapter.run(...)` on its way. `ending` raises what the run raised."""

    adapter: PlatformAdapter
    inbox: RecordingInbox
    task: asyncio.Task[None]
    stop: asyncio.Event = field(default_factory=asyncio.Event)

    async def ending(self) -> None:
        """Wait for the run to end by itself."""
        async with asyncio.timeout(PATIENCE):
            await asyncio.shield(self.task)


@asynccontextmanager
async def running(adapter: PlatformAdapter, inbox: RecordingInbox | None = None) -> AsyncIterator[Run]:
    """A connected adapter, stopped at the end. A run that ends before it is connected raises here."""
    inbox, stop = inbox or RecordingInbox(), asyncio.Event()
    run = Run(adapter, inbox, asyncio.create_task(adapter.run(inbox, stop)), stop)
    connecting = asyncio.create_task(inbox.connected_event.wait())
    try:
        await asyncio.wait({run.task, connecting}, timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)
        if run.task.done():
            run.task.result()
        yield run
    finally:
        connecting.cancel()
        stop.set()
        await asyncio.wait({run.task}, timeout=PATIENCE)
        with suppress(asyncio.CancelledError):
            if run.task.cancel():
                await run.task
                raise AssertionError("the adapter did not stop")


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
