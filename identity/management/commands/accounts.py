"""`manage.py accounts`: list and show accounts."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.db.models import Q

from identity.management.printing import OperatorCommand
from identity.models import AccountLink, PlatformAccount
from identity.support.sanitize import harmless


class Command(OperatorCommand):
    help = "Accounts: list, show."

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        accounts = self.list_step(self.list, "List accounts.")
        accounts.add_argument("--platform", default="", help="only accounts on this platform")
        accounts.add_argument(
            "--linked", choices=["yes", "no"], help="only accounts with a person (yes) or without one (no)"
        )
        show = self.step("show", self.show_account, "Show one account.")
        show.add_argument("account", metavar="PLATFORM:ID", help="for example telegram:12345")

    def list(self, *, search: str, limit: int, platform: str, linked: str | None) -> None:
        accounts = PlatformAccount.objects.order_by("-pk")
        if search:
            names = Q(display_name__icontains=search) | Q(username__icontains=search)
            accounts = accounts.filter(names | Q(platform_user_id__icontains=search))
        if platform:
            accounts = accounts.filter(platform=platform)
        live = AccountLink.objects.live()
        if linked:
            is_linked = Q(pk__in=live.values("account"))
            accounts = accounts.filter(is_linked if linked == "yes" else ~is_linked)
        listed = list(accounts[:limit])
        owners = dict(live.filter(account__in=listed).values_list("account_id", "user__unified_user_id"))
        self.show_all([_row(account, owners.get(account.pk)) for account in listed])

    def show_account(self, *, account: str) -> None:
        platform, _, platform_user_id = account.partition(":")
        row = PlatformAccount.objects.filter(platform=platform, platform_user_id=platform_user_id).first()
        if row is None:
            raise ValueError(f"There is no account {account!r}. Write platform:id, for example telegram:12345.")
        live = AccountLink.objects.live().filter(account=row)
        owner = live.values_list("user__unified_user_id", flat=True).first()
        links = [f"{link.pk}" for link in AccountLink.objects.filter(account=row).order_by("pk")]
        self.show(_row(row, owner) | {"username": harmless(row.username), "links": links})


def _row(account: PlatformAccount, owner: str | None) -> dict[str, Any]:
    return {
        "account": str(account),
        "display_name": harmless(account.display_name),
        "person": owner,
        "seen_at": account.seen_at,
    }
