"""`manage.py deliveries`: dead letters, to look at, and to send after all or dismiss."""

from __future__ import annotations

from django.db.models import Q

from identity.management.printing import Row
from sessions_app import dead_letters
from sessions_app.management.given_up import GivenUpCommand
from sessions_app.models import OutboundDelivery


class Command(GivenUpCommand):
    help = "Deliveries: list (dead letters), show, redrive, dismiss."
    given_up = dead_letters.DELIVERIES
    one, several, taken_up = "delivery", "deliveries", "will be sent again"

    def matching(self, search: str) -> Q:
        return super().matching(search) | Q(reason__icontains=search)

    def row(self, one: OutboundDelivery) -> Row:
        return {
            "id": one.pk,
            "platform": one.platform,
            "chat_id": one.chat_id,
            "status": one.status,
            "attempts": one.attempts,
            "reason": one.reason,
            "created_at": one.created_at,
        }

    def more(self, one: OutboundDelivery) -> Row:
        return {"thread_id": one.thread_id, "may_be_repeat": one.may_be_repeat, "settled_at": one.settled_at}
