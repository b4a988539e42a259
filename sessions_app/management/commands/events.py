"""`manage.py events`: messages that were put aside or not answered, to look at, and to answer or dismiss."""

from __future__ import annotations

from django.db.models import Q

from identity.management.printing import Row
from sessions_app import dead_letters
from sessions_app.management.given_up import GivenUpCommand
from sessions_app.models import InboundEvent


class Command(GivenUpCommand):
    help = "Incoming messages: list (failed ones), show, redrive, dismiss."
    given_up = dead_letters.EVENTS
    singular, plural, taken_up = "message", "messages", "will be answered"

    def matching(self, search: str) -> Q:
        return super().matching(search) | Q(account__platform_user_id=search) | Q(reason__icontains=search)

    def row(self, event: InboundEvent) -> Row:
        return {
            "id": event.pk,
            "account": str(event.account),
            "kind": event.kind,
            "status": event.status,
            "starts": event.starts,
            "failures": event.failures,
            "reason": event.reason,
            "received_at": event.received_at,
        }

    def more(self, event: InboundEvent) -> Row:
        return {"chat_id": event.chat_id, "thread_id": event.thread_id, "done_at": event.done_at}
