"""One Slack event at a time: parsed, named, stored, and only then acknowledged."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import aiohttp
from slack_sdk.socket_mode.aiohttp import SocketModeClient
from slack_sdk.socket_mode.request import SocketModeRequest
from slack_sdk.socket_mode.response import SocketModeResponse

from adapters.aio import is_set_within
from adapters.backfill import Backfill
from adapters.protocols import Inbox, MalformedEvent
from adapters.slack.backfill import missed
from adapters.slack.directory import Directory, parse_payload
from adapters.slack.events import Me, parse_history
from identity.support import backoff
from sessions_app.messages import InboundMessage, MessageEdit
from sessions_app.receiving.watermarks import Mark

logger = logging.getLogger(__name__)

FIRST_RETRY, MAX_RETRY = 0.1, 5.0  # seconds between attempts to store
PLACES = ("channel", "id", "channel_id")  # of the chat's id, in an event, a pressed button and a command
FINISH_SECONDS = 10.0  # how long the event in hand may take when the bot stops

TOGETHER = 50  # events that are handed in without waiting for each

Envelope = tuple[SocketModeClient, SocketModeRequest]
Parsed = InboundMessage | MessageEdit | None


class Receiver:
    """A queue of envelopes and the one task that empties it, so that messages are stored in the order of arrival."""

    def __init__(self, inbox: Inbox, me: Me, directory: Directory, marks: Mapping[str, Mark] | None = None) -> None:
        self._inbox = inbox
        self._me = me
        self._directory = directory
        self._queue: asyncio.Queue[Envelope | None] = asyncio.Queue()
        self._closing = asyncio.Event()
        self._backfill: Backfill[Envelope] = Backfill(me.platform, marks or {}, self._read_missed, self._take)
        self._reading: asyncio.Task[None] | None = None
        self.task = asyncio.ensure_future(self._consume())

    def put(self, client: SocketModeClient, request: SocketModeRequest) -> None:
        """Line an envelope up. Synchronous, so that nothing overtakes."""
        self._queue.put_nowait((client, request))

    def catch_up(self) -> None:
        """Begin to read what was missed. What arrives in a chat in `marks` waits from the beginning."""
        self._reading = asyncio.ensure_future(self._backfill.run())

    async def finish(self) -> None:
        """Finish the event in hand and take no other. However this is cut short, nothing goes on afterwards."""
        self._closing.set()
        reading = [self._reading] if self._reading else []
        try:
            for task in reading:
                task.cancel()
            await asyncio.gather(*reading, return_exceptions=True)
            self._queue.put_nowait(None)
            await asyncio.wait({self.task}, timeout=FINISH_SECONDS)
        finally:
            self.task.cancel()
            await asyncio.gather(self.task, *reading, return_exceptions=True)

    async def _consume(self) -> None:
        while (envelope := await self._queue.get()) is not None and not self._closing.is_set():
            front = [envelope]
            while len(front) < TOGETHER and not self._queue.empty():
                if (envelope := self._queue.get_nowait()) is None:
                    self._queue.put_nowait(None)
                    break
                front.append(envelope)
            await self._take_together([one for one in front if not self._backfill.hold(_chat_of(one[1].payload), one)])

    async def _take_together(self, front: list[Envelope]) -> None:
        """Hand the events in in order, so that the inbox stores them together; from one that fails on, one by one.

        What is handed in twice so is known by its key.
        """
        storing: list[asyncio.Task[None]] = []
        are_stored = 0
        try:
            for envelope in front:
                event = await self._parse(envelope[1])
                storing.append(asyncio.ensure_future(self._hand_in_for(envelope, event)))
            for task in storing:
                await task
                are_stored += 1
        except Exception as error:  # noqa: BLE001 - whatever it is, it must not end the connection
            failed = are_stored if len(storing) == len(front) else len(storing)
            self._report(_label(front[failed][1]), error)
        finally:
            for task in storing:
                task.cancel()
            await asyncio.gather(*storing, return_exceptions=True)
        for envelope in front[are_stored:]:
            if self._closing.is_set():
                return
            await self._take(envelope)

    async def _hand_in_for(self, envelope: Envelope, event: Parsed) -> None:
        client, request = envelope
        await self._hand_in(event)
        await self._acknowledge(client, request.envelope_id)

    async def _take(self, envelope: Envelope) -> None:
        client, request = envelope
        if await self._retry_until_stored(partial(self._store, request), _label(request)):
            await self._acknowledge(client, request.envelope_id)

    async def _read_missed(self, chat_id: str, mark: Mark) -> None:
        for raw in await missed(self._directory.web, chat_id, mark, self._backfill.ask):
            try:
                message = parse_history(raw, chat_id, self._me)
            except MalformedEvent as error:
                logger.warning("%s: a message of a history is malformed, dropped: %s", self._me.platform, error)
                continue
            if message and not await self._retry_until_stored(partial(self._read, message), message.message_id):
                raise InterruptedError  # what comes after it must wait, too

    async def _read(self, message: InboundMessage) -> None:
        await self._receive(await self._directory.named(message))

    async def _retry_until_stored(self, store: Callable[[], Awaitable[None]], label: str) -> bool:
        """Until it is stored: what came later must wait for it, or it would be answered first. False if the bot stops.

        Meanwhile Slack may tell of it again, which is known by its key then.
        """
        attempt = 0
        while True:
            try:
                await store()
            except MalformedEvent:
                raise
            except Exception as error:  # noqa: BLE001 - whatever it is, it must not end the connection
                self._report(label, error)
            else:
                return True
            attempt += 1
            if await is_set_within(self._closing, backoff.seconds(attempt, first=FIRST_RETRY, longest=MAX_RETRY)):
                return False

    def _report(self, label: str, error: Exception) -> None:
        logger.error("%s: event %s not stored yet: %s", self._me.platform, label, type(error).__name__)

    async def _store(self, request: SocketModeRequest) -> None:
        await self._hand_in(await self._parse(request))

    async def _parse(self, request: SocketModeRequest) -> Parsed:
        try:
            return await parse_payload(request.type, request.payload, self._me, self._directory)
        except MalformedEvent as error:
            # Only names and kinds are logged: the text of an exception may repeat a message.
            logger.warning("%s: event %s is malformed, dropped: %s", self._me.platform, _label(request), error)
            return None

    async def _hand_in(self, event: Parsed) -> None:
        if isinstance(event, MessageEdit):
            await self._inbox.edit(event)
        elif event is not None:
            await self._receive(event)

    async def _receive(self, message: InboundMessage) -> None:
        has_gap = message.address.chat_id in self._backfill.gaps
        await self._inbox.receive(replace(message, position=None) if has_gap else message)

    async def _acknowledge(self, client: SocketModeClient, envelope_id: str) -> None:
        # Straight on the socket: the SDK's own method waits for a reconnect when the socket is gone, and lets go of a
        # lock that is not its own when it is cancelled there. An acknowledgement that is lost costs one repetition.
        try:
            if client.current_session is not None:
                await client.current_session.send_str(json.dumps(SocketModeResponse(envelope_id).to_dict()))
        except (ConnectionError, aiohttp.ClientError):
            logger.info("%s: the connection is gone, an event will come again", self._me.platform)


def _chat_of(payload: Any) -> str:
    """The chat that an event, a pressed button or a command is about; empty if there is none."""
    holders = [payload.get("event"), payload.get("channel"), payload]
    found = [holder.get(key) for holder, key in zip(holders, PLACES, strict=True) if isinstance(holder, dict)]
    return next((chat for chat in found if isinstance(chat, str)), "")


def _label(request: SocketModeRequest) -> str:
    """What to find an event by: its event id, else the envelope's; printable and short, whatever was sent."""
    return ascii(request.payload.get("event_id") or request.envelope_id)[:80]
