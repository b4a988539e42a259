"""The operators' list of accounts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.contrib import admin
from django.db.models import Exists, OuterRef, Prefetch, Q, QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from identity import labels
from identity.admin.base import OperatorAdmin, OperatorFilter, PlatformFilter, Tool, accounts_with, address, may
from identity.admin.people import link_to
from identity.audit import account_hashes
from identity.models import AccountLink, PlatformAccount


class IsLinked(OperatorFilter):
    title = gettext_lazy("linked")
    parameter_name = "linked"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("yes", _("yes")), ("no", _("no"))]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        is_linked = Exists(AccountLink.objects.live().filter(account=OuterRef("pk")))
        if self.value() == "yes":
            return queryset.filter(is_linked)
        return queryset.filter(~is_linked) if self.value() == "no" else queryset


@admin.register(PlatformAccount)
class AccountAdmin(OperatorAdmin):
    fields = ("described_account", "platform", "platform_user_id", "person", "seen_at", "created_at")
    list_display = ("described_account", "platform_user_id", "person", "seen_at", "created_at")
    list_filter = (PlatformFilter, IsLinked)
    search_fields = ("platform_user_id", "display_name", "username", "=links__user__unified_user_id")
    search_help_text = gettext_lazy("Search by ID, name, username, or a person's unified ID.")
    ordering = ("-pk",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[PlatformAccount]:
        live = AccountLink.objects.live().select_related("user")
        return super().get_queryset(request).prefetch_related(Prefetch("links", live, to_attr="live_links"))

    def with_id(self, text: str) -> Iterable[Q]:
        yield Q(pk__in=accounts_with(text))
        yield Q(pk__in=AccountLink.objects.filter(user__unified_user_id=text).values("account"))

    @admin.display(description=gettext_lazy("account"), ordering="display_name")
    def described_account(self, account: PlatformAccount) -> str:
        return labels.described(account)

    @admin.display(description=gettext_lazy("person"))
    def person(self, account: Any) -> str:
        return link_to(next((link.user for link in account.live_links), None))

    def tools(self, request: HttpRequest, row: PlatformAccount) -> Iterable[Tool]:
        if may(request, "view_auditevent"):
            yield Tool(_("Audit log"), address("auditevent", "changelist", account=",".join(account_hashes(row))))
