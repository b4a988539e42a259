"""`manage.py events`: messages that were put aside or not answered, to look at and to answer after all."""

from __future__ import annotations

from typing import Any

from django.db.models import Q

from identity.management.printing import OperatorCommand, operator
from sessions_app import redrive
from sessions_app.models import InboundEvent


class Command(OperatorCommand):
    help = "Messages that came in: list (those that were given up), show, redrive."

    def add_steps(self) -> None:
        events = self.list_step(self.list, "List messages that were put aside or not answered.")
        events.add_argument("--all", dest="everything", action="store_true", help="also those that wait or are done")
        show = self.step("show", self.show_one, "Show a message, without its words.")
        again = self.step("redrive", self.redrive, "Have a message answered after all.")
        for parser in (show, again):
            parser.add_argument(
                "pk", metavar="id", type=int, nargs="?" if parser is again else None, help="as it is listed"
            )
        again.add_argument("--all", dest="everything", action="store_true", help="every one that was given up")

    def list(self, *, search: str, limit: int, everything: bool) -> None:
        rows = InboundEvent.objects.all() if everything else redrive.given_up_events()
        if search:
            rows = rows.filter(Q(platform=search) | Q(chat_id=search) | Q(account__platform_user_id=search))
        self.show_all([_row(row) for row in rows.select_related("account").order_by("-pk")[:limit]])

    def show_one(self, *, pk: int) -> None:
        row = InboundEvent.objects.select_related("account").filter(pk=pk).first()
        if row is None:
            raise ValueError(f"There is no message {pk}.")
        self.show(_row(row) | {"chat_id": row.chat_id, "thread_id": row.thread_id, "done_at": row.done_at})

    def redrive(self, *, pk: int | None, everything: bool) -> None:
        if (pk is None) is not everything:
            raise ValueError("Say which message, or --all.")
        wanted = redrive.given_up_events().values_list("pk", flat=True) if pk is None else [pk]
        done = sum(redrive.event(one, operator=operator()) for one in wanted)
        if pk is not None and not done:
            raise ValueError(f"There is no message {pk} that was given up.")
        self.show({"redriven": done}, f"{done} will be answered.")


def _row(row: InboundEvent) -> dict[str, Any]:
    return {
        "id": row.pk,
        "account": str(row.account),
        "kind": row.kind,
        "status": row.status,
        "starts": row.starts,
        "failures": row.failures,
        "received_at": row.received_at,
    }
