"""What a client that says nothing, says it slowly or says too much can take up. Real sockets on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
from collections.abc import AsyncIterator
from typing import Any

import pytest
import uvicorn

from adapters.runtime import http_connections
from adapters.runtime.http_connections import Connection, most_connections
from botos_project import ingress
from botos_project.ingress import Ingress

pytestmark = pytest.mark.asyncio

GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
WAIT = GET.replace(b" / ", b" /wait ")
POST = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000\r\n\r\n"
BODY = b"POST /body HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n"
HEAD = b"\r\n\r\n"
UPGRADE = (
    b"GET /live HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
PATIENCE = 20.0


async def site(scope: Any, receive: Any, send: Any) -> None:
    """Answers at once, whatever else is to come. /body awaits the body; the answer of /wait does not end."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        return
    while scope["path"] == "/body" and (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    while scope["path"] == "/wait":
        if (await receive())["type"] == "http.disconnect":
            return
    await send({"type": "http.response.body", "body": b"ok"})


class Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self.writer = reader, writer

    async def say(self, words: bytes) -> None:
        self.writer.write(words)
        await self.writer.drain()

    async def hears(self, words: bytes) -> None:
        await asyncio.wait_for(self._reader.readuntil(words), PATIENCE)

    async def asks(self) -> None:
        await self.say(GET)
        await self.hears(b"ok")

    async def goes_on_saying(self, words: bytes) -> None:
        while True:
            await self.say(words)

    async def is_ended(self) -> None:
        """Wait until the server has ended it."""
        with contextlib.suppress(ConnectionError):
            assert await asyncio.wait_for(self._reader.read(), PATIENCE) == b""

    @property
    def is_open(self) -> bool:
        return not self._reader.at_eof() and self._reader.exception() is None


class Place:
    """A server, and those who come."""

    def __init__(self, application: Any = site) -> None:
        self.server = uvicorn.Server(
            uvicorn.Config(application, http=Connection, log_config=None, lifespan="off", timeout_keep_alive=60)
        )
        self._port = 0
        self._clients: list[Client] = []

    async def open(self) -> None:
        self.server.config.load()
        self.server.lifespan = self.server.config.lifespan_class(self.server.config)
        self.server.config.port = 0
        await self.server.startup()
        self._port = self.server.servers[0].sockets[0].getsockname()[1]

    async def close(self) -> None:
        for client in self._clients:
            client.writer.transport.abort()
        await self.server.shutdown()

    async def client(self) -> Client:
        """A new one. The server meets them in this order."""
        self._clients.append(Client(*await asyncio.open_connection("127.0.0.1", self._port)))
        return self._clients[-1]


@contextlib.asynccontextmanager
async def serving(application: Any = site) -> AsyncIterator[Place]:
    place = Place(application)
    await place.open()
    try:
        yield place
    finally:
        await place.close()


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_connections, "HEAD_SECONDS", 0.05)
    monkeypatch.setattr(http_connections, "LINGER_SECONDS", 0.05)


def at_most(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(http_connections, "MAX_CONNECTIONS", most)


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("words", [b"", b"GET / HTTP/1.1\r\nHo"])
async def test_it_ends_a_connection_whose_request_does_not_come(words: bytes) -> None:
    async with serving() as place:
        client = await place.client()
        await client.say(words)
        await client.is_ended()


@pytest.mark.usefixtures("soon")
async def test_it_ends_a_connection_whose_second_request_does_not_come() -> None:
    """Not even one that begins: uvicorn's own limit ends with the first byte."""
    async with serving() as place:
        client = await place.client()
        await client.asks()
        await client.say(b"GET")
        await client.is_ended()


@pytest.mark.usefixtures("soon")
async def test_it_leaves_the_seconds_of_a_body_and_of_an_answer_to_the_application() -> None:
    async with serving() as place:
        slow, waiting = await place.client(), await place.client()
        await slow.say(BODY)
        await waiting.say(WAIT)
        await slow.hears(HEAD)
        await waiting.hears(HEAD)
        await (await place.client()).is_ended()  # which came later

        assert slow.is_open
        assert waiting.is_open


@pytest.mark.usefixtures("soon")
async def test_it_leaves_a_websocket_alone() -> None:
    async with serving() as place:
        live = await place.client()
        await live.say(UPGRADE)
        await live.hears(HEAD)
        await (await place.client()).is_ended()

        assert live.is_open


async def test_it_answers_requests_that_come_together() -> None:
    async with serving() as place:
        client = await place.client()
        await client.say(GET * 3)
        for _ in range(3):
            await client.hears(b"ok")


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("length", [b"Content-Length: 1000000000", b"Transfer-Encoding: chunked"])
async def test_it_reads_no_body_of_a_request_that_is_answered(length: bytes) -> None:
    async with serving() as place:
        client = await place.client()
        await client.say(POST.replace(b"Content-Length: 1000000000", length))
        await client.hears(b"ok")
        with pytest.raises(ConnectionError):
            await client.goes_on_saying(b"1\r\nx\r\n" * 100_000)


async def test_it_ends_the_longest_idle_connection_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    at_most(monkeypatch, 3)
    async with serving() as place:
        first, second, third = [await place.client() for _ in range(3)]
        await first.asks()
        newest = await place.client()

        await second.is_ended()
        for client in (first, third, newest):
            await client.asks()


async def test_it_ends_the_newest_when_all_others_are_being_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    at_most(monkeypatch, 2)
    async with serving() as place:
        busy = [await place.client() for _ in range(2)]
        for client in busy:
            await client.say(WAIT)
            await client.hears(HEAD)
        await (await place.client()).is_ended()

        assert all(client.is_open for client in busy)


async def test_it_ends_a_body_that_is_under_way_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    at_most(monkeypatch, 1)
    async with serving() as place:
        slow = await place.client()
        await slow.say(BODY)
        await slow.hears(HEAD)
        newest = await place.client()
        await slow.is_ended()
        await newest.asks()


async def test_it_counts_no_websocket_as_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    at_most(monkeypatch, 2)
    async with serving() as place:
        live, idle = [await place.client() for _ in range(2)]
        await live.say(UPGRADE)
        await live.hears(HEAD)
        newest = await place.client()
        await idle.is_ended()

        assert live.is_open
        await newest.asks()


async def test_it_keeps_half_of_the_places_from_websockets(monkeypatch: pytest.MonkeyPatch) -> None:
    at_most(monkeypatch, 4)
    async with serving() as place:
        live = [await place.client() for _ in range(3)]
        for client in live[:2]:
            await client.say(UPGRADE)
            await client.hears(HEAD)
        await live[2].say(UPGRADE)
        await live[2].is_ended()

        assert live[0].is_open
        assert live[1].is_open


@pytest.mark.parametrize(("handles", "most"), [(256, 128), (1024, 512), (8192, 1000), (resource.RLIM_INFINITY, 1000)])
async def test_it_keeps_half_of_the_file_handles(monkeypatch: pytest.MonkeyPatch, handles: int, most: int) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (handles, handles))

    assert most_connections() == most


MIB = 1024 * 1024
UNREAD = 64 * MIB  # more than the buffers of two sockets hold


async def pages(scope: Any, receive: Any, send: Any) -> None:
    """/parts is long and comes in parts, / is long and comes at once, /wait begins and does not end."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    if scope["path"] == "/wait":
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass
        return
    for _ in range(2 if scope["path"] == "/parts" else 0):
        await send({"type": "http.response.body", "body": b"x" * UNREAD, "more_body": True})
    await send({"type": "http.response.body", "body": b"x" * UNREAD})


class Site:
    """The pages behind the ingress. `ended` has the requests that are over."""

    def __init__(self) -> None:
        self._ingress = Ingress(pages, requests=9)
        self.begun: asyncio.Queue[str] = asyncio.Queue()
        self.ended: asyncio.Queue[str] = asyncio.Queue()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.begun.put(scope["path"])
        try:
            await self._ingress(scope, receive, send)
        finally:
            await self.ended.put(scope["path"])


def get(path: bytes) -> bytes:
    return GET.replace(b" / ", b" %b " % path)


@pytest.mark.parametrize(
    "words",
    [get(b"/parts"), BODY, get(b"/wait")],
    ids=["a long answer", "before its body", "an answer that goes on"],
)
async def test_it_reports_no_error_when_a_client_goes(words: bytes, caplog: pytest.LogCaptureFixture) -> None:
    application = Site()
    async with serving(application) as place:
        client = await place.client()
        await client.say(words)
        await asyncio.wait_for(application.begun.get(), PATIENCE)
        client.writer.transport.abort()
        await ends(application, place, 1)

    assert not [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize(
    ("words", "requests"),
    [(get(b"/parts"), 1), (GET + POST, 2)],
    ids=["a long answer", "a refusal behind a long answer"],
)
async def test_it_reports_no_error_when_a_client_does_not_read(
    words: bytes, requests: int, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends the connection at once: a close would wait for the client to read."""
    monkeypatch.setattr(ingress, "SEND_SECONDS", 0.05)
    application = Site()
    async with serving(application) as place:
        client = await place.client()
        await client.say(words)
        await ends(application, place, requests)

        assert not place.server.server_state.connections

    assert not [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


async def ends(application: Site, place: Place, requests: int) -> None:
    """Wait until so many requests are over, for the server, too."""
    for _ in range(requests):
        await asyncio.wait_for(application.ended.get(), PATIENCE)
    await asyncio.wait_for(asyncio.gather(*place.server.server_state.tasks), PATIENCE)
