"""What platforms call: what they tell is stored before they are answered 200, so that they repeat what is not.

A call is known by its secret or its signature; no browser comes here, and no cookie counts. Whether this process runs
the bots does not matter: workers are notified of what waits.
"""

from __future__ import annotations

import json
import logging

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseForbidden, JsonResponse
from django.utils.crypto import constant_time_compare
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from adapters.protocols import MalformedEvent
from adapters.telegram.events import BotIdentity, Press, parse_update
from adapters.webhook_calls import Refused, body_of, take
from identity.models import BotProfile
from sessions_app.messages import InboundMessage, MessageEdit

log = logging.getLogger(__name__)

SECRET_HEADER = "X-Telegram-Bot-Api-Secret-Token"


@csrf_exempt
@require_POST
@never_cache
def telegram(request: HttpRequest) -> HttpResponse:
    """One update of the bot that TELEGRAM_BOT_TOKEN names."""
    if settings.BOTOS_TELEGRAM_TRANSPORT != "webhook":
        raise Http404
    if not constant_time_compare(request.headers.get(SECRET_HEADER, ""), settings.TELEGRAM_WEBHOOK_SECRET):
        return HttpResponseForbidden()
    try:
        return _answer(_handle(_update_in(body_of(request))))
    except Refused as refused:
        return refused.answer()
    except Exception as error:  # noqa: BLE001 - whatever it is, Telegram will tell of it again
        return Refused(503, f"Not stored ({type(error).__name__})").answer()


def _update_in(body: bytes) -> object:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise Refused(400, "Not JSON") from None


def _handle(update: object) -> InboundMessage | MessageEdit | Press | None:
    """What the update says. None if it cannot be read: delivered again, it would hold up what follows."""
    try:
        event = parse_update(update, _bot())
    except MalformedEvent as error:
        log.warning("telegram: an update is skipped: %s", error)
        return None
    take(event.message if isinstance(event, Press) else event)
    return event


def _bot() -> BotIdentity:
    """The bot as it was when it connected. Before it ever did nobody can say whether a mention means it."""
    profile = BotProfile.objects.filter(platform="telegram").first()
    if profile is None:
        raise Refused(503, "The bot has not connected yet")
    return BotIdentity(int(settings.TELEGRAM_BOT_TOKEN.partition(":")[0]), profile.name.removeprefix("@"))


def _answer(event: object) -> HttpResponse:
    """Telegram carries out a method that it finds in the answer."""
    if isinstance(event, Press):
        return JsonResponse({"method": "answerCallbackQuery", "callback_query_id": event.query_id})
    return HttpResponse()


@csrf_exempt
@require_POST
@never_cache
async def slack(request: HttpRequest) -> HttpResponse:
    """One event, pressed button or slash command of the app that SLACK_BOT_TOKEN names."""
    if settings.BOTOS_SLACK_TRANSPORT != "http":
        raise Http404
    from adapters.slack import webhook  # the SDK takes a good part of a second

    try:
        return await webhook.take(request)
    except Refused as refused:
        return refused.answer()
    except Exception as error:  # noqa: BLE001 - whatever it is, Slack will tell of it again
        return Refused(503, f"Not stored ({type(error).__name__})").answer()
