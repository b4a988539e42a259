"""Notifies workers of events that no adapter received, typed into a page or sent to a webhook, and of stopped turns.

The bots in this process are notified at once. Without any, other processes are notified through Redis, if there is one.
A notification has no content, and may be lost: a sweep finds every event, and each pool looks for stopped
turns itself.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from django.conf import settings

if TYPE_CHECKING:
    from sessions_app.wakeups.redis import Notifier


@dataclass(frozen=True, slots=True)
class _Listener:
    notify: Callable[[int], None]
    send: Callable[[], None]
    stop: Callable[[], None] = lambda: None


_listeners: list[_Listener] = []


def notify(conversation_id: int) -> None:
    """Notify workers that something waits in this conversation, from any thread. Call it after the commit."""
    for listener in _listeners.copy():
        with suppress(RuntimeError):  # that loop is closed
            listener.notify(conversation_id)
    if not _listeners and settings.REDIS_URL:
        _elsewhere().notify(conversation_id)


def notify_delivery_workers() -> None:
    """Notify delivery workers that a delivery was queued. The rest is as with `notify`."""
    for listener in _listeners.copy():
        with suppress(RuntimeError):
            listener.send()
    if not _listeners and settings.REDIS_URL:
        _elsewhere().notify_delivery_workers()


def notify_of_stop() -> None:
    """Notify turn pools that a person has stopped a turn. The rest is as with `notify`."""
    for listener in _listeners.copy():
        with suppress(RuntimeError):
            listener.stop()
    if not _listeners and settings.REDIS_URL:
        _elsewhere().notify_of_stop()


@functools.cache
def _elsewhere() -> Notifier:
    """One for the process, created late, as its thread would not survive a fork."""
    from sessions_app.wakeups.redis import Notifier  # with the libraries for Redis, only where it is used

    return Notifier(settings.REDIS_URL, is_page=True)


@contextmanager
def answered_by(
    notify: Callable[[int], None], send: Callable[[], None] = lambda: None, stop: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Within the block, make these calls in the running event loop.

    notify: for an event that waits in a conversation. send: for a delivery that waits. stop: for a stopped turn.
    """
    loop = asyncio.get_running_loop()
    listener = _Listener(
        lambda conversation_id: _call_soon(loop, notify, conversation_id),
        lambda: _call_soon(loop, send),
        lambda: _call_soon(loop, stop),
    )
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def _call_soon(loop: asyncio.AbstractEventLoop, call: Callable[..., None], *arguments: int) -> None:
    loop.call_soon_threadsafe(call, *arguments)
