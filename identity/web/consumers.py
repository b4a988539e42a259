"""The socket of an open page. It says that something changed; the page then asks for what by itself.

Before every push the socket checks again what it may hear, from the session and the attached accounts: after a sign-out
or an unlink it hears nothing more.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from dataclasses import asdict
from time import monotonic
from typing import Any

from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncJsonWebsocketConsumer
from django.contrib.sessions.backends.db import SessionStore
from django.db import DatabaseError

from identity import live
from identity.browsers import sessions as browser_sessions
from identity.web import subscriptions

LOOK_SECONDS = 4.0  # how often a socket is checked, so that none stays open for 5 after its browser ended
MAX_A_SECOND = 10
MAX_MESSAGE_BYTES = 64 * 1024  # bytes of one message
MAX_IN_ONE = 500  # events in a message, which stays below MAX_MESSAGE_BYTES, too
TOUCH_SECONDS = 30.0
NOT_YOURS, RECONNECT, TOO_MUCH = 4403, 4000, 4429


class LiveConsumer(AsyncJsonWebsocketConsumer):
    """A page sends `{"after": id}` to resume behind an id, and `{"here": true}` while a person uses it.

    It gets `{"ready": true}` first, and then `{"events": [{"id", "topic", "kind"}, ...]}` whenever there are some.
    """

    channel_layer_alias = ""  # none: the reader of this process tells it, and a channel would be a Redis connection

    async def connect(self) -> None:
        self._session_key: str = self.scope["session"].session_key or ""
        self._times: deque[float] = deque(maxlen=MAX_A_SECOND)
        self._tasks: list[asyncio.Task[None]] = []
        self._is_subscribed = False
        self._is_closed = False
        self._touched = 0.0
        self._topics = await subscriptions.topics(self._session_key)
        if not self._topics:
            await self.close(NOT_YOURS)
            return
        await self.accept()
        await self.send_json({"ready": True})
        self._tasks.append(asyncio.create_task(self._watch()))

    async def disconnect(self, code: int) -> None:
        for task in self._tasks:
            task.cancel()

    async def close(self, code: int | bool | None = None, reason: str | None = None) -> None:
        """Close once, though several tasks may ask for it: servers fail at a second close."""
        if not self._is_closed:
            self._is_closed = True
            await super().close(code, reason)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None, **kwargs: Any) -> None:
        now = monotonic()
        is_too_much = len(self._times) == MAX_A_SECOND and now - self._times[0] < 1
        self._times.append(now)
        if is_too_much or bytes_data or len((text_data or "").encode()) > MAX_MESSAGE_BYTES:
            await self.close(TOO_MUCH)
            return
        with contextlib.suppress(ValueError):  # what is no JSON is ignored
            await super().receive(text_data, **kwargs)

    async def receive_json(self, content: Any, **kwargs: Any) -> None:
        if not isinstance(content, dict):
            return
        after = content.get("after")
        if not self._is_subscribed and isinstance(after, int) and 0 <= after < 2**63:
            self._is_subscribed = True
            self._tasks.append(asyncio.create_task(self._push(after)))
        if content.get("here") is True and monotonic() - self._touched > TOUCH_SECONDS:
            self._touched = monotonic()
            await database_sync_to_async(_touch)(self._session_key)

    async def _watch(self) -> None:
        """Close also a socket that gets no events, when its browser ends."""
        is_allowed = True
        while is_allowed:
            await asyncio.sleep(LOOK_SECONDS)
            is_allowed = await self._is_still_allowed()

    async def _push(self, after: int) -> None:
        async with contextlib.aclosing(live.subscribe(self._topics, after=after)) as batches:
            async for events in batches:
                if not await self._is_still_allowed():
                    return
                for start in range(0, len(events), MAX_IN_ONE):
                    await self.send_json({"events": [asdict(event) for event in events[start : start + MAX_IN_ONE]]})
        await self.close(RECONNECT)

    async def _is_still_allowed(self) -> bool:
        """Whether the socket may hear the same topics as at its start. Else close it, also if it may hear more now."""
        try:
            topics = await subscriptions.topics(self._session_key)
        except DatabaseError:  # without the database nobody knows who may hear what
            await self.close(RECONNECT)
            return False
        if topics != self._topics:
            await self.close(RECONNECT if topics else NOT_YOURS)
        return topics == self._topics


def _touch(session_key: str) -> None:
    """Note that the browser is in use. Reads the session again: it may have changed since the socket was opened."""
    if browser := browser_sessions.of_session(SessionStore(session_key)):
        browser_sessions.touch(browser)
