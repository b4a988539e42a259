"""The topics that the sockets of this process may hear, looked up for all of them together.

When one change concerns fifty open pages, their rights are checked by one look-up, not by fifty.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from weakref import WeakKeyDictionary

from channels.db import database_sync_to_async
from django.contrib.sessions.backends.db import SessionStore
from django.utils import timezone

from identity import live
from identity.browsers import sessions as browser_sessions

Topics = frozenset[str]
NOBODY: Topics = frozenset()


def topics_of(session_keys: Collection[str]) -> dict[str, Topics]:
    """Return the topics that the browser of each session may hear now; none if it has ended. Five queries.

    The sessions are read again each time: a socket outlives many changes of its session.
    """
    sessions = SessionStore.get_model_class().objects.filter(
        session_key__in=session_keys, expire_date__gt=timezone.now()
    )
    stored = {session.session_key: SessionStore().decode(session.session_data) for session in sessions}
    named = {key: browser_sessions.browser_id_in(session) for key, session in stored.items()}
    browsers = {key: browser_id for key, browser_id in named.items() if browser_id is not None}
    alive = browser_sessions.alive(browsers.values())
    accounts = browser_sessions.heard_in(alive)
    return {
        key: frozenset(live.topics(accounts=accounts[browser_id], browsers=[browser_id]))
        if browser_id in alive
        else NOBODY
        for key, browser_id in browsers.items()
    }


async def topics(session_key: str) -> Topics:
    """Return the topics that one session may hear now, by a look-up that begins after this call."""
    loop = asyncio.get_running_loop()
    if loop not in _batches:
        _batches[loop] = _Batch()
    return await _batches[loop].ask(session_key)


class _Batch:
    """Collects the questions of an event loop while a look-up runs, and answers all of them with the next one."""

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
                topics_by_key = await database_sync_to_async(topics_of)(list(asked))
            except Exception as error:  # noqa: BLE001 - raised where it was asked
                for answer in asked.values():
                    answer.set_exception(error)
            else:
                for key, answer in asked.items():
                    answer.set_result(topics_by_key.get(key, NOBODY))


_batches: WeakKeyDictionary[asyncio.AbstractEventLoop, _Batch] = WeakKeyDictionary()
