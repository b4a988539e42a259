"""Agents made elsewhere: anything with `chat(prompt)`, such as a PraisonAI agent, answers turns and keeps no state."""

from __future__ import annotations

import copy
import inspect
import weakref
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import suppress
from typing import Any, cast

from sessions_app.agents.base import run_in_thread, text_of
from sessions_app.messages import Agent, Line, Reply, Turn


def shape(history: Iterable[Line]) -> list[tuple[str, str]]:
    """History as providers want it: (role, text) with the roles `user` and `assistant` in turns, oldest first.

    Lines of one role that follow each other become one text, with a blank line between them. A mirror says that
    it was sent by somebody other than the agent, and a line of a group who said it.
    """
    shaped: list[tuple[str, str]] = []
    for line in history:
        if not line.text.strip():
            continue
        role, text = "user" if line.role == "user" else "assistant", _labelled(line)
        if shaped and shaped[-1][0] == role:
            text = f"{shaped.pop()[1]}\n\n{text}"
        shaped.append((role, text))
    return shaped


def _labelled(line: Line) -> str:
    if line.role == "user" and line.author:
        return f"{line.author}: {line.text}"
    if line.source != "mirror":
        return line.text
    by = f" by {line.source_label}" if line.source_label else ""
    return f"[sent to the person{by}] {line.text}"


def as_agent(obj: object) -> Agent:
    """An agent out of whatever a deployer has.

    Takes an object with `reply(turn)`, which is returned as it is; an object with `chat(prompt)`, of which every
    turn gets its own copy; or a factory, that is a class or a function that returns a fresh one of either for every
    turn. If a copied or fresh object has a `chat_history`, it is set to the history of the turn, a list of
    {"role", "content"}. `chat` may be async; if not, it runs in a thread of its own.

    Raises `TypeError` for anything else, and for an object with `chat` that cannot be copied.
    """
    if not inspect.isclass(obj) and _has(obj, "reply"):
        return cast(Agent, obj)
    if not inspect.isclass(obj) and _has(obj, "chat"):
        prototype = _copy_of(obj)
        return ChatAgent(lambda: copy.deepcopy(prototype))
    if callable(obj):
        return ChatAgent(obj)
    raise TypeError(f"{type(obj).__name__} is no agent: it has neither reply(turn) nor chat(prompt)")


def _has(obj: object, method: str) -> bool:
    return callable(getattr(obj, method, None))


def _copy_of(obj: object) -> object:
    """A copy that nobody else can run, so that it stays as new."""
    advice = "cannot be copied for every turn; pass a factory instead, a class or function that returns a fresh one"
    try:
        copied = copy.deepcopy(obj)
    except Exception as error:  # whatever some attribute's __deepcopy__ or __reduce__ raises
        raise TypeError(f"this {type(obj).__name__} {advice} ({error})") from error
    if copied is obj:
        raise TypeError(f"this {type(obj).__name__} {advice} (its copy is itself)")
    return copied


class ChatAgent:
    """Answers each turn with a fresh object, so that no two people ever meet in one object's memory."""

    def __init__(self, fresh: Callable[[], Any]) -> None:
        self._fresh = fresh
        self._last: Callable[[], object] = lambda: None  # a weak reference: nobody's history is kept alive for this

    async def reply(self, turn: Turn) -> Reply:
        answer = await run_in_thread(self._start, turn)
        if inspect.isawaitable(answer):
            answer = await answer
        return Reply(await text_of(_as_text(answer)))

    def _start(self, turn: Turn) -> object:
        """Runs in the thread, since building, copying and chatting may all take long; an async chat is only begun."""
        agent = self._fresh()
        if _has(agent, "reply"):
            return agent.reply(turn)
        if agent is self._last():
            raise TypeError("the factory returned the same object twice, in which two people would meet")
        with suppress(TypeError):  # not everything can be referred to weakly
            self._last = weakref.ref(agent)
        if not _has(agent, "chat"):
            raise TypeError(f"the factory made a {type(agent).__name__}, which has neither reply nor chat")
        if hasattr(agent, "chat_history"):
            agent.chat_history = [{"role": role, "content": text} for role, text in shape(turn.history)]
        return agent.chat(turn.text)


def _as_text(answer: object) -> object:
    return answer if answer is None or isinstance(answer, str | Reply | AsyncIterator) else str(answer)
