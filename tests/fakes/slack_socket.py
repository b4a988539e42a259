"""Socket Mode for tests: failures, any JSON in place of an envelope, and records of what the bot acknowledged."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from adapters.playground.slack.socket import Envelope, SocketMode
from adapters.playground.slack.workspace import Workspace
from tests.fakes.faults import FaultPlan


@dataclass(slots=True, eq=False)
class RawEnvelope(Envelope):
    """Is sent as it stands."""

    raw: dict[str, Any] = field(default_factory=dict)


class FakeSocketMode(SocketMode):
    """Also fails. The fault name for opening a socket is `websocket`; in an outage nothing is told.

    acks: message ids in the order in which they were acknowledged. answers: by envelope id, what came with the
    acknowledgement (slash commands). connections: how many sockets the bot has opened.
    """

    def __init__(self, workspace: Workspace, redeliver_after: float, faults: FaultPlan) -> None:
        super().__init__(workspace, redeliver_after)
        self.faults = faults
        self.acks: list[str] = []
        self.answers: dict[str, Any] = {}
        self.connections = 0

    async def serve(self, request: web.Request) -> web.StreamResponse:
        if self.faults.take("websocket") is not None:
            await self._workspace.notify()
            return web.Response(status=503)
        return await super().serve(request)

    async def push(self, envelope: Envelope) -> str:
        if isinstance(envelope, RawEnvelope) and not isinstance(envelope.raw.get("envelope_id"), str):
            async with self._sending:
                await self._write(envelope.raw)  # once: nobody can acknowledge it
            return ""
        return await super().push(envelope)

    async def refresh(self) -> None:
        """Ask the bot to connect again, as Slack does every few hours."""
        await self._write({"type": "disconnect", "reason": "refresh_requested", "debug_info": {"host": "play"}})

    def is_settled(self, message_id: str) -> bool:
        """Whether the bot acknowledged a message, and everything that it was told of it."""
        return message_id in self.acks and all(waiting.message_id != message_id for waiting in self._pending)

    def is_drained(self) -> bool:
        """Whether the bot acknowledged everything."""
        return not self._pending

    async def _greet(self, socket: web.WebSocketResponse, request: web.Request) -> None:
        await super()._greet(socket, request)
        self.connections += 1

    async def _send(self, envelope: Envelope, retry_reason: str = "") -> None:
        if not self.faults.outage:
            await super()._send(envelope, retry_reason)

    def _body(self, envelope: Envelope) -> dict[str, Any]:
        return envelope.raw if isinstance(envelope, RawEnvelope) else super()._body(envelope)

    async def _settle(self, envelope: Envelope, ack: dict[str, Any]) -> None:
        self.acks.append(envelope.message_id)
        self.answers[ack["envelope_id"]] = ack.get("payload")
        await super()._settle(envelope, ack)
