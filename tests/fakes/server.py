"""What the three fakes have in common, as tests see them."""

from __future__ import annotations

from typing import Any, Protocol

from adapters.playground.server import PlatformServer
from tests.fakes.faults import FaultPlan


class FakeServer(PlatformServer, Protocol):
    """A local platform server that also fails, repeats and sends nonsense when a test asks for it."""

    faults: FaultPlan

    async def redeliver(self, message_id: str) -> None:
        """Tell the bot of a message once more, as the platform does when in doubt."""

    async def push_raw(self, event: Any) -> None:
        """Send the bot any JSON value in place of an event, however malformed."""

    async def acknowledged(self, message_id: str, timeout: float = 10.0) -> None:
        """Wait until the bot told the platform that it received a message. (On Discord: until it was told of it.)"""

    async def drop_connections(self) -> None:
        """Cut every open connection, as a network does."""
