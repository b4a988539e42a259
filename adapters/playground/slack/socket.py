"""Slack's Socket Mode: one-time addresses, envelopes that must be acknowledged, and repetition until they are."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from aiohttp import WSMsgType, web

from adapters.playground.slack.workspace import APP, Workspace

# Slack tells of these once. If nobody acknowledges one in time, the person reads that it failed.
# https://docs.slack.dev/interactivity/handling-user-interaction#acknowledgment_response
ONCE = ("interactive", "slash_commands")
ANSWER_SECONDS = 3.0


@dataclass(slots=True, eq=False)
class Envelope:
    """Something to tell the bot. Each attempt has an id of its own; an acknowledgement of any of them counts."""

    kind: str
    payload: Any
    message_id: str = ""
    attempt: int = 0
    reason: str = ""
    ids: list[str] = field(default_factory=list)
    timer: asyncio.TimerHandle | None = None


class SocketMode:
    """The sockets of the bot."""

    def __init__(self, workspace: Workspace, redeliver_after: float) -> None:
        self._workspace = workspace
        self._redeliver_after = redeliver_after
        self._tickets: set[str] = set()
        self._sockets: list[tuple[web.WebSocketResponse, web.Request]] = []
        self._pending: list[Envelope] = []
        self._sending = asyncio.Lock()  # what waited for a connection goes before what is new
        self._tasks: set[asyncio.Task[None]] = set()

    def ticket(self) -> str:
        """A secret that opens one socket, once."""
        ticket = uuid4().hex
        self._tickets.add(ticket)
        return ticket

    async def serve(self, request: web.Request) -> web.StreamResponse:
        ticket = request.query.get("ticket", "")
        if ticket not in self._tickets:
            return web.Response(status=404)
        self._tickets.remove(ticket)
        socket = web.WebSocketResponse(heartbeat=10)
        await socket.prepare(request)
        try:
            await self._greet(socket, request)
            await self._listen(socket)
        finally:
            self._sockets = [known for known in self._sockets if known[0] is not socket]
        return socket

    async def push(self, envelope: Envelope) -> str:
        """Send an envelope, now or as soon as there is a connection; returns its id."""
        async with self._sending:
            if self._sockets or envelope.kind not in ONCE:
                self._pending.append(envelope)
            await self._send(envelope)
        return envelope.ids[-1] if envelope.ids else ""

    def drop(self) -> None:
        """Cut all sockets without a goodbye."""
        for _, request in self._sockets:
            if request.transport is not None:
                request.transport.abort()
        self._sockets = []

    def close(self) -> None:
        """End for good."""
        self.drop()
        for envelope in self._pending:
            _stop_timer(envelope)
        self._pending = []

    async def _greet(self, socket: web.WebSocketResponse, request: web.Request) -> None:
        async with self._sending:
            self._sockets.append((socket, request))
            hello = {"type": "hello", "num_connections": len(self._sockets), "connection_info": {"app_id": APP}}
            await self._write(hello)
            for envelope in [waiting for waiting in self._pending if waiting.kind not in ONCE]:
                await self._send(envelope, "connection_lost" if envelope.ids else "")
        await self._workspace.notify()

    async def _listen(self, socket: web.WebSocketResponse) -> None:
        async for frame in socket:
            if frame.type is WSMsgType.TEXT:
                await self._acknowledge(json.loads(frame.data))

    async def _acknowledge(self, ack: dict[str, Any]) -> None:
        envelope = next((waiting for waiting in self._pending if ack.get("envelope_id") in waiting.ids), None)
        if envelope is not None:  # otherwise acknowledged before
            await self._settle(envelope, ack)

    async def _settle(self, envelope: Envelope, _ack: dict[str, Any]) -> None:
        """Take it that the bot received an envelope."""
        _stop_timer(envelope)
        self._pending.remove(envelope)
        await self._workspace.notify()

    async def _send(self, envelope: Envelope, retry_reason: str = "") -> None:
        if not self._sockets:
            return
        if retry_reason:
            envelope.attempt, envelope.reason = envelope.attempt + 1, retry_reason
        body = self._body(envelope)
        envelope.ids.append(body["envelope_id"])
        self._arm(envelope)
        await self._write(body)

    def _body(self, envelope: Envelope) -> dict[str, Any]:
        body = {"envelope_id": str(uuid4()), "type": envelope.kind, "payload": envelope.payload}
        if envelope.kind != "events_api":
            return {**body, "accepts_response_payload": True}
        retry = {"retry_attempt": envelope.attempt, "retry_reason": envelope.reason}
        return {**body, "accepts_response_payload": False, **retry}

    def _arm(self, envelope: Envelope) -> None:
        _stop_timer(envelope)
        loop = asyncio.get_running_loop()
        after, then = (ANSWER_SECONDS, self._fail) if envelope.kind in ONCE else (self._redeliver_after, self._repeat)
        envelope.timer = loop.call_later(after, lambda: self._start(then(envelope)))

    async def _repeat(self, envelope: Envelope) -> None:
        async with self._sending:
            if envelope in self._pending:
                await self._send(envelope, "timeout")

    async def _fail(self, envelope: Envelope) -> None:
        async with self._sending:
            if envelope in self._pending:
                self._pending.remove(envelope)
                await self._workspace.notify()

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _write(self, body: dict[str, Any]) -> None:
        """To the newest connection. If that is dying, the envelope stays pending."""
        if self._sockets:
            try:
                await self._sockets[-1][0].send_str(json.dumps(body))
            except ConnectionError:
                return


def _stop_timer(envelope: Envelope) -> None:
    if envelope.timer is not None:
        envelope.timer.cancel()
