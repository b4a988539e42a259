"""The local Discord for tests: failures, redelivery, malformed events, lost sessions, and records of calls."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable

from aiohttp import web

from adapters.playground.discord import DiscordServer
from adapters.playground.discord.gateway import (
    DIRECT_MESSAGES,
    HEARTBEAT_INTERVAL,
    HELLO,
    RECONNECT,
    Event,
    Gateway,
    Pipe,
    Session,
)
from adapters.playground.discord.rest import API, Handler, RefusedError, Rest, json_response
from adapters.playground.discord.world import Channel, Json, World
from adapters.playground.server import Person
from tests.fakes.faults import Fault, FaultPlan, LostResponse

LIMIT_IS_GLOBAL = False  # of a planned 429: for the whole bot, or for one chat
CLOSED_CHAT = RefusedError(403, 50007, "Cannot send messages to this user")
UNKNOWN_USER = RefusedError(403, 10013, "Unknown User")
NO_HISTORY = RefusedError(400, 160002, "Cannot reply without permission to read message history")


class FakeGateway(Gateway):
    """Also fails, loses sessions and sends any frame. In an outage the next event cuts the sockets still open.

    identified: how often a new session began. resumed: how often one went on.
    """

    def __init__(self, world: World, token: str, welcome: Callable[[str], list[Event]], faults: FaultPlan) -> None:
        super().__init__(world, token, welcome)
        self.faults = faults
        self.identified = 0
        self.resumed = 0
        self._lost: set[str] = set()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        fault = self.faults.take("gateway")
        if fault is None:
            return await super().handle(request)
        if fault.status:
            return web.Response(status=fault.status)
        pipe = Pipe(request)
        await pipe.open()
        await pipe.send(HELLO, {"heartbeat_interval": HEARTBEAT_INTERVAL})
        await pipe.socket.receive()
        pipe.cut()
        return pipe.socket

    async def publish(self, name: str, data: object, intent: int) -> None:
        if self.faults.outage:
            self.cut()
        await super().publish(name, data, intent)

    async def push_frame(self, frame: object) -> None:
        """Send a frame as it stands, numbered by nobody and never replayed."""
        for session in list(self._sessions.values()):
            if session.pipe is not None:
                async with session.writing:
                    await session.pipe.send_frame(frame)

    def lose_sessions(self) -> None:
        """Let no session that exists now be resumed."""
        self._lost = set(self._sessions)

    async def _resume(self, pipe: Pipe, session_id: object, seq: object) -> None:
        if session_id in self._lost:
            self._sessions.pop(str(session_id), None)
        await super()._resume(pipe, session_id, seq)

    async def _greet(self, session: Session, *greeting: Event) -> None:
        if greeting[0][0] == "RESUMED":
            self.resumed += 1
        else:
            self.identified += 1
        await super()._greet(session, *greeting)


class FakeRest(Rest):
    """Also fails and refuses. Fault names are a method and a path without ids: `POST /channels/messages`.

    posts: every accepted body of a message, with buttons and all. refusals: by channel, what every message meets.
    unread: the channels whose history the bot may not read.
    """

    def __init__(
        self, world: World, token: str, publish: Callable[[str, Json], Awaitable[None]], faults: FaultPlan
    ) -> None:
        super().__init__(world, token, publish)
        self.faults = faults
        self.posts: list[Json] = []
        self.refusals: dict[str, RefusedError] = {}
        self.unread: set[str] = set()

    async def _answer(self, request: web.Request, handler: Handler) -> web.Response:
        fault = self.faults.take(_fault_name(request))
        if fault is not None and fault.status:
            return _planned(fault)
        response = await super()._answer(request, handler)
        return LostResponse() if fault is not None and fault.lose_response else response

    async def _write(self, channel: Channel, body: Json, content: str, nonce: str) -> Json:
        if channel.id in self.refusals:
            raise self.refusals[channel.id]
        if channel.id in self.unread and "message_reference" in body:
            raise NO_HISTORY
        self.posts.append({**body, "channel_id": channel.id})
        return await super()._write(channel, body, content, nonce)


class FakeDiscord(DiscordServer):
    """Fulfils FakeServer. Fault names are those of `FakeRest`, and `gateway` for opening the websocket."""

    gateway: FakeGateway
    rest: FakeRest

    def __init__(self) -> None:
        super().__init__()
        self.faults = FaultPlan()
        self.gateway = FakeGateway(self.world, self.token, self._welcome, self.faults)
        self.rest = FakeRest(self.world, self.token, self._publish, self.faults)
        self.typing = self.rest.typing

    def delete_account(self, person: Person) -> None:
        """The person's account does not exist any more: code 10013."""
        self.rest.refusals[self.private_chat(person)] = UNKNOWN_USER

    def close_private_chat(self, person: Person) -> None:
        """The person takes no direct messages of the bot: code 50007."""
        self.rest.refusals[self.private_chat(person)] = CLOSED_CHAT

    async def answered(self, interaction_id: str, timeout: float = 10.0) -> Json:
        """Wait until the bot has acknowledged an interaction; returns how."""

        def answers() -> list[Json]:
            return [one for one in self.rest.callbacks if one["interaction_id"] == interaction_id]

        await self.world.changes.until(lambda: bool(answers()), timeout)
        return answers()[0]

    async def redeliver(self, message_id: str) -> None:
        await self._publish("MESSAGE_CREATE", self.world.find(message_id))

    async def push_raw(self, event: object) -> None:
        """A dict with `op` is sent as a frame of its own, anything else as the data of a MESSAGE_CREATE event."""
        await self.connected()
        if isinstance(event, dict) and "op" in event:
            await self.gateway.push_frame(event)
        else:
            await self.gateway.publish("MESSAGE_CREATE", event, DIRECT_MESSAGES)

    async def connected(self, timeout: float = 10.0) -> None:
        """Wait until the bot has an identified socket."""
        await self.world.changes.until(self.gateway.is_live, timeout)

    async def acknowledged(self, message_id: str, timeout: float = 10.0) -> None:
        """Wait until the message was written to an identified socket, or read by the bot from a history."""
        await self.world.changes.until(lambda: message_id in self.world.heard, timeout)

    async def drop_connections(self) -> None:
        self.gateway.cut()
        if self._runner is not None and self._runner.server is not None:
            for connection in self._runner.server.connections:
                if connection.transport is not None:
                    connection.transport.abort()

    def lose_session(self) -> None:
        """Forget all sessions: the next RESUME is answered with an invalid session, and what was missed is not told."""
        self.gateway.lose_sessions()

    async def reconnect(self) -> None:
        """Ask the bot to connect again and resume, as Discord does before it restarts a machine."""
        await self.gateway.push_frame({"op": RECONNECT, "d": None})


def _fault_name(request: web.Request) -> str:
    """`POST /api/v10/channels/{channel}/messages` -> `POST /channels/messages`"""
    resource = request.match_info.route.resource
    path = resource.canonical.removeprefix(API) if resource is not None else ""
    return f"{request.method} /" + "/".join(part for part in path.split("/") if part and not part.startswith("{"))


def _planned(fault: Fault) -> web.Response:
    if fault.status != 429:
        return json_response({"message": f"{fault.status}: planned", "code": 0}, fault.status)
    body = {"message": "You are being rate limited.", "retry_after": fault.retry_after, "global": LIMIT_IS_GLOBAL}
    response = json_response(body, 429)
    response.headers["Via"] = "1.1 google"  # what discord.py tells Discord's own limits by
    response.headers["Retry-After"] = str(math.ceil(fault.retry_after))
    return response
