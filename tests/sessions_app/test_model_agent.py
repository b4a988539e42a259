from __future__ import annotations

import asyncio
import logging
import math
import re
import socket
import threading
import traceback
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import pytest_asyncio
from aiohttp import web
from pydantic_ai import ModelRetry, RunContext, Tool, ToolFailed
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.models.test import TestModel
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.settings import ModelSettings

from sessions_app import texts
from sessions_app.agents.base import (
    AgentError,
    AgentFailure,
    AgentMisconfigured,
    AgentTimeout,
    EmptyReply,
    PermanentFailure,
    ask,
    reply_to,
)
from sessions_app.agents.loop import Call
from sessions_app.agents.model import MAX_REQUESTS, OPENAI_URL, OPENING, RETRIES, Endpoint, ModelAgent, build_model
from sessions_app.context import get_session_context
from sessions_app.history import size
from sessions_app.messages import Line, Reply, Turn
from tests.sessions_app.agent_samples import ALICE, BOB, a_turn, assistant, mirror, user
from tests.sessions_app.model_server import (
    ANSWER_TOKENS,
    KEY,
    PROMPT_TOKENS,
    TOO_LONG,
    Answer,
    ModelServer,
    breaks,
    calls,
    refuses,
    says,
)


@pytest_asyncio.fixture
async def server() -> AsyncIterator[ModelServer]:
    async with ModelServer(key=KEY).running() as running:
        yield running
        # Turns that nobody waits for any more close their connections while there is a loop.
        turn = Call._run.__qualname__
        left_behind = [task for task in asyncio.all_tasks() if turn in str(task.get_coro())]
        await asyncio.gather(*left_behind, return_exceptions=True)


def agent_of(
    server: ModelServer, *tools: Callable[..., Any], instructions: str = "", max_tokens: int = 4096
) -> ModelAgent:
    endpoint = Endpoint(KEY, server.base_url)
    about: dict[str, Any] = {"instructions": instructions, "tools": tools, "max_tokens": max_tokens}
    return ModelAgent(lambda: build_model("openai:tiny", endpoint), **about)


def calling(tool: str, arguments: str = "{}") -> Callable[[dict[str, Any]], web.Response]:
    """A model that calls the tool first and then says what came back."""

    def answer(body: dict[str, Any]) -> web.Response:
        last = body["messages"][-1]
        return says(f"It said: {last['content']}") if last["role"] == "tool" else calls(tool, arguments)

    return answer


def said(server: ModelServer) -> list[tuple[str, str]]:
    return [(message["role"], message["content"]) for message in server.asked[-1]["messages"]]


@pytest.mark.asyncio
async def test_it_sends_instructions_history_and_prompt(server: ModelServer) -> None:
    server.answer = lambda body: says("Octarine.")
    turn = a_turn("What's my favourite colour?", user("My favourite colour is octarine."), assistant("Got it!"))

    assert await ask(agent_of(server, instructions="Be helpful."), turn, limit=10) == "Octarine."

    assert said(server) == [
        ("system", "Be helpful."),
        ("user", "My favourite colour is octarine."),
        ("assistant", "Got it!"),
        ("user", "What's my favourite colour?"),
    ]
    assert server.asked[-1]["model"] == "tiny"
    assert server.keys == {f"Bearer {KEY}"}


@pytest.mark.asyncio
async def test_it_begins_with_the_user_and_alternates(server: ModelServer) -> None:
    turn = a_turn("Yes?", mirror("Standup."), assistant("Hello!"), user("Hi"), user("You there?"))

    await ask(agent_of(server), turn, limit=10)

    assert said(server) == [
        ("user", OPENING),
        ("assistant", "[sent to the person by cron] Standup.\n\nHello!"),
        ("user", "Hi\n\nYou there?\n\nYes?"),
    ]


@pytest.mark.asyncio
async def test_it_keeps_nothing_from_one_turn_to_the_next(server: ModelServer) -> None:
    agent = agent_of(server)
    await ask(agent, a_turn("secret of Alice"), limit=10)
    await ask(agent, a_turn("Hi", context=BOB), limit=10)

    assert said(server) == [("user", "Hi")]


@pytest.mark.asyncio
async def test_it_keeps_overlapping_turns_apart(server: ModelServer) -> None:
    server.answer = lambda body: says(" | ".join(message["content"] for message in body["messages"]))
    agent = agent_of(server)
    turns = [a_turn(f"prompt of {n}", user(f"secret of {n}"), assistant("ok")) for n in range(30)]

    answers = await asyncio.gather(*(ask(agent, turn, limit=30) for turn in turns))

    assert answers == [f"secret of {n} | ok | prompt of {n}" for n in range(30)]


def whoami() -> str:
    """Say who is asking."""
    return f"{get_session_context().user_name} in {threading.current_thread().name}"


async def whoami_async() -> str:
    """Say who is asking."""
    await asyncio.sleep(0)
    return f"{get_session_context().user_name} in {threading.current_thread().name}"


@pytest.mark.asyncio
@pytest.mark.parametrize("tool", [whoami, whoami_async])
@pytest.mark.parametrize("context", [ALICE, BOB])
async def test_it_lets_tools_see_who_is_asking(server: ModelServer, tool: Callable[..., Any], context: Any) -> None:
    server.answer = calling(tool.__name__)

    answer = await ask(agent_of(server, tool), a_turn("Who am I?", context=context), limit=10)

    thread = "agent-whoami" if tool is whoami else "MainThread"
    assert answer == f"It said: {context.user_name} in {thread}"
    assert server.asked[0]["tools"][0]["function"]["description"] == "Say who is asking."


Unit = Literal["c", "f"]


@pytest.mark.asyncio
async def test_it_shows_the_model_the_parameters_of_a_sync_tool(server: ModelServer) -> None:
    def weather(city: str, unit: Unit = "c") -> str:
        """Tell the weather.

        Args:
            city: where to look
            unit: degrees
        """
        return f"{city}: 20 {unit}"

    server.answer = calling("weather", '{"city": "Paris", "unit": "f"}')

    assert await ask(agent_of(server, weather), a_turn("Weather?"), limit=10) == "It said: Paris: 20 f"

    parameters = server.asked[0]["tools"][0]["function"]["parameters"]
    assert parameters["properties"]["city"] == {"description": "where to look", "type": "string"}
    assert parameters["properties"]["unit"]["enum"] == ["c", "f"]
    assert parameters["required"] == ["city"]


@pytest.mark.asyncio
async def test_it_hands_the_turn_to_a_tool_that_asks_for_it(server: ModelServer) -> None:
    def book(ctx: RunContext[Turn]) -> str:
        return f"booked once as {ctx.deps.key}"

    server.answer = calling("book")

    assert await ask(agent_of(server, book), a_turn("Book it"), limit=10) == "It said: booked once as turn-1"


def broken() -> str:
    """Look it up."""
    raise ZeroDivisionError("secret words")


async def broken_async() -> str:
    """Look it up."""
    await asyncio.sleep(0)
    raise ZeroDivisionError("secret words")


@pytest.mark.asyncio
@pytest.mark.parametrize("tool", [broken, broken_async, Tool(broken, name="broken")])
async def test_it_tells_the_model_that_a_tool_failed_and_goes_on(
    server: ModelServer, tool: Any, caplog: pytest.LogCaptureFixture
) -> None:
    name = getattr(tool, "name", "") or tool.__name__
    server.answer = calling(name)

    answer = await ask(agent_of(server, tool), a_turn("Hi"), limit=10)

    assert f"The tool {name} failed (ZeroDivisionError)." in answer
    assert len(server.asked) == 2
    assert f"tool {name} failed: ZeroDivisionError" in caplog.text
    assert "secret words" not in caplog.text + str(server.asked)


@pytest.mark.asyncio
@pytest.mark.parametrize("error", [ToolFailed("no such city"), ModelRetry("no such city")])
async def test_it_passes_on_what_a_tool_says_to_the_model(server: ModelServer, error: Exception) -> None:
    def weather() -> str:
        raise error

    server.answer = calling("weather")

    assert "no such city" in await ask(agent_of(server, weather), a_turn("Weather?"), limit=10)


@pytest.mark.asyncio
async def test_it_stops_waiting_for_a_tool_that_hangs(server: ModelServer) -> None:
    release = threading.Event()

    def hang() -> str:
        release.wait(20)
        return "late"

    server.answer = calling("hang")
    try:
        with pytest.raises(AgentTimeout):
            await ask(agent_of(server, hang), a_turn("Hi"), limit=0.5)
        assert not release.is_set()
    finally:
        release.set()


@pytest.mark.asyncio
async def test_it_stops_a_model_that_calls_tools_for_ever(server: ModelServer) -> None:
    server.answer = lambda body: calls("whoami")

    with pytest.raises(AgentFailure, match="UsageLimitExceeded"):
        await ask(agent_of(server, whoami), a_turn("Hi"), limit=30)

    assert len(server.asked) == MAX_REQUESTS


@pytest.mark.asyncio
async def test_it_says_what_all_requests_of_a_turn_used(server: ModelServer) -> None:
    server.answer = calling("whoami")

    reply = await reply_to(agent_of(server, whoami), a_turn("Hi"), limit=10)

    assert (reply.model, reply.input_tokens, reply.output_tokens) == (
        "tiny-2030-05-01",
        2 * PROMPT_TOKENS,
        2 * ANSWER_TOKENS,
    )


@pytest.mark.asyncio
async def test_it_does_not_guess_what_a_server_does_not_say(server: ModelServer) -> None:
    message = {"role": "assistant", "content": "Hello."}
    completion = {"id": "1", "object": "chat.completion", "created": 1, "model": "", "choices": [{"index": 0}]}
    completion["choices"] = [{"index": 0, "message": message, "finish_reason": "stop"}]
    server.answer = lambda body: web.json_response(completion)

    reply = await reply_to(agent_of(server), a_turn("Hi"), limit=10)

    assert reply == Reply("Hello.", "tiny", None, None)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("answer", "requests"),
    [
        (lambda body: calls("whoami"), MAX_REQUESTS),
        (lambda body: says("Half an ans", "content_filter"), 1),
        (lambda body: says("<think>secret", "length"), 1),
        (lambda body: says("<think>secret"), 1),
    ],
)
async def test_it_says_what_a_turn_without_an_answer_used(
    server: ModelServer, answer: Answer, requests: int, caplog: pytest.LogCaptureFixture
) -> None:
    server.answer = answer

    with pytest.raises(AgentError) as caught:
        await ask(agent_of(server, whoami), a_turn("Hi"), limit=30)

    assert caught.value.used == Reply("", "tiny-2030-05-01", requests * PROMPT_TOKENS, requests * ANSWER_TOKENS)
    used = f"used {requests * PROMPT_TOKENS} input and {requests * ANSWER_TOKENS} output tokens"
    assert f"turn-1: tiny-2030-05-01 gave no answer but {used}" in caplog.text


def in_a_conversation(text: str) -> Turn:
    """A turn of a conversation with a history. It is in no database."""
    return replace(a_turn(text), conversation_id=1)


def tools_of(body: dict[str, Any]) -> list[str]:
    return [tool["function"]["name"] for tool in body.get("tools", [])]


@pytest.mark.asyncio
async def test_it_offers_the_search_where_there_is_a_history(server: ModelServer) -> None:
    agent = agent_of(server, whoami)

    await ask(agent, a_turn("Hi"), limit=10)
    await ask(agent, in_a_conversation("Hi"), limit=10)

    assert [tools_of(body) for body in server.asked] == [["whoami"], ["whoami", "search_history"]]
    parameters = server.asked[1]["tools"][1]["function"]["parameters"]
    assert (list(parameters["properties"]), parameters["required"]) == (["words"], ["words"])


@pytest.mark.asyncio
async def test_a_tool_of_that_name_takes_the_place_of_the_search(server: ModelServer) -> None:
    async def search_history() -> str:
        return "mine"

    server.answer = calling("search_history")

    agent = agent_of(server, search_history)
    assert await ask(agent, in_a_conversation("Hi"), limit=10) == "It said: mine"


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("status", "message"),
    [
        (400, "registry.ollama.ai/library/tiny does not support tools"),  # Ollama
        (400, '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'),  # vLLM
        (500, "tools param requires --jinja flag"),  # llama.cpp
        (404, "No endpoints found that support tool use."),  # OpenRouter
    ],
)
async def test_it_answers_without_the_search_where_the_server_takes_no_tools(
    server: ModelServer, status: int, message: str
) -> None:
    server.fields -= {"tools", "tool_choice"}
    server.unknown_field = lambda field: refuses(status, message=message)
    agent = agent_of(server)

    for _ in range(2):
        assert await ask(agent, in_a_conversation("Hi"), limit=10) == "Hello."

    assert [tools_of(body) for body in server.asked][-2:] == [[], []]
    assert len(server.asked) == (4 if status == 500 else 3)  # the client itself asks again after a 500


@pytest.mark.asyncio
async def test_it_goes_on_without_the_search_if_a_call_of_it_cannot_be_read(server: ModelServer) -> None:
    failed = {"message": "Failed to call a function. Please adjust your prompt.", "code": "tool_use_failed"}  # Groq
    server.answer = lambda body: refuses(400, **failed) if body.get("tools") else says("Hello.")
    agent = agent_of(server)
    assert await ask(agent, in_a_conversation("Hi"), limit=10) == "Hello."
    server.answer = lambda body: says("Hello.")

    await ask(agent, in_a_conversation("Hi"), limit=10)

    assert [tools_of(body) for body in server.asked] == [["search_history"], [], ["search_history"]]


def pages(count: int) -> list[Line]:
    """A history of so many lines of a thousand characters, each with its number."""
    return [(assistant if number % 2 else user)(f"{number:4} " + "x" * 995) for number in range(count)]


@pytest.mark.asyncio
async def test_it_asks_again_with_the_newest_half_of_a_history_that_is_too_long(server: ModelServer) -> None:
    server.context = 16_000
    turn = a_turn("Are you there?", *pages(50))

    assert await ask(agent_of(server, instructions="Be helpful."), turn, limit=10) == "Hello."

    contents = [content for _, content in said(server)]
    assert len(server.asked) == 3  # 50, 25 and 12 lines
    assert [content[:4].strip() for content in contents[1:-1]] == [str(number) for number in range(38, 50)]
    assert (contents[0], contents[-1]) == ("Be helpful.", "Are you there?")


@pytest.mark.asyncio
async def test_it_needs_few_requests_until_only_the_question_is_left(server: ModelServer) -> None:
    server.context = 100

    assert await ask(agent_of(server), a_turn("Are you there?", *pages(1000)), limit=10) == "Hello."

    assert said(server) == [("user", "Are you there?")]
    assert len(server.asked) <= 2 + math.log2(1000)


@pytest.mark.asyncio
async def test_it_leaves_out_one_huge_line_at_once(server: ModelServer) -> None:
    server.context = 5_000
    turn = a_turn("Are you there?", *pages(4), user("x" * 90_000), assistant("That was long."))

    assert await ask(agent_of(server), turn, limit=10) == "Hello."

    assert said(server) == [("user", OPENING), ("assistant", "That was long."), ("user", "Are you there?")]
    assert len(server.asked) == 2


@pytest.mark.asyncio
async def test_it_shortens_a_prompt_that_lines_without_an_answer_have_joined(server: ModelServer) -> None:
    server.context = 3_000
    turn = a_turn("Are you there?", *(user(f"{number} " + "x" * 990) for number in range(8)))

    assert await ask(agent_of(server), turn, limit=10) == "Hello."

    assert [content[:2] for _, content in said(server)] == ["6 "]
    assert said(server)[0][1].endswith("\n\nAre you there?")


@pytest.mark.asyncio
async def test_it_says_that_a_question_alone_is_too_long_and_names_new(server: ModelServer) -> None:
    server.context = 1_000
    question = "lorem " * 1_000

    with pytest.raises(PermanentFailure) as caught:
        await ask(agent_of(server), a_turn(question, *pages(4)), limit=10)

    assert caught.value.words == texts.TOO_LONG
    assert "/new" in str(texts.TOO_LONG)
    assert len(server.asked) == 4
    assert "lorem lorem" not in everything(caught.value)


@pytest.mark.asyncio
async def test_it_calls_no_tool_again_when_the_answer_of_a_tool_makes_it_too_long(server: ModelServer) -> None:
    called = 0

    def report() -> str:
        nonlocal called
        called += 1
        return "r" * 3_000

    server.context = 6_000
    server.answer = calling("report")

    answer = await ask(agent_of(server, report), a_turn("Report!", *pages(4)), limit=10)

    assert (answer, called) == ("It said: " + "r" * 3_000, 1)
    assert [role for role, _ in said(server)] == ["user", "assistant", "user", "assistant", "tool"]
    assert len(server.asked) == 3


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("status", "message"),
    [
        (400, "the request exceeds the available context size, try increasing it"),  # llama.cpp
        (400, "Trying to keep the first 9000 tokens when context the overflows."),  # LM Studio
        (400, "prompt is too long: 210000 tokens > 200000 maximum"),  # Anthropic
        (422, "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096"),  # TGI
        (400, "The input token count (9000) exceeds the maximum number of tokens allowed (4096)."),  # Gemini
        (413, "Request body too large for tiny model. Max size: 8000 tokens."),  # GitHub
        (413, "<html>413 Request Entity Too Large</html>"),  # a proxy
        (429, "Request too large for tiny on tokens per min (TPM): Limit 6000, Requested 9000."),  # Groq, OpenAI
        (400, "This model's maximum prompt length is 4096 but the request contains 9000 tokens."),  # xAI
        (400, "Range of input length should be [1, 30720]"),  # Qwen
        (400, "Invalid request: Your request exceeded model token limit: 8192"),  # Moonshot
        (400, "Please reduce the length of the messages or completion."),  # Groq, Cerebras
    ],
)
async def test_it_knows_how_servers_word_that_it_is_too_long(server: ModelServer, status: int, message: str) -> None:
    server.context = 1_000
    server.too_long = lambda body: refuses(status, message=message)

    assert await ask(agent_of(server), a_turn("Are you there?", *pages(2)), limit=10) == "Hello."


def bounds(server: ModelServer) -> list[tuple[int | None, int | None]]:
    """The bound of each request, by its new and by its old name."""
    return [(body.get("max_completion_tokens"), body.get("max_tokens")) for body in server.asked]


@pytest.mark.asyncio
async def test_every_request_bounds_its_response(server: ModelServer) -> None:
    server.answer = lambda body: says("one two three") if len(server.asked) > 1 else calls("whoami")

    answer = await ask(agent_of(server, whoami, max_tokens=2), a_turn("Count!"), limit=10)

    assert answer == f"one two\n\n{texts.CUT_OFF}"
    assert bounds(server) == [(2, None), (2, None)]


@pytest.mark.asyncio
async def test_it_sends_no_bound_if_there_is_none(server: ModelServer) -> None:
    await ask(agent_of(server, max_tokens=0), a_turn("Hi"), limit=10)

    assert bounds(server) == [(None, None)]


@pytest.mark.asyncio
@pytest.mark.parametrize(("own", "sent"), [(100, 100), (9000, 4096)])
async def test_the_smaller_bound_wins(server: ModelServer, own: int, sent: int) -> None:
    provider = OpenAIProvider(base_url=server.base_url, api_key=KEY)
    model = OpenAIChatModel("tiny", provider=provider, settings=ModelSettings(max_tokens=own))

    await ask(ModelAgent(lambda: model, max_tokens=4096), a_turn("Hi"), limit=10)

    assert bounds(server) == [(sent, None)]


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("status", "message"),
    [
        (400, "Unsupported parameter: '{}' is not supported with this model."),  # OpenAI
        (400, "Unrecognized request argument supplied: {}"),  # Azure
        (400, "property '{}' is unsupported"),  # Groq
        (422, '[{{"type":"extra_forbidden","loc":["body","{}"],"msg":"Extra inputs are not permitted"}}]'),  # Mistral
        (400, 'json: unknown field "{}"'),
    ],
)
@pytest.mark.parametrize("known", ["max_tokens", None])
async def test_it_finds_out_how_a_server_takes_the_bound(
    server: ModelServer, known: str | None, status: int, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    server.fields -= {"max_completion_tokens", "max_tokens"} - {known}
    server.unknown_field = lambda field: refuses(status, message=message.format(field))
    agent = agent_of(server)

    for _ in range(2):
        assert await ask(agent, a_turn("Hi"), limit=10) == "Hello."

    found = (None, 4096) if known else (None, None)
    assert bounds(server) == [(4096, None), *([] if known else [(None, 4096)]), found, found]
    assert caplog.text.count("from now on requests to tiny are changed") == 1


@pytest.mark.asyncio
async def test_it_takes_no_mention_of_the_bound_for_a_rule_of_the_server(server: ModelServer) -> None:
    server.answer = lambda body: refuses(400, message="max_completion_tokens is not supported", code="content_filter")
    agent = agent_of(server)
    with pytest.raises(PermanentFailure):
        await ask(agent, a_turn("Hi"), limit=10)
    server.answer = lambda body: says("Hello.")
    server.asked.clear()

    await ask(agent, a_turn("Hi"), limit=10)

    assert bounds(server) == [(4096, None)]


@pytest.mark.asyncio
async def test_it_lowers_a_bound_that_is_too_high_for_the_model(server: ModelServer) -> None:
    server.output = 1500

    assert await ask(agent_of(server), a_turn("Hi"), limit=10) == "Hello."

    assert bounds(server) == [(4096, None), (2048, None), (1024, None)]


@pytest.mark.asyncio
async def test_it_lowers_the_bound_before_it_forgets(server: ModelServer) -> None:
    """Servers that reserve the room of the response: here a word is four characters."""
    room = 16_000

    def reserves(body: dict[str, Any]) -> web.Response:
        asked = sum(len(message["content"]) for message in body["messages"]) + 4 * body["max_completion_tokens"]
        wanted = f"However, you requested {asked // 4} tokens (500 in the messages, 4096 in the completion)."
        return refuses(400, **TOO_LONG | {"message": wanted}) if asked > room else says("Hello.")

    server.answer = reserves

    assert await ask(agent_of(server), a_turn("Hi", *pages(4)), limit=10) == "Hello."
    assert (len(said(server)), bounds(server)[-1]) == (5, (2048, None))

    assert await ask(agent_of(server), a_turn("Hi", *pages(40)), limit=10) == "Hello."
    assert (len(said(server)), bounds(server)[-1]) == (11, (512, None))


DOCUMENT = Path(__file__).parents[2] / "docs" / "reference" / "model.md"
QUESTION = "My PIN is 1234."


def filtered(body: dict[str, Any]) -> web.Response:
    return refuses(400, message=f"Your prompt was flagged as violating our usage policy: {QUESTION}")


def fails_at_a_tool(body: dict[str, Any]) -> web.Response:
    told = body["messages"][-1]
    return says("Sorry, that did not work.") if "failed" in str(told["content"]) else calls("broken")


def searches(body: dict[str, Any]) -> web.Response:
    told = body["messages"][-1]
    if told["role"] != "tool":
        return calls("search_history", '{"words": "colour"}')
    return says("It is octarine." if "octarine" in told["content"] else "I don't know.")


BEHAVIOURS: dict[str, list[Answer]] = {
    "answers": [lambda body: says("Hello.")],
    "writes its reasoning into its answer, in the marks of any known model, also half of them": [
        lambda body: says("<think>secret</think>Hello."),
        lambda body: says("secret</think>Hello."),
        lambda body: says("<thought>secret</thought>Hello."),
        lambda body: says("Hello.", reasoning_content="secret"),
        lambda body: says("Hello.", reasoning="secret"),
    ],
    "writes about such marks, in code or quotes": [lambda body: says("Qwen writes `<think>`.")],
    "writes only reasoning": [
        lambda body: says("<think>secret, never closed"),
        lambda body: says("<think>secret</think>"),
    ],
    "ends its answer with `finish_reason` `length`": [lambda body: says("Hel", "length")],
    "reaches that limit before it says anything": [
        lambda body: says(None, "length"),
        lambda body: says("", "length"),
        lambda body: says("<think>secret", "length"),
    ],
    "declines in the field `refusal`": [lambda body: says(None, refusal="I can't help with that request.")],
    "ends with `finish_reason` `content_filter`, also after half an answer": [
        lambda body: says(None, "content_filter"),
        lambda body: says("Half an ans", "content_filter"),
    ],
    "HTTP 400 for the content": [
        filtered,
        lambda body: refuses(400, message="The response was filtered.", code="content_filter"),
        lambda body: refuses(403, message="Content violates usage guidelines. Failed check: SAFETY_CHECK_TYPE_BIO"),
    ],
    "HTTP 400 or 422 for another reason": [
        lambda body: refuses(400, message=f"Cannot read {QUESTION}"),
        lambda body: refuses(422, message="Unprocessable"),
    ],
    "HTTP 401 or 403: the key": [
        lambda body: refuses(401, message=f"Wrong key {KEY}", code=KEY),
        lambda body: refuses(403, message="Not allowed", type=KEY),
    ],
    "HTTP 404: an unknown model": [lambda body: refuses(404, message="No such model", code="model_not_found")],
    "HTTP 402: no credit": [lambda body: refuses(402, message="Insufficient balance")],
    "has a history longer than `BOTOS_WINDOW_TOKENS`": [lambda body: says("Hello.")],
    "has no room for 50 lines of history": [lambda body: says("Hello.")],
    "has no room for the message alone": [lambda body: refuses(400, **TOO_LONG)],
    "HTTP 429 or 5xx": [lambda body: refuses(429, message=QUESTION), lambda body: refuses(503, message=QUESTION)],
    "closes the connection in the middle of its answer": [breaks],
    "answers something that is no completion": [lambda body: web.Response(text=f"<html>{QUESTION}</html>")],
    "knows the bound of its responses under no name": [lambda body: says("Hello.")],
    "calls `search_history`": [searches],
    "calls a tool, and the tool fails": [fails_at_a_tool],
    "calls tools without end": [lambda body: calls("whoami")],
}


# By row, what the server of the others does not have.
SERVERS: dict[str, dict[str, Any]] = {
    "has a history longer than `BOTOS_WINDOW_TOKENS`": {"context": 48_500},  # 50 lines are longer
    "has no room for 50 lines of history": {"context": 10},
    "knows the bound of its responses under no name": {"fields": {"stream", "tools", "tool_choice"}},
}
# What would make later turns fail too. Words of the model itself are an answer.
REFUSED = {"ends with `finish_reason` `content_filter`, also after half an answer", "HTTP 400 for the content"}


def documented() -> dict[str, tuple[str, str, str, str]]:
    """What each row says: the text, the requests, whether the turn is repeated, the seconds."""
    rows = [line.strip("|").split(" |") for line in DOCUMENT.read_text().splitlines() if line.startswith("| ")][2:]
    return {row[0].strip(): (row[1].strip(), row[2].strip(), row[3].strip(), row[4].strip()) for row in rows}


def test_it_documents_what_it_shows() -> None:
    assert list(documented()) == list(BEHAVIOURS)
    assert all(re.fullmatch(r"\d+\.\d s", seconds) for *_, seconds in documented().values())


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("row", "answer"),
    [(row, answer) for row, answers in BEHAVIOURS.items() for answer in answers if answer != searches],
)
async def test_it_shows_people_what_the_document_says(
    server: ModelServer, row: str, answer: Answer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    server.answer = answer
    vars(server).update(SERVERS.get(row, {}))
    question, history = ("Hi", pages(50)) if "room for" in row or "longer than" in row else (QUESTION, [])
    if "longer than" in row:
        history = list(size.newest_that_fit(history, question))
    repeated = raised = ""
    is_refused = False
    try:
        text = await ask(agent_of(server, broken, whoami), a_turn(question, *history), limit=30)
    except AgentError as error:
        text, repeated = str(error.words or texts.TRYING_AGAIN), "no" if error.words else "yes"
        raised, is_refused = everything(error), getattr(error, "is_refused", False)

    said, requests, again, _ = documented()[row]
    ticks = "``" if "`" in text else "`"
    assert said.startswith(f"{ticks}{' '.join(text.split())}{ticks}")
    assert len(server.asked) == int(requests.removeprefix("at most ").partition(",")[0])
    assert repeated == again
    assert is_refused == (row in REFUSED)
    assert QUESTION not in caplog.text + raised
    assert KEY not in caplog.text + raised


def everything(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


@pytest.mark.asyncio
@pytest.mark.parametrize("status", [400, 401, 404, 429, 500])
async def test_it_tells_the_status_and_neither_key_nor_prompt(server: ModelServer, status: int) -> None:
    prompt = "My PIN is one two three four.".upper()
    echo = {"error": {"message": f"wrong key {KEY} for: {prompt}", "type": KEY, "code": KEY}}
    server.answer = lambda body: web.json_response(echo, status=status, headers={"retry-after-ms": "1"})

    with pytest.raises(AgentFailure, match=f"HTTP {status} from tiny") as caught:
        await ask(agent_of(server), a_turn(prompt), limit=10)

    assert KEY not in everything(caught.value)
    assert prompt not in everything(caught.value)


@pytest.mark.asyncio
async def test_it_tries_a_request_again_but_not_for_ever(server: ModelServer) -> None:
    server.answer = lambda body: web.Response(status=500, headers={"retry-after-ms": "1"})

    with pytest.raises(AgentFailure):
        await ask(agent_of(server), a_turn("Hi"), limit=30)

    assert len(server.asked) == 1 + RETRIES


@pytest.mark.asyncio
@pytest.mark.parametrize("page", ["<html>oops</html>", "{}", "[]", '{"choices": []}'])
async def test_it_fails_on_nonsense(server: ModelServer, page: str) -> None:
    server.answer = lambda body: web.Response(text=page, content_type="application/json")

    with pytest.raises(AgentFailure):
        await ask(agent_of(server), a_turn("Hi"), limit=10)


@pytest.mark.asyncio
@pytest.mark.parametrize("text", ["", "  ", None])
async def test_it_has_an_error_for_a_model_that_says_nothing(server: ModelServer, text: str | None) -> None:
    server.answer = lambda body: says(text)

    with pytest.raises(AgentError):
        await ask(agent_of(server), a_turn("Hi"), limit=10)

    assert len(server.asked) <= 2


@pytest.mark.asyncio
async def test_it_fails_when_nobody_listens(unused_tcp_port: int) -> None:
    endpoint = Endpoint(KEY, f"http://127.0.0.1:{unused_tcp_port}/v1")

    with pytest.raises(AgentFailure) as caught:
        await ask(ModelAgent(lambda: build_model("openai:tiny", endpoint)), a_turn("Hi"), limit=20)

    assert KEY not in everything(caught.value)


@pytest.mark.asyncio
async def test_it_is_stopped_at_the_limit_and_works_again(server: ModelServer) -> None:
    agent = agent_of(server)
    server.answer = server.hang
    with pytest.raises(AgentTimeout) as caught:
        await ask(agent, a_turn("Hi"), limit=0.2)
    assert KEY not in everything(caught.value)

    server.answer = lambda body: says("Back.")
    assert await ask(agent, a_turn("Hi"), limit=10) == "Back."


@pytest.mark.asyncio
async def test_it_can_be_cancelled(server: ModelServer) -> None:
    server.answer = server.hang
    task = asyncio.create_task(ask(agent_of(server), a_turn("Hi"), limit=60))
    await asyncio.wait_for(server.waiting.wait(), 10)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task


def test_it_works_on_one_event_loop_after_another() -> None:
    agents: list[ModelAgent] = []
    endpoints: list[Endpoint] = []

    async def talk() -> str:
        async with ModelServer().running() as server:
            endpoints.append(Endpoint(KEY, server.base_url))
            agents.append(ModelAgent(lambda: build_model("openai:tiny", endpoints[-1])))
            return await ask(agents[0], a_turn("Hi"), limit=10)

    assert [asyncio.run(talk()) for _ in range(2)] == ["Hello.", "Hello."]


def test_it_works_on_two_event_loops_at_once() -> None:
    both_asked = threading.Barrier(2, timeout=20)
    urls: dict[int, str] = {}
    answers: list[str] = []
    agent = ModelAgent(lambda: build_model("openai:tiny", Endpoint(KEY, urls[threading.get_ident()])))

    def answer(body: dict[str, Any]) -> web.Response:
        both_asked.wait()
        return says("Hello.")

    async def talk() -> None:
        async with ModelServer().running() as server:
            server.answer = answer
            urls[threading.get_ident()] = server.base_url
            answers.append(await ask(agent, a_turn("Hi"), limit=20))

    threads = [threading.Thread(target=asyncio.run, args=(talk(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert answers == ["Hello.", "Hello."]


@pytest.mark.asyncio
async def test_it_talks_to_nobody_but_the_server(server: ModelServer, monkeypatch: pytest.MonkeyPatch) -> None:
    called: set[tuple[str, int]] = set()
    connect = socket.socket.connect

    def note(self: socket.socket, address: Any) -> None:
        called.add(address[:2])
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", note)
    server.answer = calling("whoami")

    await ask(agent_of(server, whoami), a_turn("Hi"), limit=10)

    assert [f"http://{host}:{port}/v1" for host, port in called] == [server.base_url]


def test_it_takes_a_model_as_it_is() -> None:
    model = TestModel()

    assert build_model(model, Endpoint()) is model


def test_it_builds_the_responses_model_if_asked() -> None:
    assert isinstance(build_model("openai-responses:gpt-5-mini", Endpoint(KEY)), OpenAIResponsesModel)


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [(Endpoint(KEY), OPENAI_URL), (Endpoint("", "http://127.0.0.1:1/v1"), "http://127.0.0.1:1/v1")],
)
def test_it_needs_a_key_only_for_openai_itself(endpoint: Endpoint, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "")  # as an .env file may have it
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)

    assert str(getattr(build_model("openai:gpt-5-mini", endpoint), "base_url", "")).rstrip("/") == url


@pytest.mark.parametrize(
    ("model", "endpoint", "problem"),
    [
        ("openai:gpt-5-mini", Endpoint(), "set OPENAI_API_KEY"),
        ("openai:gpt-5-mini", Endpoint(KEY, "127.0.0.1:1/v1"), "OPENAI_BASE_URL must begin with http"),
        ("openai:gpt-5-mini", Endpoint(f"{KEY}\n{KEY}"), "characters that no key has"),
        ("openai:", Endpoint(KEY), "a name must follow the colon"),
        ("gpt-5-mini-of-mine", Endpoint(KEY), "gpt-5-mini-of-mine"),
        ("nobody:knows", Endpoint(KEY), "nobody:knows"),
        ("anthropic:claude-sonnet-4-5", Endpoint(KEY), "anthropic"),
    ],
)
def test_it_says_what_is_wrong_with_a_model(model: str, endpoint: Endpoint, problem: str) -> None:
    with pytest.raises(AgentMisconfigured, match=problem) as caught:
        build_model(model, endpoint)

    assert KEY not in everything(caught.value)


def test_it_does_not_show_its_key() -> None:
    assert KEY not in repr(Endpoint(KEY))


@pytest.mark.asyncio
@pytest.mark.parametrize("text", ["<think>secret", "<think>secret</think>"])
async def test_it_leaves_the_marks_of_other_providers_to_its_own_rule(
    server: ModelServer, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OLLAMA_BASE_URL", server.base_url)
    monkeypatch.setenv("OLLAMA_API_KEY", KEY)
    server.answer = lambda body: says(text)

    with pytest.raises(EmptyReply):
        await ask(ModelAgent(lambda: build_model("ollama:tiny", Endpoint())), a_turn("Hi"), limit=10)

    assert len(server.asked) == 1
