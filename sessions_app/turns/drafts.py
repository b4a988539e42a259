"""Answers that people see while the agent writes them: a delivery in state `drafting`, at most one for each turn.

A draft belongs to the turn's first event. It is written under the turn's lease, and the delivery worker never sends it.
The transaction that ends the turn deletes the draft and queues the final text, or the message about a failure, so that
people see exactly one of them. A turn that is repeated after a crash overwrites the draft that was left.

Only the browser shows drafts so far, by reading them. An adapter that can edit its messages would keep the platform's
id of the message in `message_id`, and `settle` would hand it to the final delivery.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from uuid import UUID

from django.db import transaction
from django.db.models import F, QuerySet

from identity import live
from identity.support.text import storable
from sessions_app import db
from sessions_app.messages import BROWSER, BROWSER_EVENT
from sessions_app.models import Lane, OutboundDelivery
from sessions_app.turns.leases import Claim

log = logging.getLogger(__name__)

EVERY = 0.3  # seconds between two writes


def of_events(event_ids: Collection[int]) -> QuerySet[OutboundDelivery]:
    """The drafts of the turns that begin with these events."""
    return OutboundDelivery.objects.filter(event__in=event_ids, status=OutboundDelivery.Status.DRAFTING)


def settle(event_ids: Collection[int]) -> None:
    """Delete the drafts of turns that are over or have failed. The caller queues what takes their place."""
    of_events(event_ids).delete()


@transaction.atomic
def write(claim: Claim, text: str) -> bool:
    """Show `text` as the answer so far. False, without a change, if the lease was lost or the turn was stopped."""
    lease, head = claim.lease, claim.head
    turn_lease = Lane.objects.filter(pk=lease.conversation.pk, owner=lease.owner, fence=lease.fence)
    turn_lease = turn_lease.exclude(stop_fence=F("fence"))
    if not turn_lease.select_for_update(no_key=True).exists():
        return False
    said_at = claim.events[-1].received_at  # the time that the reply gets: the page shows both as one line
    if not of_events([head.pk]).update(text=text, created_at=said_at):
        place = {"platform": head.platform, "chat_id": head.chat_id, "thread_id": head.thread_id}
        shown = {"text": text, "created_at": said_at, "status": OutboundDelivery.Status.DRAFTING}
        OutboundDelivery.objects.create(event=head, **place, **shown)
    if head.platform == BROWSER:
        live.announce(live.topics(browsers=[UUID(head.chat_id)]), BROWSER_EVENT)
    return True


@asynccontextmanager
async def following(claim: Claim) -> AsyncIterator[Callable[[str], None]]:
    """Within the block, store the answer so far. The block calls the given function with the whole of it each time."""
    draft = _Draft(claim)
    writing = asyncio.create_task(draft.keep_writing())
    try:
        yield draft.update
    finally:
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)


class _Draft:
    def __init__(self, claim: Claim) -> None:
        self._claim = claim
        self._text = ""
        self._is_new = asyncio.Event()

    def update(self, text: str) -> None:
        self._text = text
        self._is_new.set()

    async def keep_writing(self) -> None:
        """Store drafts until cancelled, or until the lease is lost. A draft that fails does not stop the turn."""
        is_ours = True
        while is_ours:
            await self._is_new.wait()
            self._is_new.clear()
            try:
                if text := storable(self._text, growing=True).strip():
                    is_ours = await db.call(write, self._claim, text)
            except Exception as error:  # noqa: BLE001 - the answer itself is still to come
                log.warning(
                    "event %s: write draft failed: %s; the answer follows without it",
                    self._claim.head.pk,
                    type(error).__name__,
                )
            await asyncio.sleep(EVERY)
