"""What Slack tells, parsed and given names: its events carry ids only. The same however they arrive."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import aiohttp
from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient

from adapters.slack.events import Me, parse_command, parse_event, parse_press
from identity.support.text import storable
from sessions_app.messages import InboundMessage, MessageEdit

NAME_SECONDS = 2.0  # how long a name may hold up a message
NAME_LIFE = 3600.0  # after this long a name is asked for again
NO_NAME_LIFE = 60.0  # and after this long when there was no answer


class Directory:
    """Names for ids, because Slack's events carry ids only. Bounded; a name that cannot be had is empty."""

    def __init__(self, web: AsyncWebClient, size: int = 1000) -> None:
        self.web = web
        self._size = size
        self._known: dict[str, tuple[float, tuple[str, str]]] = {}

    async def person(self, user_id: str) -> tuple[str, str]:
        """Name and username of `USER` or `TEAM:USER`."""
        return await self._name(user_id, self._ask_person)

    async def channel(self, channel_id: str) -> str:
        """Name of a channel; empty for none."""
        return channel_id and (await self._name(channel_id, self._ask_channel))[0]

    async def is_own_chat(self, channel_id: str, user_id: str) -> bool:
        """Whether a channel is the bot's own private chat with `USER` or `TEAM:USER`. If Slack does not say: no."""
        if not channel_id.startswith("D"):
            return False
        partner = (await self._name(f"im {channel_id}", self._ask_partner))[0]
        return bool(partner) and partner == user_id.rpartition(":")[2]

    async def named(self, message: InboundMessage) -> InboundMessage:
        """The message with the names of its author and chat; both are asked for at once."""
        if not message.is_addressed:  # it will not be kept, so nobody needs to be asked about it
            return message
        chat_id = "" if message.is_private else message.address.chat_id
        (name, username), chat = await asyncio.gather(self.person(message.sender.user_id), self.channel(chat_id))
        chat = name if message.is_private else chat
        return replace(message, sender=replace(message.sender, name=name, username=username), chat_name=chat)

    async def confirmed(self, message: InboundMessage) -> InboundMessage:
        """The same for a command: Slack does not say whether it was private. The person sees a failure after
        three seconds.
        """
        chat, person = message.address.chat_id, message.sender.user_id
        private, named = await asyncio.gather(self.is_own_chat(chat, person), self.named(message))
        return replace(named, is_private=private)

    async def _name(self, key: str, ask: Callable[[str], Awaitable[tuple[str, str]]]) -> tuple[str, str]:
        expires, names = self._known.get(key, (0.0, ("", "")))
        if time.monotonic() < expires:
            return names
        life = NAME_LIFE
        try:
            async with asyncio.timeout(NAME_SECONDS):
                names = await ask(key)
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
        user: dict[str, Any] = (await self.web.users_info(user=user_id.rpartition(":")[2])).get("user") or {}
        profile = user.get("profile") or {}
        name = profile.get("display_name") or profile.get("real_name") or user.get("real_name") or ""
        return storable(str(name)), storable(str(user.get("name") or ""))

    async def _ask_channel(self, channel_id: str) -> tuple[str, str]:
        channel: dict[str, Any] = (await self.web.conversations_info(channel=channel_id)).get("channel") or {}
        return storable(str(channel.get("name") or "")), ""

    async def _ask_partner(self, key: str) -> tuple[str, str]:
        channel_id = key.partition(" ")[2]
        channel: dict[str, Any] = (await self.web.conversations_info(channel=channel_id)).get("channel") or {}
        return (str(channel.get("user") or "") if channel.get("is_im") is True else ""), ""


async def parse_payload(kind: str, payload: Any, me: Me, directory: Directory) -> InboundMessage | MessageEdit | None:
    """What an event (`events_api`), a pressed button (`interactive`) or a command (`slash_commands`) says, with names.

    None for what is no message. Raises MalformedEvent.
    """
    if kind == "slash_commands":
        return await directory.confirmed(parse_command(payload, me))
    event = (parse_press if kind == "interactive" else parse_event)(payload, me)
    return await directory.named(event) if isinstance(event, InboundMessage) else event
