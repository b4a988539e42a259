"""Connections of browsers and platforms to the pages: how many there may be, and how long one may say nothing.

The web server reads the head of a request before any application runs, so only its protocol class can bound this.
`python -m uvicorn --http adapters.runtime.http_connections:Connection --backlog 128` uses it, too.
"""

from __future__ import annotations

import asyncio
import resource
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

BACKLOG = 128  # asyncio accepts so many sockets before it tells any of them from the others
MAX_CONNECTIONS = 1000
HEAD_SECONDS = 10.0  # for the head of a request, counted from the connection or the last answer
ABORT = "botos.abort"  # the ASGI extension by which an application ends its connection at once
LINGER_SECONDS = 2.0  # for reading the answer of a connection that ends


class Connection(H11Protocol):
    """uvicorn's connection. It is aborted if its request does not come, and if others need its place."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Of this server, the longest waiting first: those whose client has not sent a whole request.
        self._incomplete: dict[Connection, None] = vars(self.server_state).setdefault("incomplete", {})
        self._timer: asyncio.TimerHandle | None = None
        self._application, self.app = self.app, self._serve

    async def _serve(self, scope: Any, receive: Any, send: Any) -> None:
        scope.setdefault("extensions", {})[ABORT] = self.drop
        await self._application(scope, receive, send)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Make room for it, if need be in place of another one."""
        super().connection_made(transport)
        self._await_request(HEAD_SECONDS)
        # Each new one too many ends one; it may be the new one itself, if all others are being answered.
        if len(self.connections) > most_connections() and self._incomplete:
            next(iter(self._incomplete)).drop()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take in a part of a request."""
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._stop_timer()  # the application bounds the seconds for a body
        if self.conn.their_state not in {h11.IDLE, h11.SEND_BODY}:
            self._incomplete.pop(self, None)

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """Hand the connection over. Half of the places remain for requests."""
        self._stop_waiting()
        sockets = sum(not isinstance(one, Connection) for one in self.connections)
        if sockets >= most_connections() // 2:
            self.drop()
        else:
            super().handle_websocket_upgrade(event)

    def on_response_complete(self) -> None:
        """Await the next request, or end a connection whose request was answered before its body had come."""
        super().on_response_complete()
        if self not in self.connections or not self.cycle.response_complete:
            return  # the next request was here already
        if self.conn.their_state is h11.IDLE:
            self._await_request(HEAD_SECONDS)
            return
        # A close with unread data in the buffer would take the answer away from the client.
        self.flow.pause_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._await_request(LINGER_SECONDS)

    def drop(self) -> None:
        """End it at once, whatever its client does."""
        self._stop_waiting()
        self.transport.abort()  # and not close, which waits for a client that does not read

    def _await_request(self, seconds: float) -> None:
        self._stop_waiting()
        self._incomplete[self] = None
        self._timer = self.loop.call_later(seconds, self.drop)

    def _stop_waiting(self) -> None:
        self._stop_timer()
        self._incomplete.pop(self, None)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def most_connections() -> int:
    """How many connections there may be. At least half of the process's file handles are for bots and database."""
    handles, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_CONNECTIONS if handles == resource.RLIM_INFINITY else min(MAX_CONNECTIONS, handles // 2)
