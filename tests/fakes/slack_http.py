"""How Slack calls an app over HTTP: signed, events again up to three times, buttons and commands once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any
from urllib.parse import urlencode
from uuid import uuid4

import aiohttp
from slack_sdk.signature import Clock, SignatureVerifier

from adapters.playground.slack.socket import Envelope
from adapters.playground.slack.workspace import Workspace
from tests.fakes.faults import FaultPlan
from tests.fakes.slack_socket import RawEnvelope

CALL_SECONDS = 3.0  # how long Slack waits for an answer
JSON_TYPE, FORM_TYPE = "application/json", "application/x-www-form-urlencoded"


class HttpEvents:
    """Takes the place of the socket where `url` is set. Of one chat, events are told in order, but repeated later.

    acks, answers: as with the socket. statuses: the bot's answers in order, 0 where there was none. given_up: events
    that were repeated in vain.
    """

    def __init__(self, workspace: Workspace, faults: FaultPlan, repeat_after: tuple[float, ...]) -> None:
        self.url = ""
        self.secret = uuid4().hex
        self.acks: list[str] = []
        self.answers: dict[str, Any] = {}
        self.statuses: list[int] = []
        self.given_up: list[Envelope] = []
        self._workspace = workspace
        self._faults = faults
        self._repeat_after = repeat_after
        self._pending: list[Envelope] = []
        self._last: dict[str, asyncio.Task[None]] = {}  # by chat, who tells of what was said before
        self._tasks: set[asyncio.Task[None]] = set()

    async def push(self, envelope: Envelope) -> str:
        """Tell the bot, as soon as it was told of what was said before; returns the envelope's id."""
        envelope.ids.append(str(uuid4()))
        self._pending.append(envelope)
        chat = _chat_of(envelope)
        self._last[chat] = self._start(self._tell(envelope, self._last.get(chat)))
        return envelope.ids[0]

    async def verify(self, challenge: str) -> tuple[int, str]:
        """What Slack does when somebody enters the address: status and body of the answer."""
        async with aiohttp.ClientSession() as session:
            body = json.dumps({"type": "url_verification", "token": "unused", "challenge": challenge})
            async with session.post(self.url, data=body, headers=self.signed(body, JSON_TYPE)) as answer:
                return answer.status, await answer.text()

    def signed(self, body: str, content_type: str) -> dict[str, str]:
        """The headers of a request with this body."""
        timestamp = str(int(Clock().now()))
        signature = SignatureVerifier(self.secret).generate_signature(timestamp=timestamp, body=body)
        about = {"X-Slack-Request-Timestamp": timestamp, "X-Slack-Signature": signature or ""}
        return {**about, "Content-Type": content_type}

    def is_settled(self, message_id: str) -> bool:
        """Whether the bot acknowledged a message, and everything that it was told of it."""
        return message_id in self.acks and all(waiting.message_id != message_id for waiting in self._pending)

    def is_drained(self) -> bool:
        """Whether nothing is left to tell."""
        return not self._pending

    async def close(self) -> None:
        """Tell nothing more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._pending = []

    async def _tell(self, envelope: Envelope, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait({before})
        if await self._attempt(envelope):
            return
        if envelope.kind == "events_api":
            _repeating = self._start(self._repeat(envelope))
        else:
            await self._drop(envelope)

    async def _repeat(self, envelope: Envelope) -> None:
        for seconds in self._repeat_after:
            await asyncio.sleep(seconds)
            envelope.attempt, envelope.reason = envelope.attempt + 1, "http_error"
            if await self._attempt(envelope):
                return
        await self._drop(envelope)

    async def _attempt(self, envelope: Envelope) -> bool:
        status, told = 0, ""
        if not self._faults.outage:
            with suppress(aiohttp.ClientError, OSError, TimeoutError):
                status, told = await self._post(envelope)
        self.statuses.append(status)
        if is_taken := status == 200:
            self._pending.remove(envelope)
            self.acks.append(envelope.message_id)
            self.answers[envelope.ids[0]] = told
        await self._workspace.notify()
        return is_taken

    async def _post(self, envelope: Envelope) -> tuple[int, str]:
        body, content_type = _written(envelope)
        headers = self.signed(body, content_type)
        if envelope.attempt:
            headers |= {"X-Slack-Retry-Num": str(envelope.attempt), "X-Slack-Retry-Reason": envelope.reason}
        timeout = aiohttp.ClientTimeout(CALL_SECONDS)
        call: dict[str, Any] = {"data": body.encode(), "headers": headers, "allow_redirects": False}
        async with aiohttp.ClientSession(timeout=timeout) as session, session.post(self.url, **call) as answer:
            return answer.status, await answer.text()

    async def _drop(self, envelope: Envelope) -> None:
        self._pending.remove(envelope)
        self.given_up.append(envelope)
        await self._workspace.notify()

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _written(envelope: Envelope) -> tuple[str, str]:
    """Body and content type."""
    if envelope.kind == "interactive":
        return urlencode({"payload": json.dumps(envelope.payload)}), FORM_TYPE
    if envelope.kind == "slash_commands":
        return urlencode(envelope.payload), FORM_TYPE
    return json.dumps(envelope.raw if isinstance(envelope, RawEnvelope) else envelope.payload), JSON_TYPE


def _chat_of(envelope: Envelope) -> str:
    event = envelope.payload.get("event") if isinstance(envelope.payload, dict) else None
    return str(event.get("channel")) if isinstance(event, dict) else ""
