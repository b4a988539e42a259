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
    singular, plural, taken_up = "delivery", "deliveries", "will be sent again"

    def matching(self, search: str) -> Q:
        return super().matching(search) | Q(reason__icontains=search)

    def row(self, delivery: OutboundDelivery) -> Row:
        return {
            "id": delivery.pk,
            "platform": delivery.platform,
            "chat_id": delivery.chat_id,
            "status": delivery.status,
            "attempts": delivery.attempts,
            "reason": delivery.reason,
            "created_at": delivery.created_at,
        }

    def more(self, delivery: OutboundDelivery) -> Row:
        return {
            "thread_id": delivery.thread_id,
            "possibly_sent": delivery.possibly_sent,
            "settled_at": delivery.settled_at,
        }
