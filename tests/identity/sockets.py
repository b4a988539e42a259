"""A WebSocket without a server. Channels has one, too, but it cannot be imported without daphne."""

from __future__ import annotations

import json
from typing import Any

from asgiref.testing import ApplicationCommunicator

from botos_project.asgi import application


class Socket(ApplicationCommunicator):
    """One connection to `/live/`, as a browser makes it."""

    def __init__(self, headers: list[tuple[bytes, bytes]]) -> None:
        scope = {"type": "websocket", "path": "/live/", "headers": headers, "query_string": b"", "subprotocols": []}
        super().__init__(application, scope)  # type: ignore[no-untyped-call]

    async def connect(self) -> bool:
        """Whether it was accepted."""
        await self.send_input({"type": "websocket.connect"})  # type: ignore[no-untyped-call]
        return bool((await self.output())["type"] == "websocket.accept")

    async def output(self) -> dict[str, Any]:
        """The next thing that the application does."""
        done: dict[str, Any] = await self.receive_output(5)  # type: ignore[no-untyped-call]
        return done

    async def says_something(self) -> bool:
        return not await self.receive_nothing(0.3)  # type: ignore[no-untyped-call]

    async def say(self, text: str) -> None:
        await self.send_input({"type": "websocket.receive", "text": text})  # type: ignore[no-untyped-call]

    async def receive_json(self) -> dict[str, Any]:
        said: dict[str, Any] = json.loads((await self.output())["text"])
        return said

    async def close(self) -> None:
        await self.send_input({"type": "websocket.disconnect", "code": 1001})  # type: ignore[no-untyped-call]
        await self.wait(5)  # type: ignore[no-untyped-call]
