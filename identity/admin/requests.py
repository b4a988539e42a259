"""The operators' list of pairing requests, without codes, numbers, tokens, hashes and nonces."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from identity.admin import pairing_pages
from identity.admin.base import OperatorAdmin, OperatorFilter, Tool, View, accounts_with, address, may
from identity.admin.people import link_to
from identity.flows import invitations
from identity.models import Pairing, UnifiedUser
from identity.support import clock

State = Pairing.State


class StateFilter(OperatorFilter):
    """Filters by the state that is shown: a request that has run out is expired."""

    title = gettext_lazy("state")
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(value, str(label)) for value, label in State.choices]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        state = self.value()
        if state == State.EXPIRED:
            is_over = Q(ended_at=None, expires_at__lte=clock.now())
            return queryset.filter(is_over | Q(state=State.EXPIRED))
        if state in invitations.LIVE:
            return queryset.filter(state=state, ended_at=None, expires_at__gt=clock.bound())
        return queryset.filter(state=state) if state else queryset

    def has_index(self) -> bool:
        return self.value() in invitations.LIVE


class KindFilter(OperatorFilter):
    title = gettext_lazy("started by")
    parameter_name = "by"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("operator", _("an operator")), ("account", _("an account")), ("browser", _("a browser"))]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        fields = {"operator": "person", "account": "initiator", "browser": "initiator_browser"}
        field = fields.get(self.value() or "")
        return queryset.filter(**{f"{field}__isnull": False}) if field else queryset


@admin.register(Pairing)
class RequestAdmin(OperatorAdmin):
    fields = (
        "shown_state",
        "started_by",
        "invited",
        "platform",
        "answered_by",
        "tries",
        "created_at",
        "claimed_at",
        "expires_at",
        "ended_at",
    )
    list_display = ("created_at", "shown_state", "started_by", "invited", "answered_by", "ended_at")
    list_filter = (StateFilter, KindFilter)
    list_select_related = ("initiator", "initiator_browser", "responder", "responder_browser", "person")
    search_fields = (
        "person__unified_user_id",
        "operator",
        "=initiator__platform_user_id",
        "=responder__platform_user_id",
    )
    search_help_text = gettext_lazy("Search by a person's ID, an operator, or an account's ID.")
    ordering = ("-created_at", "-pk")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Pairing]:
        requests: QuerySet[Pairing] = super().get_queryset(request)
        return requests.annotate(read_at=clock.now())

    def with_id(self, text: str) -> Iterable[Q]:
        yield Q(person__in=list(UnifiedUser.objects.filter(unified_user_id=text)))
        accounts = accounts_with(text)
        yield Q(initiator__in=accounts) | Q(responder__in=accounts)

    @admin.display(description=gettext_lazy("state"))
    def shown_state(self, pairing: Any) -> str:
        return str(State(invitations.state_of(pairing, pairing.read_at)).label)

    @admin.display(description=gettext_lazy("started by"))
    def started_by(self, pairing: Pairing) -> str:
        return invitations.initiator_of(pairing)

    @admin.display(description=gettext_lazy("person"))
    def invited(self, pairing: Pairing) -> str:
        return link_to(pairing.person)

    @admin.display(description=gettext_lazy("answered by"))
    def answered_by(self, pairing: Pairing) -> str:
        return invitations.responder_of(pairing)

    def pages(self) -> Iterable[tuple[str, View, str]]:
        return (
            ("<uuid:pk>/live/", pairing_pages.live, "identity_pairing_live"),
            ("<uuid:pk>/status/", pairing_pages.status, "identity_pairing_status"),
            ("<uuid:pk>/number/", pairing_pages.number, "identity_pairing_number"),
            ("<uuid:pk>/withdraw/", pairing_pages.withdraw, "identity_pairing_withdraw"),
        )

    def tools(self, request: HttpRequest, row: Pairing) -> Iterable[Tool]:
        if row.person_id and may(request, "pair_account"):
            yield Tool(_("Live status"), address("pairing", "live", row.pk))
        if row.person_id and invitations.state_of(row) in invitations.LIVE and may(request, "withdraw_request"):
            yield Tool(_("Withdraw"), address("pairing", "withdraw", row.pk))
