"""The only place where async code crosses to the database.

Everything runs in one thread, in short transactions, with dead connections dropped before and after.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from channels.db import database_sync_to_async
from django.db import connection

P = ParamSpec("P")
T = TypeVar("T")

_writes: set[asyncio.Task[object]] = set()


async def call(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a synchronous function that uses the database, and wait for what it returns.

    A thread cannot be stopped: whoever is cancelled meanwhile is so when the function has ended.
    """
    work: asyncio.Future[T] = asyncio.ensure_future(database_sync_to_async(function)(*args, **kwargs))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        # asgiref would cancel the wait, or swallow the cancellation, depending on when it comes.
        await asyncio.wait([work])
        raise


def call_soon(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> None:
    """Have the running event loop make a call without waiting for it. `drain` waits for all such calls."""
    task = asyncio.get_running_loop().create_task(call(function, *args, **kwargs))
    _writes.add(task)
    task.add_done_callback(_writes.discard)


async def drain() -> None:
    """Wait until everything that `call_soon` accepted on this event loop is written."""
    here = asyncio.get_running_loop()
    mine = [task for task in _writes if task.get_loop() is here]
    await asyncio.gather(*mine, return_exceptions=True)


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
