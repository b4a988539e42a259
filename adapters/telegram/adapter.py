"""Telegram: long polling or a webhook in, `sendMessage` out.

The polling loop is our own. The SDK's updater confirms updates as soon as they are in memory, and loses them when the
process dies; here an update is confirmed, by the offset of the next request, only after the inbox stored it.
The bot token is part of every URL, so no exception of the SDK leaves this module: each is replaced, `from None`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import timedelta
from time import monotonic
from typing import Any, TypeVar

import httpx
from telegram import Bot
from telegram.error import (
    BadRequest,
    ChatMigrated,
    Conflict,
    EndPointNotFound,
    Forbidden,
    InvalidToken,
    RetryAfter,
    TelegramError,
)
from telegram.request import BaseRequest

from adapters.aio import is_set_within
from adapters.protocols import DeliveryError, Inbox, MalformedEvent, NeedsConfiguration, Superseded
from adapters.telegram import PLATFORM
from adapters.telegram.client import (
    AddressError,
    new_request,
    register_commands,
    send_text,
    send_typing,
    unless_stopped,
    where_found,
)
from adapters.telegram.events import BotIdentity, Press, parse_update, update_id
from adapters.telegram.webhook import Webhook, put_up, take_down, watch
from identity.support import backoff
from sessions_app.messages import Address, InboundMessage, MessageEdit, OutgoingMessage

os.environ.setdefault("PTB_TIMEDELTA", "1")  # without it the SDK warns at every 429; both types are read below
log = logging.getLogger(__name__)
T = TypeVar("T")

POLL_SECONDS = 30
EMPTY_SECONDS = 1.0  # the least time between two polls that brought nothing, whatever the server makes of POLL_SECONDS
FIRST_PAUSE, MAX_PAUSE = 0.5, 30.0  # seconds between attempts of a broken poll, doubling
PATIENCE = 8  # broken polls in a row, about a minute and a half; then the supervisor is told
CLOSING_SECONDS = 5.0  # for messages that are on their way when the connection ends
BACKGROUND_SECONDS = 10.0  # for what nobody waits for; Telegram forgets a pressed button's query after some seconds
WANTED = ["message", "edited_message", "callback_query"]
TOKEN = re.compile(r"[0-9]+:[A-Za-z0-9_-]+")
# The request cannot have reached Telegram. Whatever else breaks may have broken after it was carried out.
NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError, httpx.UnsupportedProtocol)


@dataclass(frozen=True, slots=True)
class Credentials:
    """The token, and the words about it that may be shown."""

    platform: str
    token: str = field(repr=False)

    def refusal(self) -> NeedsConfiguration:
        name = "TELEGRAM_BOT_TOKEN" if self.platform == "telegram" else f"The bot token of {self.platform}"
        if not self.token:
            return NeedsConfiguration(f"{name} is not set; @BotFather on Telegram gives one")
        return NeedsConfiguration(f"{name} is refused by Telegram; ask @BotFather for the current one")

    def masked(self, error: BaseException) -> str:
        """What an exception of the SDK says, without the secret half of the token."""
        secret = self.token.partition(":")[2]
        return f"{type(error).__name__}: {error}".replace(secret, "...")[:300]


class TelegramAdapter:
    """One Telegram bot. `platform` names it: a second bot runs as, say, `telegram-acme`."""

    text_limit = PLATFORM.text_limit
    typing_seconds = 4.5  # Telegram shows the sign for 5 seconds

    def __init__(
        self,
        *,
        token: str,
        api_url: str = "https://api.telegram.org",
        platform: str = "telegram",
        webhook: Webhook | None = None,
    ) -> None:
        self.platform = platform
        self._webhook = webhook
        self._credentials = Credentials(platform, token)
        self._api_url = api_url.rstrip("/")
        self._bot: Bot | None = None
        self._calls: set[asyncio.Task[Any]] = set()

    async def run(self, inbox: Inbox, stop: asyncio.Event) -> None:
        """Poll, or keep the webhook up, until `stop` is set.

        Raises NeedsConfiguration for a refused token, Superseded when another program receives for this bot,
        ConnectionError when Telegram stays out of reach, and whatever `inbox` raises.
        """
        if not TOKEN.fullmatch(self._credentials.token):
            raise self._credentials.refusal()
        requests = (new_request(read_timeout=POLL_SECONDS + 10), new_request(read_timeout=20))
        bot = self._build(*requests)
        try:
            if (me := await unless_stopped(self._asked(self._introduce(bot)), stop)) is not None:
                self._bot = bot
                inbox.connected(**where_found(me))
                self._run_in_background(register_commands(bot), "its commands were not registered")
                await self._receive(bot, me, inbox, stop)
        finally:
            await self._disconnect(*requests)

    async def _receive(self, bot: Bot, me: BotIdentity, inbox: Inbox, stop: asyncio.Event) -> None:
        if self._webhook and self._webhook.secret:
            await self._asked(put_up(bot, self._webhook, WANTED))
            await self._asked(watch(bot, self._webhook, self.platform, stop))
            return
        if self._webhook:
            await self._asked(take_down(bot, self._webhook))
        await _Polling(bot, self._credentials, me, inbox, stop, aside=self._run_in_background).run()

    async def check(self) -> str:
        """See `Checkable`. A webhook of another program would keep all updates from here; our own is for `run`."""
        if not TOKEN.fullmatch(self._credentials.token):
            raise self._credentials.refusal()
        request = new_request(read_timeout=20)
        try:
            bot = self._build(request, request)
            me, webhook = await self._asked(self._introduce(bot)), await self._asked(bot.get_webhook_info())
        finally:
            await request.shutdown()
        if webhook.url and (self._webhook is None or webhook.url != self._webhook.address):
            raise NeedsConfiguration(
                "the bot has a webhook elsewhere, so another program receives; delete it (deleteWebhook)"
            )
        return f"@{me.username}"

    async def send(self, message: OutgoingMessage) -> str:
        """Send plain text. A possible repeat is marked: Telegram cannot be asked what it has. Raises DeliveryError."""
        if (bot := self._bot) is None:
            raise DeliveryError(f"{self.platform} is not connected")
        try:
            return await self._start(send_text(bot, message))
        except Exception as error:  # noqa: BLE001 - none may leave as it is
            raise self._undelivered(error) from None

    async def show_typing(self, address: Address) -> None:
        """See `ShowsTyping`."""
        if (bot := self._bot) is None:
            raise DeliveryError(f"{self.platform} is not connected")
        try:
            await send_typing(bot, address)
        except Exception as error:  # noqa: BLE001 - none may leave as it is
            raise self._undelivered(error) from None

    def _start(self, call: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """A call that `run` lets end before it closes the connections."""
        task = asyncio.ensure_future(call)
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)
        return task

    def _run_in_background(self, call: Coroutine[Any, Any, object], problem: str) -> None:
        """Make a call that nothing depends on, beside the polling."""
        _task = self._start(self._attempt(call, problem))

    async def _attempt(self, call: Coroutine[Any, Any, object], problem: str) -> None:
        try:
            async with asyncio.timeout(BACKGROUND_SECONDS):
                await call
        except Exception as error:  # noqa: BLE001 - whatever it is, messages come and go without it
            log.warning("%s: %s: %s", self.platform, problem, self._credentials.masked(error))

    def _build(self, polling: BaseRequest, sending: BaseRequest) -> Bot:
        return Bot(
            self._credentials.token,
            base_url=f"{self._api_url}/bot",
            base_file_url=f"{self._api_url}/file/bot",
            get_updates_request=polling,
            request=sending,
        )

    async def _asked(self, call: Coroutine[Any, Any, T]) -> T:
        """What Telegram answers, with its refusals in our words."""
        try:
            return await call
        except InvalidToken:
            raise self._credentials.refusal() from None
        except Superseded:
            raise
        except Exception as error:  # noqa: BLE001 - none may leave as it is
            raise ConnectionError(f"{self.platform} cannot be reached: {self._credentials.masked(error)}") from None

    async def _introduce(self, bot: Bot) -> BotIdentity:
        me = await bot.get_me()
        return BotIdentity(me.id, me.username or "", self.platform)

    async def _disconnect(self, *requests: BaseRequest) -> None:
        self._bot = None
        if self._calls:  # cutting off a message would make it a possible repeat
            await asyncio.wait(self._calls, timeout=CLOSING_SECONDS)
        for request in requests:
            await request.shutdown()

    def _undelivered(self, error: Exception) -> DeliveryError:
        """An answered error says that nothing was sent; without a readable answer the message may be there."""
        reason = self._credentials.masked(error)
        if isinstance(error, RetryAfter):
            return DeliveryError(reason, retry_after=_seconds(error))
        if isinstance(error, Forbidden) and "user is deactivated" in str(error):
            return DeliveryError(reason, gone=True)
        if isinstance(error, BadRequest | Forbidden | ChatMigrated | AddressError):
            return DeliveryError(reason, permanent=True)
        if isinstance(error, InvalidToken):
            return DeliveryError("Telegram refuses the bot token")
        # The SDK chains whatever kept it from reading an answer: a broken connection, a timeout, a gateway's HTML.
        unread = not isinstance(error, TelegramError) or error.__cause__ is not None
        return DeliveryError(reason, ambiguous=unread and not isinstance(error.__cause__, NEVER_SENT))


class PollError(Exception):
    """A poll that failed and may be tried again, after `retry_after` seconds if Telegram named them."""

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


@dataclass(slots=True)
class _Polling:
    """One run of the polling loop. `offset` is the first update that is not stored yet; None lets Telegram choose."""

    bot: Bot
    credentials: Credentials
    me: BotIdentity
    inbox: Inbox
    stop: asyncio.Event
    aside: Callable[[Coroutine[Any, Any, object], str], None]
    offset: int | None = None
    failures: int = 0

    async def run(self) -> None:
        while not self.stop.is_set():
            try:
                began = monotonic()
                batch = await unless_stopped(self._fetch(), self.stop)
                await self._take_all(batch or [])
                self.failures = 0
                if not batch:
                    rest = began + EMPTY_SECONDS - monotonic()
                    await unless_stopped(asyncio.sleep(max(rest, 0)), self.stop)
            except PollError as error:
                await self._pause(error)

    async def _fetch(self) -> list[object]:
        asked = {"offset": self.offset, "timeout": POLL_SECONDS, "allowed_updates": WANTED}
        try:
            # Spelt so because the SDK warns at `getUpdates`, for which it has a method, and makes one out of this.
            batch = await self.bot.do_api_request("get_Updates", api_kwargs=asked)
        except Exception as error:  # noqa: BLE001 - none may leave as it is
            raise self._broken(error) from None
        if not isinstance(batch, list):
            raise PollError("the answer is not a list of updates")
        return batch

    def _broken(self, error: Exception) -> Exception:
        reason = self.credentials.masked(error)
        if isinstance(error, InvalidToken | EndPointNotFound):
            return self.credentials.refusal()
        if isinstance(error, Conflict):
            return Superseded(f"another poller or a webhook is active for the bot of {self.me.platform} ({reason})")
        return PollError(reason, _seconds(error) if isinstance(error, RetryAfter) else None)

    async def _take_all(self, batch: list[object]) -> None:
        """Hand all over in order, so that the inbox stores them together. Move the offset behind each that is stored.

        If the inbox raises, Telegram will tell of that update and of all later ones again. Those that were stored are
        known by their keys then.
        """
        before = self.offset
        handing_over = [asyncio.ensure_future(self._take(raw)) for raw in batch]
        try:
            for raw, task in zip(batch, handing_over, strict=True):
                if self.stop.is_set():
                    return
                await task
                if (number := _number(raw)) is not None:
                    self.offset = number + 1
        finally:
            for task in handing_over:
                task.cancel()
            await asyncio.gather(*handing_over, return_exceptions=True)
        if batch and self.offset == before:
            raise PollError("no update has an id, so none can be confirmed")

    async def _take(self, raw: object) -> None:
        event = self._read(raw)
        if isinstance(event, InboundMessage):
            await self.inbox.receive(event)
        elif isinstance(event, MessageEdit):
            await self.inbox.edit(event)
        elif isinstance(event, Press):
            await self.inbox.receive(event.message)
            self.aside(self.bot.answer_callback_query(event.query_id), "a pressed button was not answered")

    def _read(self, raw: object) -> InboundMessage | MessageEdit | Press | None:
        try:
            return parse_update(raw, self.me)
        except MalformedEvent as error:
            log.warning("%s: update %s is skipped: %s", self.me.platform, _number(raw) or "without id", error)
        except Exception as error:  # noqa: BLE001 - a fault of the parser must not hold up what follows
            log.error("%s: update %s is skipped: %s", self.me.platform, _number(raw), type(error).__name__)
        return None

    async def _pause(self, error: PollError) -> None:
        """Wait as long as Telegram asked, else longer each time. Raises ConnectionError at last."""
        self.failures += 1
        if self.failures > PATIENCE:
            raise ConnectionError(f"{self.me.platform} is out of reach: {error}") from None
        pause = backoff.seconds(self.failures, first=2 * FIRST_PAUSE, longest=MAX_PAUSE, least=FIRST_PAUSE)
        seconds = error.retry_after or pause
        log.info("%s: polling again in %.1f s: %s", self.me.platform, seconds, error)
        await is_set_within(self.stop, seconds)


def _seconds(error: RetryAfter) -> float:
    """The SDK gives a number or, when told so by its environment variable, a timedelta."""
    asked = error.retry_after
    return asked.total_seconds() if isinstance(asked, timedelta) else float(asked)


def _number(raw: object) -> int | None:
    try:
        return update_id(raw)
    except MalformedEvent:
        return None
