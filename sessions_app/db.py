"""The only way from async code to the database.

All calls run in one thread, in short transactions, which drops dead connections before and after. Calls that nobody
waits for have a thread of their own, which outlives the event loops.
"""

from __future__ import annotations

import asyncio
import functools
import os
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from time import monotonic
from typing import Any, ParamSpec, TypeVar

from channels.db import database_sync_to_async
from django.db import connection

P = ParamSpec("P")
T = TypeVar("T")

_writes: set[Future[Any]] = set()
_calls: dict[object, float] = {}  # when each running call began, by the monotonic clock


def _begin() -> None:
    global _writer  # noqa: PLW0603 - a thread does not survive a fork
    _writer = ThreadPoolExecutor(1, thread_name_prefix="bridge")


_writer: ThreadPoolExecutor
_begin()
os.register_at_fork(after_in_child=_begin)


def _forget_pools() -> None:
    """A pool's threads do not survive a fork, and its connections are the parent's."""
    if backend := sys.modules.get("django.db.backends.postgresql.base"):
        backend.DatabaseWrapper._connection_pools.clear()  # noqa: SLF001 - Django has no public way


os.register_at_fork(after_in_child=_forget_pools)


def _apply(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return function(*args, **kwargs)


_in_thread = database_sync_to_async(_apply)  # one for all functions, as each costs as much as a statement


async def call(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a synchronous function that uses the database, and return its result.

    A thread cannot be stopped, so a cancellation takes effect when the function has ended.
    """
    work: asyncio.Future[T] = asyncio.ensure_future(_in_thread(function, *args, **kwargs))
    _calls[work] = monotonic()
    work.add_done_callback(lambda _: _calls.pop(work))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        # Without this, asgiref cancels the wait or swallows the cancellation, depending on the moment.
        await asyncio.wait([work])
        raise


def longest_wait() -> float:
    """How many seconds the oldest running call has taken so far."""
    now = monotonic()
    return now - min(tuple(_calls.values()), default=now)


def call_soon(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
    """Run a call after all earlier ones, without waiting for it. `drain` and the exit wait for all of them."""
    write = _writer.submit(call_from_any_thread, functools.partial(function, *args, **kwargs))
    _writes.add(write)
    write.add_done_callback(_writes.discard)
    return write


async def drain() -> None:
    """Wait until everything that `call_soon` accepted is written."""
    # Unlike gather, wait cancels no call when it is cancelled.
    if accepted := [asyncio.wrap_future(write) for write in tuple(_writes)]:
        await asyncio.wait(accepted)


def call_from_any_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a function in this thread, and close the connection if this opened it, as threads come and go."""
    was_open = connection.connection is not None
    try:
        return function(*args, **kwargs)
    finally:
        if not was_open:
            connection.close()


def is_in_event_loop() -> bool:
    """Whether the caller runs in an event loop, so that it must not block."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
