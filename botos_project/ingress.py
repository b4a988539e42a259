"""How much the pages take in at once: the size of a body, the requests in flight and the seconds that each may take.

Applied before Django sees a request, which would write its body to disk and give it a thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from io import BytesIO
from typing import Any

from django.core.handlers.asgi import ASGIRequest

from adapters.runtime.http_connections import ABORT
from botos_project import failures

Send = Callable[[Any], Awaitable[None]]
Receive = Callable[[], Awaitable[Any]]
Application = Callable[[Any, Receive, Send], Awaitable[None]]

MIB = 1024 * 1024
MAX_BODY = 2 * MIB
# By the beginning of the path. Requests that only look have no body worth mentioning.
MAX_BODY_AT = {"/hooks/": MIB, "/healthz": 0, "/readyz": 0, "/metrics": 0}
MAX_BODIES = 32 * MIB  # of all requests together, held in memory
BODY_SECONDS = 20.0
WAIT_SECONDS = 5.0  # for a free place
SEND_SECONDS = 30.0  # for a part of an answer that nobody reads
# How many at once by the beginning of the path, so that pages keep neither the platforms nor a supervisor waiting.
ALLOWANCES = {"/hooks/": 4, "/healthz": 4, "/readyz": 1, "/metrics": 1}


class Refused(Exception):
    """The request is answered with `status` and goes no further."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class NotRead(Exception):
    """The client does not read what it asked for, or has gone."""


class Ingress:
    """Wraps an HTTP application. `requests` is how many pages are made at once.

    rest: while all places are taken, each of them stays empty after a request for so many times as long as the request
    took. In the process of the bots, a flood of pages then leaves them the larger part of the interpreter.
    """

    def __init__(self, application: Application, *, requests: int, rest: float = 0.0) -> None:
        self._application = application
        self._rest = rest
        self._pages = asyncio.Semaphore(requests)
        self._allowances = {path: asyncio.Semaphore(places) for path, places in ALLOWANCES.items()}
        self._held = 0  # bytes of bodies

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Answer one request."""
        send = _in_time(send)
        try:
            try:
                limit = _of_path(scope["path"], MAX_BODY_AT, MAX_BODY)
                async with self._body(scope, receive, limit) as body, self._place(scope["path"]):
                    await self._application(scope, _replay(body, receive), send)
            except Refused as refused:
                await _answer(refused.status, scope, send)
        except NotRead:
            await _abort(scope, receive)

    @asynccontextmanager
    async def _body(self, scope: Any, receive: Receive, limit: int) -> AsyncIterator[bytes]:
        """The whole body, counted among those that are held. Raises Refused for one that is too long or too slow."""
        if _announced(scope) > limit:
            raise Refused(413)
        body = bytearray()
        try:
            async with asyncio.timeout(BODY_SECONDS):
                async for part in _parts(receive):
                    body += part
                    self._held += len(part)
                    if len(body) > limit:
                        raise Refused(413)
                    if self._held > MAX_BODIES:
                        raise Refused(503)
            yield bytes(body)
        except TimeoutError:
            raise Refused(408) from None
        finally:
            self._held -= len(body)

    @asynccontextmanager
    async def _place(self, path: str) -> AsyncIterator[None]:
        places = _of_path(path, self._allowances, self._pages)
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await places.acquire()
        except TimeoutError:
            raise Refused(503) from None
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            yield
        finally:
            if places is self._pages and self._rest and places.locked():
                loop.call_later(self._rest * (loop.time() - began), places.release)
            else:
                places.release()


def _of_path(path: str, by_beginning: dict[str, Any], default: Any) -> Any:
    return next((found for beginning, found in by_beginning.items() if path.startswith(beginning)), default)


def _announced(scope: Any) -> int:
    """The length that the client announces; 0 where it announces none. Raises Refused for one that is no number."""
    lengths = [value for name, value in scope["headers"] if name == b"content-length"]
    if not all(value.isdigit() and len(value) < 20 for value in lengths):
        raise Refused(400)
    return max(map(int, lengths), default=0)


async def _parts(receive: Receive) -> AsyncIterator[bytes]:
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise NotRead
        yield message.get("body", b"")
        more = message.get("more_body", False)


def _replay(body: bytes, receive: Receive) -> Receive:
    """What the application receives: the body in one piece, then whatever the client does next."""
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Any:
        return messages.pop() if messages else await receive()

    return replayed


def _in_time(send: Send) -> Send:
    async def bounded(message: Any) -> None:
        try:
            async with asyncio.timeout(SEND_SECONDS):
                await send(message)
        except TimeoutError:
            raise NotRead from None

    return bounded


async def _abort(scope: Any, receive: Receive) -> None:
    """End the connection, and return when the server knows: it reports an incomplete answer as an error of ours."""
    abort = scope.get("extensions", {}).get(ABORT)
    if abort is not None:
        abort()
        while (await receive())["type"] != "http.disconnect":
            pass


async def _answer(status: int, scope: Any, send: Send) -> None:
    """Our page with the headers that every page has, without a thread or the database."""
    request = ASGIRequest(scope | {"query_string": b""}, BytesIO())  # a query may hold bytes that cannot be decoded
    response = failures.refused(status, request)
    headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in response.items()]
    headers.append((b"content-length", str(len(response.content)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else response.content})
