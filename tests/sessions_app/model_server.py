"""A model server on loopback that speaks OpenAI's chat completions: notes what it is asked, says what it is told.

It is as strict as the strictest servers: its own key and model, no field that it does not know, the system first and
only there, then user and assistant in turn, no blank line, and no more than its context has room for. A response ends
at the bound that the request names, which takes a word for a token.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

from aiohttp import web

Answer = Callable[[dict[str, Any]], Awaitable[web.StreamResponse] | web.StreamResponse]
OK = 200
KEY = "sk-loopback-0123456789"
MODEL = "tiny"
PROMPT_TOKENS, ANSWER_TOKENS = 11, 4  # that each response says it used
TOO_LONG = {
    "message": "This model's maximum context length is exceeded.",
    "type": "invalid_request_error",
    "param": "messages",
    "code": "context_length_exceeded",
}


class ModelServer:
    """`answer` gets the body of a request and gives the response; `asked` are the bodies so far.

    key: the only one that it takes; without it, it takes any. context: characters of all messages that it has room for;
    `too_long` is its response to more. output: the highest bound of a response that it takes. fields: what a request
    may have besides model and messages; `unknown_field` is its response to others.
    """

    def __init__(self, key: str = "") -> None:
        self._key = key
        self.context = 64 * 1024 * 1024
        self.too_long: Answer = lambda body: refuses(400, **TOO_LONG)
        self.output = 100_000
        self.fields = {"stream", "tools", "tool_choice", "max_completion_tokens", "max_tokens"}
        self.unknown_field: Callable[[str], web.Response] = lambda field: refuses(
            400, message=f"Unsupported parameter: '{field}' is not supported.", code="unsupported_parameter"
        )
        self.asked: list[dict[str, Any]] = []
        self.keys: set[str] = set()
        self.answer: Answer = lambda body: says("Hello.")
        self.waiting = asyncio.Event()
        self.base_url = ""

    async def hang(self, body: dict[str, Any]) -> web.Response:
        self.waiting.set()
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        body = cast("dict[str, Any]", await request.json())
        self.asked.append(body)
        self.keys.add(request.headers.get("Authorization", ""))
        if self._key and request.headers.get("Authorization") != f"Bearer {self._key}":
            return refuses(401, message="Incorrect API key provided.", code="invalid_api_key")
        if body["model"] != MODEL:
            return refuses(404, message="The model does not exist.", code="model_not_found")
        if unknown := sorted(body.keys() - self.fields - {"model", "messages"}):
            return self.unknown_field(unknown[0])
        bound = body.get("max_completion_tokens", body.get("max_tokens", self.output))
        if bound > self.output:
            most = f"This model supports at most {self.output} completion tokens"
            return refuses(400, message=f"max_tokens is too large: {bound}. {most}.", param="max_tokens")
        if problem := _problem_with(body["messages"]):
            return refuses(400, message=problem, type="invalid_request_error")
        is_too_long = sum(len(message["content"] or "") for message in body["messages"]) > self.context
        answer = (self.too_long if is_too_long else self.answer)(body)
        return _ended_at(bound, answer if isinstance(answer, web.StreamResponse) else await answer)

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


def _problem_with(messages: list[dict[str, Any]]) -> str:
    """What the chat template of a strict server says to these messages; "" if it takes them."""
    talk = [
        message for message in messages if message["role"] not in {"tool", "system"} and not message.get("tool_calls")
    ]
    if any(message["role"] == "system" for message in messages[1:]):
        return "System message must be at the beginning."
    if any(message["role"] != ("user", "assistant")[place % 2] for place, message in enumerate(talk)):
        return "Conversation roles must alternate user/assistant/user/assistant/..."
    if any(not message["content"].strip() for message in talk):
        return "Message content must not be empty."
    return "" if messages[-1]["role"] in {"user", "tool"} else "The last message must be the user's."


def _ended_at(bound: int, answer: web.StreamResponse) -> web.StreamResponse:
    """The answer, or its beginning if it is a completion of more words than `bound`."""
    if not isinstance(answer, web.Response) or answer.content_type != "application/json" or answer.status != OK:
        return answer
    completion = json.loads(answer.text or "")
    choice = completion["choices"][0] if isinstance(completion, dict) and completion.get("choices") else {}
    words = str(choice.get("message", {}).get("content") or "").split(" ")
    if len(words) <= bound:
        return answer
    choice["message"]["content"], choice["finish_reason"] = " ".join(words[:bound]), "length"
    return web.json_response(completion)


def refuses(status: int, **error: object) -> web.Response:
    """An error as OpenAI words it. The client's own retry comes after a millisecond."""
    return web.json_response({"error": error}, status=status, headers={"retry-after-ms": "1"})


def says(text: str | None, reason: str = "stop", **more: object) -> web.Response:
    """What the model says. more: other fields of the message, such as `refusal` or `reasoning_content`."""
    return _completion({"role": "assistant", "content": text, **more}, reason)


def breaks(body: dict[str, Any]) -> web.Response:
    """A response whose connection ends in the middle of its body."""
    response = _Broken(body=says("Hello.").body, content_type="application/json")
    response.headers["Content-Length"] = "10000"
    return response


class _Broken(web.Response):
    async def write_eof(self, data: bytes = b"") -> None:
        transport = self._req.transport if self._req else None  # super() lets go of the request
        await super().write_eof(data)
        if transport is not None:
            transport.close()


def calls(tool: str, arguments: str = "{}") -> web.Response:
    call = {"id": "call-1", "type": "function", "function": {"name": tool, "arguments": arguments}}
    return _completion({"role": "assistant", "content": None, "tool_calls": [call]}, "tool_calls")


def _completion(message: dict[str, Any], reason: str) -> web.Response:
    choice = {"index": 0, "message": message, "finish_reason": reason}
    usage = {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": ANSWER_TOKENS, "total_tokens": 15}
    about = {"id": "c-1", "object": "chat.completion", "created": 1, "model": f"{MODEL}-2030-05-01"}
    return web.json_response(about | {"choices": [choice], "usage": usage})
