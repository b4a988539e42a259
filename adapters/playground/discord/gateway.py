"""The local Discord's gateway: sessions, numbered events, resume, and the close codes of the real one.

https://discord.com/developers/docs/events/gateway
"""

from __future__ import annotations

import asyncio
import json
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from secrets import token_hex
from typing import Any

from aiohttp import web

from adapters.playground.discord.world import World

DISPATCH, HEARTBEAT, IDENTIFY, RESUME, RECONNECT, INVALID_SESSION, HELLO, HEARTBEAT_ACK = 0, 1, 2, 6, 7, 9, 10, 11
IGNORED = (3, 4, 8)  # presence, voice state, request of members
NOT_AUTHENTICATED, UNKNOWN_OPCODE, UNDECODABLE, REFUSED_TOKEN, TWICE = 4003, 4001, 4002, 4004, 4005
BAD_INTENTS, PRIVILEGED_INTENTS = 4013, 4014
PRIVILEGED = 1 << 1 | 1 << 8 | 1 << 15  # members, presences, message content
GUILDS, GUILD_MESSAGES, DIRECT_MESSAGES = 1 << 0, 1 << 9, 1 << 12
ANY = (1 << 53) - 1  # all sessions get interactions
HEARTBEAT_INTERVAL = 41_250  # ms
ROUND_TRIP = 0.05  # seconds until a heartbeat is acknowledged

Event = tuple[str, object]


class Pipe:
    """One websocket, compressed as a whole when the client asked for zlib-stream."""

    def __init__(self, request: web.Request) -> None:
        self._request = request
        self._deflate = zlib.compressobj() if request.query.get("compress") == "zlib-stream" else None
        self.socket = web.WebSocketResponse()

    async def open(self) -> None:
        await self.socket.prepare(self._request)

    async def send(self, op: int, data: object = None, **more: object) -> None:
        await self.send_frame({"op": op, "d": data, "s": None, "t": None, **more})

    async def send_frame(self, frame: object) -> None:
        """Raises ConnectionError when the socket is gone."""
        text = json.dumps(frame)
        if self._deflate is None:
            await self.socket.send_str(text)
        else:
            data = self._deflate.compress(text.encode()) + self._deflate.flush(zlib.Z_SYNC_FLUSH)
            await self.socket.send_bytes(data)

    def cut(self) -> None:
        if self._request.transport is not None:
            self._request.transport.abort()


@dataclass(slots=True, eq=False)
class Session:
    """What one client was told: the n-th event has the sequence number n. `told` of them are written to its socket."""

    id: str
    intents: int
    pipe: Pipe | None
    events: list[Event] = field(default_factory=list)
    told: int = 0
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)


class Gateway:
    """All sessions of the one bot. `welcome` makes the first events of a session, READY among them, from its id."""

    def __init__(self, world: World, token: str, welcome: Callable[[str], list[Event]]) -> None:
        self._world = world
        self._token = token
        self._welcome = welcome
        self._sessions: dict[str, Session] = {}
        self._acknowledging: set[asyncio.Task[None]] = set()

    def is_live(self) -> bool:
        return any(session.pipe for session in self._sessions.values())

    async def publish(self, name: str, data: object, intent: int) -> None:
        """Tell every session that asked for events of this kind; those without a socket get it when they resume."""
        for session in [session for session in self._sessions.values() if session.intents & intent]:
            session.events.append((name, data))
            await self._flush(session)

    def cut(self) -> None:
        """Break all sockets without a goodbye; the sessions live on."""
        for session in self._sessions.values():
            if session.pipe is not None:
                session.pipe.cut()
                session.pipe = None
        for task in self._acknowledging:
            task.cancel()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        pipe = Pipe(request)
        await pipe.open()
        try:
            await pipe.send(HELLO, {"heartbeat_interval": HEARTBEAT_INTERVAL})
            await self._converse(pipe)
        except ConnectionError:
            pass  # the client learns it from its own end
        finally:
            self._forget(pipe)
        return pipe.socket

    async def _converse(self, pipe: Pipe) -> None:
        async for message in pipe.socket:
            frame = _decoded(message.data)
            if frame is None:
                await pipe.socket.close(code=UNDECODABLE)
            else:
                await self._answer(pipe, frame.get("op"), frame.get("d"))

    async def _answer(self, pipe: Pipe, op: object, data: object) -> None:
        if op == HEARTBEAT:
            self._acknowledge_later(pipe)
        elif op in (IDENTIFY, RESUME):
            await self._admit(pipe, op == RESUME, data if isinstance(data, dict) else {})
        elif op not in IGNORED:
            await pipe.socket.close(code=UNKNOWN_OPCODE)
        elif not any(session.pipe is pipe for session in self._sessions.values()):
            await pipe.socket.close(code=NOT_AUTHENTICATED)

    def _acknowledge_later(self, pipe: Pipe) -> None:
        """SDKs note the time of a heartbeat after they have sent it, and trust that a network is slower than that."""

        async def acknowledge() -> None:
            await asyncio.sleep(ROUND_TRIP)
            with suppress(ConnectionError):
                await pipe.send(HEARTBEAT_ACK)

        task = asyncio.create_task(acknowledge())
        self._acknowledging.add(task)
        task.add_done_callback(self._acknowledging.discard)

    async def _admit(self, pipe: Pipe, resume: bool, data: dict[str, Any]) -> None:
        if data.get("token") != self._token:
            await pipe.socket.close(code=REFUSED_TOKEN)
        elif any(session.pipe is pipe for session in self._sessions.values()):
            await pipe.socket.close(code=TWICE)
        elif resume:
            await self._resume(pipe, data.get("session_id"), data.get("seq"))
        else:
            await self._identify(pipe, data.get("intents"))

    async def _identify(self, pipe: Pipe, intents: object) -> None:
        if not isinstance(intents, int) or intents & PRIVILEGED:
            await pipe.socket.close(code=PRIVILEGED_INTENTS if isinstance(intents, int) else BAD_INTENTS)
            return
        session = Session(token_hex(16), intents, pipe)
        live = {key: other for key, other in self._sessions.items() if other.pipe is not None}
        self._sessions = {**live, session.id: session}  # a session that begins again does not resume
        await self._greet(session, *self._welcome(session.id))

    async def _resume(self, pipe: Pipe, session_id: object, seq: object) -> None:
        session = self._sessions.get(str(session_id))
        if session is None or type(seq) is not int or not 0 <= seq <= len(session.events):
            self._sessions.pop(str(session_id), None)
            await pipe.send(INVALID_SESSION, False)
            return
        session.pipe, session.told = pipe, seq
        await self._greet(session, ("RESUMED", {}))

    async def _greet(self, session: Session, *greeting: Event) -> None:
        """Say that a session begins or goes on, then what is due."""
        session.events.extend(greeting)
        await self._flush(session)

    async def _flush(self, session: Session) -> None:
        """Write what was not yet written, in order, also when several tasks do so."""
        async with session.writing:
            while session.pipe is not None and session.told < len(session.events):
                name, data = session.events[session.told]
                try:
                    await session.pipe.send(DISPATCH, data, t=name, s=session.told + 1)
                except ConnectionError:
                    session.pipe = None
                    return
                session.told += 1
                self._world.bot_heard(data)

    def _forget(self, pipe: Pipe) -> None:
        """A goodbye with 1000 or 1001 ends the session; a broken connection does not."""
        for session in list(self._sessions.values()):
            if session.pipe is pipe:
                session.pipe = None
                if pipe.socket.close_code in (1000, 1001):
                    del self._sessions[session.id]


def _decoded(text: str | bytes) -> dict[str, Any] | None:
    try:
        frame = json.loads(text)
    except (ValueError, TypeError):  # TypeError: the socket broke in the middle of a frame
        return None
    return frame if isinstance(frame, dict) else None
