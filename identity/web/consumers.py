"""The socket of an open page: it is told that something changed, and asks for what by itself.

What it may hear is decided anew before every push, from the session and what is attached: whoever signed out or
unlinked hears nothing more.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict
from http.cookies import CookieError, SimpleCookie
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer
from django.conf import settings
from django.contrib.sessions.backends.db import SessionStore
from django.core.exceptions import DisallowedHost
from django.db import DatabaseError
from django.http import HttpRequest

from identity import live
from identity.browsers import sessions as browser_sessions
from identity.web import subscriptions

LOOK_SECONDS = 4.0  # how often a socket is checked, so that none stays open for 5 after its browser ended
MAX_A_SECOND = 10
MAX_MESSAGE_BYTES = 64 * 1024  # bytes of one message
MAX_IN_ONE = 500  # events in a message, which stays below MAX_MESSAGE_BYTES, too
TOUCH_SECONDS = 30.0
NOT_YOURS, RECONNECT, TOO_MUCH = 4403, 4000, 4429


class LiveConsumer(AsyncWebsocketConsumer):
    """`{"after": id}` resumes behind an id, `{"here": true}` says that somebody is using the page. What comes back is
    `{"ready": true}` first, and then `{"events": [{"id", "topic", "kind"}, ...]}` whenever there are some.
    """

    channel_layer_alias = ""  # none: the reader of this process tells it, and a channel would be a Redis connection

    async def connect(self) -> None:
        self._headers = _headers(self.scope)
        self._times: deque[float] = deque(maxlen=MAX_A_SECOND)
        self._tasks: list[asyncio.Task[None]] = []
        self._is_told = False
        self._is_closed = False
        self._touched = 0.0
        self._topics = await self._allowed() if _is_own_origin(self._headers, self.scope) else frozenset[str]()
        if not self._topics:
            await self.close(NOT_YOURS)
            return
        await self.accept()
        await self.send(json.dumps({"ready": True}))
        self._tasks.append(asyncio.create_task(self._watch()))

    async def disconnect(self, code: int) -> None:
        for task in self._tasks:
            task.cancel()

    async def close(self, code: int | bool | None = None, reason: str | None = None) -> None:
        """Once, whoever finds out first: servers break over a second one."""
        if not self._is_closed:
            self._is_closed = True
            await super().close(code, reason)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        now = monotonic()
        is_too_much = len(self._times) == MAX_A_SECOND and now - self._times[0] < 1
        self._times.append(now)
        if is_too_much or bytes_data or len((text_data or "").encode()) > MAX_MESSAGE_BYTES:
            await self.close(TOO_MUCH)
            return
        with contextlib.suppress(ValueError):
            await self._hear(json.loads(text_data or ""))

    async def _hear(self, said: Any) -> None:
        if not isinstance(said, dict):
            return
        after = said.get("after")
        if not self._is_told and isinstance(after, int) and 0 <= after < 2**63:
            self._is_told = True
            self._tasks.append(asyncio.create_task(self._push(after)))
        if said.get("here") is True and monotonic() - self._touched > TOUCH_SECONDS:
            self._touched = monotonic()
            await database_sync_to_async(_touch)(self._headers)

    async def _watch(self) -> None:
        """Close a socket that nothing is said to, too."""
        is_open = True
        while is_open:
            await asyncio.sleep(LOOK_SECONDS)
            is_open = await self._is_still_allowed()

    async def _push(self, after: int) -> None:
        async with contextlib.aclosing(live.subscribe(self._topics, after=after)) as batches:
            async for events in batches:
                if not await self._is_still_allowed():
                    return
                for start in range(0, len(events), MAX_IN_ONE):
                    told = [asdict(event) for event in events[start : start + MAX_IN_ONE]]
                    await self.send(json.dumps({"events": told}))
        await self.close(RECONNECT)

    async def _is_still_allowed(self) -> bool:
        """Closes if it is not. Whoever has got more to hear shall connect again, too."""
        try:
            now = await self._allowed()
        except DatabaseError:  # nobody hears anything until it can be asked again
            await self.close(RECONNECT)
            return False
        if now != self._topics:
            await self.close(RECONNECT if now else NOT_YOURS)
        return now == self._topics

    async def _allowed(self) -> frozenset[str]:
        """The topics that the browser of this socket may hear of now; none if it has ended."""
        return await subscriptions.topics(_session_key(self._headers))


def _touch(headers: Mapping[str, str]) -> None:
    if browser := browser_sessions.of_session(SessionStore(_session_key(headers))):
        browser_sessions.touch(browser)


def _session_key(headers: Mapping[str, str]) -> str:
    try:
        cookie = SimpleCookie(headers.get("cookie", "")).get(settings.SESSION_COOKIE_NAME)
    except CookieError:
        return ""
    return cookie.value if cookie else ""


def _headers(scope: Mapping[str, Any]) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}


def _is_own_origin(headers: Mapping[str, str], scope: Mapping[str, Any]) -> bool:
    """Whether the page that opens the socket is one of ours: scheme, host and port. Browsers do not stop others."""
    try:
        origin = urlsplit(headers.get("origin", ""))
        return (origin.scheme, origin.hostname, _port(origin)) in _own_origins(headers, scope)
    except ValueError:  # a port that is no number
        return False


def _own_origins(headers: Mapping[str, str], scope: Mapping[str, Any]) -> set[tuple[str, str | None, int | None]]:
    scheme = "https" if settings.BOTOS_HTTPS or scope.get("scheme") == "wss" else "http"
    asked = HttpRequest()
    asked.META = {"HTTP_HOST": headers.get("host", "")}
    own = [settings.BOTOS_PUBLIC_URL] if settings.BOTOS_PUBLIC_URL else []
    with contextlib.suppress(DisallowedHost):
        own.append(f"{scheme}://{asked.get_host()}")
    parts = [urlsplit(one) for one in own]
    return {(one.scheme, one.hostname, _port(one)) for one in parts}


def _port(address: Any) -> int | None:
    return address.port or {"http": 80, "https": 443}.get(address.scheme)
