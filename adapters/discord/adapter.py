"""Discord: the gateway's raw events become InboundMessage and MessageEdit, deliveries become posts. SDK: discord.py."""

from __future__ import annotations

import asyncio
import re
import time
from collections import deque
from datetime import timedelta
from typing import Any

import discord
from discord.http import handle_message_parameters

from adapters.discord import MAX_TEXT, PLATFORM
from adapters.discord.client import Busy, buttons_of, delivery_error, new_client, point_sdk_at, refusal
from adapters.discord.connection import Connection, Memory
from adapters.duplicate_marker import MARK, marked
from adapters.protocols import DeliveryError, Inbox, NeedsConfiguration
from sessions_app.messages import Address, OutgoingMessage

SEND_TIMEOUT = 60.0  # seconds, with the SDK's own waiting for a channel's rate limit
NONCE_SECONDS = 120.0  # so long Discord itself keeps a second message with the same nonce away
CLOCKS_APART = timedelta(hours=1)  # by which the database's clock and Discord's may differ
MAX_TYPING_CALLS = 25  # a second: half of the bot's calls on all routes, so that messages have the others

# Error codes: no permission to read the history, which replies need; a message of the system.
CANNOT_REPLY = (160002, 50035)
LOOK_THROUGH = 500  # messages, in pages of a hundred, for an earlier attempt


class DiscordAdapter:
    """One bot on Discord; fulfils PlatformAdapter.

    When a session begins, whatever was missed in the private chats that the inbox knows is read from their history.
    """

    text_limit = PLATFORM.text_limit
    typing_seconds = 9.0  # Discord shows the sign for 10 seconds

    def __init__(self, *, token: str, api_url: str = "", gateway_url: str = "", platform: str = "discord") -> None:
        self.platform = platform
        self._token = token.strip()
        self._api_url = api_url
        self._gateway_url = gateway_url
        self._memory = Memory(platform)
        self._client: discord.Client | None = None  # while messages can be sent
        self._paused_until = 0.0
        self._typing_calls: deque[float] = deque(maxlen=MAX_TYPING_CALLS)  # when the latest were made

    async def run(self, inbox: Inbox, stop: asyncio.Event) -> None:
        """Receive until `stop` is set; see PlatformAdapter. Raises ConnectionError when the gateway stays away."""
        self._prepare()
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

    async def check(self) -> str:
        """See `Checkable`. No intent is asked about: BotOS uses none that Discord has to grant."""
        self._prepare()
        client = new_client()
        try:
            await client.login(self._token)
            return str(client.user)
        except Exception as exc:  # noqa: BLE001 - its cause carries the request's headers, with the token
            failure = refusal(exc) or ConnectionError(f"discord cannot be reached: {type(exc).__name__}: {exc}")
        finally:
            await client.http.close()
        raise failure

    def _prepare(self) -> None:
        if not re.fullmatch(r"[!-~]+", self._token):
            raise NeedsConfiguration("DISCORD_BOT_TOKEN is not set, or has characters that no token has")
        point_sdk_at(self._api_url, self._gateway_url)

    def _ready(self, client: discord.Client) -> None:
        self._client = client

    async def send(self, message: OutgoingMessage) -> str:
        """Post a message; the answer is its id.

        For some minutes the nonce makes Discord return the first message instead of posting a second one. Beyond that,
        a possible repeat is looked up in the chat, behind the message that was delivered before it. History has no
        nonce, so there a message of the bot with the same text is taken for it, if it is no other delivery's. Where too
        much was said since to be sure, the text is marked.
        """
        client = self._client
        if client is None:
            raise DeliveryError("discord is not connected")
        try:
            async with asyncio.timeout(SEND_TIMEOUT):
                sent = await self._post(client, message)
        except Exception as exc:  # noqa: BLE001 - whatever went wrong, the outbox must know whether to try again
            failure = self._failure(exc, possibly_sent=message.possibly_sent)
        else:
            return sent
        raise failure  # out here, where no cause comes along: it carries the request's headers, with the token

    async def show_typing(self, address: Address) -> None:
        """See `ShowsTyping`."""
        client, now = self._client, time.monotonic()
        if client is None:
            raise DeliveryError("discord is not connected")
        self._keep_pause()
        if len(self._typing_calls) == MAX_TYPING_CALLS and (wait := self._typing_calls[0] + 1.0 - now) > 0:
            raise DeliveryError("messages have the other calls of this second", retry_after=wait)
        self._typing_calls.append(now)
        try:
            await client.http.send_typing(_channel_id(address))
        except Exception as exc:  # noqa: BLE001 - its cause carries the request's headers, with the token
            failure = self._failure(exc)
        else:
            return
        raise failure

    async def _post(self, client: discord.Client, message: OutgoingMessage) -> str:
        self._keep_pause()
        channel = client.get_partial_messageable(_channel_id(message.address))
        earlier = await self._earlier(client, channel, message) if _is_beyond_nonce(message) else ""
        if earlier:
            return earlier
        text = message.text if earlier is not None else marked(message.text, MAX_TEXT)
        about: dict[str, Any] = {"nonce": message.nonce, "flags": discord.MessageFlags(suppress_embeds=True)}
        if message.buttons:
            about["view"] = buttons_of(message.buttons)
        if re.fullmatch(r"[0-9]{1,20}", message.reply_to):
            # Nobody is notified of an answer, and one to a message that is gone is posted without a reference.
            about["message_reference"] = {"message_id": message.reply_to, "fail_if_not_exists": False}
            about["mention_author"] = False
        sent = await self._send_message(client, channel.id, text, about)
        sent_id = sent.get("id") if isinstance(sent, dict) else None
        if not isinstance(sent_id, str) or not sent_id.isdecimal():
            raise DeliveryError("discord's answer names no message", ambiguous=True)
        return sent_id

    async def _send_message(self, client: discord.Client, channel_id: int, text: str, about: dict[str, Any]) -> object:
        """The answer as it is: what the SDK cannot make a message of was posted all the same."""
        try:
            with handle_message_parameters(text, previous_allowed_mentions=client.allowed_mentions, **about) as params:
                return await client.http.send_message(channel_id, params=params)
        except discord.HTTPException as exc:
            if not about.pop("message_reference", None) or exc.code not in CANNOT_REPLY:
                raise
            return await self._send_message(client, channel_id, text, about)

    async def _earlier(
        self, client: discord.Client, channel: discord.PartialMessageable, message: OutgoingMessage
    ) -> str | None:
        """The id of an earlier attempt that arrived, "" if none did, None if there is too much to look through."""
        # The last message at this address is known, and order is kept: our attempt can only come after it.
        queued_at = message.queued_at and message.queued_at - CLOCKS_APART
        behind = discord.Object(int(message.follows)) if message.follows.isdecimal() else queued_at
        read = 0
        async for old in channel.history(limit=LOOK_THROUGH, after=behind, oldest_first=True):
            if old.author == client.user and _may_be(old, message):
                return str(old.id)
            read += 1
        return "" if read < LOOK_THROUGH else None

    def _keep_pause(self) -> None:
        """Every answer 429 counts towards a ban of the address, so while the whole bot is paused nothing is asked."""
        remaining = self._paused_until - time.monotonic()
        if remaining > 0:
            raise DeliveryError("discord asked the whole bot to pause", retry_after=remaining)

    def _failure(self, exc: Exception, *, possibly_sent: bool = False) -> DeliveryError:
        if isinstance(exc, Busy) and exc.is_global and exc.retry_after:
            self._paused_until = time.monotonic() + exc.retry_after
        failure = delivery_error(exc)
        # Failing to look up an earlier attempt leaves open whether it arrived.
        failure.ambiguous = failure.ambiguous or (possibly_sent and not failure.permanent)
        return failure


def _is_beyond_nonce(message: OutgoingMessage) -> bool:
    return message.possibly_sent and (message.queued_at is None or message.waited > NONCE_SECONDS)


def _may_be(old: discord.Message, message: OutgoingMessage) -> bool:
    """Whether the bot's message `old` is an attempt at this one. Discord trims what it stores."""
    words = {message.text.strip(), message.text.removeprefix(message.late_mark).strip()}
    same_words = old.content.removeprefix(MARK).strip() in words
    return (str(old.nonce) == message.nonce or same_words) and str(old.id) not in message.others


def _channel_id(address: Address) -> int:
    if not re.fullmatch(r"[0-9]{1,20}", address.chat_id):
        raise DeliveryError("this is no chat of Discord", permanent=True)
    return int(address.chat_id)
