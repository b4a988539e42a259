"""What a web server runs: pages over HTTP, live pages over WebSocket."""

from __future__ import annotations

import os
import warnings
from collections.abc import Awaitable, Callable
from typing import Any

import django
from asgiref.sync import sync_to_async
from channels.routing import ProtocolTypeRouter, URLRouter
from django.conf import settings
from django.core.handlers.asgi import ASGIHandler
from django.db import connections
from django.urls import re_path

from botos_project import mistakes

# whitenoise reads files in blocks, which is fine for files as small as ours.
warnings.filterwarnings("ignore", message="StreamingHttpResponse must consume synchronous iterators")

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "botos_project.settings")
mistakes.explain()
django.setup(set_prefix=False)  # first: it loads the apps, which routes are made of

from botos_project.ingress import Ingress  # noqa: E402
from identity.web.routing import OwnPagesOnly, websocket_urlpatterns  # noqa: E402 - needs the apps

REQUESTS_APART = 20  # pages at once in a process of their own


class Pages(ASGIHandler):
    """Django's handler. It closes the connections of a request, which has a thread of its own, also if it is aborted.

    The bots' thread keeps its connection, so CONN_MAX_AGE cannot say this for SQLite.
    """

    async def handle(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request. Its thread is done with it on return."""
        try:
            await super().handle(scope, receive, send)
        finally:
            await sync_to_async(connections.close_all)()


async def nowhere(scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]) -> None:
    """Refuses quietly. Without it any stranger's made-up path would write a traceback into the log."""
    await receive()
    await send({"type": "websocket.close"})


class Site(ProtocolTypeRouter):  # type: ignore[misc, unused-ignore]
    """Pages and sockets. `requests` and `rest` are as in `Ingress`."""

    def __init__(self, requests: int, rest: float = 0.0) -> None:
        anywhere_else: Any = nowhere
        live = OwnPagesOnly(URLRouter([*websocket_urlpatterns, re_path(r"", anywhere_else)]))
        super().__init__({"http": Ingress(_pages, requests=requests, rest=rest), "websocket": live})

    def bounded(self, requests: int, rest: float) -> Site:
        """The same site with other limits."""
        return Site(requests, rest)


_pages = Pages()
application = Site(settings.BOTOS_WEB_REQUESTS or REQUESTS_APART)
