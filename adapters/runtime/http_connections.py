"""Limits on HTTP connections: how many there may be, and how long one may be silent.

The web server reads the head of a request before any application runs, so only its protocol class can enforce this.
`python -m uvicorn --http adapters.runtime.http_connections:Connection --backlog 128` uses it too.
"""

from __future__ import annotations

import asyncio
import resource
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

BACKLOG = 128  # asyncio accepts so many sockets before it handles the first of them
MAX_CONNECTIONS = 1000
HEAD_SECONDS = 10.0  # for the head of a request, counted from the connection or the last answer
ABORT = "botos.abort"  # the ASGI extension by which an application ends its connection at once
LINGER_SECONDS = 2.0  # for reading the answer of a connection that ends


class Connection(H11Protocol):
    """uvicorn's connection. It is aborted if its request does not arrive, or if others need its place."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # The server's connections whose client has not sent a whole request, the oldest first.
        self._incomplete: dict[Connection, None] = vars(self.server_state).setdefault("incomplete", {})
        self._timer: asyncio.TimerHandle | None = None
        self._application, self.app = self.app, self._serve

    async def _serve(self, scope: Any, receive: Any, send: Any) -> None:
        scope.setdefault("extensions", {})[ABORT] = self.drop
        await self._application(scope, receive, send)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept the connection, and end another one if there are too many."""
        super().connection_made(transport)
        self._await_request(HEAD_SECONDS)
        # It may be the new one itself that ends, if all others are being answered.
        if len(self.connections) > most_connections() and self._incomplete:
            next(iter(self._incomplete)).drop()

    def connection_lost(self, exc: Exception | None) -> None:
        """Give up the connection's place."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read a part of a request."""
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._stop_timer()  # the application limits the seconds for a body
        if self.conn.their_state not in {h11.IDLE, h11.SEND_BODY}:
            self._incomplete.pop(self, None)

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """Hand the connection over. Half of the places remain for requests."""
        self._stop_waiting()
        sockets = sum(not isinstance(connection, Connection) for connection in self.connections)
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
        # A close with unread data in the buffer would discard the answer.
        self.flow.pause_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._await_request(LINGER_SECONDS)

    def drop(self) -> None:
        """End the connection at once."""
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
    """The limit on connections. Half of the process's file handles at least are for bots and the database."""
    handles, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_CONNECTIONS if handles == resource.RLIM_INFINITY else min(MAX_CONNECTIONS, handles // 2)
