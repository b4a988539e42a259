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
    one, several, taken_up = "message", "messages", "will be answered"

    def matching(self, search: str) -> Q:
        return super().matching(search) | Q(account__platform_user_id=search)

    def row(self, one: InboundEvent) -> Row:
        return {
            "id": one.pk,
            "account": str(one.account),
            "kind": one.kind,
            "status": one.status,
            "starts": one.starts,
            "failures": one.failures,
            "received_at": one.received_at,
        }

    def more(self, one: InboundEvent) -> Row:
        return {"chat_id": one.chat_id, "thread_id": one.thread_id, "done_at": one.done_at}
