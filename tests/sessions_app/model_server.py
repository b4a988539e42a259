"""A model server on loopback that speaks OpenAI's chat completions: notes what it is asked, says what it is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

from aiohttp import web

Answer = Callable[[dict[str, Any]], Awaitable[web.Response] | web.Response]
KEY = "sk-loopback-0123456789"


class ModelServer:
    """`answer` gets the body of a request and gives the response; `asked` are the bodies so far."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.keys: set[str] = set()
        self.answer: Answer = lambda body: says("Hello.")
        self.waiting = asyncio.Event()
        self.base_url = ""

    async def hang(self, body: dict[str, Any]) -> web.Response:
        self.waiting.set()
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    async def _completions(self, request: web.Request) -> web.Response:
        body = cast("dict[str, Any]", await request.json())
        self.asked.append(body)
        self.keys.add(request.headers.get("Authorization", ""))
        answer = self.answer(body)
        return answer if isinstance(answer, web.Response) else await answer

    @asynccontextmanager
    async def running(self) -> AsyncIterator[ModelServer]:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_post("/v1/chat/completions", self._completions)
        runner = web.AppRunner(app, shutdown_timeout=0.01)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.base_url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        try:
            yield self
        finally:
            await runner.cleanup()


def says(text: str | None) -> web.Response:
    return _completion({"role": "assistant", "content": text}, "stop")


def calls(tool: str, arguments: str = "{}") -> web.Response:
    call = {"id": "call-1", "type": "function", "function": {"name": tool, "arguments": arguments}}
    return _completion({"role": "assistant", "content": None, "tool_calls": [call]}, "tool_calls")


def _completion(message: dict[str, Any], reason: str) -> web.Response:
    choice = {"index": 0, "message": message, "finish_reason": reason}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    return web.json_response(
        {"id": "c-1", "object": "chat.completion", "created": 1, "model": "tiny", "choices": [choice], "usage": usage}
    )
