"""What the sockets of this process may hear, asked for all of them together: fifty pages that are told of one change at
once cost one look, not fifty.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from uuid import UUID
from weakref import WeakKeyDictionary

from channels.db import database_sync_to_async
from django.contrib.sessions.backends.db import SessionStore
from django.utils import timezone

from identity import live
from identity.browsers import sessions as browser_sessions

Topics = frozenset[str]
NOBODY: Topics = frozenset()


def topics_of(session_keys: Collection[str]) -> dict[str, Topics]:
    """The topics that the browser of each of these sessions may hear of now; none if it has ended. Five queries."""
    ids = _browsers_of(session_keys)
    alive = browser_sessions.alive(ids.values())
    heard = browser_sessions.heard_in(alive)
    return {key: _topics(one, heard[one]) if one in alive else NOBODY for key, one in ids.items()}


def _topics(browser_id: UUID, accounts: Collection[int]) -> Topics:
    return frozenset(live.topics(accounts=accounts, browsers=[browser_id]))


def _browsers_of(session_keys: Collection[str]) -> dict[str, UUID]:
    """Read anew each time: a socket outlives many changes of its session."""
    sessions = SessionStore.get_model_class().objects.filter(
        session_key__in=session_keys, expire_date__gt=timezone.now()
    )
    stored = {session.session_key: SessionStore().decode(session.session_data) for session in sessions}
    named = {key: browser_sessions.named_in(session) for key, session in stored.items()}
    return {key: one for key, one in named.items() if one is not None}


async def topics(session_key: str) -> Topics:
    """What one session may hear of now, looked up after this was called."""
    loop = asyncio.get_running_loop()
    if loop not in _desks:
        _desks[loop] = _Desk()
    return await _desks[loop].ask(session_key)


class _Desk:
    """Takes the questions of an event loop, and answers all that have come meanwhile with one look."""

    def __init__(self) -> None:
        self._asked: dict[str, asyncio.Future[Topics]] = {}
        self._job: asyncio.Task[None] | None = None

    async def ask(self, session_key: str) -> Topics:
        if session_key not in self._asked:
            self._asked[session_key] = asyncio.get_running_loop().create_future()
        answer = self._asked[session_key]
        if self._job is None or self._job.done():
            self._job = asyncio.create_task(self._answer_all())
        return await asyncio.shield(answer)  # others may wait for the same

    async def _answer_all(self) -> None:
        while self._asked:
            asked, self._asked = self._asked, {}
            try:
                found = await database_sync_to_async(topics_of)(list(asked))
            except Exception as error:  # noqa: BLE001 - goes to whoever asked
                for answer in asked.values():
                    answer.set_exception(error)
            else:
                for key, answer in asked.items():
                    answer.set_result(found.get(key, NOBODY))


_desks: WeakKeyDictionary[asyncio.AbstractEventLoop, _Desk] = WeakKeyDictionary()
