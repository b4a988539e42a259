"""The operators' lists of dead deliveries and given up messages, without their text. Each action is audited."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from django.contrib import admin, messages
from django.contrib.auth.models import AbstractUser
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from identity import labels
from identity.admin.base import OperatorAdmin, OperatorFilter, PlatformFilter, accounts_with
from identity.operators import platforms
from sessions_app import dead_letters
from sessions_app.models import InboundEvent, OutboundDelivery


class StatusFilter(OperatorFilter):
    """Rows that are not dismissed, unless the operator asks for all."""

    title = gettext_lazy("state")
    parameter_name = "state"
    first = Q()

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("all", _("all"))]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        return queryset if self.value() == "all" else queryset.filter(self.first)

    def has_index(self) -> bool:
        return self.value() != "all"


class DeadFilter(StatusFilter):
    first = dead_letters.UNSEEN_DELIVERY


class GivenUpFilter(StatusFilter):
    first = dead_letters.UNSEEN_EVENT


class RedriveAdmin(OperatorAdmin):
    """A list with two actions, each with a permission of its own. noun: the end of the permissions' names."""

    noun: str
    given_up: dead_letters.GivenUp
    ordering = ("-pk",)
    actions = ("redrive", "dismiss")

    def has_redrive_permission(self, request: HttpRequest) -> bool:
        return self._may(request, "redrive")

    def has_dismiss_permission(self, request: HttpRequest) -> bool:
        return self._may(request, "dismiss")

    def _may(self, request: HttpRequest, what: str) -> bool:
        user = request.user
        return isinstance(user, AbstractUser) and user.has_perm(f"sessions_app.{what}_{self.noun}")

    @admin.action(description=gettext_lazy("Retry"), permissions=["redrive"])
    def redrive(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        _tell(request, _("%(count)d queued for retry."), _each(self.given_up.take_up, request, queryset))

    @admin.action(description=gettext_lazy("Dismiss"), permissions=["dismiss"])
    def dismiss(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        _tell(request, _("%(count)d dismissed."), _each(self.given_up.dismiss, request, queryset))


def _each(does: Callable[..., bool], request: HttpRequest, queryset: QuerySet[Any]) -> int:
    wanted, operator = queryset.order_by("pk").values_list("pk", flat=True), request.user.get_username()
    return sum(does(pk, operator=operator) for pk in wanted)


def _tell(request: HttpRequest, text: str, done: int) -> None:
    messages.add_message(request, messages.SUCCESS if done else messages.WARNING, text % {"count": done})


@admin.register(OutboundDelivery)
class DeliveryAdmin(RedriveAdmin):
    noun, given_up = "delivery", dead_letters.DELIVERIES
    fields = ("platform", "chat_id", "thread_id", "status", "attempts", "possibly_sent", "reason", "created_at")
    list_display = ("created_at", "platform", "chat_id", "status", "attempts", "reason")
    list_filter = (DeadFilter, PlatformFilter)
    search_fields = ("=chat_id", "reason")
    search_help_text = gettext_lazy("Search by a chat's ID or a reason.")

    def with_id(self, text: str) -> Iterable[Q]:
        yield Q(platform__in=platforms(), chat_id=text)


@admin.register(InboundEvent)
class EventAdmin(RedriveAdmin):
    noun, given_up = "event", dead_letters.EVENTS
    fields = (
        "platform",
        "described_account",
        "kind",
        "status",
        "starts",
        "failures",
        "reason",
        "received_at",
        "done_at",
    )
    list_display = ("received_at", "platform", "described_account", "kind", "status", "starts", "failures", "reason")
    list_filter = (GivenUpFilter, PlatformFilter)
    list_select_related = ("account",)
    search_fields = ("=account__platform_user_id", "=chat_id")
    search_help_text = gettext_lazy("Search by an account's or a chat's ID.")

    def with_id(self, text: str) -> Iterable[Q]:
        yield Q(account__in=accounts_with(text))
        yield Q(platform__in=platforms(), chat_id=text)

    @admin.display(description=gettext_lazy("account"))
    def described_account(self, event: InboundEvent) -> str:
        return labels.described(event.account)
