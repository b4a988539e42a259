from __future__ import annotations

import asyncio
from typing import Any

import pytest
from channels.layers import channel_layers

from botos_project.asgi import application


@pytest.fixture(autouse=True)
def _own_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refusal asks the channel layer, whose locks belong to the event loop of an earlier test."""
    monkeypatch.setattr(channel_layers, "backends", {})


async def answers_to_websocket(path: str, *, origin: str) -> list[str]:
    """What the application says to a browser that wants a live page."""
    said: list[str] = []
    events = iter(["websocket.connect", "websocket.disconnect"])

    async def receive() -> Any:
        await asyncio.sleep(0.05)  # a browser is not as fast as this loop; it leaves when it was told to
        return {"type": next(events), "code": 1006}

    async def send(message: Any) -> None:
        said.append(message["type"])

    headers = [(b"origin", origin.encode()), (b"host", b"localhost")]
    scope: Any = {"type": "websocket", "path": path, "headers": headers, "subprotocols": []}
    await application(scope, receive, send)
    return said


@pytest.mark.django_db(transaction=True)  # channels looks after connections
@pytest.mark.asyncio
@pytest.mark.parametrize("origin", ["http://localhost", "http://mallory.example", "http://[", "http://localhost:x"])
async def test_it_refuses_a_live_page_that_does_not_exist_without_an_error(origin: str) -> None:
    assert await answers_to_websocket("/nowhere/", origin=origin) == ["websocket.close"]
