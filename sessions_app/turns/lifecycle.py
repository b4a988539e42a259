"""The steps of a turn: begin, ask the agent, finish. No transaction is open while the agent works."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from django.conf import settings
from django.db import connection, transaction
from django.db.models import F, QuerySet

from identity import labels
from identity.resolvers import DatabaseIdentityResolver, Resolves, resolve_with
from identity.support import clock, platforms, sql
from identity.support.text import storable
from sessions_app import lateness, texts
from sessions_app.agents import AgentError
from sessions_app.commands import registry as command_registry
from sessions_app.commands.registry import Invocation
from sessions_app.context import SessionContext
from sessions_app.history import size, window
from sessions_app.messages import Address, Reply, Turn
from sessions_app.models import CRASHES_BEFORE_QUARANTINE, HistoryEntry, InboundEvent
from sessions_app.outbox import queue as outbox_queue
from sessions_app.turns import drafts, joining, leases
from sessions_app.turns.leases import Claim, Claimed, Lease

Role, Source, Status = HistoryEntry.Role, HistoryEntry.Source, InboundEvent.Status
RETRY_AFTER = (1.0, 5.0, 30.0)  # seconds for which a message steps aside, after each failure of the agent
MAX_REASON = 300  # characters, as the column takes
MAX_CRASHES = 5  # until quarantine, where processes crash for another reason too
UNRELATED = 2  # other conversations with crashes that show another reason
LOOKED_BACK = 500  # messages that are searched for them


_GIVE_BACK = """
UPDATE sessions_app_lane SET owner = '', lease_until = %s
WHERE conversation_id = %s AND owner = %s AND fence = %s {unless_stopped}
"""
_UNLESS_STOPPED = "AND (stop_fence IS NULL OR stop_fence <> fence)"
# In the order of ids, as every transaction that holds several events locks them.
_UPDATE = """
WITH held AS (
    SELECT e.id FROM sessions_app_inboundevent e WHERE {events} AND e.done_at IS NULL ORDER BY e.id {locking}
)
UPDATE sessions_app_inboundevent AS event SET {changes}, {used}
WHERE id IN (SELECT id FROM held) RETURNING id, edited
"""
# On a turn's first event, added to what its earlier attempts used. A JSON array keeps the statement the same however
# many turns there are.
_USED = """(model, input_tokens, output_tokens) = (
    SELECT COALESCE(MAX(used.model), event.model),
           COALESCE(event.input_tokens + MAX(used.input_tokens), MAX(used.input_tokens), event.input_tokens),
           COALESCE(event.output_tokens + MAX(used.output_tokens), MAX(used.output_tokens), event.output_tokens)
    FROM {rows} WHERE used.id = event.id
)"""
_ROWS = {
    "postgresql": """jsonb_to_recordset(CAST(%s AS jsonb))
    AS used(id bigint, model text, input_tokens integer, output_tokens integer)""",
    "sqlite": """(
    SELECT json_extract(value, '$.id') AS id, json_extract(value, '$.model') AS model,
           json_extract(value, '$.input_tokens') AS input_tokens,
           json_extract(value, '$.output_tokens') AS output_tokens
    FROM json_each(%s)) AS used""",
}


class LeaseLost(Exception):
    """The lease ran out and another process has the lane. Nothing is written."""


class Stopped(LeaseLost):
    """A person has ended events of the turn: with `/stop` (see `stopping`) or `/forget`. Nothing is written."""


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
    # Words are in history since their first failure.
    asked = [event.pk for event in claim.events] if head.failures else []
    conversation, limit = claim.lease.conversation, settings.BOTOS_WINDOW
    lines, name = window.window_with_name(conversation, limit=limit, speaker=speaker, account=account, asked=asked)
    text = joining.join([event.text for event in claim.events], cut_at=platforms.of(head.platform).cut_at)
    asked_at = head.asked_at if lateness.is_late(head.asked_at) else None
    lines = size.newest_that_fit(lines, text)
    return Turn(f"event-{head.pk}", text, lines, context, name, asked_at, conversation.pk)


@dataclass(frozen=True, slots=True)
class Answer:
    """The agent's answer to a claim.

    limit: the longest message of the platform, in UTF-16 code units. reply: the agent's own, which says what a model
    used.
    """

    claim: Claim
    text: str
    limit: int
    reply: Reply | None = None


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
    outbox_queue.queue(_address(claim), _dated(claim, text), limit=limit, event=claim.head)


def finish(claim: Claim, text: str, *, limit: int) -> None:
    """Write down one turn, as `finish_together` does."""
    finish_together([Answer(claim, text, limit)])


def finish_together(answers: Collection[Answer], *, sender: outbox_queue.Sender | None = None) -> outbox_queue.Queued:
    """End the events of these turns, store questions and answers in history, and queue the replies, all or nothing.

    An answer to a message that waited for more than a day begins with that day. sender: who sends the beginnings of the
    replies at once. Raises LeaseLost if one of the leases was lost.
    """
    return _finish(answers, Status.DONE, sender=sender)


@transaction.atomic
def _finish(
    answers: Collection[Answer],
    status: str,
    *,
    sender: outbox_queue.Sender | None = None,
    reason: str = "",
    withholds_questions: bool = False,
) -> outbox_queue.Queued:
    """End turns as `finish_together` does. Where they are given up, the replies are apologies, which no agent gets.

    withholds_questions: whether no agent gets the questions either.
    """
    answers = [replace(answer, text=_dated(answer.claim, answer.text)) for answer in answers]
    claims = [answer.claim for answer in answers]
    _give_back([claim.lease for claim in claims])
    edits = _end(claims, status, reason, used=[answer.reply for answer in answers])
    questions = _missing_questions(claims, edits, is_withheld=withholds_questions)
    entries = [_reply(answer) | {"is_withheld": status != Status.DONE} for answer in answers]
    keys = sql.insert(HistoryEntry, [*questions, *entries])
    window.announce([claim.lease.conversation for claim in claims], [claim.head.account_id for claim in claims])
    return outbox_queue.add_replies(
        [
            outbox_queue.Reply(_address(answer.claim), answer.text, answer.limit, answer.claim.head, entry)
            for answer, entry in zip(answers, keys[len(questions) :], strict=True)
        ],
        sender=sender,
    )


@transaction.atomic
def record(lease: Lease, *, question: HistoryEntry, answered: str, error: Exception | None = None) -> None:
    """Store a turn that has no event and whose answer the caller delivers. No person can stop it. Raises LeaseLost.

    error: why `answered` is an apology, if it is one.
    """
    _give_back([lease], even_stopped=True)
    question.role, question.source = Role.USER, Source.MESSAGE
    question.is_withheld = _is_refused(error)
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
        is_withheld=error is not None,
    )
    HistoryEntry.objects.bulk_create([question, reply])
    window.announce([lease.conversation])


@transaction.atomic
def abandon(lease: Lease) -> None:
    """Give a lease back, unless it was lost already."""
    with suppress(LeaseLost):
        _give_back([lease], even_stopped=True)


@transaction.atomic
def fail(claim: Claim, error: Exception | None = None) -> float | None:
    """Note that the agent failed. Returns the seconds until the turn is repeated; None if it is given up.

    The person is told at once, and their words go to history, so that later turns know them. The messages step aside
    and the lane is free, so that later messages pass them. Giving up ends the turn as an answer does.

    error: what was raised. If it has `words`, repeating is useless: the turn is given up at once, and the person reads
    them. Raises LeaseLost.
    """
    failures, words, used = claim.head.failures, getattr(error, "words", ""), getattr(error, "used", None)
    is_command = claim.head.kind == InboundEvent.Kind.COMMAND  # no part of the conversation
    if words or failures >= len(RETRY_AFTER):
        told = _own_words(claim, words or texts.GAVE_UP)
        answer = Answer(claim, told, platforms.of(claim.head.platform).text_limit, used)
        reason = _reason(error, failures, "given up at once" if words else "given up")
        _finish([answer], Status.GIVEN_UP, reason=reason, withholds_questions=is_command or _is_refused(error))
        return None
    _give_back([claim.lease])
    reason, (ready_at, moment) = _reason(error, failures), clock.seconds_from_now(RETRY_AFTER[failures]).statement()
    # Read once, so that the parts of a text are ready together.
    changes = f"failures = failures + 1, reason = %s, ready_at = (SELECT {ready_at})"
    edits = _update([claim], changes, [reason, moment], [used])
    drafts.settle([claim.head.pk])
    if not is_command:
        sql.insert(HistoryEntry, _missing_questions([claim], edits))
        window.announce([claim.lease.conversation], [claim.account.pk])
    if failures == 0:
        told = _dated(claim, str(texts.TRYING_AGAIN))
        outbox_queue.queue(_address(claim), told, event=claim.head, is_stoppable=True)
    return RETRY_AFTER[failures]


def _reason(error: Exception | None, failures: int, outcome: str = "") -> str:
    """Why a turn has failed, for operators. Only an AgentError is known to quote nobody."""
    cause = type(error).__name__ if error else "failed"
    if isinstance(error, AgentError) and str(error):
        cause = f"{cause}: {storable(str(error))}"
    count = f"failure {failures + 1} of {len(RETRY_AFTER) + 1}"
    return f"{outcome or count}: {cause}"[:MAX_REASON]


def _is_refused(error: Exception | None) -> bool:
    """Whether the model's provider refuses the words themselves, so that they would spoil every later turn."""
    return bool(getattr(error, "is_refused", False))


@transaction.atomic
def release(claim: Claim) -> None:
    """Give an unfinished turn back as if it had never started, since the process or a person stops it."""
    with suppress(LeaseLost):
        _give_back([claim.lease], even_stopped=True)
        _events([claim]).update(starts=F("starts") - 1)


@transaction.atomic
def explain(claim: Claim, error: Exception) -> None:
    """Note for operators why a turn was not written. It is repeated when its lease ends."""
    _events([claim]).update(reason=f"not answered: {type(error).__name__}")


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
    crashes = claim.head.starts - claim.head.failures
    _end([claim], Status.QUARANTINED, f"quarantined: processes ended {crashes} times while they worked on it")
    if claim.head.failures:  # its words are in history, and may end the processes that work on later ones
        _stored_questions([claim]).update(is_withheld=True)
    drafts.settle([claim.head.pk])
    outbox_queue.queue(_address(claim), _dated(claim, _own_words(claim, texts.QUARANTINED)), event=claim.head)


def _dated(claim: Claim, text: str) -> str:
    """The text, behind the day of the claimed messages if they are old."""
    return lateness.dated(text, claim.head.asked_at, is_several=len(claim.events) > 1)


def _own_words(claim: Claim, text: object) -> str:
    return labels.with_commands(str(text), on=claim.head.platform)


def _give_back(held: Collection[Lease], *, even_stopped: bool = False) -> None:
    """Free the lanes. The same statement checks the fence, so a lost lease raises LeaseLost.

    A turn that a person has stopped raises Stopped, unless `even_stopped`.
    """
    end = sql.moment(clock.EPOCH)
    statement = _GIVE_BACK.format(unless_stopped="" if even_stopped else _UNLESS_STOPPED)
    if sql.run_many(statement, [(end, one.conversation.pk, one.owner, one.fence) for one in held]) != len(held):
        raise Stopped if leases.stopped(held) else LeaseLost


def _end(
    claims: Collection[Claim], status: str, reason: str = "", *, used: Sequence[Reply | None] = ()
) -> dict[int, str]:
    """End all events of these turns, as `_update` does. The caller deletes their drafts.

    reason: why they have no answer.
    """
    now, moment = clock.now().statement()
    return _update(claims, f"status = %s, reason = %s, done_at = {now}", [status, reason, moment], used)


def _update(
    claims: Collection[Claim], changes: str, values: Sequence[Any], used: Sequence[Reply | None]
) -> dict[int, str]:
    """Change all events of these turns. Return by id the text that each was edited to meanwhile. Raises Stopped.

    used: of each turn, the reply that says what a model used.
    """
    rows = [
        {
            "id": claim.head.pk,
            "model": reply.model or None,
            "input_tokens": reply.input_tokens,
            "output_tokens": reply.output_tokens,
        }
        for claim, reply in zip(claims, used, strict=bool(used))
        if reply
    ]
    events = [event.pk for claim in claims for event in claim.events]
    condition, ids = sql.among("e.id", events)
    with_used, locking = _USED.format(rows=_ROWS[connection.vendor]), sql.locking("FOR UPDATE")
    statement = _UPDATE.format(events=condition, changes=changes, used=with_used, locking=locking)
    edits = dict(sql.run(statement, [*ids, *values, json.dumps(rows)]))
    if len(edits) != len(events):
        raise Stopped  # under this lease, only a person ends them meanwhile
    return edits


def _events(claims: Collection[Claim]) -> QuerySet[InboundEvent]:
    return InboundEvent.objects.filter(pk__in=[event.pk for claim in claims for event in claim.events], done_at=None)


def _stored_questions(claims: Collection[Claim]) -> QuerySet[HistoryEntry]:
    events = [event.pk for claim in claims for event in claim.events]
    return HistoryEntry.objects.filter(event__in=events, role=Role.USER)


def _missing_questions(
    claims: Collection[Claim], edits: Mapping[int, str], *, is_withheld: bool = False
) -> list[dict[str, Any]]:
    """The entries of what these turns ask, without those that were stored at an earlier failure."""
    stored: set[int | None] = set()
    if failed := [claim for claim in claims if claim.head.failures]:
        entries = _stored_questions(failed)
        stored.update(entries.values_list("event_id", flat=True))
        if is_withheld and stored:
            entries.update(is_withheld=True)
    return [
        _question(claim, event, edits[event.pk]) | {"is_withheld": is_withheld}
        for claim in claims
        for event in claim.events
        if event.pk not in stored
    ]


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
        "is_withheld": False,
    }


def _address(claim: Claim) -> Address:
    return Address(claim.head.platform, claim.head.chat_id, claim.head.thread_id)
