"""How discord.py is set up, and what its failures mean."""

from __future__ import annotations

from collections.abc import Iterable
from types import SimpleNamespace

import aiohttp
import discord
import yarl
from discord.gateway import DiscordWebSocket
from discord.http import Route
from django.utils.translation import gettext as _

from adapters.discord.events import BOT_DM, COMPONENT, Interaction
from adapters.protocols import DeliveryError, NeedsConfiguration
from identity.support.buttons import Button
from sessions_app.commands import registry as command_registry

CREDENTIALS_REFUSED = "DISCORD_BOT_TOKEN is refused by Discord; reset it in the developer portal (Bot, Reset Token)"
INTENTS_REFUSED = "DISCORD_BOT_TOKEN is refused by Discord; its application may not use the intents that are asked for"
REFUSALS = {4004: CREDENTIALS_REFUSED, 4013: INTENTS_REFUSED, 4014: INTENTS_REFUSED}  # by close code of the gateway
NEVER = (400, 403, 404)  # refused text, closed direct messages (50007), channel gone
UNKNOWN_USER = 10013  # the error code for an account that does not exist any more
REPLY, NOTHING_NEW = 4, 6  # interaction callback types: a message, and "it is being worked on" for a button
SEEN_BY_ONE = 64  # message flag
TEXT_OPTION = 3
UNANSWERED = (502, 504, 524)  # the edge gave up on a server that may have carried out the request


class Busy(aiohttp.ClientError):
    """Discord is not able (5xx) or not willing (429) to answer now. `retry_after` in seconds, None if it named none.

    A ClientError, because the SDK then also treats it as a failed attempt to open the gateway.
    """

    def __init__(self, status: int, retry_after: float | None, *, is_global: bool) -> None:
        super().__init__(f"discord answered {status}")
        self.status = status
        self.retry_after = retry_after
        self.is_global = is_global


def point_sdk_at(api_url: str, gateway_url: str) -> None:
    """Both addresses hold for the whole process: discord.py reads them from its classes and takes no others."""
    if api_url:
        Route.BASE = api_url.rstrip("/")
    if gateway_url:
        DiscordWebSocket.DEFAULT_GATEWAY = yarl.URL(gateway_url)


def new_client() -> discord.Client:
    """A client without caches, for one run: it cannot be used again. No privileged intent; nobody is ever mentioned."""
    discord.VoiceClient.warn_nacl = discord.VoiceClient.warn_dave = False  # nobody here speaks
    tracing = aiohttp.TraceConfig()
    tracing.on_request_end.append(_answer_soon)
    return discord.Client(
        intents=discord.Intents(guilds=True, guild_messages=True, dm_messages=True),
        max_messages=None,
        member_cache_flags=discord.MemberCacheFlags.none(),
        allowed_mentions=discord.AllowedMentions.none(),
        max_ratelimit_timeout=30.0,
        http_trace=tracing,
    )


def buttons_of(buttons: Iterable[Button]) -> discord.ui.View:
    """Rows of buttons that the SDK forgets as soon as they are sent: a press is read from its event."""
    view = discord.ui.View(timeout=None)
    for button in buttons:
        view.add_item(discord.ui.Button(label=button.label[:80], custom_id=button.command))
    view.stop()
    return view


async def register_commands(client: discord.Client) -> None:
    """Put the commands in the menu of the bot's own direct messages, and nowhere else."""
    words = {
        "type": TEXT_OPTION,
        "name": "text",
        "description": _("The rest of the command, if any"),
        "required": False,
    }
    commands = [
        {"type": 1, "name": one.name, "description": str(one.summary)[:100], "contexts": [BOT_DM], "options": [words]}
        for one in command_registry.menu()
    ]
    if client.application_id is not None:
        await client.http.bulk_upsert_global_commands(client.application_id, payload=commands)


async def acknowledge(client: discord.Client, interaction: Interaction) -> None:
    """Say that it was received. The answer itself is an ordinary message, so a command gets a passing word."""
    callback: dict[str, object] = {"type": NOTHING_NEW}
    if interaction.kind != COMPONENT:
        callback = {"type": REPLY, "data": {"content": _("One moment."), "flags": SEEN_BY_ONE}}
    path = "/interactions/{webhook_id}/{webhook_token}/callback"
    route = Route("POST", path, webhook_id=int(interaction.id), webhook_token=interaction.token)
    await client.http.request(route, json=callback)


async def _answer_soon(
    session: aiohttp.ClientSession, context: SimpleNamespace, params: aiohttp.TraceRequestEndParams
) -> None:
    """On 429 and most 5xx the SDK sleeps and tries again, up to 25 s; the outbox waits better, on disk and by chat."""
    response = params.response
    if response.status == 429 or response.status >= 500:
        retry_after, is_global = await _pause(response)
        raise Busy(response.status, retry_after, is_global=is_global)


async def _pause(response: aiohttp.ClientResponse) -> tuple[float | None, bool]:
    """The body has fractions of a second; Cloudflare, in front of Discord, answers in HTML with the header alone."""
    try:
        body = await response.json(content_type=None)
        return float(body["retry_after"]), body.get("global") is True
    except (ValueError, TypeError, KeyError):
        header = response.headers.get("Retry-After", "")
        return (float(header) if header.isdecimal() else None), False


def refusal(exc: Exception) -> NeedsConfiguration | None:
    """What to set, if this ended a run because the credentials were refused."""
    match exc:
        case discord.LoginFailure():
            return NeedsConfiguration(CREDENTIALS_REFUSED)
        case discord.PrivilegedIntentsRequired():
            return NeedsConfiguration(INTENTS_REFUSED)
        case discord.ConnectionClosed() if exc.code in REFUSALS:
            return NeedsConfiguration(REFUSALS[exc.code])
    return None


def delivery_error(exc: Exception) -> DeliveryError:
    """What a failed post means. Whatever went wrong after the request was on its way is ambiguous."""
    match exc:
        case DeliveryError():
            return exc
        case Busy() | discord.RateLimited():
            ambiguous = isinstance(exc, Busy) and exc.status in UNANSWERED
            return DeliveryError(str(exc), retry_after=exc.retry_after, ambiguous=ambiguous)
        case discord.HTTPException():
            return DeliveryError(str(exc), permanent=exc.status in NEVER, gone=exc.code == UNKNOWN_USER)
        case aiohttp.ClientConnectorError() | aiohttp.ConnectionTimeoutError():
            return DeliveryError(f"discord cannot be reached ({type(exc).__name__})")
        case _:
            return DeliveryError(f"no answer from discord ({type(exc).__name__})", ambiguous=True)
