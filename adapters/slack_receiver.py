"""One Slack event at a time: parsed, named, stored, and only then acknowledged."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import aiohttp
from slack_sdk.errors import SlackApiError
from slack_sdk.socket_mode.aiohttp import SocketModeClient
from slack_sdk.socket_mode.request import SocketModeRequest
from slack_sdk.socket_mode.response import SocketModeResponse
from slack_sdk.web.async_client import AsyncWebClient

from adapters.protocols import Inbox, MalformedEvent
from adapters.slack_events import Me, clean, parse_command, parse_event, parse_press
from sessions_app.messages import InboundMessage, MessageEdit

logger = logging.getLogger(__name__)

FINISH_SECONDS = 10.0  # how long the event in hand may take when the bot stops
NAME_SECONDS = 2.0  # how long a name may hold up a message
NAME_LIFE = 3600.0  # after this long a name is asked for again
NO_NAME_LIFE = 60.0  # and after this long when there was no answer


class Directory:
    """Names for ids, because Slack's events carry ids only. Bounded; a name that cannot be had is empty."""

    def __init__(self, web: AsyncWebClient, size: int = 1000) -> None:
        self._web = web
        self._size = size
        self._known: dict[str, tuple[float, tuple[str, str]]] = {}

    async def person(self, user_id: str) -> tuple[str, str]:
        """Name and username of `USER` or `TEAM:USER`."""
        return await self._name(user_id, self._ask_person)

    async def channel(self, channel_id: str) -> str:
        """Name of a channel."""
        return (await self._name(channel_id, self._ask_channel))[0]

    async def is_own_chat(self, channel_id: str, user_id: str) -> bool:
        """Whether a channel is the bot's own private chat with `USER` or `TEAM:USER`. If Slack does not say: no."""
        if not channel_id.startswith("D"):
            return False
        partner = (await self._name(f"im {channel_id}", self._ask_partner))[0]
        return bool(partner) and partner == user_id.rpartition(":")[2]

    async def _name(self, key: str, ask: Callable[[str], Awaitable[tuple[str, str]]]) -> tuple[str, str]:
        expires, names = self._known.get(key, (0.0, ("", "")))
        if time.monotonic() < expires:
            return names
        life = NAME_LIFE
        try:
            names = await asyncio.wait_for(ask(key), NAME_SECONDS)
        except (SlackApiError, aiohttp.ClientError, OSError, TimeoutError, AttributeError):
            life = NO_NAME_LIFE
        self._keep(key, (time.monotonic() + life, names))
        return names

    def _keep(self, key: str, entry: tuple[float, tuple[str, str]]) -> None:
        self._known.pop(key, None)
        while len(self._known) >= self._size:
            self._known.pop(next(iter(self._known)))  # the one asked for longest ago
        self._known[key] = entry

    async def _ask_person(self, user_id: str) -> tuple[str, str]:
        user: dict[str, Any] = (await self._web.users_info(user=user_id.rpartition(":")[2])).get("user") or {}
        profile = user.get("profile") or {}
        name = profile.get("display_name") or profile.get("real_name") or user.get("real_name") or ""
        return clean(str(name)), clean(str(user.get("name") or ""))

    async def _ask_channel(self, channel_id: str) -> tuple[str, str]:
        channel: dict[str, Any] = (await self._web.conversations_info(channel=channel_id)).get("channel") or {}
        return clean(str(channel.get("name") or "")), ""

    async def _ask_partner(self, key: str) -> tuple[str, str]:
        channel_id = key.partition(" ")[2]
        channel: dict[str, Any] = (await self._web.conversations_info(channel=channel_id)).get("channel") or {}
        return (str(channel.get("user") or "") if channel.get("is_im") is True else ""), ""


class Receiver:
    """A queue of envelopes and the one task that empties it, so that messages are stored in the order of arrival."""

    def __init__(self, inbox: Inbox, me: Me, directory: Directory) -> None:
        self._inbox = inbox
        self._me = me
        self._directory = directory
        self._queue: asyncio.Queue[tuple[SocketModeClient, SocketModeRequest] | None] = asyncio.Queue()
        self._closing = False
        self.task = asyncio.ensure_future(self._consume())

    def put(self, client: SocketModeClient, request: SocketModeRequest) -> None:
        """Line an envelope up. Synchronous, so that nothing overtakes."""
        self._queue.put_nowait((client, request))

    async def finish(self) -> None:
        """Finish the event in hand and take no other."""
        self._closing = True
        self._queue.put_nowait(None)
        await asyncio.wait({self.task}, timeout=FINISH_SECONDS)
        self.task.cancel()

    async def _consume(self) -> None:
        while (envelope := await self._queue.get()) is not None and not self._closing:
            await self._take(*envelope)

    async def _take(self, client: SocketModeClient, request: SocketModeRequest) -> None:
        # Only names and kinds are logged: the text of an exception may repeat what somebody wrote.
        try:
            await self._store(request)
        except MalformedEvent as error:
            logger.warning("%s: event %s is malformed, dropped: %s", self._me.platform, _label(request), error)
        except Exception as error:  # noqa: BLE001 - whatever it is, it must not end the connection
            kind = type(error).__name__
            logger.error("%s: event %s not stored%s: %s", self._me.platform, _label(request), _fate(request), kind)
            return
        await self._acknowledge(client, request.envelope_id)

    async def _store(self, request: SocketModeRequest) -> None:
        if request.type == "slash_commands":
            await self._inbox.receive(await self._confirmed(parse_command(request.payload, self._me)))
            return
        parse = parse_press if request.type == "interactive" else parse_event
        heard = parse(request.payload, self._me)
        if isinstance(heard, MessageEdit):
            await self._inbox.edit(heard)
        elif heard is not None:
            await self._inbox.receive(await self._named(heard))

    async def _confirmed(self, message: InboundMessage) -> InboundMessage:
        """Both questions at once: the person sees a failure after three seconds."""
        chat, person = message.address.chat_id, message.sender.user_id
        private, named = await asyncio.gather(self._directory.is_own_chat(chat, person), self._named(message))
        return replace(named, is_private=private)

    async def _named(self, message: InboundMessage) -> InboundMessage:
        if not message.is_addressed:  # it will not be kept, so nobody needs to be asked about it
            return message
        name, username = await self._directory.person(message.sender.user_id)
        chat = name if message.is_private else await self._directory.channel(message.address.chat_id)
        return replace(message, sender=replace(message.sender, name=name, username=username), chat_name=chat)

    async def _acknowledge(self, client: SocketModeClient, envelope_id: str) -> None:
        # Straight on the socket: the SDK's own method waits for a reconnect when the socket is gone, and lets go of a
        # lock that is not its own when it is cancelled there. An acknowledgement that is lost costs one repetition.
        try:
            if client.current_session is not None:
                await client.current_session.send_str(json.dumps(SocketModeResponse(envelope_id).to_dict()))
        except (ConnectionError, aiohttp.ClientError):
            logger.info("%s: the connection is gone, an event will come again", self._me.platform)


def _fate(request: SocketModeRequest) -> str:
    return ", it comes again" if request.type == "events_api" else ""


def _label(request: SocketModeRequest) -> str:
    """What to find an event by: its event id, else the envelope's; printable and short, whatever was sent."""
    return ascii(request.payload.get("event_id") or request.envelope_id)[:80]
