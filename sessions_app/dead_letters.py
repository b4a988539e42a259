"""Dead deliveries, and messages that were quarantined or given up: redriven, or dismissed by an operator.

A dismissed row stays as it is, and no list and no count has it until it is given up once more. Each step claims its row
in one statement, so that of two callers at once, one succeeds and the other learns that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.db import transaction
from django.db.models import F, Q, QuerySet

from identity import audit
from identity.models import PlatformAccount
from identity.support import clock
from identity.support.literals import Literal
from sessions_app.history import conversations
from sessions_app.models import CRASHES_BEFORE_QUARANTINE, Conversation, HistoryEntry, InboundEvent, OutboundDelivery

GIVEN_UP = (InboundEvent.Status.QUARANTINED, InboundEvent.Status.GIVEN_UP)
_GIVEN_UP = Q(status__in=[Literal(status) for status in GIVEN_UP], emptied_at=None)
DEAD = Q(status=Literal(OutboundDelivery.Status.DEAD))
# What nobody has dismissed waits for an operator.
UNSEEN_DELIVERY = DEAD & (Q(dismissed_at=None) | Q(dismissed_at__lt=F("settled_at")))
UNSEEN_EVENT = _GIVEN_UP & (Q(dismissed_at=None) | Q(dismissed_at__lt=F("done_at")))
# A person gets one more attempt at a message that crashed processes, not three.
ONE_TRY = CRASHES_BEFORE_QUARANTINE - 1


def dead_deliveries() -> QuerySet[OutboundDelivery]:
    """Dead deliveries that nobody has dismissed, oldest first."""
    return OutboundDelivery.objects.filter(UNSEEN_DELIVERY).order_by("pk")


def given_up_events() -> QuerySet[InboundEvent]:
    """Quarantined and given up messages whose text is still there, oldest first.

    They include dismissed ones, as their authors may still ask for an answer.
    """
    return _messages().filter(_GIVEN_UP).order_by("pk")


def unseen_events() -> QuerySet[InboundEvent]:
    """Quarantined and given up messages that nobody has dismissed, oldest first."""
    return given_up_events().filter(UNSEEN_EVENT)


@transaction.atomic
def delivery(pk: int, *, operator: str) -> bool:
    """Queue a dead delivery once more, with the same nonce. False if it is not dead."""
    # Due from now on, not since it was queued: else an old notice would be given up again.
    new = {"attempts": 0, "owner": "", "lease_until": clock.EPOCH, "not_before": clock.now(), "settled_at": None}
    if not OutboundDelivery.objects.filter(DEAD, pk=pk).update(status=OutboundDelivery.Status.PENDING, **new):
        return False
    row = OutboundDelivery.objects.select_related("account").get(pk=pk)
    audit.record(kind="delivery_redriven", actor=operator, account=row.account, delivery=pk)
    return True


@transaction.atomic
def dismiss_delivery(pk: int, *, operator: str) -> bool:
    """Leave a dead delivery as it is. False if it is not dead, or was dismissed already."""
    if not dead_deliveries().filter(pk=pk).update(dismissed_at=clock.now()):
        return False
    row = OutboundDelivery.objects.select_related("account").get(pk=pk)
    audit.record(kind="delivery_dismissed", actor=operator, account=row.account, delivery=pk)
    return True


@transaction.atomic
def event(pk: int, *, operator: str) -> bool:
    """Have a message answered that was given up. False if it is not given up."""
    if not _reopen(pk, starts=0):
        return False
    account = PlatformAccount.objects.get(events=pk)
    audit.record(kind="event_redriven", actor=operator, account=account, event=pk)
    return True


@transaction.atomic
def dismiss_event(pk: int, *, operator: str) -> bool:
    """Leave a message that was given up as it is. False if it was not given up, or was dismissed already."""
    if not unseen_events().filter(pk=pk).update(dismissed_at=clock.now()):
        return False
    account = PlatformAccount.objects.get(events=pk)
    audit.record(kind="event_dismissed", actor=operator, account=account, event=pk)
    return True


@transaction.atomic
def last_of(conversation: Conversation, account: PlatformAccount) -> bool:
    """Have the last failed message answered that `account` itself wrote in the conversation. False if there is none.

    A message that steps aside after a failure is ready at once; else the last one that was given up is reopened.
    The private conversations that an account has with a resolver and without one count as one.
    """
    is_there = Q(conversation=conversation)
    if conversation.kind == Conversation.Kind.DM:
        is_there |= Q(conversation__in=conversations.of_accounts([account.pk]))
    aside = InboundEvent.objects.filter(is_there, account=account, done_at=None, failures__gt=0)
    if aside.update(ready_at=clock.now()):
        return True
    own = given_up_events().filter(is_there, account=account)
    last = own.order_by("-pk").values_list("pk", flat=True).first()
    return last is not None and _reopen(last, starts=ONE_TRY)


def _reopen(pk: int, *, starts: int) -> bool:
    """Let the event wait for a turn, and delete the turn in history that only says that there is no answer."""
    waits = {"status": InboundEvent.Status.PENDING, "done_at": None, "reason": ""}
    if not given_up_events().filter(pk=pk).update(**waits, starts=starts, failures=0):
        return False
    entries = HistoryEntry.objects.filter(event=pk)
    edited = entries.filter(role=HistoryEntry.Role.USER).values_list("metadata__edited", flat=True).first()
    if edited:
        InboundEvent.objects.filter(pk=pk).update(edited=edited)
    entries.delete()
    return True


def _messages() -> QuerySet[InboundEvent]:
    return InboundEvent.objects.select_related("account")


@dataclass(frozen=True, slots=True)
class GivenUp:
    """What an operator can do with one kind of row. `take_up` and `dismiss` return whether it was done."""

    every: Callable[[], QuerySet[Any]]  # given up or not
    unseen: Callable[[], QuerySet[Any]]
    take_up: Callable[..., bool]
    dismiss: Callable[..., bool]


DELIVERIES = GivenUp(OutboundDelivery.objects.all, dead_deliveries, delivery, dismiss_delivery)
EVENTS = GivenUp(_messages, unseen_events, event, dismiss_event)
