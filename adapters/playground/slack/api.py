"""Slack's Web API over a workspace in memory, as strict as the real one about tokens, types and limits."""

from __future__ import annotations

import json
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from adapters.playground.rate_limits import Limiter, RateLimit
from adapters.playground.server import Typing
from adapters.playground.slack.workspace import APP, BOT, BOT_USER, TEAM, Channel, Message, Workspace, with_ids

TEXT_LIMIT = 40_000
# https://docs.slack.dev/apis/web-api/rate-limits: of each method, and of each channel for posts.
TIER_1, TIER_3, TIER_4 = (RateLimit(calls, 60.0) for calls in (1, 50, 100))
PER_CHANNEL, AUTH_TEST = RateLimit(1, 1.0), RateLimit(200, 60.0)  # the second is documented as hundreds
# https://docs.slack.dev/reference/methods/assistant.threads.setStatus
STATUS, STATUS_SECONDS = RateLimit(600, 60.0), 120.0
Args = dict[str, Any]
Answer = dict[str, Any]


class Refusal(Exception):
    """An answer with `ok: false` and this error code. `wait`: seconds, with a 429."""

    def __init__(self, code: str, wait: int = 0) -> None:
        super().__init__(code)
        self.wait = wait


@dataclass(frozen=True, slots=True)
class Method:
    """What a method takes: which token, and the names and types of required and optional arguments."""

    run: Callable[[Args], Awaitable[Answer]]
    kinds: dict[str, type] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    token: str = "bot"
    limit: RateLimit = TIER_3


PAGE: dict[str, type] = {
    **dict.fromkeys(("channel", "oldest", "latest", "cursor"), str),
    **dict.fromkeys(("inclusive", "include_all_metadata"), bool),
    "limit": int,
}
POST: dict[str, type] = {
    **dict.fromkeys(("channel", "text", "thread_ts", "parse", "user", "ts"), str),
    **dict.fromkeys(("mrkdwn", "unfurl_links", "unfurl_media", "link_names", "reply_broadcast"), bool),
    "metadata": dict,
    "blocks": list,
}


class WebApi:
    """Answers `/api/{method}`. `heard` is called with what the bot wrote, and what that was before."""

    def __init__(self, workspace: Workspace, tokens: dict[str, str]) -> None:
        self.scopes = ["chat:write", "im:history", "im:read", "users:read"]  # of the bot's token
        self.socket_address: Callable[[], str] = str
        self.heard: Callable[[Channel, Message, Message | None], Awaitable[None]] | None = None
        self._workspace = workspace
        self._tokens = tokens  # token -> its kind, "bot" or "app"
        self.typing = Typing(STATUS_SECONDS)
        self.limiter = Limiter()
        self._methods = self._table()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["method"]
        headers, status = {"X-OAuth-Scopes": ",".join(self.scopes)}, 200
        try:
            answer = await self._call(name, request)
        except Refusal as refusal:
            answer = {"ok": False, "error": str(refusal)}
            if refusal.wait:
                headers, status = {**headers, "Retry-After": str(refusal.wait)}, 429
        return web.json_response(answer, status=status, headers=headers)

    async def _call(self, name: str, request: web.Request) -> Answer:
        method = self._methods.get(name)
        if method is None:
            raise Refusal("unknown_method")
        args, typed = await _arguments(request)
        self._authorize(request, args, method)
        key = f"{name} {args.get('channel')}" if method.limit is PER_CHANNEL else name
        if wait := math.ceil(self.limiter.take({key: method.limit})):
            raise Refusal("ratelimited", wait)
        known = {key: value if typed else _typed(value, method.kinds.get(key, str)) for key, value in args.items()}
        try:
            return {"ok": True, **await self._run(name, method, known)}
        except ValueError:  # a cursor or a timestamp that is none
            raise Refusal("invalid_arguments") from None

    async def _run(self, name: str, method: Method, args: Args) -> Answer:
        """Carry out a call with a good token. Raises Refusal."""
        _check(args, method)
        return await method.run(args)

    def _authorize(self, request: web.Request, args: Args, method: Method) -> None:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        kind = self._tokens.get(token if scheme == "Bearer" else str(args.pop("token", "")))
        if kind is None:
            raise Refusal("invalid_auth")
        if kind != method.token:
            raise Refusal("not_allowed_token_type")

    def _table(self) -> dict[str, Method]:
        return {
            "auth.test": Method(self._auth_test, limit=AUTH_TEST),
            "apps.connections.open": Method(self._connections_open, token="app", limit=TIER_1),
            "users.info": Method(self._users_info, {"user": str}, ("user",), limit=TIER_4),
            "conversations.info": Method(self._info, {"channel": str}, ("channel",)),
            "conversations.open": Method(self._open, {"users": str}, ("users",)),
            "conversations.history": Method(self._history, PAGE, ("channel",)),
            "conversations.replies": Method(self._replies, {**PAGE, "ts": str}, ("channel", "ts")),
            "chat.postMessage": Method(self._post, POST, ("channel",), limit=PER_CHANNEL),
            "chat.postEphemeral": Method(self._post_ephemeral, POST, ("channel", "user"), limit=TIER_4),
            "chat.update": Method(self._update, POST, ("channel", "ts")),
            "assistant.threads.setStatus": Method(
                self._set_status,
                {**dict.fromkeys(("channel_id", "thread_ts", "status"), str), "loading_messages": list},
                ("channel_id", "thread_ts", "status"),
                limit=STATUS,
            ),
        }

    async def _auth_test(self, _: Args) -> Answer:
        """A token of a whole organisation is of no workspace: its team is the organisation."""
        enterprise, is_org_wide = self._workspace.enterprise, self._workspace.is_org_wide
        bot = {"user": "botos", "user_id": BOT_USER, "bot_id": BOT, "is_enterprise_install": is_org_wide}
        home = {"url": "https://play.slack.com/", "team": "Play", "team_id": enterprise if is_org_wide else TEAM}
        return {**home, **bot, **({"enterprise_id": enterprise} if enterprise else {})}

    async def _connections_open(self, _: Args) -> Answer:
        return {"url": self.socket_address()}

    async def _users_info(self, args: Args) -> Answer:
        person = self._workspace.people.get(args["user"])
        if person is None:
            raise Refusal("user_not_found")
        profile = {"real_name": person.name, "display_name": person.name}
        team = self._workspace.team_of(person.id)
        return {"user": {"id": person.id, "team_id": team, "name": person.username, "profile": profile}}

    async def _info(self, args: Args) -> Answer:
        channel = self._channel(args["channel"])
        of_kind = {"is_im": channel.kind == "im", "is_mpim": channel.kind == "mpim", "user": channel.person}
        of_kind["is_member"] = channel.has_bot
        return {"channel": {"id": channel.id, "name": "" if channel.person else channel.name, **of_kind}}

    async def _open(self, args: Args) -> Answer:
        person = self._workspace.people.get(args["users"])
        if person is None:
            raise Refusal("user_not_found")
        return {"channel": {"id": self._workspace.private_chat(person).id}}

    async def _history(self, args: Args) -> Answer:
        outside = [m for m in self._messages(args) if m.get("thread_ts") in (None, m["ts"])]
        return _page(list(reversed(outside)), args)

    async def _replies(self, args: Args) -> Answer:
        thread = [m for m in self._messages(args) if args["ts"] in (m["ts"], m.get("thread_ts"))]
        if not thread:
            raise Refusal("thread_not_found")
        return _page(thread, args)

    async def _post(self, args: Args) -> Answer:
        person = self._workspace.people.get(args["channel"])  # a person's id stands for their private chat here
        channel = self._workspace.private_chat(person) if person else self._own_channel(args["channel"])
        text = _text(args)
        _check_blocks(args.get("blocks", []))
        kept: Message = {key: args[key] for key in ("thread_ts", "metadata") if key in args}
        if args.get("blocks"):
            kept["blocks"] = with_ids(args["blocks"])
        author = {"user": BOT_USER, "bot_id": BOT, "app_id": APP, "team": TEAM}
        message: Message = {"type": "message", "text": text, **author, **kept}
        written = await self._workspace.write(channel, message, author="bot")
        self.typing.end(channel.id, str(args.get("thread_ts") or ""))
        await self._tell(channel, written, None)
        return {"channel": channel.id, "ts": written["ts"], "message": written}

    async def _post_ephemeral(self, args: Args) -> Answer:
        self._own_channel(args["channel"])
        _text(args)
        return {"message_ts": self._workspace.next_ts()}

    async def _update(self, args: Args) -> Answer:
        channel, text = self._own_channel(args["channel"]), _text(args)
        message = next((m for m in channel.messages if m["ts"] == args["ts"]), None)
        if message is None:
            raise Refusal("message_not_found")
        if message.get("bot_id") != BOT:
            raise Refusal("cant_update_message")
        _check_blocks(args.get("blocks", []))
        blocks = with_ids(args["blocks"]) if "blocks" in args else None
        before = await self._workspace.rewrite(message, text, blocks)
        await self._tell(channel, message, before)
        return {"channel": channel.id, "ts": message["ts"], "text": text, "message": message}

    async def _set_status(self, args: Args) -> Answer:
        """Show below a thread what the bot is doing; nothing with an empty status."""
        if not {"assistant:write", "chat:write"} & {*self.scopes}:
            raise Refusal("missing_scope")
        channel = self._own_channel(args["channel_id"])
        if not any(args["thread_ts"] in (message["ts"], message.get("thread_ts")) for message in channel.messages):
            raise Refusal("invalid_thread_ts")
        change = self.typing.show if args["status"] else self.typing.hide
        change(channel.id, args["thread_ts"])
        await self._workspace.notify()
        return {}

    def _messages(self, args: Args) -> list[Message]:
        return self._own_channel(args["channel"]).messages

    def _channel(self, channel_id: str) -> Channel:
        """A channel that the bot may know of: it does not learn that a private one exists before it is in it."""
        channel = self._workspace.channels.get(channel_id)
        if channel is None or not (channel.has_bot or channel.kind == "channel"):
            raise Refusal("channel_not_found")
        return channel

    def _own_channel(self, channel_id: str) -> Channel:
        """A channel that the bot is in."""
        channel = self._channel(channel_id)
        if not channel.has_bot:
            raise Refusal("not_in_channel")
        return channel

    async def _tell(self, channel: Channel, message: Message, before: Message | None) -> None:
        if self.heard is not None:
            await self.heard(channel, message, before)


async def _arguments(request: web.Request) -> tuple[Args, bool]:
    """The arguments, and whether they carry types (JSON) or are all text (query and form)."""
    if request.content_type != "application/json":
        return {**request.query, **{key: str(value) for key, value in (await request.post()).items()}}, False
    try:
        body = await request.json()
    except ValueError:
        raise Refusal("invalid_json") from None
    if not isinstance(body, dict):
        raise Refusal("json_not_object")
    return body, True


def _typed(value: str, kind: type) -> object:
    """What a form's text means where a number, a flag or JSON is due; the text itself if it means nothing there."""
    if kind is str:
        return value
    if kind is bool:
        return {"1": True, "true": True, "0": False, "false": False}.get(value.lower(), value)
    try:
        return json.loads(value)
    except ValueError:
        return value


def _check(args: Args, method: Method) -> None:
    missing = [name for name in method.required if name not in args]
    wrong = [name for name, kind in method.kinds.items() if name in args and type(args[name]) is not kind]
    if missing or wrong:
        raise Refusal("invalid_arguments")
    metadata = args.get("metadata")
    if metadata is not None and not _is_metadata(metadata):
        raise Refusal("invalid_metadata_format")


def _check_blocks(blocks: list[Any]) -> None:
    """Sections of text and rows of buttons, within Slack's limits."""
    for block in blocks:
        if not isinstance(block, dict) or block.get("type") not in ("section", "actions"):
            raise Refusal("invalid_blocks")
        elements = block.get("elements", [])
        if block["type"] == "section" and not _fits(block.get("text"), 3000):
            raise Refusal("invalid_blocks")
        if block["type"] == "actions" and not (1 <= len(elements) <= 25 and all(map(_is_button, elements))):
            raise Refusal("invalid_blocks")
        names = [element["action_id"] for element in elements if "action_id" in element]
        if len(set(names)) < len(names):
            raise Refusal("invalid_blocks")
    if len(blocks) > 50:
        raise Refusal("invalid_blocks")


def _is_button(element: dict[str, Any]) -> bool:
    is_plain = isinstance(element.get("text"), dict) and element["text"].get("type") == "plain_text"
    sizes = 1 <= len(str(element.get("action_id", "?"))) <= 255 and 1 <= len(str(element.get("value", "?"))) <= 2000
    return is_plain and sizes and element.get("type") == "button" and _fits(element["text"], 75)


def _fits(text: object, most: int) -> bool:
    kinds = ("plain_text", "mrkdwn")
    return isinstance(text, dict) and text.get("type") in kinds and 1 <= len(str(text.get("text", ""))) <= most


def _is_metadata(metadata: dict[str, Any]) -> bool:
    return isinstance(metadata.get("event_type"), str) and isinstance(metadata.get("event_payload"), dict)


def _text(args: Args) -> str:
    text = str(args.get("text", ""))
    if not text.strip():
        raise Refusal("no_text")
    if len(text) > TEXT_LIMIT:
        raise Refusal("msg_too_long")
    return text


def _page(messages: list[Message], args: Args) -> Answer:
    """Some of the messages, in the order given. The cursor is a position in the list."""
    low, high = float(args.get("oldest") or 0), float(args.get("latest") or "inf")
    inclusive = args.get("inclusive", False)
    within = [m for m in messages if low < float(m["ts"]) < high or (inclusive and float(m["ts"]) in (low, high))]
    start, limit = int(args.get("cursor") or 0), args.get("limit", 100)
    shown = [_shown(m, args.get("include_all_metadata", False)) for m in within[start : start + limit]]
    more = start + limit < len(within)
    cursor = str(start + limit) if more else ""
    return {"messages": shown, "has_more": more, "response_metadata": {"next_cursor": cursor}}


def _shown(message: Message, with_metadata: bool) -> Message:
    return message if with_metadata else {key: value for key, value in message.items() if key != "metadata"}
