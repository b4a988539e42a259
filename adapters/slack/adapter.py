"""Slack over Socket Mode: each event is stored before it is acknowledged."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from django.utils.translation import gettext as _
from slack_bolt.adapter.socket_mode.aiohttp import AsyncSocketModeHandler
from slack_bolt.app.async_app import AsyncApp
from slack_sdk.socket_mode.aiohttp import SocketModeClient
from slack_sdk.socket_mode.async_client import AsyncBaseSocketModeClient
from slack_sdk.socket_mode.request import SocketModeRequest
from slack_sdk.web.async_client import AsyncWebClient

from adapters.protocols import DeliveryError, Inbox, NeedsConfiguration
from adapters.slack import PLATFORM
from adapters.slack.client import (
    StatusRefused,
    TokenRefused,
    ask_who,
    checked,
    introduce,
    missing_scopes,
    post,
    quiet,
    set_status,
    slack_client,
)
from adapters.slack.directory import Directory
from adapters.slack.events import Me
from adapters.slack.receiver import Receiver
from sessions_app.messages import Address, OutgoingMessage

PING_SECONDS = 5.0  # how soon the SDK notices a dead socket
LOST_SECONDS = 60.0  # how long it may try to reconnect before everything is built again
CLOSE_SECONDS = 3.0  # how long a server may take to say goodbye


class SlackAdapter:
    """One bot in one workspace. A second workspace is a second adapter with its own tokens and `platform` name.

    Order: messages are handed in as they arrive, one at a time. When one cannot be stored it is not acknowledged, Slack
    sends it again (at once, after a minute, after five), and later messages of the same channel may come first;
    `sent_at` keeps the true order. The warning in the log names the event.

    When it connects, what was missed in the private chats that the inbox knows is read from their history.

    Buttons and slash commands arrive in the same way and the same order, but Slack tells of them once.

    Slack has a typing sign in threads alone, and keeps it for two minutes.
    """

    text_limit = PLATFORM.text_limit
    typing_seconds = 60.0

    def __init__(
        self, *, bot_token: str, app_token: str, api_url: str = "https://slack.com/api/", platform: str = "slack"
    ) -> None:
        self.platform = platform
        self._bot_token = bot_token.strip()
        self._app_token = app_token.strip()
        self._api_url = api_url
        self._web: AsyncWebClient | None = None  # while connected
        self._me: Me | None = None
        self._refused = False  # a send met a refusal of the token
        self._shows_no_status = False  # until it connects again

    async def run(self, inbox: Inbox, stop: asyncio.Event) -> None:
        """Receive until `stop` is set. The event in hand is finished first; what waits behind it comes again.

        Raises NeedsConfiguration, or ConnectionError when Slack cannot be reached or was lost for a minute.
        """
        await _until(stop, self._session(inbox))

    async def check(self) -> str:
        """See `Checkable`. Both tokens, and what the bot's one opens; the socket is asked for and not opened."""
        name = await self._check_bot()
        await _socket_address(slack_client(self._api_url, self._app_token), self._app_token)
        return name

    async def _check_bot(self) -> str:
        bot = slack_client(self._api_url, self._bot_token)
        me = await introduce(bot, self.platform)
        if lacking := missing_scopes((await ask_who(bot)).headers):
            raise NeedsConfiguration(f"SLACK_BOT_TOKEN lacks the scopes {', '.join(lacking)}; add them and reinstall")
        return f"@{me.name}"

    async def send(self, message: OutgoingMessage) -> str:
        """Post a message and return its ts. Raises DeliveryError."""
        if self._web is None or self._me is None:
            raise DeliveryError("slack is not connected")
        try:
            return await post(self._web, self._me, message)
        except TokenRefused:
            self._refused = True
            raise

    async def show_typing(self, address: Address) -> None:
        """See `ShowsTyping`."""
        await self._set_status(address, _("is typing..."))

    async def hide_typing(self, address: Address) -> None:
        """See `HidesTyping`."""
        await self._set_status(address, "")

    async def _set_status(self, address: Address, status: str) -> None:
        if self._web is None:
            raise DeliveryError("slack is not connected")
        if not address.thread_id or self._shows_no_status:
            return
        try:
            await set_status(self._web, address, status)
        except StatusRefused:
            self._shows_no_status = True
            raise

    async def _session(self, inbox: Inbox) -> None:
        bot, app = slack_client(self._api_url, self._bot_token), slack_client(self._api_url, self._app_token)
        me = await introduce(bot, self.platform)
        address = await _socket_address(app, self._app_token)
        receiver = Receiver(inbox, me, Directory(bot), await inbox.marks())
        handler = _Handler(AsyncApp(client=bot, logger=quiet, name="botos"), self._app_token, app, receiver)
        handler.client.wss_uri = address
        try:
            await _connect(handler)
            self._web, self._me, self._refused, self._shows_no_status = bot, me, False, False
            receiver.catch_up()
            inbox.connected(name=me.name)  # an address would open Slack only where it is installed
            await self._watch(handler.client, receiver)
        finally:
            self._web = None
            await receiver.finish()
            await _close(handler)

    async def _watch(self, client: SocketModeClient, receiver: Receiver) -> None:
        """Until the connection is beyond repair. The SDK reconnects by itself, but may cling to an expired address."""
        lost = 0.0
        while not receiver.task.done():
            await asyncio.wait({receiver.task}, timeout=PING_SECONDS)
            lost = 0.0 if await client.is_connected() else lost + PING_SECONDS
            if lost > LOST_SECONDS:
                raise ConnectionError("slack: the connection was lost and does not come back")
            self._check_token()
        receiver.task.result()

    def _check_token(self) -> None:
        if self._refused:  # a fresh start finds out whether that was true
            raise ConnectionError("slack: the bot token was refused on a send")


class _Handler(AsyncSocketModeHandler):
    """Bolt's handler, except that envelopes go to the receiver: bolt acknowledges before a listener has ended."""

    def __init__(self, app: AsyncApp, app_token: str, web: AsyncWebClient, receiver: Receiver) -> None:
        super().__init__(app, app_token, logger=quiet, web_client=web, ping_interval=PING_SECONDS)
        self.client.proxy = web.proxy
        self.client.message_listeners.append(_give_payload)
        self._receiver = receiver

    async def handle(self, client: SocketModeClient, req: SocketModeRequest) -> None:  # type: ignore[override]
        # The SDK starts one task per envelope, in order of arrival: nothing may be awaited before this.
        if req.type in ("events_api", "interactive", "slash_commands"):
            self._receiver.put(client, req)
        else:
            await super().handle(client, req)


async def _give_payload(_: AsyncBaseSocketModeClient, envelope: dict[str, Any], __: str | None = None) -> None:
    """Let the receiver refuse an envelope whose payload is no object; the SDK would raise before it gets there."""
    if "envelope_id" in envelope and not isinstance(envelope.get("payload"), dict):
        envelope["payload"] = {}


async def _socket_address(app: AsyncWebClient, app_token: str) -> str:
    """Where to connect. With a bad token the SDK would never stop asking, so this comes first too."""
    wanted = "an app-level token (xapp-...) with the scope connections:write, and Socket Mode switched on"
    return str((await checked(app.apps_connections_open(app_token=app_token), "SLACK_APP_TOKEN", wanted))["url"])


async def _until(stop: asyncio.Event, work: Coroutine[Any, Any, None]) -> None:
    """Run `work` until it ends or `stop` is set; in the latter case wait until it has tidied up."""
    task, stopping = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({task, stopping}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
        task.cancel()
        await asyncio.wait({task})
    if not task.cancelled():
        task.result()


async def _connect(handler: _Handler) -> None:
    try:
        async with asyncio.timeout(LOST_SECONDS):
            await handler.connect_async()  # type: ignore[no-untyped-call]
    except TimeoutError:
        raise ConnectionError("slack: the socket does not open") from None


async def _close(handler: _Handler) -> None:
    try:
        async with asyncio.timeout(CLOSE_SECONDS):
            await handler.close_async()  # type: ignore[no-untyped-call]
    except TimeoutError:  # the server does not say goodbye; the second call finds the socket closed and ends the tasks
        await handler.close_async()  # type: ignore[no-untyped-call]
