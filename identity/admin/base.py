"""The common parts of the operators' pages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.contrib.auth.models import AbstractUser
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.db.models import Model
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import render
from django.urls import URLPattern, path, reverse
from django.utils.functional import cached_property
from django.utils.http import urlencode
from django.utils.translation import gettext_lazy

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


MAX_LISTED = 5000


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


class PlatformFilter(admin.SimpleListFilter):
    """Filters by platform; `lookup` is the column."""

    title = gettext_lazy("platform")
    parameter_name = "platform"
    lookup = "platform"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return list(platforms().items())

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        return queryset.filter(**{self.lookup: self.value()}) if self.value() else queryset


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
