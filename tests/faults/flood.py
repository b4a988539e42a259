"""Strangers at the pages: many who ask, many who say nothing, and some who send more than anybody reads."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import Counter
from collections.abc import AsyncIterator
from time import monotonic

PATIENCE = 60.0  # seconds of one request
BLOCK = b"x" * 65536


@contextlib.asynccontextmanager
async def connected(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def status(port: int, path: str = "/pair/") -> int:
    """What one anonymous request is answered with; 0 if the connection ends without an answer."""
    with contextlib.suppress(ConnectionError, TimeoutError):
        async with asyncio.timeout(PATIENCE), connected(port) as (reader, writer):
            writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            return _status(await reader.read())
    return 0


def _status(answer: bytes) -> int:
    found = re.match(rb"HTTP/1.1 (\d+)", answer)
    return int(found[1]) if found else 0


async def loads(port: int, *, count: int, at_once: int) -> Counter[int]:
    """Statuses of so many requests for a page."""
    free, statuses = asyncio.Semaphore(at_once), Counter[int]()

    async def one() -> None:
        async with free:
            statuses[await status(port)] += 1

    async with asyncio.TaskGroup() as strangers:
        for _ in range(count):
            strangers.create_task(one())
    return statuses


async def idle(port: int, *, count: int, seconds: float) -> None:
    """So many who connect, say nothing, and come back five seconds after they were thrown out."""
    end = monotonic() + seconds

    async def one() -> None:
        while monotonic() < end:
            with contextlib.suppress(ConnectionError, TimeoutError):
                async with asyncio.timeout(max(end - monotonic(), 0)), connected(port) as (reader, _):
                    await reader.read()
            await asyncio.sleep(5)

    async with asyncio.TaskGroup() as strangers:
        for _ in range(count):
            strangers.create_task(one())


async def send(port: int, path: str, size: int, *, announced: bool) -> tuple[int, int]:
    """The status of a body of so many bytes, which is never in memory, and how much of it could be sent."""
    length = f"Content-Length: {size}" if announced else "Transfer-Encoding: chunked"
    block = BLOCK if announced else b"10000\r\n" + BLOCK + b"\r\n"
    async with connected(port) as (reader, writer):
        writer.write(f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{length}\r\n\r\n".encode())
        answer = asyncio.create_task(reader.readuntil(b"\r\n\r\n"))
        sent = 0
        with contextlib.suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(PATIENCE):
                while sent < size:
                    writer.write(block)
                    await writer.drain()
                    sent += len(BLOCK)
        return _status(await asyncio.wait_for(answer, PATIENCE)), sent
