"""Deletes stored words by age. Housekeeping calls each function often, and each call handles a limited number of rows.

A call takes the oldest due rows, which an index finds, so that rows that are never settled do not hold up others.
"""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db.models import QuerySet

from identity.support import clock, portions
from sessions_app.models import ForgetRequest, ForgottenEvent, HistoryEntry, InboundEvent, OutboundDelivery

DAY = 86_400
AT_ONCE = 500


def forget_words() -> int:
    """Empty messages that were answered long ago, as history has their text. Keys stay. Return how many.

    Messages that were quarantined or given up keep their text as long as their key: they may still be answered.
    """
    full = InboundEvent.objects.filter(emptied_at=None, done_at__isnull=False, status=InboundEvent.Status.DONE)
    old = full.filter(done_at__lt=_ago(settings.BOTOS_RETENTION_EVENTS_DAYS)).order_by("done_at")
    some = InboundEvent.objects.filter(pk__in=list(old.values_list("pk", flat=True)[:AT_ONCE]))
    return some.update(text="", edited="", chat_name="", emptied_at=clock.now())


def forget_keys() -> int:
    """Delete messages, and hashes of deleted ones, that no platform delivers again. Return how many."""
    days = settings.BOTOS_RETENTION_KEYS_DAYS
    gone = _delete(ForgottenEvent.objects.all(), "forgotten_at", days)
    return gone + _delete(InboundEvent.objects.all(), "done_at", days)


def forget_deliveries() -> int:
    """Delete messages that were sent, or given up, long ago. Return how many."""
    return _delete(OutboundDelivery.objects.all(), "settled_at", settings.BOTOS_RETENTION_DELIVERIES_DAYS)


def forget_requests() -> int:
    """End expired requests for deletion, and delete old ones. Return how many are deleted."""
    unanswered = ForgetRequest.objects.filter(state="asked", expires_at__lt=clock.now())
    unanswered.update(state="ended", ended_at=clock.now())
    return _delete(ForgetRequest.objects.all(), "ended_at", settings.BOTOS_RETENTION_PAIRINGS_DAYS)


def forget_history() -> int:
    """Delete old history, if the operator set a time for it. Return how many entries."""
    days = settings.BOTOS_RETENTION_HISTORY_DAYS
    # Every entry becomes due, in about the order of the ids, so no others need to be checked.
    oldest = list(HistoryEntry.objects.order_by("pk").values_list("pk", flat=True)[:AT_ONCE])
    return _delete(HistoryEntry.objects.filter(pk__in=oldest), "said_at", days) if days else 0


def _delete(rows: QuerySet[Any], since: str, days: int) -> int:
    """Delete the oldest rows whose column `since` is more than `days` ago, but none that changed meanwhile."""
    due = rows.filter(**{f"{since}__lt": _ago(days)}).order_by(since)
    return portions.delete(f"forgetting old {rows.model._meta.verbose_name_plural}", due, most=AT_ONCE)


def _ago(days: int) -> Any:
    return clock.bound(-days * DAY)


DUTIES = (forget_words, forget_keys, forget_deliveries, forget_requests, forget_history)
