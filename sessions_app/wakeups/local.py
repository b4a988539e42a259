"""Tells those who work that something waits which came by no adapter: typed into a page, or brought by a webhook.

The bots in this process are told at once; where there are none, those elsewhere are told through Redis, if there is
one. Carries no content, and losing a ring loses nothing: every sweep finds what nobody was called for.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from django.conf import settings

from sessions_app.wakeups import redis as redis_wakeups


@dataclass(frozen=True, slots=True)
class _Hearer:
    notify: Callable[[int], None]
    send: Callable[[], None]


_heard: list[_Hearer] = []


def ring(conversation_id: int) -> None:
    """Something waits in this conversation. From any thread; call when it is committed. Never fails."""
    for hearer in _heard.copy():
        with suppress(RuntimeError):  # that loop is closed
            hearer.notify(conversation_id)
    if not _heard and settings.REDIS_URL:
        _elsewhere().ring_for(conversation_id)


def ring_for_couriers() -> None:
    """A delivery was queued. The rest is as with `ring`."""
    for hearer in _heard.copy():
        with suppress(RuntimeError):
            hearer.send()
    if not _heard and settings.REDIS_URL:
        _elsewhere().ring_for_couriers()


@functools.cache
def _elsewhere() -> redis_wakeups.Doorbell:
    """One for the life of the process; made late, since its thread would not survive a fork."""
    return redis_wakeups.Doorbell(settings.REDIS_URL)


@contextmanager
def answered_by(notify: Callable[[int], None], send: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Within the block, each ring calls `notify`, and each for couriers `send`, in the running event loop."""
    loop = asyncio.get_running_loop()
    hearer = _Hearer(
        lambda conversation_id: _soon(loop, notify, conversation_id),
        lambda: _soon(loop, send),
    )
    _heard.append(hearer)
    try:
        yield
    finally:
        _heard.remove(hearer)


def _soon(loop: asyncio.AbstractEventLoop, call: Callable[..., None], *given: int) -> None:
    loop.call_soon_threadsafe(call, *given)
