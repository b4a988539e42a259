"""The admin site, with limits on attempts at passwords. All its pages sign in here."""

from __future__ import annotations

import math
from typing import Any

from django.contrib.admin import AdminSite
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.decorators import method_decorator
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_protect
from django.views.decorators.debug import sensitive_post_parameters

from identity import wording
from identity.web import sign_in
from identity.web.sign_in import Try


class LimitedAdminSite(AdminSite):
    """Django's admin site that counts attempts at passwords, at sign-in and at a change."""

    @method_decorator([never_cache, csrf_protect, sensitive_post_parameters()])
    def login(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        if request.method != "POST":
            return super().login(request, extra_context)
        name = request.POST.get("username", "")
        tried = sign_in.begin(request, name)
        if tried.wait:
            return _wait(request, tried)
        response = super().login(request, extra_context)
        if response.status_code == 302:
            sign_in.succeeded(tried)
            sign_in.remember(request, response, name)
        else:
            sign_in.failed(request, tried, name)
        return response

    @method_decorator(csrf_protect)
    def password_change(  # type: ignore[override]  # the stubs promise a template, Django also redirects
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        user_id, name = request.user.pk, request.user.get_username()
        if request.method != "POST" or user_id is None:
            return super().password_change(request, extra_context)
        tried = sign_in.begin_change(user_id)
        if tried.wait:
            return _wait(request, tried)
        response = super().password_change(request, extra_context)
        form = (getattr(response, "context_data", None) or {}).get("form")
        if form is not None and "old_password" in form.errors:
            sign_in.failed(request, tried, name)
        else:
            sign_in.succeeded(tried)
        return response


def _wait(request: HttpRequest, tried: Try) -> HttpResponse:
    values = {"lasting": wording.lasting(60 * math.ceil(tried.wait / 60))}
    response = render(request, "429.html", values, status=429)
    response["Retry-After"] = str(tried.wait)
    return response
