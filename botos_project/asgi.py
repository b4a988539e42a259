"""What a web server runs: pages over HTTP, live pages over WebSocket."""

from __future__ import annotations

import os
import warnings
from collections.abc import Awaitable, Callable
from typing import Any

from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator
from django.core.asgi import get_asgi_application
from django.urls import re_path

from botos_project import mistakes

# whitenoise reads files in blocks, which is fine for files as small as ours.
warnings.filterwarnings("ignore", message="StreamingHttpResponse must consume synchronous iterators")

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "botos_project.settings")
mistakes.explain()
pages = get_asgi_application()  # first: it loads the apps, which routes are made of

from identity.routing import websocket_urlpatterns  # noqa: E402 - needs the apps


async def nowhere(scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]) -> None:
    """Refuses quietly. Without it any stranger's made-up path would write a traceback into the log."""
    await receive()
    await send({"type": "websocket.close"})


anywhere_else: Any = nowhere
application = ProtocolTypeRouter(
    {
        "http": pages,
        "websocket": AllowedHostsOriginValidator(URLRouter([*websocket_urlpatterns, re_path(r"", anywhere_else)])),
    }
)
