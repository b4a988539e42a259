"""What every webhook does: read a bounded body, store what it says before it is answered, refuse the rest."""

from __future__ import annotations

import logging

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.utils.module_loading import import_string

from sessions_app import inbox
from sessions_app.messages import InboundMessage, MessageEdit, Unacceptable
from sessions_app.wakeups import local as local_wakeups

log = logging.getLogger(__name__)

MAX_BYTES = 1024 * 1024  # bytes; an update has a few kilobytes


class Refused(Exception):
    """The call cannot be taken. Shown with `status`, and once in the log."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status

    def answer(self) -> HttpResponse:
        return HttpResponse(status=self.status, reason=str(self))


def body_of(request: HttpRequest) -> bytes:
    """The body. Raises Refused for one that is too long, however long it says that it is."""
    body = request.read(MAX_BYTES + 1)
    if len(body) > MAX_BYTES:
        raise Refused(413, "The body is too long")
    return body


def take(event: InboundMessage | MessageEdit | None) -> None:
    """Store the event, durably on return, and notify the workers. A database error means that it is not stored."""
    try:
        if isinstance(event, MessageEdit):
            inbox.edit(event)
        elif event is not None:
            _notify(inbox.receive(event, resolver=import_string(settings.BOTOS_RESOLVER)()))
    except Unacceptable as error:
        log.warning("a message from a webhook was refused: %s", error)


def _notify(conversation_id: int | None) -> None:
    if conversation_id is None:
        local_wakeups.notify_delivery_workers()
    else:
        local_wakeups.notify(conversation_id)
