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
    ask,
    left_behind,
    run_in_thread,
    text_of,
)
from sessions_app.agents.chat_object import ChatAgent, as_agent, shape
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
    "RecallAgent",
    "as_agent",
    "ask",
    "configuration_problem",
    "left_behind",
    "load_agent",
    "run_in_thread",
    "shape",
    "text_of",
]


class Agent:
    """The assistant that people talk to: with a language model if one is named, else a `RecallAgent`.

    `tools` are functions, sync or async, that the model may call; inside one, `get_session_context()` says who is
    asking. `model` is `provider:name`, for example `openai:gpt-5-mini`, or a pydantic-ai model; None takes
    `BOTOS_MODEL`, and "" takes none. Construction needs no key and no network: the choice is made by the first turn,
    which raises `AgentMisconfigured` if the model cannot be built.
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
        """Answer a turn. Raises `AgentMisconfigured` or `AgentFailure`, and whatever a tool raises."""
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

        return ModelAgent(build, name=self.name, instructions=self.instructions, tools=self.tools)


def configuration_problem(model: object = None) -> str | None:
    """What is wrong with `model`, by default `BOTOS_MODEL`, in a sentence; None if nothing. Talks to nobody."""
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
    """From Django's settings if they are there and have it, else from the environment."""
    value = getattr(settings, name, None) if settings.configured else None
    return str(os.environ.get(name, "") if value is None else value).strip()


def load_agent(dotted_path: str = "", *, instructions: str = "", model: object = None) -> messages.Agent:
    """The agent that `BOTOS_AGENT` names: the path of an agent, of a class, or of a function that makes one.

    A class or function is called with those of `instructions` and `model` that it takes. What it makes may have
    `reply(turn)` and serves every turn, or `chat(prompt)` and is then made anew for each turn (see `as_agent`).
    Without a path, an `Agent`. Raises `AgentMisconfigured`.
    """
    if not dotted_path:
        return Agent(instructions=instructions, model=model)
    try:
        found = _imported(dotted_path)
        return _made(found, {"instructions": instructions, "model": model})
    except AgentError:
        raise
    except Exception as error:  # a deployer's module and constructor may raise anything
        raise AgentMisconfigured(f"BOTOS_AGENT is {dotted_path!r}: {type(error).__name__}: {error}.") from error


def _imported(dotted_path: str) -> object:
    module, _, name = dotted_path.rpartition(".")
    if not module:
        raise ImportError("it must be the path of an object in a module, as in my_package.my_module.my_agent")
    return getattr(importlib.import_module(module), name)


def _made(found: object, offered: dict[str, object]) -> messages.Agent:
    is_agent = not inspect.isclass(found) and (hasattr(found, "reply") or hasattr(found, "chat"))
    if is_agent or not callable(found):
        return as_agent(found)
    wanted = inspect.signature(found).parameters
    make = functools.partial(found, **{name: value for name, value in offered.items() if name in wanted})
    made = make()
    return as_agent(made if hasattr(made, "reply") else make if hasattr(made, "chat") else made)
