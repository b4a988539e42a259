"""The operators' list of audit rows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.contrib import admin
from django.db.models import Q
from django.http import HttpRequest
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from identity.admin.base import OperatorAdmin, OperatorFilter
from identity.models import AuditEvent


class TopicFilter(OperatorFilter):
    title = gettext_lazy("about")
    parameter_name = "about"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [
            ("pairing", _("requests")),
            ("links", _("links")),
            ("people", _("people")),
            ("data", _("people's own data")),
            ("given_up", _("failed messages and deliveries")),
            ("sign_in", _("failed operator sign-ins")),
        ]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        topics: dict[str, dict[str, object]] = {
            "pairing": {"kind__startswith": "pairing_"},
            "links": {"kind__in": ["linked", "unlinked", "past_shared", "disowned", "preferred", "browser_ended"]},
            "people": {"kind__regex": "^(person|people)_"},
            "data": {"kind__regex": "^(exported$|forg|told$)"},
            "given_up": {"kind__regex": "^(delivery|event)_"},
            "sign_in": {"kind__startswith": "sign_in_"},
        }
        return queryset.filter(**topics.get(self.value() or "", {}))


class OneOf(OperatorFilter):
    """Filters rows of one person or account, for the buttons on their pages."""

    field = ""

    def has_index(self) -> bool:
        return True

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        value = request.GET.get(self.parameter_name or "", "")
        return [(value, value[:16])] if value else []

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        return queryset.filter(**{self.field: self.value()}) if self.value() else queryset


class OfPerson(OneOf):
    title = gettext_lazy("person")
    parameter_name, field = "person", "unified_user_id"


class OfAccount(OneOf):
    title = gettext_lazy("account")
    parameter_name, field = "account", "account_hash"

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        """Filter by the hashes under all keys, since the log may be older than SECRET_KEY."""
        hashes = (self.value() or "").split(",")
        return queryset.filter(account_hash__in=hashes) if self.value() else queryset


@admin.register(AuditEvent)
class AuditAdmin(OperatorAdmin):
    fields = ("at", "kind", "actor", "unified_user_id", "account_hash", "details")
    list_display = ("at", "kind", "actor", "unified_user_id", "details")
    list_filter = (TopicFilter, OfPerson, OfAccount)
    search_fields = ("kind", "actor", "unified_user_id")
    search_help_text = gettext_lazy("Search by action, actor, or a person's ID.")
    ordering = ("-pk",)

    def with_id(self, text: str) -> Iterable[Q]:
        yield Q(unified_user_id=text)
