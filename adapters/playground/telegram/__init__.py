"""A Telegram on this machine: people write, and a bot hears of it through the real SDK and the real Bot API paths."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable

from aiohttp import web

from adapters.playground.server import Person, Said, check_button
from adapters.playground.telegram.api import BOT, BotApi
from adapters.playground.telegram.queue import JSON, ApiError


class TelegramServer:
    """Fulfils PlatformServer. `api` holds the chats and what the bot did there.

    A person's private chat has the person's id, a group a negative one. Everything runs on one event loop.
    """

    platform = "telegram"

    def __init__(self) -> None:
        self.api = BotApi()
        self.said: list[Said] = self.api.said
        self.typing = self.api.typing
        self.token = f"{BOT['id']}:AA{secrets.token_hex(17)}"[: len(str(BOT["id"])) + 36]
        self.port = 0
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def environment(self) -> dict[str, str]:
        """The variables that point BotOS at this server. Valid once started."""
        where = {"TELEGRAM_BOT_TOKEN": self.token, "TELEGRAM_API_URL": self.url}
        return where | {"BOTOS_TELEGRAM_TRANSPORT": "polling"}

    async def start(self, port: int = 0) -> None:
        """Listen on loopback only. No access log: the paths hold the token."""
        app = web.Application()
        app.router.add_route("*", "/bot{token}/{method}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", port)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """End every connection and stop listening. Messages stay."""
        await self.drop_connections()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def drop_connections(self) -> None:
        """Cut every open connection, as a network does."""
        server = self._runner.server if self._runner else None
        for connection in list(server.connections) if server else []:
            if connection.transport is not None:
                connection.transport.abort()

    def limit_rates(self) -> None:
        """Refuse from now on what comes faster than Telegram documents."""
        self.api.limiter.is_on = True

    # -- people

    def private_chat(self, person: Person) -> str:
        """The id of the one-to-one chat. The bot may write there only after the person did, as on Telegram."""
        return person.id

    async def say(
        self, person: Person, text: str, *, group: str = "", thread: str = "", mention: bool = False, reply_to: str = ""
    ) -> str:
        """A person writes. `group` is a negative chat id, created when new, and `thread` the number of a topic."""
        chat = self._group(group, thread) if group else self._private(person)
        more: JSON = {"message_thread_id": int(thread), "is_topic_message": True} if thread else {}
        if reply_to:
            original = self.api.messages[int(reply_to)]  # which comes without what it replied to itself
            more["reply_to_message"] = {k: v for k, v in original.items() if k != "reply_to_message"}
        text = f"@{BOT['username']} {text}" if mention else text
        message = self.api.new_message(user_json(person), chat, text, **more)
        return await self._tell("message", message)

    async def edit(self, person: Person, message_id: str, text: str) -> None:
        """A person edits a message; a bot hears of that by an update of its own."""
        message = self.api.messages[int(message_id)]
        if message["from"]["id"] != int(person.id):
            raise ValueError("a person edits only their own messages")
        self.api.change_text(message, text)
        await self.api.updates.put({"edited_message": dict(message)})

    async def press(self, person: Person, message_id: str, command: str) -> str:
        """A person presses an inline button under a message; returns the id of the callback query."""
        check_button(self.said, message_id, command)
        query_id = secrets.token_hex(8)
        self.api.queries.add(query_id)
        query = {"id": query_id, "from": user_json(person), "chat_instance": "1", "data": command}
        await self.api.updates.put({"callback_query": query | {"message": self.api.messages[int(message_id)]}})
        return query_id

    async def wait_for(self, count: int, *, chat: str, timeout: float = 10.0) -> list[Said]:
        """Wait until the bot has said `count` messages in a chat; returns all of them. Raises TimeoutError."""
        replies = self.api.replies.setdefault(chat, [])
        await self._until(lambda: len(replies) >= count, timeout)
        return list(replies)

    async def _until(self, happened: Callable[[], bool], seconds: float) -> None:
        async with asyncio.timeout(seconds), self.api.updates.changed:
            await self.api.updates.changed.wait_for(happened)

    async def _tell(self, kind: str, message: JSON) -> str:
        await self.api.updates.put({kind: dict(message)})
        return str(message["message_id"])

    def _private(self, person: Person) -> JSON:
        user = user_json(person)
        chat = {"id": user["id"], "type": "private"} | {k: v for k, v in user.items() if k not in ("id", "is_bot")}
        return self.api.chats.setdefault(user["id"], chat)

    def _group(self, group: str, thread: str) -> JSON:
        if (number := int(group)) >= 0:
            raise ValueError("a group has a negative id")
        chat = self.api.chats.setdefault(number, {"id": number, "type": "supergroup", "title": f"Group {number}"})
        if thread:
            chat["is_forum"] = True
            self.api.threads.setdefault(number, set()).add(int(thread))
        return chat

    # -- the bot

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        method = request.match_info["method"]
        if not secrets.compare_digest(request.match_info["token"].encode(), self.token.encode()):
            return error_response(401, "Unauthorized")
        if not self.api.knows(method):
            return error_response(404, "Not Found: method not found")
        return await self._carry_out(method, await _parameters(request))

    async def _carry_out(self, method: str, given: JSON) -> web.StreamResponse:
        """Answer a call that names a token and a method of the bot."""
        try:
            result = await self.api.call(method, given)
        except ApiError as refusal:
            wait = {"retry_after": refusal.retry_after} if refusal.retry_after else {}
            return error_response(refusal.status, str(refusal), **wait)
        return web.json_response({"ok": True, "result": result})


def user_json(person: Person) -> JSON:
    first, _space, last = person.name.partition(" ")
    optional = {"last_name": last, "username": person.username}
    user = {"id": int(person.id), "is_bot": False, "first_name": first}
    return user | {name: value for name, value in optional.items() if value}


async def _parameters(request: web.Request) -> JSON:
    if request.content_type == "application/json":
        body = await request.json()
        return {**request.query, **(body if isinstance(body, dict) else {})}
    return {**request.query, **await request.post()}


def error_response(status: int, description: str, **parameters: float) -> web.Response:
    body: JSON = {"ok": False, "error_code": status, "description": description}
    if parameters:
        body["parameters"] = parameters
    return web.json_response(body, status=status)
