"""The agent with a language model, through pydantic-ai. `agents` imports this module late, as that takes a second."""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast
from weakref import WeakKeyDictionary

import pydantic_ai
from pydantic_ai import RunContext, Tool
from pydantic_ai.capabilities import AbstractCapability
from pydantic_ai.exceptions import (
    AgentRunError,
    ModelAPIError,
    ModelAuthenticationError,
    ModelContextWindowExceededError,
    ModelHTTPError,
    ModelNotFoundError,
    ModelQuotaExceededError,
    ModelRequestRejectedError,
    OutputTokenLimitExceeded,
    ToolFailed,
    UsageLimitExceeded,
    UserError,
)
from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, TextPart, ToolCallPart, UserPromptPart
from pydantic_ai.models import Model, ModelRequestParameters, infer_model
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.profiles import ModelProfile, merge_profile
from pydantic_ai.providers import Provider
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.providers.openai_compatible import OpenAICompatibleProvider
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import ToolDefinition
from pydantic_ai.usage import RequestUsage, UsageLimits

from sessions_app import texts
from sessions_app.agents.base import (
    AgentError,
    AgentFailure,
    AgentMisconfigured,
    EmptyReply,
    PermanentFailure,
    run_in_thread,
)
from sessions_app.agents.chat_object import question_of, shape
from sessions_app.agents.history_search import search_history
from sessions_app.agents.reasoning import without_reasoning
from sessions_app.messages import Line, Reply, Turn

log = logging.getLogger(__name__)
OPENAI_URL = "https://api.openai.com/v1"
OPENING = "[earlier messages are not shown]"
MAX_REQUESTS = 12  # requests to the model in one turn, which stops an endless series of tool calls
# pydantic-ai would take these out itself, without a look at code and quotes, and show what is never closed.
REASONING = ModelProfile(thinking_tags=("<botos:think>", "</botos:think>"))
SEARCH = search_history.__name__
RETRIES = 1  # of one request, after 429, 5xx or a broken connection; the pool repeats the turn itself
# Statuses of a request that is too long, and how servers word it where pydantic-ai does not know the words: Anthropic,
# llama.cpp, LM Studio, Text Generation Inference, Gemini, Groq and GitHub, xAI, Qwen, Moonshot, Zhipu, Cohere, OpenAI.
TOO_LONG_STATUSES = {400, 422, 429, 500}
_TOO_LONG = re.compile(
    r"prompt is too long|exceeds? (?:the )?(?:available |maximum )?context|context (?:the )?overflows|"
    r"context[ _](?:length|window|size)[ _]?(?:is )?exceed|exceed_context_size|maximum context|maximum prompt length|"
    r"inputs.? tokens \+ .?max_new_tokens|input token count|request(?: body)? too large|tokens_limit_reached|"
    r"range of input length|input token length too long|exceeded model token limit|prompt exceeds max length|"
    r"too many tokens|string too long",
    re.IGNORECASE,
)
# How servers word it that the content is refused: OpenAI, Azure, Qwen, DeepSeek, Zhipu, Moonshot, Gemini, xAI and
# OpenRouter.
CONTENT_STATUSES = {400, 403, 422, 451}
_CONTENT_REFUSED = re.compile(
    r"content[ _-]?(?:filter|policy|management|moderation|safety)|usage (?:polic|guideline)|flagged|safety_check|"
    r"moderation|data_inspection_failed|inappropriate content|content exists risk|sensitive content|high risk|"
    r"prohibited_content",
    re.IGNORECASE,
)
# How servers word that they do not know a part of the request, and that a response may not be so long: OpenAI, Azure,
# vLLM, llama.cpp, Ollama, Groq, Mistral, TGI, OpenRouter and servers with pydantic.
PART_STATUSES = {400, 404, 422, 500, 501}
_UNKNOWN_PART = re.compile(
    r"unsupported|not support|no endpoints|unknown|unrecogni[sz]ed|unexpected|extra[ _](?:forbidden|fields|inputs)|"
    r"not permitted|not allowed|requires|enabled?\b",
    re.IGNORECASE,
)
_ABOUT_OUTPUT = re.compile(
    r"max_(?:completion_|output_|new_)?tokens|output tokens|(?:in|messages or) the completion", re.IGNORECASE
)
_ABOUT_TOOLS = re.compile(r"\btool|\bfunction", re.IGNORECASE)
MIN_OUTPUT = 512  # tokens: an answer is not bounded further to make it fit
# Errors that stay when the same turn is repeated: what the operator reads, and what the person reads.
_PERMANENT: dict[type[AgentRunError], tuple[str, object]] = {
    ModelAuthenticationError: ("the server refuses the key; check OPENAI_API_KEY", texts.OPERATOR_NEEDED),
    ModelNotFoundError: ("check BOTOS_MODEL, and the path in OPENAI_BASE_URL", texts.OPERATOR_NEEDED),
    ModelQuotaExceededError: ("the account has no credit or quota left", texts.OPERATOR_NEEDED),
    ModelRequestRejectedError: ("the server does not take the request", texts.REJECTED),
    UsageLimitExceeded: (f"no answer after {MAX_REQUESTS} requests with tool calls", texts.TOO_MANY_STEPS),
    OutputTokenLimitExceeded: ("no answer within the limit of tokens", texts.OUT_OF_ROOM),
}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The server of `openai:` models. An empty `base_url` means OpenAI itself, which requires a key."""

    api_key: str = field(default="", repr=False)
    base_url: str = ""


def build_model(model: object, endpoint: Endpoint) -> Model[Any]:
    """The pydantic-ai model for `provider:name`; a pydantic-ai model is returned as it is. Needs no network.

    `openai:` (or `openai-chat:`) is the chat completions API of the endpoint, which every OpenAI-compatible server has;
    `openai-responses:` is its newer responses API. Other providers are pydantic-ai's, with their own packages and
    environment variables. Raises `AgentMisconfigured`.
    """
    if isinstance(model, Model):
        return model
    kind, _, name = str(model).strip().partition(":")
    try:
        if kind in ("openai", "openai-chat", "openai-responses"):
            return _openai_model(kind, name, endpoint)
        if not name and kind != "test":  # pydantic-ai's own model for tests
            raise ValueError(f"it has no provider. Hint: write BOTOS_MODEL=openai:{kind or 'gpt-5-mini'}.")
        inferred = infer_model(str(model).strip())
        inferred.profile = merge_profile(inferred.profile, REASONING)
        return inferred
    except (UserError, ImportError, ValueError) as error:
        raise AgentMisconfigured(f"The model {str(model)!r} (BOTOS_MODEL) cannot be used: {error}") from error


def _openai_model(kind: str, name: str, endpoint: Endpoint) -> Model[Any]:
    if not name:
        raise ValueError("a name must follow the colon, as in openai:gpt-5-mini")
    model = OpenAIResponsesModel if kind == "openai-responses" else OpenAIChatModel
    settings = ModelSettings(max_retries=RETRIES)
    return model(name, provider=_openai_provider(endpoint), profile=REASONING, settings=settings)


def _openai_provider(endpoint: Endpoint) -> Provider[Any]:
    key, url = endpoint.api_key.strip(), endpoint.base_url.strip()
    if url and not url.startswith(("http://", "https://")):
        raise ValueError("OPENAI_BASE_URL must begin with http:// or https://")
    if not (key.isascii() and key.isprintable()):  # or the HTTP client's error would show it
        raise ValueError("OPENAI_API_KEY holds characters that no key has")
    if url:
        return OpenAICompatibleProvider("openai-compatible", base_url=url, api_key=key or None)
    if not key:
        raise ValueError("it needs a key. Hint: set OPENAI_API_KEY, or OPENAI_BASE_URL for a server without keys.")
    return OpenAIProvider(base_url=OPENAI_URL, api_key=key)


class ModelAgent:
    """Answers turns with a model. It keeps no conversation: every run of pydantic-ai gets the whole history.

    Tools are functions, sync or async, that may call `get_session_context()`. If the first parameter of a tool is
    pydantic-ai's `RunContext`, its `deps` is the `Turn`. `search_history` is offered where there is a history, unless
    one of the tools has that name or the server takes no tools.

    max_tokens: the bound of each response, its reasoning included; 0 for none. A smaller one of the model itself wins.
    """

    def __init__(
        self,
        build: Callable[[], Model[Any]],
        *,
        name: str = "assistant",
        instructions: str = "",
        tools: Sequence[Callable[..., Any]] = (),
        max_tokens: int = 0,
    ) -> None:
        self._build = build
        self._max_tokens = max_tokens
        self._takes = _Takes()
        self._name = name
        self._instructions = instructions
        self._tools: list[Any] = [_off_the_loop(tool) for tool in tools]
        if SEARCH not in {getattr(tool, "name", getattr(tool, "__name__", "")) for tool in tools}:
            self._tools.append(Tool(search_history, prepare=_where_there_is_history))
        # A model's HTTP client belongs to the event loop that opened its connections.
        self._agents: WeakKeyDictionary[asyncio.AbstractEventLoop, pydantic_ai.Agent[Turn, str]] = WeakKeyDictionary()

    async def reply(self, turn: Turn) -> Reply:
        """Answer a turn. Raises `AgentFailure` without the model's own words, which may quote the key or the prompt.

        It is a `PermanentFailure` if asking again is useless.
        """
        history, prompt = prompt_of(turn)
        model: _ModelOfTurn | None = None
        try:
            # It closes its connections when the last running turn leaves, so nothing is left to close at shutdown.
            async with self._agent() as agent:
                limits = UsageLimits(request_limit=MAX_REQUESTS)
                model = _ModelOfTurn(cast("Model[Any]", agent.model), turn, self._max_tokens, self._takes)
                result = await agent.run(prompt, model=model, message_history=history, deps=turn, usage_limits=limits)
            text = without_reasoning(result.output)
            if not text.strip():
                nothing = "the model answered only blanks or reasoning"
                raise OutputTokenLimitExceeded(nothing) if model.was_cut_off else EmptyReply(nothing)
        except BaseException as error:
            used = model.used() if model else None
            if used:
                numbers = (turn.key, used.model, used.input_tokens or 0, used.output_tokens or 0)
                log.warning("%s: %s gave no answer but used %d input and %d output tokens", *numbers)
            if isinstance(error, AgentRunError):
                failure = _failure(error)
                failure.used = used
                raise failure from None
            if isinstance(error, AgentError):
                error.used = used
            raise
        if model.takes != self._takes:
            log.warning("from now on requests to %s are changed, as its server asks: %s", model.model_name, model.takes)
            self._takes = model.takes
        if model.was_cut_off:
            text = f"{text}\n\n{texts.CUT_OFF}"
        return replace(model.used() or Reply(""), text=text)

    def _agent(self) -> pydantic_ai.Agent[Turn, str]:
        loop = asyncio.get_running_loop()
        if loop not in self._agents:
            self._agents[loop] = pydantic_ai.Agent(
                self._build(),
                name=self._name,
                instructions=self._instructions or None,
                tools=self._tools,
                capabilities=[_ToldOfFailures()],
                deps_type=Turn,
            )
        return self._agents[loop]


@dataclass(frozen=True, slots=True)
class _Takes:
    """What the server of a model takes, as its refusals have shown.

    bound: how the bound of a response is sent: as the "setting" of pydantic-ai, which is `max_completion_tokens` for
    servers like OpenAI's; as `max_tokens`, the older name; or not at all, if empty. search: whether it takes a tool
    that nobody asked for.
    """

    bound: str = "setting"
    search: bool = True


class _ModelOfTurn(WrapperModel):
    """The model while it answers one turn. It gets as much of the newest history as its context has room for.

    It cuts the history of single requests, not of the run, so that no tool is called twice. was_cut_off: whether the
    last response ended at the limit of tokens.
    """

    def __init__(self, model: Model[Any], turn: Turn, max_tokens: int, takes: _Takes) -> None:
        super().__init__(model)
        self.takes = takes
        self._max_tokens = max_tokens
        self._offers_search = takes.search
        self._turn = turn
        self._prompt_at = len(prompt_of(turn)[0])
        self._is_cut = False
        self.was_cut_off = False
        self._served_by = ""
        self._usage = RequestUsage()

    def used(self) -> Reply | None:
        """What all responses so far used, also those that are no answer. None before the first."""
        if not self._served_by:
            return None
        # A server that does not say what was used leaves zeros.
        return Reply("", self._served_by, self._usage.input_tokens or None, self._usage.output_tokens or None)

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        while True:
            settings = self._bounded(model_settings)
            tools = model_request_parameters.function_tools
            if not self._offers_search:
                tools = [tool for tool in tools if tool.name != SEARCH]
            parameters = replace(model_request_parameters, function_tools=tools)
            try:
                response = await super().request(self._fitting(messages), settings, parameters)
                self._usage += response.usage
                self._served_by = response.model_name or self.model_name
                self.was_cut_off = response.finish_reason == "length"
                return self._with_words_of_refusal(response)
            except ModelAPIError as error:
                if self._asks_for_less(error, tools):
                    continue
                if not _is_too_long(error):
                    raise
                if not self._turn.history:
                    reason = f"the question is too long for {self.model_name} even without history"
                    raise PermanentFailure(reason, texts.TOO_LONG) from None
            lines = len(self._turn.history)
            self._turn, self._is_cut = _with_newest_half(self._turn), True
            left = len(self._turn.history)
            log.warning(
                "request too long for %s with %d lines of history; asking with %d", self.model_name, lines, left
            )

    def _bounded(self, settings: ModelSettings | None) -> ModelSettings:
        """The settings with the bound of a response."""
        bounded = ModelSettings(**(settings or {}))
        own = bounded.get("max_tokens") or self._max_tokens
        bound = min(own, self._max_tokens) if self._max_tokens else own
        if not bound or not self.takes.bound:
            bounded.pop("max_tokens", None)
        elif self.takes.bound == "max_tokens":
            bounded.pop("max_tokens", None)
            bounded["extra_body"] = {**cast("dict[str, Any]", bounded.get("extra_body") or {}), "max_tokens": bound}
        else:
            bounded["max_tokens"] = bound
        return bounded

    def _asks_for_less(self, error: ModelAPIError, tools: Sequence[ToolDefinition]) -> bool:
        """Whether the next request leaves out, or has less of, what the server does not take."""
        body = str(error.body) if isinstance(error, ModelHTTPError) and error.status_code in PART_STATUSES else ""
        if self._max_tokens and self.takes.bound and _ABOUT_OUTPUT.search(body):
            if _UNKNOWN_PART.search(body):
                is_new_name = self.takes.bound == "setting" and "max_completion_tokens" in body
                self.takes = replace(self.takes, bound="max_tokens" if is_new_name else "")
                return True
            if self._max_tokens > MIN_OUTPUT:
                self._max_tokens = max(self._max_tokens // 2, MIN_OUTPUT)
                return True
        if [tool.name for tool in tools] == [SEARCH] and _ABOUT_TOOLS.search(body):
            self._offers_search = False
            if _UNKNOWN_PART.search(body):  # else the model has called it in a way that the server cannot read
                self.takes = replace(self.takes, search=False)
            return True
        return False

    def _with_words_of_refusal(self, response: ModelResponse) -> ModelResponse:
        """The response, with the model's own words if it declines: these are an answer like any other.

        Half an answer that a filter stopped is dropped.
        """
        if response.finish_reason != "content_filter":
            return response
        words = (response.provider_details or {}).get("refusal")
        if not isinstance(words, str) or not words.strip():
            reason = f"{self.model_name} declined (content_filter)"
            raise PermanentFailure(reason, texts.DECLINED, is_refused=True)
        log.warning("%s declined; the person reads its own words", self.model_name)
        return replace(response, parts=[TextPart(words)], finish_reason="stop")

    def _fitting(self, messages: list[ModelMessage]) -> list[ModelMessage]:
        """The messages of the run with the history and the prompt of what is left of the turn."""
        if not self._is_cut:
            return messages
        history, prompt = prompt_of(self._turn)
        asked = cast(ModelRequest, messages[self._prompt_at])
        parts = [replace(part, content=prompt) if isinstance(part, UserPromptPart) else part for part in asked.parts]
        return [*history, replace(asked, parts=parts), *messages[self._prompt_at + 1 :]]


class _ToldOfFailures(AbstractCapability[Turn]):
    """Tells the model that a tool has failed. Its words may hold a secret or a message, so they are not passed on."""

    async def on_tool_execute_error(
        self,
        ctx: RunContext[Turn],
        *,
        call: ToolCallPart,
        tool_def: ToolDefinition,
        args: dict[str, Any],
        error: Exception,
    ) -> Any:
        if isinstance(error, AgentError):  # no thread is left, for example
            raise error
        kind = type(error).__name__
        log.warning("tool %s failed: %s; the model is told", tool_def.name, kind)
        raise ToolFailed(f"The tool {tool_def.name} failed ({kind}). Go on without it, and say that it did not work.")


async def _where_there_is_history(ctx: RunContext[Turn], tool: ToolDefinition) -> ToolDefinition | None:
    return None if ctx.deps.conversation_id is None else tool


def _failure(error: AgentRunError) -> AgentFailure:
    """The failure that an error of pydantic-ai means. Its text has nothing that a server or a person has written."""
    reason, status = type(error).__name__, 0
    if isinstance(error, ModelHTTPError):
        status = error.status_code
        reason += f": HTTP {status} from {error.model_name}"
        if status in CONTENT_STATUSES and _CONTENT_REFUSED.search(str(error.body)):
            return PermanentFailure(f"{reason}: the content is refused", texts.DECLINED, is_refused=True)
    for kind, (meaning, words) in _PERMANENT.items():
        if isinstance(error, kind):
            return PermanentFailure(f"{reason}: {meaning}", words)
    return AgentFailure(reason)


def _is_too_long(error: ModelAPIError) -> bool:
    if isinstance(error, ModelContextWindowExceededError):
        return True
    status = error.status_code if isinstance(error, ModelHTTPError) else 0
    return status == 413 or (status in TOO_LONG_STATUSES and _TOO_LONG.search(str(error.body)) is not None)


def _with_newest_half(turn: Turn) -> Turn:
    """The turn with at most half of its lines and half of their text, so that few requests are needed.

    Halving only the lines would keep one huge line to the last.
    """
    room = sum(len(line.text) for line in turn.history) // 2
    kept: list[Line] = []
    for line in turn.history[(len(turn.history) + 1) // 2 :][::-1]:
        room -= len(line.text)
        if room < 0:
            break
        kept.append(line)
    return replace(turn, history=tuple(reversed(kept)))


def prompt_of(turn: Turn) -> tuple[list[ModelMessage], str]:
    """The history and the prompt of a turn for pydantic-ai: user first, strictly alternating, prompt last.

    The chat templates of some servers refuse anything else. Lines without an answer join the prompt.
    """
    shaped = shape(turn.history)
    unanswered = [shaped.pop()[1]] if shaped and shaped[-1][0] == "user" else []
    if shaped and shaped[0][0] != "user":
        shaped.insert(0, ("user", OPENING))
    history: list[ModelMessage] = [
        ModelRequest(parts=[UserPromptPart(content=text)])
        if role == "user"
        else ModelResponse(parts=[TextPart(content=text)])
        for role, text in shaped
    ]
    return history, "\n\n".join([*unanswered, question_of(turn)])


def _off_the_loop(tool: Callable[..., Any]) -> Callable[..., Any]:
    """The tool, in a thread of its own if it blocks. In pydantic-ai's pool, a tool that hangs ignores every limit."""
    if not inspect.isroutine(tool) or inspect.iscoroutinefunction(tool):
        return tool

    @functools.wraps(tool)
    async def in_thread(*args: Any, **kwargs: Any) -> Any:
        result = await run_in_thread(tool, *args, **kwargs)
        return await result if isinstance(result, Awaitable) else result

    return in_thread
