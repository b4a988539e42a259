"""The page that a person sees when a request fails."""

from __future__ import annotations

import sys

from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string
from django.views.defaults import server_error

from identity.support.db_errors import is_away

AGAIN_SECONDS = "10"


def failed(request: HttpRequest) -> HttpResponse:
    """503 if the database was away, else 500. Django calls this within the handling of the exception.

    Rendered without the request, since only the database knows who is signed in.
    """
    if is_away(sys.exc_info()[1]):
        return HttpResponse(render_to_string("503.html"), status=503, headers={"Retry-After": AGAIN_SECONDS})
    return server_error(request)
