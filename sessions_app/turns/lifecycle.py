"""The steps of a turn: begin, ask the agent, finish. No transaction is open while the agent works."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import F, QuerySet

from identity import labels
from identity.resolvers import DatabaseIdentityResolver, Resolves, resolve_with
from identity.support import clock, platforms, sql
from sessions_app import texts
from sessions_app.commands import registry as command_registry
from sessions_app.commands.registry import Invocation
from sessions_app.context import SessionContext
from sessions_app.history import size, window
from sessions_app.messages import Address, Turn
from sessions_app.models import CRASHES_BEFORE_QUARANTINE, HistoryEntry, InboundEvent
from sessions_app.outbox import queue as outbox_queue
from sessions_app.turns import drafts, joining, leases
from sessions_app.turns.leases import Claim, Claimed, Lease

Role, Source, Status = HistoryEntry.Role, HistoryEntry.Source, InboundEvent.Status
RETRY_AFTER = (1.0, 5.0, 30.0)  # seconds, after each failure of the agent
MAX_CRASHES = 5  # until quarantine, where processes crash for another reason too
UNRELATED = 2  # other conversations with crashes that show another reason
LOOKED_BACK = 500  # messages that are searched for them


_GIVE_BACK = """
UPDATE sessions_app_lane SET owner = '', lease_until = %s, not_before = {until}
WHERE conversation_id = %s AND owner = %s AND fence = %s {unless_stopped}
"""
_UNLESS_STOPPED = "AND (stop_fence IS NULL OR stop_fence <> fence)"
# In the order of ids, as every transaction that holds several events locks them.
_END = """
WITH held AS (
    SELECT e.id FROM sessions_app_inboundevent e WHERE {events} AND e.done_at IS NULL ORDER BY e.id {locking}
)
UPDATE sessions_app_inboundevent SET status = %s, done_at = {now}
WHERE id IN (SELECT id FROM held) RETURNING id, edited
"""


class LeaseLost(Exception):
    """The lease ran out and another process has the lane. Nothing is written."""


class Stopped(LeaseLost):
    """A person has stopped the turn, which ended its events (see `stopping`). Nothing is written."""


def start(
    conversation_ids: Collection[int],
    *,
    owner: str,
    resolvers: Mapping[str, Resolves | None],
    has_crashed_before: bool = False,
) -> tuple[Claimed, list[Turn | Exception | None]]:
    """Claim these conversations as `leases.claim` does, and begin a turn for each claim.

    resolvers: by platform. In place of a turn that cannot begin stands the error, and None where the message should be
    quarantined first.
    """
    claimed = leases.claim(conversation_ids, owner=owner, platforms=resolvers, has_crashed_before=has_crashed_before)
    turns: list[Turn | Exception | None] = []
    for claim in claimed.claims:
        try:
            turns.append(None if should_quarantine(claim) else begin(claim, resolver=resolvers[claim.head.platform]))
        except Exception as error:  # noqa: BLE001 - raised by the claim's own turn
            turns.append(error)
    return claimed, turns


def begin(claim: Claim, *, resolver: Resolves | None) -> Turn:
    """The question for the agent: the current window, the text of all claimed events, and who wrote them where."""
    head, account = claim.head, claim.account
    is_stranger = claim.lease.conversation.account_id is not None and claim.lease.user_id is None
    if resolver is None or is_stranger:
        person = str(account)
    elif claim.lease.person is not None and type(resolver) is DatabaseIdentityResolver:  # no subclass, which may differ
        person = claim.lease.person
    else:
        person = resolve_with(resolver, account.platform, account.platform_user_id)
    context = SessionContext(
        platform=head.platform,
        chat_id=head.chat_id,
        chat_name=head.chat_name,
        thread_id=head.thread_id,
        user_id=account.platform_user_id,
        user_name=account.display_name or account.username,
        unified_user_id=person,
    )
    speaker = (account.platform, account.platform_user_id)
    conversation, limit = claim.lease.conversation, settings.BOTOS_WINDOW
    lines, name = window.window_with_name(conversation, limit=limit, speaker=speaker, account=account)
    text = joining.join([event.text for event in claim.events], cut_at=platforms.of(head.platform).cut_at)
    return Turn(f"event-{head.pk}", text, size.newest_that_fit(lines, text), context, name)


@dataclass(frozen=True, slots=True)
class Answer:
    """The agent's answer to a claim. limit: the longest message of the platform, in UTF-16 code units."""

    claim: Claim
    text: str
    limit: int


@transaction.atomic
def answer_command(claim: Claim, turn: Turn, *, limit: int) -> None:
    """Run the claimed command and queue its answer. Neither is part of the conversation. Raises LeaseLost."""
    conversation = claim.lease.conversation
    text = command_registry.answer(
        Invocation(claim.head, claim.account, conversation, lambda: turn.context.unified_user_id)
    )
    _give_back([claim.lease])
    _end([claim], Status.DONE)
    drafts.settle([claim.head.pk])
    outbox_queue.queue(_address(claim), text, limit=limit, event=claim.head)


def finish(claim: Claim, text: str, *, limit: int) -> None:
    """Write down one turn, as `finish_together` does."""
    finish_together([Answer(claim, text, limit)])


@transaction.atomic
def finish_together(
    answers: Collection[Answer], status: str = Status.DONE, *, sender: outbox_queue.Sender | None = None
) -> outbox_queue.Queued:
    """End the events of these turns, store questions and answers in history, and queue the replies, all or nothing.

    sender: who sends the beginnings of the replies at once. Raises LeaseLost if one of the leases was lost.
    """
    claims = [answer.claim for answer in answers]
    _give_back([claim.lease for claim in claims])
    edits = _end(claims, status)
    questions = [_question(claim, event, edits[event.pk]) for claim in claims for event in claim.events]
    keys = sql.insert(HistoryEntry, [*questions, *map(_reply, answers)])
    window.announce([claim.lease.conversation for claim in claims], [claim.head.account_id for claim in claims])
    return outbox_queue.add_replies(
        [
            outbox_queue.Reply(_address(answer.claim), answer.text, answer.limit, answer.claim.head, entry)
            for answer, entry in zip(answers, keys[len(questions) :], strict=True)
        ],
        sender=sender,
    )


@transaction.atomic
def record(lease: Lease, *, question: HistoryEntry, answered: str) -> None:
    """Store a turn that has no event and whose answer the caller delivers. Raises LeaseLost."""
    _give_back([lease])
    question.role, question.source = Role.USER, Source.MESSAGE
    reply = window.entry(
        lease.conversation,
        author=question.author,
        role=Role.ASSISTANT,
        source=Source.REPLY,
        text=answered,
        platform=question.platform,
        chat_id=question.chat_id,
        thread_id=question.thread_id,
        said_at=question.said_at,
    )
    HistoryEntry.objects.bulk_create([question, reply])
    window.announce([lease.conversation])


@transaction.atomic
def abandon(lease: Lease) -> None:
    """Give a lease back, unless it was lost already."""
    with suppress(LeaseLost):
        _give_back([lease], even_stopped=True)


@transaction.atomic
def fail(claim: Claim, *, words: object = "") -> None:
    """Note that the agent failed. The person is told at once; the turn is repeated later, and given up at last.

    words: what the person reads if repeating is useless; the turn is then given up at once. Giving up ends the turn as
    an answer does, so that the person's words stay and the lane goes on. Raises LeaseLost.
    """
    failures = claim.head.failures
    if words or failures == len(RETRY_AFTER):
        told = _own_words(claim, words or texts.GAVE_UP)
        finish_together([Answer(claim, told, outbox_queue.TEXT_LIMIT)], Status.GIVEN_UP)
        return
    _give_back([claim.lease], wait=RETRY_AFTER[failures])
    drafts.settle([claim.head.pk])
    _events([claim]).update(failures=F("failures") + 1)
    if failures == 0:
        outbox_queue.queue(_address(claim), texts.TRYING_AGAIN, event=claim.head, is_stoppable=True)


@transaction.atomic
def release(claim: Claim) -> None:
    """Give an unfinished turn back as if it had never started, since the process or a person stops it."""
    with suppress(LeaseLost):
        _give_back([claim.lease], even_stopped=True)
        _events([claim]).update(starts=F("starts") - 1)


@transaction.atomic
def uncount(claim: Claim) -> None:
    """Take back the start of a turn that failed for a reason other than its message."""
    _events([claim]).filter(starts__gt=0).update(starts=F("starts") - 1)


def should_quarantine(claim: Claim) -> bool:
    """Whether processes have crashed too often while they worked on the claimed message."""
    return claim.head.starts - claim.head.failures >= CRASHES_BEFORE_QUARANTINE


def has_unrelated_crashes(claim: Claim) -> bool:
    """Whether processes crash for another reason too, so that these crashes say little about the message.

    Evidence is other messages that a crash interrupted and that were answered before this one arrived. After
    MAX_CRASHES crashes the answer is always False.
    """
    head = claim.head
    if head.starts - head.failures >= MAX_CRASHES:
        return False
    earlier = InboundEvent.objects.filter(pk__lt=head.pk, pk__gte=head.pk - LOOKED_BACK, done_at__lt=head.received_at)
    interrupted = earlier.filter(status=Status.DONE, starts__gt=F("failures") + 1)
    return interrupted.values("conversation").distinct().count() >= UNRELATED


@transaction.atomic
def quarantine(claim: Claim) -> None:
    """Quarantine the claimed message and tell the person. Its text stays in the event. Raises LeaseLost."""
    _give_back([claim.lease])
    _end([claim], Status.QUARANTINED)
    drafts.settle([claim.head.pk])
    outbox_queue.queue(_address(claim), _own_words(claim, texts.QUARANTINED), event=claim.head)


def _own_words(claim: Claim, text: object) -> str:
    return labels.with_commands(str(text), on=claim.head.platform)


def _give_back(held: Collection[Lease], *, wait: float = 0.0, even_stopped: bool = False) -> None:
    """Free the lanes. The same statement checks the fence, so a lost lease raises LeaseLost.

    A turn that a person has stopped raises Stopped, unless `even_stopped`.
    """
    until, moment = clock.seconds_from_now(wait).statement()
    end = sql.moment(clock.EPOCH)
    ours = [(end, moment, lease.conversation.pk, lease.owner, lease.fence) for lease in held]
    statement = _GIVE_BACK.format(until=until, unless_stopped="" if even_stopped else _UNLESS_STOPPED)
    if sql.run_many(statement, ours) != len(held):
        raise Stopped if leases.stopped(held) else LeaseLost


def _end(claims: Collection[Claim], status: str) -> dict[int, str]:
    """End all events of these turns. Return by id the text that each was edited to meanwhile. Raises LeaseLost.

    The caller deletes their drafts.
    """
    events = [event.pk for claim in claims for event in claim.events]
    now, moment = clock.now().statement()
    condition, ids = sql.among("e.id", events)
    statement = _END.format(events=condition, now=now, locking=sql.locking("FOR UPDATE"))
    edits = dict(sql.run(statement, [*ids, status, moment]))
    if len(edits) != len(events):
        raise LeaseLost  # another process has ended one of the events
    return edits


def _events(claims: Collection[Claim]) -> QuerySet[InboundEvent]:
    return InboundEvent.objects.filter(pk__in=[event.pk for claim in claims for event in claim.events], done_at=None)


def _question(claim: Claim, event: InboundEvent, edited: str) -> dict[str, Any]:
    return _entry(claim, event, event, role=Role.USER, source=Source.MESSAGE, text=event.text) | {
        "metadata": json.dumps({"edited": edited} if edited else {}),
        "message_id": event.message_id,
        "written_at": event.received_at,
    }


def _reply(answer: Answer) -> dict[str, Any]:
    """The entry of a reply. It is dated as its question, and only a reply is written later than it is dated."""
    last = answer.claim.events[-1]
    about = {"role": Role.ASSISTANT, "source": Source.REPLY, "text": answer.text}
    return _entry(answer.claim, answer.claim.head, last, **about)


def _entry(
    claim: Claim, event: InboundEvent, place: InboundEvent, *, role: str, source: str, text: str
) -> dict[str, Any]:
    """The columns of an entry about `event`, at the place and time of `place`."""
    return {
        "conversation_id": claim.lease.conversation.pk,
        "author_id": claim.account.pk,
        "event_id": event.pk,
        "role": role,
        "source": source,
        "source_label": "",
        "text": text,
        "metadata": "{}",
        "platform": place.platform,
        "chat_id": place.chat_id,
        "thread_id": place.thread_id,
        "message_id": "",
        "said_at": place.received_at,
        "written_at": clock.now(),
    }


def _address(claim: Claim) -> Address:
    return Address(claim.head.platform, claim.head.chat_id, claim.head.thread_id)
