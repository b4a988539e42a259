"""`manage.py deliveries`: dead letters, to look at, and to send after all or dismiss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from django.db.models import Q

from identity.management.printing import OperatorCommand, operator
from sessions_app import redrive
from sessions_app.models import OutboundDelivery


class Command(OperatorCommand):
    help = "Deliveries: list (those that are dead), show, redrive, dismiss."

    def add_steps(self) -> None:
        deliveries = self.list_step(self.list, "List dead deliveries.")
        deliveries.add_argument(
            "--all", dest="everything", action="store_true", help="also those that wait or were sent"
        )
        show = self.step("show", self.show_one, "Show a delivery.")
        show.add_argument("pk", metavar="id", type=int, help="as it is listed")
        again = self.step("redrive", self.redrive, "Put dead deliveries back in line.")
        leave = self.step("dismiss", self.dismiss, "Leave dead deliveries as they are, and count them no more.")
        for parser in (again, leave):
            parser.add_argument("pks", metavar="id", type=int, nargs="*", help="as they are listed")
            parser.add_argument("--all", dest="everything", action="store_true", help="every one that is listed")

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

    def redrive(self, *, pks: Sequence[int], everything: bool) -> None:
        done = _each(redrive.delivery, pks, everything=everything)
        self.show({"redriven": done}, f"{done} will be sent again.")

    def dismiss(self, *, pks: Sequence[int], everything: bool) -> None:
        done = _each(redrive.dismiss_delivery, pks, everything=everything)
        self.show({"dismissed": done}, f"{done} dismissed.")


def _each(does: Callable[..., bool], pks: Sequence[int], *, everything: bool) -> int:
    """For how many it was done."""
    if bool(pks) is everything:
        raise ValueError("Say which deliveries, or --all.")
    wanted = pks or list(redrive.dead_deliveries().values_list("pk", flat=True))
    done = sum(does(pk, operator=operator()) for pk in wanted)
    if pks and not done:
        raise ValueError("There is no such dead delivery.")
    return done


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
