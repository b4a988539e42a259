"""The common parts of the operators' pages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.views.main import ChangeList
from django.contrib.auth.models import AbstractUser
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.db.models import Model, Q, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import render
from django.urls import URLPattern, path, reverse
from django.utils.functional import cached_property
from django.utils.html import format_html
from django.utils.http import urlencode
from django.utils.safestring import SafeString
from django.utils.translation import gettext, gettext_lazy

from identity.models import PlatformAccount
from identity.operators import platforms

if TYPE_CHECKING:
    Admin = admin.ModelAdmin[Any]
else:
    Admin = admin.ModelAdmin

View = Callable[..., HttpResponseBase]


class Tool:
    """A button at the top of a page."""

    def __init__(self, label: str, url: str) -> None:
        self.label, self.url = label, url


# Rows that a list shows, filters, searches and sorts. With more, PostgreSQL would rather read a whole table for a join.
MAX_LISTED = 1000


class OperatorFilter(admin.SimpleListFilter):
    """A filter of a BoundedList."""

    def has_index(self) -> bool:
        """Return whether an index finds the rows of the choice, newest first: then the choice is among all rows."""
        return False


class BoundedList(ChangeList):
    """The newest MAX_LISTED rows of a table, as most filters, words and columns have no index.

    Only a filter that has one, and a whole ID in the search field, find older rows too. cut_at: how many rows the list
    has if it leaves out others, else 0. The page says so.
    """

    cut_at = 0

    def get_queryset(self, request: HttpRequest, exclude_parameters: Any = None) -> QuerySet[Any]:
        offered: Any
        rows: QuerySet[Any] = self.root_queryset
        for offered in self.list_filter:
            choice: Any = offered(request, self.get_filters_params(), self.model, self.model_admin)
            if choice.has_index():
                rows = choice.queryset(request, rows)
        newest_first = [str(column) for column in self.model_admin.get_ordering(request)]
        column = newest_first[0].removeprefix("-")
        rows = rows.order_by(*newest_first)
        first_left_out = list(rows.values_list(column, flat=True)[MAX_LISTED : MAX_LISTED + 1])
        by_id = self._with_id(self.query.strip()) if first_left_out else None
        self.cut_at = MAX_LISTED if first_left_out and by_id is None else 0
        if by_id is not None:
            self.root_queryset = by_id
            return self._without_search(request, exclude_parameters)
        if self.filter_params:
            # Named one by one: else an engine may prefer an index with all rows of a platform, or in the asked order.
            self.root_queryset = self.root_queryset.filter(pk__in=rows.values("pk")[:MAX_LISTED])
        elif first_left_out:
            self.root_queryset = self.root_queryset.filter(**{f"{column}__gt": first_left_out[0]})
        if self.cut_at and self.query:
            self.root_queryset = self._with_words(request)
            return self._without_search(request, exclude_parameters)
        return super().get_queryset(request, exclude_parameters)

    def _without_search(self, request: HttpRequest, exclude_parameters: Any) -> QuerySet[Any]:
        text, self.query = self.query, ""
        try:
            return super().get_queryset(request, exclude_parameters)
        finally:
            self.query = text

    def _with_words(self, request: HttpRequest) -> QuerySet[Any]:
        """The rows with all these words, in other fields than IDs: those were looked for among all rows."""
        fields = [field for field in self.model_admin.get_search_fields(request) if not field.startswith("=")]
        rows = self.root_queryset if fields else self.root_queryset.none()
        for word in self.query.split() if fields else ():
            rows = rows.filter(Q.create([(f"{field}__icontains", word) for field in fields], connector=Q.OR))
        return rows

    def _with_id(self, text: str) -> QuerySet[Any] | None:
        """The rows that have this whole ID; None if there is none."""
        model_admin: Any = self.model_admin
        for condition in model_admin.with_id(text) if text else ():
            rows: QuerySet[Any] = self.root_queryset.filter(condition)
            if rows.exists():
                return rows
        return None


class BoundedPaginator(Paginator):  # type: ignore[type-arg]  # generic in the stubs alone
    """Counts at most MAX_LISTED rows: counting a whole table means reading it."""

    @cached_property
    def count(self) -> int:
        rows: Any = self.object_list
        return int(rows.order_by()[:MAX_LISTED].count())


class OperatorAdmin(Admin):
    """Read-only lists. Each action has a page and a permission of its own."""

    show_facets = admin.ShowFacets.NEVER  # they would count each list once more for each choice
    show_full_result_count = False
    paginator = BoundedPaginator
    list_per_page = 50

    class Media:
        css = {"all": ["identity/operator.css"]}

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> Any:
        return self.fields or ()

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        """Allow only the offered filters: Django would let a URL filter by any column, hashes included."""
        return lookup in {getattr(offered, "parameter_name", None) for offered in self.list_filter}

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[BoundedList]:
        return BoundedList

    def action_checkbox(self, obj: Model) -> SafeString:
        """Return Django's own, without its form and templates: they take a fifth of a list's time."""
        label = format_html(gettext("Select this object for an action - {}"), str(obj))
        box = '<input type="checkbox" name="{}" value="{}" class="action-select" aria-label="{}">'
        return format_html(box, ACTION_CHECKBOX_NAME, str(obj.pk), label)

    def with_id(self, text: str) -> Iterable[Q]:
        """Return the conditions that find rows by a whole ID, each by an index. The first that finds any counts."""
        return ()

    def get_urls(self) -> list[URLPattern]:
        own = [path(route, self.admin_site.admin_view(view), name=name) for route, view, name in self.pages()]
        return [*own, *super().get_urls()]

    def pages(self) -> Iterable[tuple[str, View, str]]:
        """Return the pages beside Django's: route, view and name."""
        return ()

    def tools(self, request: HttpRequest, row: Any) -> Iterable[Tool]:
        """Return the buttons on the page of a row."""
        return ()

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Mapping[str, Any] | None = None
    ) -> HttpResponse:
        row = self.get_object(request, object_id)
        tools = list(self.tools(request, row)) if row else []
        return super().change_view(request, object_id, form_url, {"tools": tools, **(extra_context or {})})

    # The audit log says who did what, and outlives names. A second log would keep the names.
    def log_addition(self, *args: Any) -> Any:
        return None

    def log_change(self, *args: Any) -> Any:
        return None


class PlatformFilter(OperatorFilter):
    """Filters by platform; `lookup` is the column."""

    title = gettext_lazy("platform")
    parameter_name = "platform"
    lookup = "platform"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return list(platforms().items())

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        return queryset.filter(**{self.lookup: self.value()}) if self.value() else queryset


def accounts_with(platform_user_id: str) -> list[int]:
    """Return the primary keys of the accounts with this ID, by the index, which begins with the platform."""
    accounts = PlatformAccount.objects.filter(platform__in=platforms(), platform_user_id=platform_user_id)
    return list(accounts.values_list("pk", flat=True))


def need(request: HttpRequest, permission: str) -> str:
    """Return the operator's name. Raises PermissionDenied without the permission. Call it before any look-up."""
    if not may(request, permission):
        raise PermissionDenied
    return request.user.get_username()


def may(request: HttpRequest, permission: str) -> bool:
    user = request.user
    return isinstance(user, AbstractUser) and user.has_perm(f"identity.{permission}")


def page(request: HttpRequest, template: str, title: str, **context: Any) -> HttpResponse:
    """Render a page in the admin's frame."""
    frame = {**admin.site.each_context(request), "title": title, **context}
    return render(request, f"admin/identity/{template}.html", frame)


def address(model: str, name: str, pk: Any = None, **query: str) -> str:
    """Return the address of one of these pages."""
    url = reverse(f"admin:identity_{model}_{name}", args=[] if pk is None else [pk])
    return f"{url}?{urlencode(query)}" if query else url
