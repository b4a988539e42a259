"""The local Discord's REST API, as strict as the real one. Rate limit headers are left out; they are optional."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from aiohttp import web

from adapters.playground.discord.world import ACTION_ROW, BUTTON, Channel, Json, World
from adapters.playground.discord.world import REPLY as REPLY_MESSAGE
from adapters.playground.rate_limits import Limiter, RateLimit
from adapters.playground.server import Person, Typing

API = "/api/v10"
MAX_TEXT, MAX_NONCE, MAX_PAGE = 2000, 25, 100
# https://discord.com/developers/docs/topics/rate-limits documents the first and has a bot read the others in answers,
# which are this for messages and edits.
PER_BOT, PER_ROUTE = RateLimit(50, 1.0), RateLimit(5, 5.0)
TYPING_SECONDS = 10.0
NONCE_LIFETIME = 300.0  # seconds; the real one says "the past few minutes"
MAX_WAIT = 3.0  # seconds until an interaction counts as failed
REPLY, DEFERRED_REPLY, DEFERRED_UPDATE, UPDATE = 4, 5, 6, 7  # interaction callback types
MESSAGE_CALLBACKS, BUTTON_CALLBACKS = (REPLY, DEFERRED_REPLY), (REPLY, DEFERRED_REPLY, DEFERRED_UPDATE, UPDATE)
SEEN_BY_ONE = 64  # message flag
MESSAGES, MESSAGE = "/channels/{channel}/messages", "/channels/{channel}/messages/{message}"

Handler = Callable[[web.Request], Awaitable[web.Response]]


class RefusedError(Exception):
    """An error answer, with Discord's own code."""

    def __init__(self, status: int, code: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.code = code


UNAUTHORIZED = RefusedError(401, 0, "401: Unauthorized")
UNKNOWN_ROUTE = RefusedError(404, 0, "404: Not Found")
UNKNOWN_CHANNEL = RefusedError(404, 10003, "Unknown Channel")
UNKNOWN_MESSAGE = RefusedError(404, 10008, "Unknown Message")
EMPTY_MESSAGE = RefusedError(400, 50006, "Cannot send an empty message")
NOT_THE_AUTHOR = RefusedError(403, 50005, "Cannot edit a message authored by another user")
UNKNOWN_INTERACTION = RefusedError(404, 10062, "Unknown interaction")
ANSWERED_ALREADY = RefusedError(400, 40060, "Interaction has already been acknowledged.")
NOT_JSON = RefusedError(400, 50109, "The request body contains invalid JSON.")


@dataclass(frozen=True, slots=True)
class Asked:
    """An interaction that may be answered: how, where, since when, and the message with the pressed button."""

    token: str
    types: tuple[int, ...]
    channel: Channel
    message: Json | None = None
    at: float = field(default_factory=time.monotonic)


class Rest:
    """The routes. `publish` tells the gateway. `interactions` are those that may be answered, by id."""

    def __init__(self, world: World, token: str, publish: Callable[[str, Json], Awaitable[None]]) -> None:
        self._world = world
        self._token = token
        self._publish = publish
        self._nonces: dict[str, tuple[float, Json]] = {}
        self.typing = Typing(TYPING_SECONDS)
        self.limiter = Limiter()
        self.gateway_address: Callable[[], str] = str
        self.commands: list[Json] = []
        self.callbacks: list[Json] = []
        self.interactions: dict[str, Asked] = {}

    def add_routes(self, app: web.Application) -> None:
        for method, path, handler in (
            ("GET", "/gateway", self._gateway),
            ("GET", "/gateway/bot", self._gateway_bot),
            ("GET", "/users/@me", self._me),
            ("GET", "/oauth2/applications/@me", self._application),
            ("POST", "/users/@me/channels", self._open_private),
            ("POST", MESSAGES, self._post),
            ("GET", MESSAGES, self._history),
            ("PATCH", MESSAGE, self._edit),
            ("POST", "/channels/{channel}/typing", self._typing),
            ("GET", "/applications/{application}/commands", self._registered),
            ("PUT", "/applications/{application}/commands", self._register),
            ("POST", "/interactions/{interaction}/{token}/callback", self._callback),
        ):
            app.router.add_route(method, API + path, self._checked(handler))
        app.router.add_route("*", API + "/{rest:.*}", self._checked(self._unknown))

    def _checked(self, handler: Handler) -> Handler:
        async def answer(request: web.Request) -> web.Response:
            return await self._answer(request, handler)

        return answer

    async def _answer(self, request: web.Request, handler: Handler) -> web.Response:
        try:
            # A token of an interaction opens that alone.
            is_open = handler == self._gateway or "token" in request.match_info
            if not is_open and request.headers.get("Authorization") != f"Bot {self._token}":
                raise UNAUTHORIZED
            if limited := self._limited(request):
                return limited
            return await handler(request)
        except RefusedError as refusal:
            return json_response({"message": str(refusal), "code": refusal.code}, refusal.status)

    def _limited(self, request: web.Request) -> web.Response | None:
        """The refusal of a call that comes too early. Answers to interactions do not count for the bot."""
        if "interaction" in request.match_info:
            return None
        for_bot = self.limiter.take({"bot": PER_BOT})
        place = f"{request.method} {request.path}"
        for_place = 0.0 if for_bot or "channel" not in request.match_info else self.limiter.take({place: PER_ROUTE})
        if not (wait := for_bot or for_place):
            return None
        body = {"message": "You are being rate limited.", "retry_after": wait, "global": bool(for_bot)}
        response = json_response(body, 429)
        response.headers["Via"] = "1.1 google"  # what discord.py tells Discord's own limits by
        response.headers["Retry-After"] = str(math.ceil(wait))
        return response

    async def _unknown(self, request: web.Request) -> web.Response:
        raise UNKNOWN_ROUTE

    async def _gateway(self, request: web.Request) -> web.Response:
        return json_response({"url": self.gateway_address()})

    async def _gateway_bot(self, request: web.Request) -> web.Response:
        starts = {"total": 1000, "remaining": 1000, "reset_after": 0, "max_concurrency": 1}
        return json_response({"url": self.gateway_address(), "shards": 1, "session_start_limit": starts})

    async def _me(self, request: web.Request) -> web.Response:
        return json_response(self._world.bot)

    async def _application(self, request: web.Request) -> web.Response:
        fields = {"description": "", "icon": None, "bot_public": True, "bot_require_code_grant": False, "flags": 0}
        owner = {**self._world.bot, "bot": False}
        return json_response(
            {"id": self._world.bot["id"], "name": "BotOS", "owner": owner, "verify_key": "0" * 64, **fields}
        )

    async def _open_private(self, request: web.Request) -> web.Response:
        recipient = str((await _body(request)).get("recipient_id"))
        if not recipient.isdecimal():
            raise _invalid("recipient_id", "NUMBER_TYPE_COERCE")
        return json_response(self._world.private_channel(Person(recipient, "Someone")).as_json())

    async def _post(self, request: web.Request) -> web.Response:
        channel, body = self._channel(request), await _body(request)
        content, nonce = _content(body), _nonce(body)
        if not content and not body.get("embeds"):
            raise EMPTY_MESSAGE
        _check_components(body.get("components", []))
        _check_reference(body.get("message_reference"), channel)
        return json_response(self._earlier(body, nonce) or await self._write(channel, body, content, nonce))

    def _earlier(self, body: Json, nonce: str) -> Json | None:
        at, message = self._nonces.get(nonce, (0.0, None))
        fresh = time.monotonic() - at < NONCE_LIFETIME
        return message if fresh and body.get("enforce_nonce") is True else None

    async def _write(self, channel: Channel, body: Json, content: str, nonce: str) -> Json:
        kept: Json = {key: body[key] for key in ("components", "embeds", "flags", "tts") if key in body}
        answered = channel.messages.get(str((body.get("message_reference") or {}).get("message_id")))
        if answered is not None:
            reference = {"type": 0, "message_id": answered["id"], "channel_id": channel.id}
            kept |= {"type": REPLY_MESSAGE, "message_reference": reference, "referenced_message": answered}
            if (body.get("allowed_mentions") or {}).get("replied_user", "allowed_mentions" not in body):
                kept["mentions"] = [answered["author"]]
        message = self._world.write(channel, self._world.bot, content, **kept)
        self.typing.end(channel.id)
        answer = {**message, "nonce": nonce} if nonce else message  # a history does not tell it again
        if nonce:
            self._nonces[nonce] = (time.monotonic(), answer)
        await self._publish("MESSAGE_CREATE", answer)
        return answer

    async def _history(self, request: web.Request) -> web.Response:
        """The page next to `after` or `before`, in either case with the newest message first."""
        channel, limit = self._channel(request), _limit(request)
        after, before = (int(request.query.get(key, 0)) for key in ("after", "before"))
        ids = [key for key in channel.messages if int(key) > after and (not before or int(key) < before)]
        page = [channel.messages[key] for key in (ids[:limit] if after else ids[-limit:])]
        self._world.bot_heard(*page)
        return json_response([self._world.as_bot_sees(message) for message in reversed(page)])

    async def _edit(self, request: web.Request) -> web.Response:
        channel, body = self._channel(request), await _body(request)
        message = channel.messages.get(request.match_info["message"])
        if message is None:
            raise UNKNOWN_MESSAGE
        if message["author"]["id"] != self._world.bot["id"]:
            raise NOT_THE_AUTHOR
        content = _content(body) if "content" in body else message["content"]
        if not content:
            raise EMPTY_MESSAGE
        _check_components(body.get("components") or [])
        self._world.rewrite(message, content, body.get("components"))
        await self._publish("MESSAGE_UPDATE", message)
        return json_response(message)

    async def _typing(self, request: web.Request) -> web.Response:
        self.typing.show(self._channel(request).id)
        self._world.changes.announce()
        return web.Response(status=204)

    async def _register(self, request: web.Request) -> web.Response:
        commands = await _parsed(request)
        if not isinstance(commands, list) or not all(isinstance(command, dict) for command in commands):
            raise NOT_JSON
        for command in commands:
            _check_command(command)
        application = {"application_id": self._world.bot["id"], "version": "1"}
        self.commands = [{"type": 1, **command, **application, "id": self._world.snowflake()} for command in commands]
        self._world.changes.announce()
        return json_response(self.commands)

    async def _registered(self, request: web.Request) -> web.Response:
        return json_response(self.commands)

    async def _callback(self, request: web.Request) -> web.Response:
        key, body = request.match_info["interaction"], await _body(request)
        asked = self.interactions.get(key)
        if asked is None or asked.token != request.match_info["token"] or time.monotonic() - asked.at > MAX_WAIT:
            raise UNKNOWN_INTERACTION
        if any(callback["interaction_id"] == key for callback in self.callbacks):
            raise ANSWERED_ALREADY
        if body.get("type") not in asked.types:
            raise _invalid("type", "BASE_TYPE_CHOICES")
        message = await self._respond(asked, body)
        self.callbacks.append({**body, "interaction_id": key})
        self._world.changes.announce()
        if request.query.get("with_response", "").lower() not in ("1", "true"):
            return web.Response(status=204)
        ids = {"id": key, "type": 3 if asked.message else 2, "response_message_id": message and message["id"]}
        loading = body["type"] in (DEFERRED_REPLY, DEFERRED_UPDATE)
        seen_by_one = bool(_flags(body) & SEEN_BY_ONE)
        about = {**ids, "response_message_loading": loading, "response_message_ephemeral": seen_by_one}
        return json_response({"interaction": about, "resource": {"type": body["type"], "message": message}})

    async def _respond(self, asked: Asked, body: Json) -> Json | None:
        """What a callback says or changes; None if that is nothing. What one person alone sees stands in no chat."""
        given = body.get("data") or {}
        if body["type"] == REPLY:
            content = _content(given)
            if not content and not given.get("embeds"):
                raise EMPTY_MESSAGE
            _check_components(given.get("components", []))
            if _flags(body) & SEEN_BY_ONE:
                return self._world.compose(asked.channel, self._world.bot, content, flags=SEEN_BY_ONE)
            return await self._write(asked.channel, given, content, "")
        if body["type"] == UPDATE and asked.message is not None:
            _check_components(given.get("components", []))
            content = _content(given) if "content" in given else asked.message["content"]
            self._world.rewrite(asked.message, content, given.get("components"))
            await self._publish("MESSAGE_UPDATE", asked.message)
        return asked.message

    def _channel(self, request: web.Request) -> Channel:
        channel = self._world.channels.get(request.match_info["channel"])
        if channel is None:
            raise UNKNOWN_CHANNEL
        return channel


def _content(body: Json) -> str:
    content = body.get("content")
    if content is not None and not isinstance(content, str):
        raise _invalid("content", "STRING_TYPE_CONVERT")
    if len(content or "") > MAX_TEXT:
        raise _invalid("content", "BASE_TYPE_MAX_LENGTH")
    return (content or "").strip()  # as Discord stores it


def _check_reference(reference: object, channel: Channel) -> None:
    """A reply answers a message of its own channel, unless the bot said that a plain message will do."""
    if reference is None:
        return
    if not isinstance(reference, dict) or not str(reference.get("message_id")).isdecimal():
        raise _invalid("message_reference", "NUMBER_TYPE_COERCE")
    if str(reference["message_id"]) not in channel.messages and reference.get("fail_if_not_exists", True):
        raise _invalid("message_reference", "REPLIES_UNKNOWN_MESSAGE")


def _flags(callback: Json) -> int:
    return int((callback.get("data") or {}).get("flags") or 0)


def _check_components(rows: object) -> None:
    """At most five rows of at most five buttons, each with a label and an id of its own."""
    if not isinstance(rows, list) or len(rows) > 5 or any(row.get("type") != ACTION_ROW for row in rows):
        raise _invalid("components", "BASE_TYPE_BAD_LENGTH")
    buttons = [button for row in rows for button in row["components"]]
    if any(not 1 <= len(row["components"]) <= 5 for row in rows) or any(one["type"] != BUTTON for one in buttons):
        raise _invalid("components", "BASE_TYPE_BAD_LENGTH")
    ids = [str(button.get("custom_id", "")) for button in buttons]
    if len(set(ids)) < len(ids):
        raise _invalid("custom_id", "COMPONENT_CUSTOM_ID_DUPLICATED")
    if any(not 1 <= len(key) <= 100 for key in ids) or any(not 1 <= len(one["label"]) <= 80 for one in buttons):
        raise _invalid("components", "BASE_TYPE_BAD_LENGTH")


def _check_command(command: Json) -> None:
    for part in (command, *command.get("options", [])):
        if not re.fullmatch(r"[-_a-z0-9]{1,32}", str(part.get("name"))):
            raise _invalid("name", "APPLICATION_COMMAND_INVALID_NAME")
        if not 1 <= len(str(part.get("description", ""))) <= 100:
            raise _invalid("description", "BASE_TYPE_BAD_LENGTH")


def _nonce(body: Json) -> str:
    nonce = body.get("nonce") or ""
    if not isinstance(nonce, str | int) or len(str(nonce)) > MAX_NONCE:
        raise _invalid("nonce", "BASE_TYPE_MAX_LENGTH")
    return str(nonce)


def _limit(request: web.Request) -> int:
    limit = request.query.get("limit", "50")
    if not limit.isdecimal() or not 1 <= int(limit) <= MAX_PAGE:
        raise _invalid("limit", "NUMBER_TYPE_MAX")
    return int(limit)


def _invalid(field: str, code: str) -> RefusedError:
    return RefusedError(400, 50035, f"Invalid Form Body: {field} ({code})")


async def _body(request: web.Request) -> Json:
    body = await _parsed(request)
    if not isinstance(body, dict):
        raise NOT_JSON
    return body


async def _parsed(request: web.Request) -> object:
    if request.content_type != "application/json":
        raise NOT_JSON
    try:
        body: object = await request.json()
        return body
    except ValueError:
        raise NOT_JSON from None


def json_response(data: object, status: int = 200) -> web.Response:
    """Without a charset: discord.py reads a body as JSON only if the type is exactly `application/json`."""
    return web.Response(body=json.dumps(data).encode(), status=status, content_type="application/json")
