"""Discord: the gateway's raw events become InboundMessage and MessageEdit, deliveries become posts. SDK: discord.py."""

from __future__ import annotations

import asyncio
import re
import time
from datetime import timedelta
from typing import Any

import discord

from adapters.discord_link import Connection, Memory
from adapters.discord_sdk import Busy, buttons_of, delivery_error, point_sdk_at, refusal
from adapters.protocols import DeliveryError, Inbox, NeedsConfiguration
from sessions_app.messages import OutgoingMessage

SEND_TIMEOUT = 60.0  # seconds, with the SDK's own waiting for a channel's rate limit
NONCE_WINDOW = timedelta(minutes=2)  # so long Discord itself keeps a second message with the same nonce away


class DiscordAdapter:
    """One bot on Discord; fulfils PlatformAdapter.

    `last_seen` maps a private chat's id to the newest message id stored from it, and outlives a run. After a lost
    session, whatever came later in those chats is read from their history. Filled before `run`, it covers a restart.
    """

    text_limit = 2000

    def __init__(self, *, token: str, api_url: str = "", gateway_url: str = "", platform: str = "discord") -> None:
        self.platform = platform
        self._token = token.strip()
        self._api_url = api_url
        self._gateway_url = gateway_url
        self._memory = Memory(platform)
        self._client: discord.Client | None = None  # while messages can be sent
        self._paused_until = 0.0

    @property
    def last_seen(self) -> dict[str, str]:
        return self._memory.last_seen

    async def run(self, inbox: Inbox, stop: asyncio.Event) -> None:
        """Receive until `stop` is set; see PlatformAdapter. Raises ConnectionError when the gateway stays away."""
        if not re.fullmatch(r"[!-~]+", self._token):
            raise NeedsConfiguration("DISCORD_BOT_TOKEN is not set, or has characters that no token has")
        point_sdk_at(self._api_url, self._gateway_url)
        refused = None
        try:
            await Connection(self._memory, inbox, self._ready).live(self._token, stop)
        except Exception as exc:
            refused = refusal(exc)
            if refused is None:
                raise
        finally:
            self._client = None
        if refused is not None:
            raise refused  # out here, where no cause comes along: it carries the request's headers, with the token

    def _ready(self, client: discord.Client) -> None:
        self._client = client

    async def send(self, message: OutgoingMessage) -> str:
        """Post a message; the answer is its id.

        For some minutes the nonce makes Discord return the first message instead of posting a second one. Beyond that,
        a possible repeat is looked up in the chat, behind the message that was delivered before it. History has no
        nonce, so there a message of the bot with the same text is taken for it.
        """
        client = self._client
        if client is None:
            raise DeliveryError("discord is not connected")
        try:
            async with asyncio.timeout(SEND_TIMEOUT):
                sent = await self._post(client, message)
        except Exception as exc:  # noqa: BLE001 - whatever went wrong, the outbox must know whether to try again
            failure = self._failure(exc, message)
        else:
            return sent
        raise failure  # out here, where no cause comes along: it carries the request's headers, with the token

    async def _post(self, client: discord.Client, message: OutgoingMessage) -> str:
        self._keep_pause()
        channel = client.get_partial_messageable(_channel_id(message))
        if _is_beyond_nonce(message) and (earlier := await self._earlier(client, channel, message)):
            return earlier
        about: dict[str, Any] = {"nonce": message.nonce, "suppress_embeds": True}
        if message.buttons:
            about["view"] = buttons_of(message.buttons)
        return str((await channel.send(message.text, **about)).id)

    async def _earlier(
        self, client: discord.Client, channel: discord.PartialMessageable, message: OutgoingMessage
    ) -> str:
        # What was said at this address before is known, and order is kept: our attempt can only stand behind it.
        behind = discord.Object(int(message.follows)) if message.follows.isdecimal() else message.queued_at
        async for old in channel.history(limit=20, after=behind, oldest_first=True):
            same = str(old.nonce) == message.nonce or old.content == message.text.strip()  # Discord trims it too
            if old.author == client.user and same:
                return str(old.id)
        return ""

    def _keep_pause(self) -> None:
        """Every answer 429 counts towards a ban of the address, so while the whole bot is paused nothing is asked."""
        remaining = self._paused_until - time.monotonic()
        if remaining > 0:
            raise DeliveryError("discord asked the whole bot to pause", retry_after=remaining)

    def _failure(self, exc: Exception, message: OutgoingMessage) -> DeliveryError:
        if isinstance(exc, Busy) and exc.is_global and exc.retry_after:
            self._paused_until = time.monotonic() + exc.retry_after
        failure = delivery_error(exc)
        # Failing to look up an earlier attempt leaves open whether it arrived.
        failure.ambiguous = failure.ambiguous or (message.may_be_repeat and not failure.permanent)
        return failure


def _is_beyond_nonce(message: OutgoingMessage) -> bool:
    queued_at = message.queued_at
    return message.may_be_repeat and (queued_at is None or discord.utils.utcnow() - queued_at > NONCE_WINDOW)


def _channel_id(message: OutgoingMessage) -> int:
    if not re.fullmatch(r"[0-9]{1,20}", message.address.chat_id):
        raise DeliveryError("this is no chat of Discord", permanent=True)
    return int(message.address.chat_id)
