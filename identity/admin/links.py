"""The operators' list of links, from which they revoke."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.contrib import admin, messages
from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_http_methods

from identity import labels
from identity.admin.base import (
    OperatorAdmin,
    OperatorFilter,
    PlatformFilter,
    Tool,
    View,
    accounts_with,
    address,
    may,
    need,
    page,
)
from identity.admin.people import link_to
from identity.flows import link_maintenance
from identity.models import AccountLink


class IsLive(OperatorFilter):
    title = gettext_lazy("state")
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("live", _("live")), ("ended", _("ended"))]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        return queryset.filter(ended_at__isnull=self.value() == "live") if self.value() else queryset


class LinkPlatform(PlatformFilter):
    lookup = "account__platform"


@admin.register(AccountLink)
class LinkAdmin(OperatorAdmin):
    fields = ("described_account", "person", "since", "ended_at", "shares_past", "disowned", "method", "actor")
    list_display = ("described_account", "person", "since", "ended_at", "method", "actor")
    list_filter = (IsLive, LinkPlatform)
    list_select_related = ("account", "user")
    search_fields = ("user__unified_user_id", "user__display_name", "=account__platform_user_id", "actor")
    search_help_text = gettext_lazy("Search by a person's ID or name, an account's ID, or who made the link.")
    ordering = ("-pk",)

    def with_id(self, text: str) -> Iterable[Q]:
        yield Q(user__unified_user_id=text)
        yield Q(account__in=accounts_with(text))

    @admin.display(description=gettext_lazy("account"))
    def described_account(self, link: AccountLink) -> str:
        return labels.described(link.account)

    @admin.display(description=gettext_lazy("person"))  # sorted by it, PostgreSQL would read people until some are here
    def person(self, link: AccountLink) -> str:
        return link_to(link.user)

    def pages(self) -> Iterable[tuple[str, View, str]]:
        return [("<int:pk>/revoke/", revoke, "identity_accountlink_revoke")]

    def tools(self, request: HttpRequest, row: AccountLink) -> Iterable[Tool]:
        if row.ended_at is None and may(request, "revoke_link"):
            yield Tool(_("Revoke"), address("accountlink", "revoke", row.pk))


@require_http_methods(["GET", "POST"])
def revoke(request: HttpRequest, pk: int) -> HttpResponse:
    """Ask for confirmation, then end the link."""
    operator = need(request, "revoke_link")
    link = get_object_or_404(AccountLink.objects.select_related("account", "user"), pk=pk)
    back = address("accountlink", "change", pk)
    if request.method == "POST":
        done = link_maintenance.revoke(link=link, operator=operator)
        text = _("Revoked: the account is no longer linked.") if done else _("This link had already ended.")
        messages.add_message(request, messages.SUCCESS if done else messages.WARNING, text)
        return redirect(back)
    values = {"account": labels.described(link.account), "person": link.user.unified_user_id}
    question = _("%(account)s will no longer belong to %(person)s. All accounts of the person get a notice.") % values
    return page(request, "confirm", _("Revoke this link?"), question=question, act=_("Revoke"), back=back)
