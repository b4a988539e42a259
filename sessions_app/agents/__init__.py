"""The agents of BotOS, and the names that other modules use: `Agent`, `as_agent`, `load_agent`, `ask`, the errors."""

from __future__ import annotations

import functools
import importlib
import inspect
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from django.conf import settings

from sessions_app import messages
from sessions_app.agents.base import (
    AgentError,
    AgentFailure,
    AgentMisconfigured,
    AgentsStandStill,
    AgentTimeout,
    EmptyReply,
    PermanentFailure,
    ask,
    left_behind,
    reply_to,
    run_in_thread,
    text_of,
)
from sessions_app.agents.chat_object import ChatAgent, as_agent, shape
from sessions_app.agents.history_search import search_history
from sessions_app.agents.recall import RecallAgent
from sessions_app.messages import Reply, Turn

if TYPE_CHECKING:
    from sessions_app.agents.model import ModelAgent

__all__ = [
    "Agent",
    "AgentError",
    "AgentFailure",
    "AgentMisconfigured",
    "AgentTimeout",
    "AgentsStandStill",
    "ChatAgent",
    "EmptyReply",
    "PermanentFailure",
    "RecallAgent",
    "as_agent",
    "ask",
    "configuration_problem",
    "left_behind",
    "load_agent",
    "reply_to",
    "run_in_thread",
    "search_history",
    "shape",
    "text_of",
]


MAX_TOKENS = 4096  # of a response, unless BOTOS_MODEL_MAX_TOKENS says otherwise


class Agent:
    """The assistant that people talk to: with a language model if one is named, else a `RecallAgent`.

    tools: functions, sync or async, that the model may call; inside one, `get_session_context()` returns who asks. A
    model can call `search_history` too, unless one of these has that name.
    model: `provider:name`, for example `openai:gpt-5-mini`, or a pydantic-ai model; None means `BOTOS_MODEL`, and ""
    no model. Construction needs no key and no network: the first turn builds the model, and raises `AgentMisconfigured`
    if that fails.
    """

    def __init__(
        self,
        name: str = "assistant",
        instructions: str = "",
        tools: Sequence[Callable[..., Any]] = (),
        model: object = None,
    ) -> None:
        self.name = name
        self.instructions = instructions
        self.tools = tuple(tools)
        self.model = model
        self._chosen: RecallAgent | ModelAgent | None = None

    async def reply(self, turn: Turn) -> Reply:
        """Answer a turn. Raises `AgentMisconfigured` or `AgentFailure`, and any error of a tool."""
        if self._chosen is None:
            self._chosen = self._choose()
        return await self._chosen.reply(turn)

    def _choose(self) -> RecallAgent | ModelAgent:
        model = _model_or_default(self.model)
        if not model:
            return RecallAgent(self.tools)
        build = functools.partial(_build, model)
        build()  # fails here with the clear error, not in the middle of a run
        from sessions_app.agents.model import ModelAgent

        most = int(_setting("BOTOS_MODEL_MAX_TOKENS") or MAX_TOKENS)
        return ModelAgent(build, name=self.name, instructions=self.instructions, tools=self.tools, max_tokens=most)


def configuration_problem(model: object = None) -> str | None:
    """A sentence about what is wrong with `model`, by default `BOTOS_MODEL`; None if it is valid. Needs no network."""
    try:
        if chosen := _model_or_default(model):
            _build(chosen)
    except AgentMisconfigured as error:
        return str(error)
    return None


def _build(model: object) -> Any:
    try:
        from sessions_app.agents.model import Endpoint, build_model
    except ImportError as error:
        raise AgentMisconfigured(f"BOTOS_MODEL needs the package {error.name}") from error
    return build_model(model, Endpoint(_setting("OPENAI_API_KEY"), _setting("OPENAI_BASE_URL")))


def _model_or_default(model: object) -> object:
    return _setting("BOTOS_MODEL") if model is None else model


def _setting(name: str) -> str:
    """A setting from Django's settings, if they are configured and have it, else from the environment."""
    value = getattr(settings, name, None) if settings.configured else None
    return str(os.environ.get(name, "") if value is None else value).strip()


def load_agent(dotted_path: str = "", *, instructions: str = "", model: object = None) -> messages.Agent:
    """The agent that `BOTOS_AGENT` names: the path of an agent, of a class, or of a function that creates one.

    A class or function is called with those of `instructions` and `model` that it takes. An object with `reply(turn)`
    serves every turn; one with `chat(prompt)` is created for each turn (see `as_agent`). Without a path, the result is
    an `Agent`. Raises `AgentMisconfigured`.
    """
    if not dotted_path:
        return Agent(instructions=instructions, model=model)
    try:
        module, _, name = dotted_path.rpartition(".")
        if not module:
            raise ImportError("it must be the path of an object in a module, as in my_package.my_module.my_agent")
        named = getattr(importlib.import_module(module), name)
        return _agent_from(named, {"instructions": instructions, "model": model})
    except AgentError:
        raise
    except Exception as error:  # a deployer's module and constructor may raise anything
        raise AgentMisconfigured(f"BOTOS_AGENT is {dotted_path!r}: {type(error).__name__}: {error}.") from error


def _agent_from(named: object, options: dict[str, object]) -> messages.Agent:
    is_agent = not inspect.isclass(named) and (hasattr(named, "reply") or hasattr(named, "chat"))
    if is_agent or not callable(named):
        return as_agent(named)
    parameters = inspect.signature(named).parameters
    factory = functools.partial(named, **{name: value for name, value in options.items() if name in parameters})
    agent = factory()
    return as_agent(factory if hasattr(agent, "chat") and not hasattr(agent, "reply") else agent)
