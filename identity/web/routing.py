"""The sockets of pages: their addresses, and the origins that may open them."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from channels.security.websocket import OriginValidator, WebsocketDenier
from channels.sessions import SessionMiddlewareStack
from django.conf import settings
from django.core.exceptions import DisallowedHost
from django.http import HttpRequest
from django.urls import path

from identity.web.consumers import LiveConsumer

consumer: Any = SessionMiddlewareStack(LiveConsumer.as_asgi())  # Django's types know views alone
websocket_urlpatterns: list[Any] = [path("live/", consumer)]


class OwnPagesOnly:
    """Lets only pages of this site open the sockets of `application`: browsers do not stop pages of other sites.

    A page is of this site if scheme, host and port of its origin are those of the request or of BOTOS_PUBLIC_URL.
    """

    def __init__(self, application: Any) -> None:
        self._application = application

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        validator = OriginValidator(self._application, _own_origins(scope, headers))
        try:
            is_own = validator.valid_origin(urlsplit(headers.get(b"origin", "")))
        except ValueError:  # a port that is no number, or an address that is none
            is_own = False
        await (self._application if is_own else WebsocketDenier())(scope, receive, send)


def _own_origins(scope: Mapping[str, Any], headers: Mapping[bytes, str]) -> list[str]:
    scheme = "https" if settings.BOTOS_HTTPS or scope.get("scheme") == "wss" else "http"
    request = HttpRequest()
    request.META = {"HTTP_HOST": headers.get(b"host", "")}
    origins = [settings.BOTOS_PUBLIC_URL] if settings.BOTOS_PUBLIC_URL else []
    with contextlib.suppress(DisallowedHost):
        origins.append(f"{scheme}://{request.get_host()}")
    return origins
