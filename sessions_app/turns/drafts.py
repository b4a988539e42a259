"""Answers that are seen while they are made: a delivery in state `drafting`, at most one for a turn's first event.

It is written under the turn's lease and never sent by the courier. Whatever ends the turn takes it away in the same
transaction in which the final text, or the honest word about a failure, is queued: nobody sees both, or neither. A
turn that is done again after a crash writes over the draft that was left.

So far the browser alone shows drafts, by reading them. An adapter that can change what it has sent would keep the
platform's id of its message in `message_id`, and `settle` would hand it on to the final delivery.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from uuid import UUID

from django.db import transaction
from django.db.models import QuerySet

from identity import live
from identity.support.text import storable
from sessions_app import db
from sessions_app.messages import BROWSER, BROWSER_EVENT
from sessions_app.models import Lane, OutboundDelivery
from sessions_app.turns.leases import Claim

log = logging.getLogger(__name__)

EVERY = 0.3  # seconds between two writes


def of_events(event_ids: Collection[int]) -> QuerySet[OutboundDelivery]:
    """The drafts of turns that these are the first events of."""
    return OutboundDelivery.objects.filter(event__in=event_ids, status=OutboundDelivery.Status.DRAFTING)


def settle(event_ids: Collection[int]) -> None:
    """The turns of these events are over, or have failed: what takes the draft's place is queued by the caller."""
    of_events(event_ids).delete()


@transaction.atomic
def write(claim: Claim, text: str) -> bool:
    """Show `text` as the answer so far. False, and nothing is written, if the lease was lost."""
    lease, head = claim.lease, claim.head
    lane = Lane.objects.filter(pk=lease.conversation.pk, owner=lease.owner, fence=lease.fence)
    if not lane.select_for_update(no_key=True).exists():
        return False
    said_at = claim.events[-1].received_at  # as the reply will have it: it is the same line then
    if not of_events([head.pk]).update(text=text, created_at=said_at):
        place = {"platform": head.platform, "chat_id": head.chat_id, "thread_id": head.thread_id}
        shown = {"text": text, "created_at": said_at, "status": OutboundDelivery.Status.DRAFTING}
        OutboundDelivery.objects.create(event=head, **place, **shown)
    if head.platform == BROWSER:
        live.announce(live.topics(browsers=[UUID(head.chat_id)]), BROWSER_EVENT)
    return True


@asynccontextmanager
async def following(claim: Claim) -> AsyncIterator[Callable[[str], None]]:
    """Within the block, write down what the given function was told last, the whole answer so far each time."""
    draft = _Draft(claim)
    writing = asyncio.create_task(draft.keep_writing())
    try:
        yield draft.hear
    finally:
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)


class _Draft:
    def __init__(self, claim: Claim) -> None:
        self._claim = claim
        self._text = ""
        self._is_new = asyncio.Event()

    def hear(self, text: str) -> None:
        self._text = text
        self._is_new.set()

    async def keep_writing(self) -> None:
        """Until it is cancelled, or the lease is lost. A draft that cannot be written is no reason to stop a turn."""
        is_ours = True
        while is_ours:
            await self._is_new.wait()
            self._is_new.clear()
            try:
                if text := storable(self._text, growing=True).strip():
                    is_ours = await db.call(write, self._claim, text)
            except Exception as error:  # noqa: BLE001 - the answer itself is still to come
                log.warning("event %s: a draft was not written: %s", self._claim.head.pk, type(error).__name__)
            await asyncio.sleep(EVERY)
