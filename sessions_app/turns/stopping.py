"""`/stop`: a person ends the answer to their own messages, in whichever process it is written.

The transaction that receives the command decides. It ends the messages under the locks under which a turn ends, so a
turn is either answered or stopped. It also notes the fence of the running turn in the turn lease. The pool that holds
the lease cancels the agent then and gives the lease back; until then nobody else begins a turn in the lane. If that
process crashes first, nothing is left to be answered.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.db import transaction
from django.db.models import F
from django.utils.translation import gettext_lazy as _

from identity.models import PlatformAccount
from identity.support import clock, platforms
from sessions_app import texts
from sessions_app.commands.registry import Invocation, at_once
from sessions_app.history import window
from sessions_app.messages import Address
from sessions_app.models import Conversation, HistoryEntry, InboundEvent, Lane
from sessions_app.outbox import queue as outbox_queue
from sessions_app.turns import drafts, leases
from sessions_app.wakeups import local as local_wakeups

REASON = "stopped by the person"

Role, Source = HistoryEntry.Role, HistoryEntry.Source


@at_once("stop", _("Stop the answer that I'm working on"))
def _stop(asked: Invocation) -> str:
    is_stopped = stop(asked.conversation, asked.account, before=asked.event.pk)
    return str(texts.HAVE_STOPPED if is_stopped else texts.NOTHING_TO_STOP)


@transaction.atomic
def stop(conversation: Conversation, account: PlatformAccount, *, before: int | None = None) -> bool:
    """End the messages that a turn answers now and those that wait. Return whether there was one.

    In private these are all messages of the person, on all linked accounts; in a group, those of `account` there.
    Commands that wait keep their place. The person's words stay in history. What the agent has said so far, if people
    could see it, becomes the answer, marked as stopped; else the mark alone is in history.

    before: the id of an event. Messages behind it are not ended.
    """
    together = leases.together(conversation)
    # Turn leases before events, as a turn locks them when it ends. A claim waits for no lease.
    list(Lane.objects.filter(pk__in=together).order_by("pk").select_for_update(no_key=True))
    waits = InboundEvent.objects.filter(conversation__in=together, kind=InboundEvent.Kind.MESSAGE, done_at=None)
    if before is not None:
        waits = waits.filter(pk__lt=before)
    waiting = list(waits.order_by("pk").select_for_update(of=("self",)).select_related("conversation"))
    is_private = conversation.kind == Conversation.Kind.DM
    ended = {event.pk: event for event in waiting if is_private or event.account_id == account.pk}
    if not ended:
        return False
    # If a turn runs in a conversation, it began with the oldest message whose start has not failed, or with a later one
    # while that steps aside. If none runs, the fence is nobody's.
    stopped: dict[int, bool] = {}
    decided: set[int] = set()
    for event in waiting:
        place = event.conversation_id
        if event.starts > event.failures and place not in decided:
            stopped[place] = stopped.get(place, True) and event.pk in ended
            if not event.failures:
                decided.add(place)
    stopped_in = [place for place, is_stopped in stopped.items() if is_stopped]
    if Lane.objects.filter(pk__in=stopped_in).update(stop_fence=F("fence")):
        transaction.on_commit(local_wakeups.notify_of_stop, robust=True)
    waits.filter(pk__in=ended).update(status=InboundEvent.Status.DONE, done_at=clock.now(), reason=REASON)
    # A message that failed before may have its entry already.
    HistoryEntry.objects.bulk_create(map(_question, ended.values()), ignore_conflicts=True)
    _keep_drafts(ended)
    window.announce({event.conversation for event in ended.values()}, {event.account_id for event in ended.values()})
    return True


def _question(event: InboundEvent) -> HistoryEntry:
    return _entry(
        event,
        role=Role.USER,
        source=Source.MESSAGE,
        text=event.text,
        metadata={"edited": event.edited} if event.edited else {},
        message_id=event.message_id,
        said_at=event.received_at,
    )


def _reply(event: InboundEvent, text: str, *, said_at: datetime) -> HistoryEntry:
    return _entry(event, role=Role.ASSISTANT, source=Source.REPLY, text=text, said_at=said_at)


def _entry(event: InboundEvent, **fields: Any) -> HistoryEntry:
    place = {"platform": event.platform, "chat_id": event.chat_id, "thread_id": event.thread_id}
    return window.entry(event.conversation, author_id=event.account_id, event=event, **place, **fields)


def _keep_drafts(ended: dict[int, InboundEvent]) -> None:
    """Make the drafts of these events the answers. Where nothing was shown, an entry says that the turn was stopped.

    Without it, an agent would take the words for a part of the next question, and answer them after all.
    """
    last = {event.conversation_id: event for event in ended.values()}
    replies = []
    for draft in drafts.of_events(ended):
        head = ended[draft.event_id or 0]
        address = Address(draft.platform, draft.chat_id, draft.thread_id)
        text = f"{draft.text}\n\n{texts.STOPPED}"
        entry = _reply(head, text, said_at=draft.created_at)  # the time of the last message that the turn answers
        entry.save()
        limit = platforms.of(draft.platform).text_limit
        replies.append(outbox_queue.Reply(address, text, limit, head, entry.pk))
        newest = last.get(head.conversation_id)
        if newest and newest.received_at <= draft.created_at:
            del last[head.conversation_id]
    HistoryEntry.objects.bulk_create(
        _reply(event, str(texts.STOPPED), said_at=event.received_at) for event in last.values()
    )
    outbox_queue.add_replies(replies)
