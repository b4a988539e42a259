"""What Slack posts: its signature, then its kind by its form, then the same reading as for the socket."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from slack_sdk.signature import SignatureVerifier

from adapters.protocols import MalformedEvent
from adapters.slack.client import introduce, slack_client
from adapters.slack.directory import Directory, parse_payload
from adapters.slack.events import Me
from adapters.webhook_calls import Refused, body_of
from adapters.webhook_calls import take as store
from sessions_app import db
from sessions_app.messages import InboundMessage, MessageEdit

log = logging.getLogger(__name__)

JSON = dict[str, Any]
MAX_FIELDS = 100  # of a form; a slash command has a dozen
API = "https://slack.com/api/"

_met: dict[tuple[str, str], tuple[Me, Directory]] = {}  # by address and token


async def take(request: HttpRequest) -> HttpResponse:
    """Store what a signed request says. Raises Refused, and whatever keeps it from being stored."""
    body = body_of(request)
    if not is_signed(body, request.headers):
        raise Refused(403, "Forbidden")
    kind, payload = _read(body, request.content_type or "")
    if kind == "url_verification":
        return HttpResponse(str(payload.get("challenge", "")), content_type="text/plain")
    await db.call(store, await _event_in(kind, payload))
    return HttpResponse()


def is_signed(body: bytes, headers: Any) -> bool:
    """Whether Slack signed the body within the last five minutes. What the SDK stumbles over is not signed."""
    try:
        return SignatureVerifier(settings.SLACK_SIGNING_SECRET).is_valid_request(body, dict(headers))
    except (ValueError, TypeError, OverflowError):  # no number or a huge one, no UTF-8, no ASCII
        return False


def _read(body: bytes, content_type: str) -> tuple[str, JSON]:
    """The kind of a request, in the words of the socket, and its payload. Raises Refused."""
    if content_type != "application/x-www-form-urlencoded":
        payload = _object(body)
        return ("url_verification" if payload.get("type") == "url_verification" else "events_api"), payload
    try:
        fields = parse_qs(body.decode(), keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError:
        raise Refused(400, "Not a form") from None
    form = {name: values[0] for name, values in fields.items()}
    return ("interactive", _object(form["payload"])) if "payload" in form else ("slash_commands", form)


def _object(text: str | bytes) -> JSON:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise Refused(400, "Not JSON") from None
    if not isinstance(found, dict):
        raise Refused(400, "Not an object")
    return found


async def _event_in(kind: str, payload: JSON) -> InboundMessage | MessageEdit | None:
    """What the payload says. None if it cannot be read: the same payload would be no better a second time."""
    try:
        event = await parse_payload(kind, payload, *await _acquainted())
    except MalformedEvent as error:
        log.warning("slack: event %s is malformed, dropped: %s", ascii(payload.get("event_id"))[:80], error)
        return None
    if isinstance(event, InboundMessage) and event.position is not None:
        # That this one came says nothing about those before it: the chat is known, and its mark stays where it is.
        return replace(event, position=0)
    return event


async def _acquainted() -> tuple[Me, Directory]:
    """Who the bot is, asked once in the life of the process, and the names that it was told."""
    key = (settings.SLACK_API_URL or API, settings.SLACK_BOT_TOKEN)
    if key not in _met:
        bot = slack_client(*key)
        _met[key] = (await introduce(bot, "slack"), Directory(bot))
    return _met[key]
