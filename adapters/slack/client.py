"""Slack's Web API as BotOS calls it: clients, one post, and what its errors mean for a delivery."""

from __future__ import annotations

import ipaddress
import logging
import re
import time
from collections.abc import Coroutine, Mapping
from typing import Any
from urllib.parse import urlsplit
from urllib.request import proxy_bypass

import aiohttp
from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient
from slack_sdk.web.async_slack_response import AsyncSlackResponse

from adapters.protocols import DeliveryError, NeedsConfiguration
from adapters.slack.events import Me, escape
from identity.support.buttons import Button
from identity.support.text import storable
from sessions_app.messages import Address, OutgoingMessage
from sessions_app.outbox.splitting import split

SECTION_LIMIT = 3000  # characters of a block; a message may have more
EVENT_TYPE = "botos_delivery"
# slack_sdk takes an answer that is not JSON for text, and reads it as an object: AttributeError.
NO_ANSWER = (aiohttp.ClientError, OSError, TimeoutError, AttributeError)
NOT_SENT = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.ClientHttpProxyError)
CLOCKS_APART = 3600.0  # seconds by which this machine's clock and Slack's may differ
LOOK_BACK_PAGES = 5
REPEAT = "\n(You may have seen this already.)"

# The credentials are wrong. For a delivery this is not the end: it can be sent once they are right.
REFUSED = frozenset(
    ("invalid_auth", "not_authed", "account_inactive", "token_revoked", "token_expired", "not_allowed_token_type")
)
# https://docs.slack.dev/reference/methods/chat.postMessage#errors: the channel or the text will never be taken.
# fmt: off
PERMANENT = frozenset((
    "channel_not_found", "is_archived", "channel_is_archived", "not_in_channel",
    "user_not_found", "user_not_visible", "cannot_dm_bot", "cannot_reply_to_message", "messages_tab_disabled",
    "msg_too_long", "no_text", "invalid_arguments", "invalid_blocks", "invalid_metadata_format",
    "invalid_metadata_schema", "metadata_too_large", "restricted_action", "restricted_action_read_only_channel",
    "restricted_action_thread_only_channel", "restricted_action_thread_locked",
    "restricted_action_non_threadable_channel", "thread_not_found", "team_access_not_granted", "is_inactive",
))
# fmt: on
GONE = frozenset(("user_disabled",))  # the person's account, in so many words; account_inactive is the bot's own
# "It's possible some aspect of the operation succeeded before the error was raised."
PERHAPS_DONE = frozenset(("fatal_error", "internal_error"))
# Not a member, or no permission to read: posting may still work.
CANNOT_LOOK = frozenset(("missing_scope", "not_in_channel", "no_permission"))
# This app, whatever the thread, may show no status.
NO_STATUS = frozenset(("missing_scope", "not_allowed_token_type", "no_permission", "access_denied", "unknown_method"))

NEEDED_SCOPES = ("chat:write", "im:history")  # without them nothing is sent, or no private message received


class TokenRefused(DeliveryError):
    """The bot token was refused on a send. The message can be sent once the token is right."""


class StatusRefused(DeliveryError):
    """The app may not show what it is doing."""


class _Discreet(logging.Filter):
    """Keeps credentials out of the SDK's own lines: tokens and the one-time ticket in the address of a socket.

    A stack trace repeats the text of its exception, so those of network errors go.
    """

    secret = re.compile(r"xox[a-z]-[\w-]+|xapp-[\w-]+|(?<=ticket=)[^&\s'\")]+")

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = self.secret.sub("***", record.getMessage()), ()
        if record.exc_info and isinstance(record.exc_info[1], (*NO_ANSWER, SlackApiError)):
            record.exc_info = None
        return True


# Below ERROR bolt and the SDK log whole requests and events: `/link CODE`, and what people write.
quiet = logging.getLogger("adapters.slack.adapter.sdk")
quiet.setLevel(logging.ERROR)
quiet.addFilter(_Discreet())


def slack_client(api_url: str, token: str) -> AsyncWebClient:
    """A client for one token. It opens a connection per call, so that none goes stale between two.

    No retry handlers: the SDK's default silently repeats a post whose answer was lost, and the person reads it twice.
    """
    client = AsyncWebClient(token, base_url=api_url, timeout=30, logger=quiet, retry_handlers=[])
    if _is_direct(urlsplit(api_url).hostname or ""):
        client.proxy = None  # the SDK takes HTTPS_PROXY and knows no NO_PROXY
    return client


async def introduce(bot: AsyncWebClient, platform: str) -> Me:
    """Who the token belongs to. With a bad token bolt would acknowledge events and drop them, so this comes first."""
    known = await ask_who(bot)
    if not known.get("bot_id"):
        raise NeedsConfiguration("SLACK_BOT_TOKEN does not belong to a bot; set the Bot User OAuth Token (xoxb-...)")
    teams = {known.get("team_id"), known.get("enterprise_id")}
    home = frozenset(str(team) for team in teams if team)
    return Me(platform, str(known.get("user_id")), str(known["bot_id"]), home, storable(str(known.get("user") or "")))


async def ask_who(bot: AsyncWebClient) -> AsyncSlackResponse:
    """Whose the token is, as Slack says it. Raises as `checked` does."""
    return await checked(bot.auth_test(), "SLACK_BOT_TOKEN", "the Bot User OAuth Token (xoxb-...) of an app")


async def checked(call: Coroutine[Any, Any, AsyncSlackResponse], variable: str, wanted: str) -> AsyncSlackResponse:
    """The answer to a call. Raises NeedsConfiguration if Slack refuses the token, else ConnectionError."""
    try:
        return await call
    except SlackApiError as error:
        _, code, _ = answer(error)
        if code in REFUSED or code == "missing_scope":
            raise NeedsConfiguration(f"{variable} is refused by Slack ({code}); set it to {wanted}") from None
        raise ConnectionError(f"slack does not serve: {code or 'no usable answer'}") from None
    except NO_ANSWER as error:
        raise ConnectionError(f"slack cannot be reached: {unanswered(error)}") from None


async def post(web: AsyncWebClient, me: Me, message: OutgoingMessage) -> str:
    """Post a message once and return its ts. Raises DeliveryError.

    It is sent as plain text, so that what is read is what the history holds. The nonce travels as metadata: a repeat
    looks for it first, among the messages since it was queued. Where it may not look, or there are too many messages,
    it says so in the text. An answer in a channel names who asked, without notifying them. It begins no thread, as a
    thread is a conversation of its own, which would know nothing.
    """
    if not message.text.strip():  # the SDK would warn with every send
        raise DeliveryError("slack refuses the message: no_text", permanent=True)
    before = await _sent_before(web, me, message) if message.possibly_sent else ""
    if before:
        return before
    text = message.text + (REPEAT if before is None else "")
    if message.asker and not message.address.thread_id:
        text = f"@{message.asker}: {text}"
    try:
        posted = await web.chat_postMessage(**_form(message, text))
    except (SlackApiError, *NO_ANSWER) as error:
        raise _failure(error) from None
    ts = posted.get("ts")
    if not isinstance(ts, str) or not ts:
        raise DeliveryError("slack says that it has posted, and not what", ambiguous=True)
    return ts


async def set_status(web: AsyncWebClient, address: Address, status: str) -> None:
    """Show what the bot is doing below a thread; nothing with an empty status. Raises DeliveryError."""
    chat, thread = address.chat_id, address.thread_id
    try:
        await web.assistant_threads_setStatus(channel_id=chat, thread_ts=thread, status=status)
    except SlackApiError as error:
        code = answer(error)[1]
        if code in NO_STATUS:
            raise StatusRefused(f"slack refuses the status: {code}", permanent=True) from None
        failure = _failure(error)
        failure.permanent = failure.retry_after is None
        raise failure from None
    except NO_ANSWER as error:
        raise _failure(error) from None


def _form(message: OutgoingMessage, text: str) -> dict[str, Any]:
    blocks = {"blocks": _blocks(text, message.buttons)} if message.buttons else {}
    return {
        **blocks,
        "channel": message.address.chat_id,
        "text": escape(text),
        "thread_ts": message.address.thread_id or None,
        "mrkdwn": False,
        "parse": "none",
        "unfurl_links": False,
        "unfurl_media": False,
        "metadata": {"event_type": EVENT_TYPE, "event_payload": {"id": message.nonce}},
    }


def _blocks(text: str, buttons: tuple[Button, ...]) -> list[dict[str, Any]]:
    """The text once more, as Slack shows it above buttons: plain, so that nothing in it is a mention or a link."""
    sections = [{"type": "section", "text": _plain(part)} for part in split(text, SECTION_LIMIT)]
    pressed = [
        {"type": "button", "action_id": f"botos-{number}", "text": _plain(button.label[:75]), "value": button.command}
        for number, button in enumerate(buttons)
    ]
    return [*sections, {"type": "actions", "elements": pressed}]


def _plain(text: str) -> dict[str, Any]:
    return {"type": "plain_text", "text": text, "emoji": False}


async def _sent_before(web: AsyncWebClient, me: Me, message: OutgoingMessage) -> str | None:
    """The ts of an earlier attempt that got through, "" if none did, None if that cannot be known."""
    try:
        return await _look(web, me, message)
    except SlackApiError as error:
        if answer(error)[1] in CANNOT_LOOK:
            return None
        raise _unsure(_failure(error)) from None
    except NO_ANSWER as error:
        raise _unsure(_failure(error)) from None


async def _look(web: AsyncWebClient, me: Me, message: OutgoingMessage) -> str | None:
    cursor = ""
    for _ in range(LOOK_BACK_PAGES):
        page = await _page(web, message, cursor)
        for said in page.get("messages") or ():
            if _is_ours(said, me, message.nonce):
                return str(said["ts"])
        cursor = (page.get("response_metadata") or {}).get("next_cursor") or ""
        if not cursor:
            return ""
    return None


async def _page(web: AsyncWebClient, message: OutgoingMessage, cursor: str) -> AsyncSlackResponse:
    wanted: dict[str, Any] = {"channel": message.address.chat_id, "limit": 200, "include_all_metadata": True}
    wanted["oldest"] = f"{time.time() - message.waited - CLOCKS_APART:.6f}"
    wanted["cursor"] = cursor or None
    if message.address.thread_id:
        return await web.conversations_replies(ts=message.address.thread_id, **wanted)
    return await web.conversations_history(**wanted)


def _is_ours(said: dict[str, Any], me: Me, nonce: str) -> bool:
    metadata = said.get("metadata") or {}
    named = metadata.get("event_type") == EVENT_TYPE and (metadata.get("event_payload") or {}).get("id") == nonce
    return named and me.bot_id == said.get("bot_id")


def answer(error: SlackApiError) -> tuple[int, str, dict[str, str]]:
    """HTTP status, error code ("" if the answer was none of Slack's) and headers with lower-case names."""
    response = error.response
    status = int(getattr(response, "status_code", 0) or getattr(response, "status", 0))
    data = getattr(response, "data", None)
    code = data.get("error") if isinstance(data, dict) else None
    return status, str(code or "")[:80], {name.lower(): value for name, value in response.headers.items()}


def missing_scopes(headers: Mapping[str, str]) -> list[str]:
    """Scopes that BotOS needs and the token has not, as far as Slack says: it names the token's with every answer."""
    found = {name.lower(): value for name, value in headers.items()}.get("x-oauth-scopes")
    granted = {scope.strip() for scope in (found or "").split(",")}
    return [] if found is None else [scope for scope in NEEDED_SCOPES if scope not in granted]


def _failure(error: Exception) -> DeliveryError:
    if isinstance(error, SlackApiError):
        return _refusal(*answer(error))
    if isinstance(error, NOT_SENT):
        return DeliveryError(f"slack cannot be reached: {type(error).__name__}")
    return DeliveryError(f"slack did not answer: {unanswered(error)}", ambiguous=True)


def unanswered(error: Exception) -> str:
    """Why there is no answer of Slack's, for a log: a sentence where an operator can do something about it."""
    if isinstance(error, AttributeError):
        return "the answer is not JSON; check SLACK_API_URL and any proxy on the way"
    return type(error).__name__


def _refusal(status: int, code: str, headers: dict[str, str]) -> DeliveryError:
    if status == 429 or code in ("ratelimited", "rate_limited"):
        return DeliveryError("slack asks to wait: ratelimited", retry_after=seconds(headers.get("retry-after", "")))
    if code in REFUSED:
        return TokenRefused(f"slack refuses the bot token: {code}")
    if code in GONE:
        return DeliveryError(f"slack refuses the message: {code}", gone=True)
    if code in PERMANENT:
        return DeliveryError(f"slack refuses the message: {code}", permanent=True)
    perhaps = status >= 500 or not code or code in PERHAPS_DONE
    return DeliveryError(f"slack failed: {code or status}", ambiguous=perhaps)


def _unsure(failure: DeliveryError) -> DeliveryError:
    """Nothing was sent now, but whether the attempt before got through is as open as it was."""
    failure.ambiguous = not failure.permanent
    return failure


def seconds(retry_after: str) -> float:
    """How long a header `Retry-After` asks to wait."""
    try:
        return max(float(retry_after), 0.0)
    except ValueError:
        return 30.0  # what the SDK takes for Slack's default


def _is_direct(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or bool(proxy_bypass(host))
