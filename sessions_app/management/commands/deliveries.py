"""`manage.py deliveries`: dead letters, to look at and to send after all."""

from __future__ import annotations

from typing import Any

from django.db.models import Q

from identity.management.printing import OperatorCommand, operator
from sessions_app import redrive
from sessions_app.models import OutboundDelivery


class Command(OperatorCommand):
    help = "Deliveries: list (those that are dead), show, redrive."

    def add_steps(self) -> None:
        deliveries = self.list_step(self.list, "List dead deliveries.")
        deliveries.add_argument(
            "--all", dest="everything", action="store_true", help="also those that wait or were sent"
        )
        show = self.step("show", self.show_one, "Show a delivery.")
        again = self.step("redrive", self.redrive, "Put a dead delivery back in line.")
        for parser in (show, again):
            parser.add_argument(
                "pk", metavar="id", type=int, nargs="?" if parser is again else None, help="as it is listed"
            )
        again.add_argument("--all", dest="everything", action="store_true", help="every dead one")

    def list(self, *, search: str, limit: int, everything: bool) -> None:
        rows = OutboundDelivery.objects.all() if everything else redrive.dead_deliveries()
        if search:
            rows = rows.filter(Q(platform=search) | Q(chat_id=search) | Q(reason__icontains=search))
        self.show_all([_row(row) for row in rows.order_by("-pk")[:limit]])

    def show_one(self, *, pk: int) -> None:
        row = OutboundDelivery.objects.filter(pk=pk).first()
        if row is None:
            raise ValueError(f"There is no delivery {pk}.")
        more = {"thread_id": row.thread_id, "may_be_repeat": row.may_be_repeat, "settled_at": row.settled_at}
        self.show(_row(row) | more)

    def redrive(self, *, pk: int | None, everything: bool) -> None:
        if (pk is None) is not everything:
            raise ValueError("Say which delivery, or --all.")
        wanted = redrive.dead_deliveries().values_list("pk", flat=True) if pk is None else [pk]
        done = sum(redrive.delivery(one, operator=operator()) for one in wanted)
        if pk is not None and not done:
            raise ValueError(f"There is no dead delivery {pk}.")
        self.show({"redriven": done}, f"{done} will be sent again.")


def _row(row: OutboundDelivery) -> dict[str, Any]:
    """Without its words, which are nobody's business who sends it."""
    return {
        "id": row.pk,
        "platform": row.platform,
        "chat_id": row.chat_id,
        "status": row.status,
        "attempts": row.attempts,
        "reason": row.reason,
        "created_at": row.created_at,
    }
