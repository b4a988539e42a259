"""Requests that cannot be read are answered 400, with one line in the log and no traceback."""

from __future__ import annotations

import logging

from django.core.exceptions import BadRequest, SuspiciousOperation
from django.http import HttpRequest, HttpResponseBase
from django.http.multipartparser import MultiPartParserError
from django.utils.deprecation import MiddlewareMixin

from botos_project import failures

log = logging.getLogger(__name__)

UNREADABLE = (BadRequest, SuspiciousOperation, MultiPartParserError, UnicodeError, LookupError, ValueError)


class BadRequestMiddleware(MiddlewareMixin):
    """Reads the form of each POST before a view does, so that no other middleware meets one that cannot be read."""

    def process_view(self, request: HttpRequest, view: object, args: object, kwargs: object) -> HttpResponseBase | None:
        """The page for a form that cannot be read."""
        if request.method != "POST" or getattr(view, "csrf_exempt", False):
            return None  # webhooks read their own bodies
        try:
            fields = [text for name, values in request.POST.lists() for text in (name, *map(str, values))]
            is_readable = all("\0" not in text for text in fields)
        except UNREADABLE as error:
            log.warning("a request to %s cannot be read: %s", ascii(request.path), type(error).__name__)
            return failures.refused(400, request)
        if is_readable:
            return None
        log.warning("a request to %s cannot be read: NUL in a field", ascii(request.path))
        return failures.refused(400, request)
