"""Where people wait for an answer, as the typing sign shows it."""

from __future__ import annotations

from collections.abc import Collection

from django.db.models import Q, Value

from identity.support import clock
from sessions_app.messages import Address
from sessions_app.models import InboundEvent, OutboundDelivery

SOON = 5.0  # seconds until the next attempt of a delivery, up to which its reader still sees the sign


def unanswered(conversation_ids: Collection[int], addresses: Collection[Address]) -> set[tuple[int, Address]]:
    """Return conversations and addresses where an answer is to come, with one statement.

    Those are messages that wait in these conversations, except those that are asked again later, and parts of answers
    that are to be sent soon to these addresses or others of the same chats. A part has no conversation: its id is 0.
    """
    now = clock.now()
    again = Q(failures=0) | Q(ready_at=None) | Q(ready_at__lte=now)
    messages = InboundEvent.objects.filter(
        again, conversation__in=conversation_ids, done_at=None, kind=InboundEvent.Kind.MESSAGE
    )
    parts = OutboundDelivery.objects.filter(
        platform__in={address.platform for address in addresses},
        chat_id__in={address.chat_id for address in addresses},
        settled_at=None,
        event__isnull=False,
        not_before__lte=clock.seconds_from_now(SOON),
    ).exclude(status=OutboundDelivery.Status.DRAFTING)
    place = ("platform", "chat_id", "thread_id")
    rows = messages.values_list("conversation_id", *place).union(
        parts.annotate(conversation=Value(0)).values_list("conversation", *place)
    )
    return {(conversation_id, Address(*where)) for conversation_id, *where in rows}
