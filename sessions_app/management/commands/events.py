"""`manage.py events`: messages that were put aside or not answered, to look at, and to answer or dismiss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from django.db.models import Q

from identity.management.printing import OperatorCommand, operator
from sessions_app import redrive
from sessions_app.models import InboundEvent


class Command(OperatorCommand):
    help = "Messages that came in: list (those that were given up), show, redrive, dismiss."

    def add_steps(self) -> None:
        events = self.list_step(self.list, "List messages that were put aside or not answered.")
        events.add_argument("--all", dest="everything", action="store_true", help="also those that wait or are done")
        show = self.step("show", self.show_one, "Show a message, without its words.")
        show.add_argument("pk", metavar="id", type=int, help="as it is listed")
        again = self.step("redrive", self.redrive, "Have messages answered after all.")
        leave = self.step("dismiss", self.dismiss, "Leave messages as they are, and count them no more.")
        for parser in (again, leave):
            parser.add_argument("pks", metavar="id", type=int, nargs="*", help="as they are listed")
            parser.add_argument("--all", dest="everything", action="store_true", help="every one that is listed")

    def list(self, *, search: str, limit: int, everything: bool) -> None:
        rows = InboundEvent.objects.all() if everything else redrive.unseen_events()
        if search:
            rows = rows.filter(Q(platform=search) | Q(chat_id=search) | Q(account__platform_user_id=search))
        self.show_all([_row(row) for row in rows.select_related("account").order_by("-pk")[:limit]])

    def show_one(self, *, pk: int) -> None:
        row = InboundEvent.objects.select_related("account").filter(pk=pk).first()
        if row is None:
            raise ValueError(f"There is no message {pk}.")
        self.show(_row(row) | {"chat_id": row.chat_id, "thread_id": row.thread_id, "done_at": row.done_at})

    def redrive(self, *, pks: Sequence[int], everything: bool) -> None:
        done = _each(redrive.event, pks, everything=everything)
        self.show({"redriven": done}, f"{done} will be answered.")

    def dismiss(self, *, pks: Sequence[int], everything: bool) -> None:
        done = _each(redrive.dismiss_event, pks, everything=everything)
        self.show({"dismissed": done}, f"{done} dismissed.")


def _each(does: Callable[..., bool], pks: Sequence[int], *, everything: bool) -> int:
    """For how many it was done."""
    if bool(pks) is everything:
        raise ValueError("Say which messages, or --all.")
    wanted = pks or list(redrive.unseen_events().values_list("pk", flat=True))
    done = sum(does(pk, operator=operator()) for pk in wanted)
    if pks and not done:
        raise ValueError("There is no such message that was given up.")
    return done


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
