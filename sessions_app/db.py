"""The only place where async code crosses to the database.

Everything runs in one thread, in short transactions, with dead connections dropped before and after. What need not be
waited for has a thread of its own, which outlives the event loops.
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
_calls: dict[object, float] = {}  # when each that is under way began, by the monotonic clock


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


async def call(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a synchronous function that uses the database, and wait for what it returns.

    A thread cannot be stopped: whoever is cancelled meanwhile is so when the function has ended.
    """
    work: asyncio.Future[T] = asyncio.ensure_future(database_sync_to_async(function)(*args, **kwargs))
    _calls[work] = monotonic()
    work.add_done_callback(lambda _: _calls.pop(work))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        # asgiref would cancel the wait, or swallow the cancellation, depending on when it comes.
        await asyncio.wait([work])
        raise


def longest_wait() -> float:
    """Seconds that a call has been waiting for the database by now."""
    now = monotonic()
    return now - min(tuple(_calls.values()), default=now)


def call_soon(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
    """Make a call without waiting for it, after those before. `drain` waits for all of them, and so does the exit."""
    write = _writer.submit(call_from_any_thread, functools.partial(function, *args, **kwargs))
    _writes.add(write)
    write.add_done_callback(_writes.discard)
    return write


async def drain() -> None:
    """Wait until everything that `call_soon` accepted is written."""
    # Unlike gather, wait takes nothing out of the queue when it is cancelled.
    if accepted := [asyncio.wrap_future(write) for write in tuple(_writes)]:
        await asyncio.wait(accepted)


def call_from_any_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run it here and now, and leave no connection behind that was opened for it: threads come and go."""
    was_open = connection.connection is not None
    try:
        return function(*args, **kwargs)
    finally:
        if not was_open:
            connection.close()


def is_in_event_loop() -> bool:
    """Whether the caller is a coroutine (or called by one), so that it must not block."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
