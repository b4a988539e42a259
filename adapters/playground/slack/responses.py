"""The addresses at which a Slack bot may answer a press or a command, also where it may not post.

https://docs.slack.dev/interactivity/handling-user-interaction#message_responses
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from uuid import uuid4

from aiohttp import web

from adapters.playground.slack.workspace import APP, BOT, BOT_USER, TEAM, Channel, Message, Workspace, with_ids

MAX_RESPONSES = 5
MAX_AGE = 1800.0  # seconds
KINDS = ("ephemeral", "in_channel")


@dataclass(slots=True)
class Issued:
    """One address: for which chat, since when, how often used, and the message with the button, if there is one."""

    channel: Channel
    message: Message | None
    at: float
    used: int = 0


class Responses:
    """What the bot answers there. What only one person sees is taken and shown to nobody here."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._issued: dict[str, Issued] = {}
        self.heard: Callable[[Channel, Message, Message | None], Awaitable[None]] | None = None

    def issue(self, channel: Channel, message: Message | None = None) -> str:
        """The secret part of a new address."""
        key = uuid4().hex
        self._issued[key] = Issued(channel, message, time.monotonic())
        return key

    async def handle(self, request: web.Request) -> web.StreamResponse:
        issued = self._issued.get(request.match_info["id"])
        if issued is None or time.monotonic() - issued.at > MAX_AGE:
            return _refusal(404, "expired_url")
        if issued.used >= MAX_RESPONSES:
            return _refusal(404, "used_url")
        try:
            body = await request.json() if request.content_type == "application/json" else None
        except ValueError:
            body = None
        if not isinstance(body, dict) or body.get("response_type", "ephemeral") not in KINDS:
            return _refusal(400, "invalid_payload")
        if not body.get("delete_original") and not (str(body.get("text") or "").strip() or body.get("blocks")):
            return _refusal(400, "no_text")
        issued.used += 1
        await self._carry_out(issued, body)
        return web.Response(text="ok")

    async def _carry_out(self, issued: Issued, body: Message) -> None:
        text, blocks = str(body.get("text") or ""), with_ids(body.get("blocks") or [])
        before: Message | None = None
        if body.get("delete_original") and issued.message is not None:
            await self._workspace.remove(issued.channel, issued.message)
            return
        if body.get("replace_original") and issued.message is not None:
            before = await self._workspace.rewrite(issued.message, text, blocks)
            message = issued.message
        elif body.get("response_type") == "in_channel":
            author = {"user": BOT_USER, "bot_id": BOT, "app_id": APP, "team": TEAM}
            message = {"type": "message", "text": text, **author, **({"blocks": blocks} if blocks else {})}
            message = await self._workspace.write(issued.channel, message, author="bot")
        else:
            return
        if self.heard is not None:
            await self.heard(issued.channel, message, before)


def _refusal(status: int, code: str) -> web.Response:
    return web.json_response({"ok": False, "error": code}, status=status)
