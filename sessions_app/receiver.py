"""Receives for one adapter: in order of arrival, and together what arrives while the database is busy."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice, takewhile

from identity.resolvers import Resolves
from identity.support import db_errors
from sessions_app import db, inbox
from sessions_app.messages import InboundMessage, MessageEdit, Unacceptable

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    item: InboundMessage | MessageEdit
    done: asyncio.Future[None]


class Receiver:
    """A queue of messages and edits. Its task runs while something waits, so nobody needs to stop it.

    on_turn: called with the id of each conversation in which new messages wait for a turn. on_waiting: called before
    that with each of these messages and the id of its conversation. on_outgoing: called when a message that was decided
    at receipt may have queued an answer. All are called after the commit.
    """

    def __init__(
        self,
        resolver: Resolves | None,
        *,
        on_turn: Callable[[int], object],
        on_outgoing: Callable[[], object],
        on_waiting: Callable[[int, InboundMessage], object] = lambda _conversation, _message: None,
    ) -> None:
        self._resolver = resolver
        self._on_turn = on_turn
        self._on_waiting = on_waiting
        self._on_outgoing = on_outgoing
        self._queue: deque[_Waiting] = deque()
        self._under_way = 0  # how many at the front the database has now
        self._job: asyncio.Task[None] | None = None

    async def receive(self, item: InboundMessage | MessageEdit) -> None:
        """Store a message or edit, durably on return, after everything that was handed in before.

        Raises what `inbox.receive` and `inbox.edit` raise. After an error of the database, what waits in the same chat
        fails too, so that nothing there precedes a message that comes again. A cancellation takes effect at once, or
        when the database has ended what it does now.
        """
        waiting = _Waiting(item, asyncio.get_running_loop().create_future())
        waiting.done.add_done_callback(lambda done: done.cancelled() or done.exception())  # also if nobody waits
        self._queue.append(waiting)
        if self._job is None or self._job.done():
            self._job = asyncio.create_task(self._store_all())
        job = self._job
        try:
            await asyncio.shield(waiting.done)
        except asyncio.CancelledError:
            if waiting in islice(self._queue, self._under_way, None):
                self._queue.remove(waiting)
            else:
                await asyncio.wait([waiting.done, job], return_when=asyncio.FIRST_COMPLETED)
            raise

    async def _store_all(self) -> None:
        alone = 0  # how many go one by one, since their group failed
        try:
            while self._queue:
                front = self._front()[: 1 if alone else None]
                self._under_way = len(front)
                try:
                    outcomes = await self._store(front, alone=alone > 0)
                except inbox.NotStoredTogether as error:
                    log.warning("storing %d messages together failed: %s; storing them one by one", len(front), error)
                    alone = len(front)
                    continue
                except Exception as error:  # noqa: BLE001 - goes to the caller that waits
                    self._fail(error)
                else:
                    self._settle(outcomes)
                alone = max(0, alone - 1)
        finally:  # also when the loop ends: a caller that waits must not wait for a task that is gone
            while self._queue:
                self._queue.popleft().done.cancel()

    def _front(self) -> list[InboundMessage | MessageEdit]:
        """The messages up to the first edit, or the edit that stands first."""
        items = [waiting.item for waiting in islice(self._queue, inbox.MAX_TOGETHER)]
        return list(takewhile(lambda item: isinstance(item, InboundMessage), items)) or items[:1]

    async def _store(self, front: Sequence[InboundMessage | MessageEdit], *, alone: bool) -> list[int | None]:
        first = front[0]
        if isinstance(first, MessageEdit):
            await db.call(inbox.edit, first)
            return [None]
        if alone:
            return [await db.call(inbox.receive, first, resolver=self._resolver)]
        messages = [item for item in front if isinstance(item, InboundMessage)]
        return await db.call(inbox.receive_together, messages, resolver=self._resolver)

    def _settle(self, outcomes: Sequence[int | None]) -> None:
        is_edit = isinstance(self._queue[0].item, MessageEdit)
        self._under_way = 0
        for conversation_id in outcomes:
            waiting = self._queue.popleft()
            waiting.done.set_result(None)
            if conversation_id and isinstance(waiting.item, InboundMessage):
                self._on_waiting(conversation_id, waiting.item)
        for conversation_id in dict.fromkeys(filter(None, outcomes)):
            self._on_turn(conversation_id)
        if not is_edit and outcomes == [None]:
            self._on_outgoing()

    def _fail(self, error: Exception) -> None:
        """Tell the first caller of the error, and those whose messages must not be stored before that one."""
        self._under_way = 0
        first = self._queue.popleft()
        first.done.set_exception(error)
        if isinstance(error, Unacceptable):
            return
        is_away, chat_id = db_errors.is_away(error), first.item.address.chat_id
        behind = [waiting for waiting in self._queue if is_away or waiting.item.address.chat_id == chat_id]
        for waiting in behind:
            self._queue.remove(waiting)
            waiting.done.set_exception(error)
