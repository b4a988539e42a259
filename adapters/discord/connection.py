"""One connection to Discord's gateway: take events in order, store each one, read back what a lost session missed."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice, takewhile
from typing import Any, TypeVar

import discord
from discord.gateway import DiscordWebSocket

from adapters.aio import is_set_within
from adapters.backfill import AskLater, Backfill, start_of
from adapters.discord.client import Busy, acknowledge, new_client, register_commands
from adapters.discord.events import Interaction, parse_edit, parse_interaction, parse_message, position_at
from adapters.protocols import Inbox, MalformedEvent
from identity.support import backoff
from sessions_app.messages import InboundMessage, MessageEdit
from sessions_app.receiving.watermarks import Mark

log = logging.getLogger("adapters.discord.adapter")
T = TypeVar("T")
Parser = Callable[[Any], Any]
# None: a new session began, and Discord did not deliver the messages before it
Envelope = InboundMessage | MessageEdit | Interaction
Queued = Envelope | None

FIRST_RETRY, MAX_RETRY = 0.5, 30.0  # seconds between attempts to store a message
PAGE = 100  # messages of a history
TOGETHER = 50  # events that are handed in without waiting for each
CLOSING = 5.0  # seconds for the goodbye, and again for storing the events before it
BACKGROUND_SECONDS = 10.0  # seconds for a call that nobody waits for; an interaction must be answered within 3
AWAY_LIMIT = 60.0  # seconds without a gateway socket, after which the supervisor takes over


@dataclass(slots=True)
class Memory:
    """What outlives a connection: events that are not stored yet."""

    platform: str
    events: deque[Queued] = field(default_factory=deque)


class _Parsers(dict[str, Parser]):
    """The SDK looks up whatever an event is called, also what cannot be a key; an unknown name it passes over."""

    def __getitem__(self, event: object) -> Parser:
        return super().__getitem__(event if isinstance(event, str) else "")


class Connection:
    """One run: a client, its events in order of arrival, and the only reader of them.

    The SDK dispatches each event as a task of its own, in no order, and Discord knows no acknowledgement. Here an event
    is parsed and queued inside the read loop of the socket, and leaves the queue when it is stored.
    """

    def __init__(self, memory: Memory, inbox: Inbox, on_ready: Callable[[discord.Client], None]) -> None:
        self._memory = memory
        self._inbox = inbox
        self._on_ready = on_ready
        self._news = asyncio.Event()
        self._over = asyncio.Event()
        self._client = new_client()
        self._background: set[asyncio.Task[None]] = set()
        self._is_registered = False
        self._is_ready = asyncio.Event()
        self._backfill: Backfill[Envelope] | None = None  # of this session's beginning
        self._reading: asyncio.Task[None] | None = None
        state = self._client._connection  # noqa: SLF001 - the SDK has no public way to take events as they came
        state.parsers = self._parsers(state.parsers)

    async def live(self, token: str, stop: asyncio.Event) -> None:
        """Until `stop` is set, or the connection is beyond repair."""
        reader = asyncio.create_task(self._store_all())
        others = [asyncio.create_task(job) for job in (self._converse(token), self._watch(), stop.wait())]
        try:
            done, _ = await asyncio.wait([reader, *others], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            await self._end(reader, others)

    async def _converse(self, token: str) -> None:
        await self._client.login(token)
        await self._client.connect()

    async def _watch(self) -> None:
        """The SDK's pauses between attempts to connect grow up to 17 minutes; the supervisor's do not."""
        seen = time.monotonic()
        while time.monotonic() - seen < AWAY_LIMIT:
            await asyncio.sleep(AWAY_LIMIT / 12)
            socket: DiscordWebSocket | None = self._client.ws
            if socket is not None and socket.open:
                seen = time.monotonic()
        raise ConnectionError(f"discord: no gateway for {AWAY_LIMIT:.0f} s")

    async def _end(self, reader: asyncio.Task[None], others: list[asyncio.Task[Any]]) -> None:
        """However this is cut short, nothing goes on afterwards, and the events stay in their order."""
        try:
            await self._leave(reader)
        finally:
            every = (reader, *others, *self._background)
            for task in every:
                task.cancel()
            await asyncio.gather(self._halt_reading(), *every, return_exceptions=True)
            self._remember()

    async def _leave(self, reader: asyncio.Task[None]) -> None:
        await self._halt_reading()
        await self._close()
        for event in (self._over, self._news, self._is_ready):
            event.set()
        await asyncio.wait([reader], timeout=CLOSING)

    def _remember(self) -> None:
        """What waited for a history stands before later events, and behind that history."""
        if self._backfill and not self._backfill.is_complete:
            self._memory.events.extendleft(reversed([None, *self._backfill.held()]))
        if waiting := sum(item is not None for item in self._memory.events):
            self._warn("%d events wait to be stored by the next run", waiting)

    async def _close(self) -> None:
        try:
            async with asyncio.timeout(CLOSING):
                await self._client.close()
        except Exception as exc:  # noqa: BLE001 - a socket that is gone cannot be closed, which is as good
            self._warn("closed without a goodbye (%s)", type(exc).__name__)
        finally:
            await self._client.http.close()

    def _parsers(self, sdk: dict[str, Parser]) -> _Parsers:
        """The SDK's table of event parsers, with ours for messages, and a guard around all but READY.

        The SDK calls them inside the read loop of the socket, where a field of the wrong type would end the connection.
        """
        own = {**sdk, "MESSAGE_CREATE": self._handle_message, "MESSAGE_UPDATE": self._handle_edit}
        own["INTERACTION_CREATE"] = self._handle_interaction
        guarded = _Parsers({event: partial(self._guard, event, parser) for event, parser in own.items()})
        guarded["READY"] = partial(self._handle_ready, sdk["READY"])
        return guarded

    def _guard(self, event: str, parser: Callable[[object], T], data: object) -> T | None:
        try:
            return parser(data)
        except Exception as exc:  # noqa: BLE001 - no event, however malformed, ends the connection
            reason = str(exc) if isinstance(exc, MalformedEvent) else type(exc).__name__
            self._warn("ignored a malformed %s: %s", event, reason)
            return None

    def _handle_ready(self, parser: Parser, data: object) -> None:
        parser(data)
        self._on_ready(self._client)
        self._inbox.connected(**self._where())
        self._is_ready.set()
        self._enqueue(None)
        if not self._is_registered:
            self._is_registered = True
            self._run_in_background(register_commands(self._client), "its commands were not registered")

    def _handle_message(self, data: object) -> None:
        message = self._message(data)
        if message is not None:
            self._enqueue(
                replace(message, chat_name=message.sender.name if message.is_private else self._chat_name(message))
            )

    def _handle_edit(self, data: object) -> None:
        edit = parse_edit(data, self._me(), platform=self._memory.platform)
        if edit is not None:
            self._enqueue(edit)

    def _handle_interaction(self, data: object) -> None:
        interaction = parse_interaction(data, self._me(), platform=self._memory.platform)
        if interaction is not None:
            named = replace(interaction.message, chat_name=self._chat_name(interaction.message))
            self._enqueue(replace(interaction, message=named))

    def _enqueue(self, item: Queued) -> None:
        self._memory.events.append(item)
        self._news.set()

    def _message(self, data: object) -> InboundMessage | None:
        return parse_message(data, self._me(), platform=self._memory.platform)

    def _me(self) -> str:
        return str(self._client.user.id) if self._client.user else ""

    def _where(self) -> dict[str, str]:
        """What the bot is called, and where a private chat with it opens."""
        user = self._client.user
        return {"name": user.name, "url": f"https://discord.com/users/{user.id}"} if user else {}

    def _chat_name(self, message: InboundMessage) -> str:
        channel = self._client.get_channel(int(message.address.chat_id))
        return str(getattr(channel, "name", ""))

    async def _store_all(self) -> None:
        events = self._memory.events
        while events or not self._over.is_set():
            while events:
                if (item := events[0]) is None:
                    if self._over.is_set():
                        return  # what follows must not be stored before what was missed
                    await self._catch_up()
                    events.popleft()
                elif self._backfill and self._backfill.hold(_chat_of(item), item):
                    events.popleft()
                else:
                    await self._store_together(
                        [item for item in takewhile(self._is_free, islice(events, TOGETHER)) if item]
                    )
            self._news.clear()
            if not self._over.is_set():
                await self._news.wait()

    def _is_free(self, item: Queued) -> bool:
        """Whether the event waits for no history."""
        return item is not None and not (self._backfill and self._backfill.awaits(_chat_of(item)))

    async def _store_together(self, items: list[Envelope]) -> None:
        """Store the events that stand first. They are handed in in order, so that the inbox stores them together.

        Each leaves the queue when it and all before it are stored. What is behind one that fails may be handed in
        again, and is known by its key then.
        """
        storing = [asyncio.ensure_future(self._hand_in(item)) for item in items]
        try:
            for item, task in zip(items, storing, strict=True):
                try:
                    await task
                except Exception as exc:  # noqa: BLE001 - whatever it is, Discord tells nothing twice
                    self._warn("%s (%s)", _problem(item), type(exc).__name__)
                    await _halt(storing)
                    await self._store(item)
                    self._memory.events.popleft()
                    return
                self._memory.events.popleft()
        finally:
            await _halt(storing)

    async def _store(self, item: Envelope) -> None:
        await self._retry_until_stored(partial(self._hand_in, item), _problem(item))

    async def _hand_in(self, item: Envelope) -> None:
        if isinstance(item, MessageEdit):
            await self._inbox.edit(item)
        elif isinstance(item, Interaction):
            await self._inbox.receive(item.message)
            self._run_in_background(acknowledge(self._client, item), "an interaction was not answered")
        else:
            has_gap = self._backfill is not None and item.address.chat_id in self._backfill.gaps
            await self._inbox.receive(replace(item, position=None) if has_gap else item)

    async def _retry_until_stored(self, action: Callable[[], Awaitable[T]], problem: str) -> T:
        """Until it succeeds: Discord tells nothing twice. When the connection is over, one last attempt is made."""
        attempt = 0
        while True:
            try:
                return await action()
            except Exception as exc:
                if self._over.is_set():
                    raise
                self._warn("%s (%s)", problem, type(exc).__name__)
            attempt += 1
            await is_set_within(self._over, backoff.seconds(attempt, first=FIRST_RETRY, longest=MAX_RETRY))

    async def _catch_up(self) -> None:
        """RESUME replays what was missed, a new session does not. Not for guilds: their history lacks the words."""
        await self._is_ready.wait()
        marks = await self._retry_until_stored(self._inbox.marks, "the marks of private chats were not read")
        await self._halt_reading()
        held = self._backfill.held() if self._backfill else []
        backfill = self._backfill = Backfill(self._memory.platform, marks, self._read_missed, self._store)
        for item in held:  # of chats that have marks, and those are not taken away
            backfill.hold(_chat_of(item), item)
        self._reading = asyncio.create_task(backfill.run())

    async def _halt_reading(self) -> None:
        if self._reading:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)

    async def _read_missed(self, chat_id: str, mark: Mark) -> None:
        if self._backfill is None:
            return
        after, full = str(max(mark.position, position_at(start_of(mark)))), True
        while full:
            page = await self._backfill.ask(partial(self._page, chat_id, after))
            for data in reversed(page):  # newest first
                message = self._guard("message of a history", self._message, data)
                if message is not None:
                    await self._store(replace(message, chat_name=message.sender.name, is_from_history=True))
            after, full = str(page[0]["id"]) if page else after, len(page) == PAGE

    async def _page(self, chat_id: str, after: str) -> list[Any]:
        try:
            return list(await self._client.http.logs_from(chat_id, PAGE, after=after))
        except (discord.Forbidden, discord.NotFound):
            return []  # the chat is gone
        except (Busy, discord.RateLimited) as busy:
            if busy.retry_after is None:
                raise
            raise AskLater(busy.retry_after) from None

    def _run_in_background(self, call: Coroutine[Any, Any, None], problem: str) -> None:
        """Make a call that nothing depends on, beside everything else."""
        task = asyncio.create_task(self._attempt(call, problem))
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _attempt(self, call: Coroutine[Any, Any, None], problem: str) -> None:
        try:
            async with asyncio.timeout(BACKGROUND_SECONDS):
                await call
        except Exception as exc:  # noqa: BLE001 - whatever it is, messages come and go without it
            self._warn("%s (%s)", problem, type(exc).__name__)  # its text may hold the address, with a token

    def _warn(self, text: str, *details: object) -> None:
        log.warning("%s: %s", self._memory.platform, text % details)


async def _halt(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _problem(item: Envelope) -> str:
    what = {MessageEdit: "an edit", Interaction: "an interaction"}.get(type(item), "a message")
    return f"{what} was not stored"


def _chat_of(item: Envelope) -> str:
    return (item.message if isinstance(item, Interaction) else item).address.chat_id
