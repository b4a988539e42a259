"""The local Slack for tests: failures, redelivery, malformed events, events over HTTP, and records of the calls."""

from __future__ import annotations

from collections import deque
from typing import Any

from aiohttp import web

from adapters.playground.server import Person
from adapters.playground.slack import SlackServer
from adapters.playground.slack.api import Answer, Args, Method, Refusal, WebApi
from adapters.playground.slack.responses import Issued, Responses
from adapters.playground.slack.socket import Envelope
from adapters.playground.slack.workspace import Message, Workspace
from tests.fakes.faults import Fault, FaultPlan, LostResponse
from tests.fakes.slack_http import HttpEvents
from tests.fakes.slack_socket import FakeSocketMode, RawEnvelope

REMEMBERED_CALLS = 5000
POSTS = ("chat.postMessage", "chat.postEphemeral", "chat.update")
LOOKS = ("conversations.history", "conversations.replies")


class FakeWebApi(WebApi):
    """Also fails and refuses. Fault names are the Web API's method names.

    calls: the latest methods and arguments, answered or not. posted: the arguments of each post, update and ephemeral
    post that was carried out, blocks and all. refusals: by channel id, the error code that every post there meets, for
    example `is_archived`. hidden: the one that every look at its messages meets, for example `missing_scope`.
    """

    def __init__(self, workspace: Workspace, tokens: dict[str, str], faults: FaultPlan) -> None:
        super().__init__(workspace, tokens)
        self.faults = faults
        self.calls: deque[tuple[str, Args]] = deque(maxlen=REMEMBERED_CALLS)
        self.posted: list[Args] = []
        self.refusals: dict[str, str] = {}
        self.hidden: dict[str, str] = {}

    async def handle(self, request: web.Request) -> web.StreamResponse:
        fault = self.faults.take(request.match_info["method"])
        if fault is not None and not fault.lose_response:
            return _planned(fault)
        answer = await super().handle(request)
        return answer if fault is None else LostResponse()

    async def _run(self, name: str, method: Method, args: Args) -> Answer:
        self.calls.append((name, args))
        refused = {"chat.postMessage": self.refusals, **dict.fromkeys(LOOKS, self.hidden)}.get(name, {})
        if code := refused.get(str(args.get("channel"))):
            raise Refusal(code)
        answer = await super()._run(name, method, args)
        if name in POSTS:
            self.posted.append(args)
        return answer


class FakeResponses(Responses):
    """`taken`: what the bot sent to response addresses, as far as it was taken, and what only one person sees too."""

    def __init__(self, workspace: Workspace) -> None:
        super().__init__(workspace)
        self.taken: list[Message] = []

    async def _carry_out(self, issued: Issued, body: Message) -> None:
        self.taken.append(body)
        await super()._carry_out(issued, body)
        await self._workspace.notify()


class FakeSlack(SlackServer):
    """Fulfils FakeServer. Fault names are those of `FakeWebApi`, and `websocket` for opening the socket.

    Events travel over the socket, or over HTTP where `http.url` is set. A lost one is repeated soon there, too.
    pushed: the latest events, presses and commands.
    """

    api: FakeWebApi
    socket: FakeSocketMode

    def __init__(self, redeliver_after: float = 3.0) -> None:
        super().__init__(redeliver_after)
        self.faults = FaultPlan()
        self.api = FakeWebApi(self.workspace, {self.bot_token: "bot", self.app_token: "app"}, self.faults)
        self.typing = self.api.typing
        self.socket = FakeSocketMode(self.workspace, redeliver_after, self.faults)
        self.http = HttpEvents(self.workspace, self.faults, (0.1, redeliver_after, redeliver_after))
        self.responses: FakeResponses = FakeResponses(self.workspace)
        self.pushed: deque[Envelope] = deque(maxlen=REMEMBERED_CALLS)
        self._told: dict[str, list[Any]] = {}  # message id -> payloads

    def environment(self) -> dict[str, str]:
        return super().environment() | {"SLACK_SIGNING_SECRET": self.http.secret}

    async def stop(self) -> None:
        await self.http.close()
        await super().stop()

    def guest(self, person: Person, team: str) -> None:
        """Say that a person belongs to another workspace (Slack Connect)."""
        self.workspace.meet(person)
        self.workspace.teams[person.id] = team

    async def redeliver(self, message_id: str) -> None:
        for payload in self._told[message_id]:
            await self._carrier.push(Envelope("events_api", payload, message_id, attempt=1, reason="timeout"))

    async def push_raw(self, event: Any) -> None:
        if isinstance(event, dict) and ("envelope_id" in event or event.get("type") == "events_api"):
            await self._carrier.push(RawEnvelope("", None, raw=event))
        else:
            await self._carrier.push(Envelope("events_api", self._payload(event)))

    async def answered(self, envelope_id: str, timeout: float = 10.0) -> None:
        """Wait until the bot acknowledged a pressed button or a slash command."""
        await self.workspace.until(lambda: envelope_id in self._carrier.answers, timeout)

    async def acknowledged(self, message_id: str, timeout: float = 10.0) -> None:
        await self.workspace.until(lambda: self._carrier.is_settled(message_id), timeout)

    def is_told(self) -> bool:
        """Whether nothing is left to tell."""
        return self.socket.is_drained() and self.http.is_drained()

    async def drained(self, timeout: float = 10.0) -> None:
        """Wait until the bot acknowledged everything that it was told."""
        await self.workspace.until(self.is_told, timeout)

    async def drop_connections(self) -> None:
        self.socket.drop()

    async def _push(self, envelope: Envelope) -> str:
        self.pushed.append(envelope)
        if envelope.message_id:
            self._told.setdefault(envelope.message_id, []).append(envelope.payload)
        return await self._carrier.push(envelope)

    @property
    def _carrier(self) -> FakeSocketMode | HttpEvents:
        return self.http if self.http.url else self.socket


def _planned(fault: Fault) -> web.Response:
    if fault.status == 401:  # Slack says this with status 200
        return web.json_response({"ok": False, "error": "invalid_auth"})
    if fault.status == 429:
        wait = {"Retry-After": f"{fault.retry_after:g}"}
        return web.json_response({"ok": False, "error": "ratelimited"}, status=429, headers=wait)
    if fault.status == 503:
        return web.json_response({"ok": False, "error": "service_unavailable"}, status=503)
    return web.Response(status=fault.status or 500, text="<html>Server Error</html>", content_type="text/html")
