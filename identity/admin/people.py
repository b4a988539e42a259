"""The operators' list of people, from which they add, import, pair, invite and suspend."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.db.models import Exists, Model, OuterRef, Prefetch, Q, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import redirect
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from identity import labels, operators
from identity.admin import pairing_pages, people_pages
from identity.admin.base import OperatorAdmin, PlatformFilter, Tool, View, accounts_with, address, may
from identity.flows import invitations, linking
from identity.models import AccountLink, UnifiedUser
from identity.operators import NewPerson
from identity.support.sanitize import harmless
from identity.web.forms import PersonForm

if TYPE_CHECKING:
    LinkInline = admin.TabularInline[AccountLink, UnifiedUser]
else:
    LinkInline = admin.TabularInline


class LinksOfAPerson(LinkInline):
    model = AccountLink
    fields = readonly_fields = ("described_account", "since", "ended_at", "shares_past", "method", "actor")
    ordering = ("-since", "-pk")
    show_change_link = True
    verbose_name_plural = gettext_lazy("accounts and links")
    extra = max_num = 0

    def get_queryset(self, request: HttpRequest) -> QuerySet[AccountLink]:
        return super().get_queryset(request).select_related("account", "user")

    @admin.display(description=gettext_lazy("account"))
    def described_account(self, link: AccountLink) -> str:
        return labels.described(link.account)

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


class LinkedPlatform(PlatformFilter):
    """People with an account there, or with none anywhere."""

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [*super().lookups(request, model_admin), ("-", _("no account"))]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        live = AccountLink.objects.live().filter(user=OuterRef("pk"))
        if self.value() == "-":
            return queryset.filter(~Exists(live))
        if self.value():
            return queryset.filter(Exists(live.filter(account__platform=self.value())))
        return queryset


@admin.register(UnifiedUser)
class PersonAdmin(OperatorAdmin):
    form = PersonForm
    fields = ("unified_user_id", "display_name")
    inlines = (LinksOfAPerson,)
    list_display = ("unified_user_id", "shown_name", "account_count", "badges", "created_at")
    list_filter = (LinkedPlatform,)
    search_fields = ("unified_user_id", "display_name", "=links__account__platform_user_id")
    search_help_text = gettext_lazy("Search by ID, name, or an account's ID.")
    ordering = ("-pk",)
    actions = ("invite_selected",)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return may(request, "add_unifieduser")

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return may(request, "change_unifieduser")

    def has_invite_permission(self, request: HttpRequest) -> bool:
        return may(request, "invite_people")

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> Any:
        return ("unified_user_id",) if obj else ()

    def get_queryset(self, request: HttpRequest) -> QuerySet[UnifiedUser]:
        live = AccountLink.objects.live().select_related("account").order_by("since", "pk")
        return super().get_queryset(request).prefetch_related(Prefetch("links", live, to_attr="live_links"))

    def with_id(self, text: str) -> Iterable[Q]:
        yield Q(unified_user_id=text)
        yield Q(pk__in=AccountLink.objects.filter(account__in=accounts_with(text)).values("user"))

    @admin.display(description=gettext_lazy("name"), ordering="display_name")
    def shown_name(self, person: UnifiedUser) -> str:
        return harmless(person.display_name)

    @admin.display(description=gettext_lazy("accounts"))
    def account_count(self, person: Any) -> int:
        return len(person.live_links)

    @admin.display(description=gettext_lazy("apps"))
    def badges(self, person: Any) -> SafeString:
        names = [link.account.platform for link in person.live_links]
        badge = '<span class="platform platform-{}">{}</span>'
        return format_html_join(" ", badge, ((name, labels.title(name)) for name in names))

    def get_inlines(self, request: HttpRequest, obj: Model | None) -> Any:
        return self.inlines if obj else ()

    # --- What is done

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: Any) -> None:
        operator = request.user.get_username()
        if change:
            operators.rename_person(person=obj, display_name=obj.display_name, operator=operator)
            return
        made = operators.add_person(person=NewPerson(obj.unified_user_id, obj.display_name), operator=operator)
        obj.pk = made.pk

    def response_post_save_add(self, request: HttpRequest, obj: Any) -> HttpResponseRedirect:
        """Redirect to the person's page, where the next step is."""
        return redirect(address("unifieduser", "change", obj.pk))

    @admin.action(
        description=gettext_lazy("Invite the selected people (download the codes once, as CSV)"), permissions=["invite"]
    )
    def invite_selected(self, request: HttpRequest, queryset: QuerySet[UnifiedUser]) -> HttpResponse | None:
        """Download a file with a code for each person. The codes are shown only there."""
        people = list(queryset.order_by("unified_user_id")[: operators.AT_ONCE + 1])
        try:
            issued = operators.invite_all(people=people, operator=request.user.get_username())
        except ValueError as error:
            self.message_user(request, str(error), messages.ERROR)
            return None
        return people_pages.download(invitations.rows(issued), "invitations.csv")

    def pages(self) -> Iterable[tuple[str, View, str]]:
        return (
            ("import/", people_pages.import_people, "identity_unifieduser_import"),
            ("<int:pk>/pair/", pairing_pages.pair, "identity_unifieduser_pair"),
            ("<int:pk>/suspend/", people_pages.suspend, "identity_unifieduser_suspend"),
        )

    def tools(self, request: HttpRequest, row: UnifiedUser) -> Iterable[Tool]:
        if may(request, "pair_account") and operators.is_pairing_available():
            yield Tool(_("Pair an account"), address("unifieduser", "pair", row.pk))
        if may(request, "suspend_person") and linking.accounts_of(row):
            yield Tool(_("Suspend"), address("unifieduser", "suspend", row.pk))
        if may(request, "view_auditevent"):
            yield Tool(_("Audit log"), address("auditevent", "changelist", person=row.unified_user_id))

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        tools = []
        if may(request, "import_people"):
            tools.append(Tool(_("Import people"), address("unifieduser", "import")))
        return super().changelist_view(request, {"tools": tools, **(extra_context or {})})


def link_to(person: UnifiedUser | None) -> str:
    """Return a link to a person's page; empty for None."""
    if person is None:
        return ""
    return format_html('<a href="{}">{}</a>', address("unifieduser", "change", person.pk), person.unified_user_id)
