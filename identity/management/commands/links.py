"""`manage.py links`: list, show and revoke links between accounts and people."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.db.models import Q

from identity.flows import link_maintenance
from identity.management.printing import OperatorCommand, operator
from identity.models import AccountLink


class Command(OperatorCommand):
    help = "Links: list, show, revoke."

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        links = self.list_step(self.list, "List links.")
        links.add_argument("--all", dest="everything", action="store_true", help="include ended links")
        show = self.step("show", self.show_link, "Show one link.")
        show.add_argument("pk", metavar="id", type=int, help="the ID that list shows")
        revoke = self.step("revoke", self.revoke, "End a link.")
        revoke.add_argument("pk", metavar="id", type=int, help="the ID that list shows")

    def list(self, *, search: str, limit: int, everything: bool) -> None:
        links = AccountLink.objects.select_related("account", "user").order_by("-pk")
        if not everything:
            links = links.filter(ended_at=None)
        if search:
            person = Q(user__unified_user_id__icontains=search) | Q(user__display_name__icontains=search)
            links = links.filter(person | Q(account__platform_user_id=search) | Q(actor__icontains=search))
        self.show_all([_row(link) for link in links[:limit]])

    def show_link(self, *, pk: int) -> None:
        link = _link(pk)
        if link is None:
            raise ValueError(f"There is no link {pk}.")
        more = {"request": link.pairing_id, "shares_past": link.shares_past, "disowned": link.disowned}
        self.show(_row(link) | more)

    def revoke(self, *, pk: int) -> None:
        link = _link(pk)
        if link is None or not link_maintenance.revoke(link=link, operator=operator()):
            raise ValueError(f"There is no live link {pk}.")
        link.refresh_from_db()
        self.show(_row(link), f"Revoked: {link.account} is no longer linked.")


def _link(pk: int) -> AccountLink | None:
    return AccountLink.objects.select_related("account", "user").filter(pk=pk).first()


def _row(link: AccountLink) -> dict[str, Any]:
    return {
        "id": link.pk,
        "account": str(link.account),
        "person": link.user.unified_user_id,
        "since": link.since,
        "ended_at": link.ended_at,
        "method": link.method,
        "actor": link.actor,
    }
