"""The pages, in the same process and event loop as the bots."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import uvicorn
from channels.routing import get_default_application
from django.conf import settings

from adapters.runtime.http_connections import BACKLOG, Connection

# So that the bots in the same process go on: pages at once, and in a flood the rest after each, in times of its length
REQUESTS = 8
REST = 3.0


class WebServer:
    """Serves the ASGI application on one address. Takes the port at construction: OSError if it is not free."""

    def __init__(self, host: str, port: int) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server((host, port), family=family)
        site: Any = get_default_application()
        # Access logs would name people's pages; errors are logged by Django.
        config = uvicorn.Config(
            site.bounded(settings.BOTOS_WEB_REQUESTS or REQUESTS, REST),
            http=Connection,
            backlog=BACKLOG,
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=5,
            proxy_headers=False,  # uvicorn would believe all of loopback about addresses (see BOTOS_TRUSTED_PROXIES)
            ws_max_size=64 * 1024,
        )
        self._server = _Server(config)

    @property
    def port(self) -> int:
        """The actual port, also if 0 was asked for."""
        port: int = self._socket.getsockname()[1]
        return port

    async def run(self) -> None:
        """Serve until `stop`."""
        await self._server.serve(sockets=[self._socket])

    def stop(self) -> None:
        """Answer the running requests, then make `run` return."""
        self._server.should_exit = True


class _Server(uvicorn.Server):
    """Handles no signals: the process does, as it stops the bots first."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
