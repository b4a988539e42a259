"""The agent of a process in which twelve kinds of bad agents are tried: good to all but those who ask for harm."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable

from sessions_app.agents.base import run_in_thread
from sessions_app.messages import Reply, Turn

SECONDS = float(os.environ.get("FAULTS_BUSY", "60"))  # that a busy one computes
HUGE = int(os.environ.get("FAULTS_HUGE", "500000000"))  # characters


class OwnEnd(BaseException):
    pass


def _raise(error: BaseException) -> str:
    raise error


def _compute() -> str:
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        pass
    return "computed"


def _sleep() -> str:
    while True:
        time.sleep(3600)


async def _busy() -> str:
    return _compute()


async def _without_await() -> AsyncIterator[str]:
    while True:
        yield "and "


async def _empty_pieces() -> AsyncIterator[str]:
    while True:
        yield ""


async def _cancel_itself() -> str:
    task = asyncio.current_task()
    assert task
    task.cancel()
    await asyncio.sleep(0)
    return "unreachable"


async def _swallow() -> str:
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            continue


HARM: dict[str, Callable[[], object]] = {
    "SystemExit": lambda: _raise(SystemExit(3)),
    "KeyboardInterrupt": lambda: _raise(KeyboardInterrupt()),
    "own BaseException": lambda: _raise(OwnEnd()),
    "GeneratorExit": lambda: _raise(GeneratorExit()),
    "async, computes": _busy,
    "sync, computes": lambda: run_in_thread(_compute),
    "sync, sleeps": lambda: run_in_thread(_sleep),
    "stream without await": _without_await,
    "stream of empty pieces": _empty_pieces,
    "huge answer": lambda: "x" * HUGE,
    "cancels itself": _cancel_itself,
    "swallows cancellation": _swallow,
}


class Bad:
    async def reply(self, turn: Turn) -> Reply | str | AsyncIterator[str]:
        await asyncio.sleep(0.05)
        if turn.text not in HARM:
            return Reply(turn.text)
        answer = HARM[turn.text]()
        return await answer if asyncio.iscoroutine(answer) else answer  # type: ignore[return-value]
