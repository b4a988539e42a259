"""How discord.py is set up, and what its failures mean."""

from __future__ import annotations

from types import SimpleNamespace

import aiohttp
import discord
import yarl
from discord.gateway import DiscordWebSocket
from discord.http import Route

from adapters.protocols import DeliveryError, NeedsConfiguration

CREDENTIALS_REFUSED = "DISCORD_BOT_TOKEN is refused by Discord; reset it in the developer portal (Bot, Reset Token)"
INTENTS_REFUSED = "DISCORD_BOT_TOKEN is refused by Discord; its application may not use the intents that are asked for"
REFUSALS = {4004: CREDENTIALS_REFUSED, 4013: INTENTS_REFUSED, 4014: INTENTS_REFUSED}  # by close code of the gateway
NEVER = (400, 403, 404)  # refused text, closed direct messages (50007), channel gone
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
            return DeliveryError(str(exc), permanent=exc.status in NEVER)
        case aiohttp.ClientConnectorError() | aiohttp.ConnectionTimeoutError():
            return DeliveryError(f"discord cannot be reached ({type(exc).__name__})")
        case _:
            return DeliveryError(f"no answer from discord ({type(exc).__name__})", ambiguous=True)
