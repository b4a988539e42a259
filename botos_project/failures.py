"""The pages that a person sees when a request fails or is refused."""

from __future__ import annotations

import http
import sys
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.template.loader import render_to_string
from django.utils.module_loading import import_string
from django.views.defaults import server_error

from identity.support.db_errors import is_away

AGAIN_SECONDS = "10"  # while the database is away
BUSY_SECONDS = "5"

_TEMPLATES = {400: "400.html", 408: "408.html", 413: "413.html", 503: "busy.html"}


def failed(request: HttpRequest) -> HttpResponse:
    """503 if the database was away, else 500. Django calls this within the handling of the exception.

    Rendered without the request, since only the database knows who is signed in.
    """
    if is_away(sys.exc_info()[1]):
        return HttpResponse(render_to_string("503.html"), status=503, headers={"Retry-After": AGAIN_SECONDS})
    return server_error(request)


def refused(status: int, request: HttpRequest) -> HttpResponse:
    """The page of a request that goes no further, with the headers that every page has."""
    response = HttpResponse(render_to_string(_TEMPLATES[status]), status=status, reason=http.HTTPStatus(status).phrase)
    if status == 503:
        response["Retry-After"] = BUSY_SECONDS
    for name in reversed(settings.SECURITY_MIDDLEWARE):
        response = _secured(import_string(name), request, response)
    return response


def _secured(middleware: Any, request: HttpRequest, response: HttpResponse) -> Any:
    def respond(_: HttpRequest) -> HttpResponseBase:
        return response

    return middleware(respond).process_response(request, response)
