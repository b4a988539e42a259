"""Agents of other libraries: an object with `chat(prompt)`, such as a PraisonAI agent, answers turns without state."""

from __future__ import annotations

import copy
import inspect
import weakref
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import suppress
from typing import Any, cast

from sessions_app.agents.base import reply_of, run_in_thread
from sessions_app.messages import Agent, Line, Reply, Turn


def shape(history: Iterable[Line]) -> list[tuple[str, str]]:
    """History as providers expect it: (role, text), alternately `user` and `assistant`, oldest first.

    Consecutive lines of one role become one text, with a blank line between them. The text of a mirror says that the
    agent did not send it; that of a line in a group names its author.
    """
    shaped: list[tuple[str, str]] = []
    for line in history:
        if not line.text.strip():
            continue
        role, text = "user" if line.role == "user" else "assistant", line.text
        if role == "user":
            text = said_by(line.author, text)
        elif line.source == "mirror":
            by = f" by {line.source_label}" if line.source_label else ""
            text = f"[sent to the person{by}] {text}"
        if shaped and shaped[-1][0] == role:
            text = f"{shaped.pop()[1]}\n\n{text}"
        shaped.append((role, text))
    return shaped


def said_by(speaker: str, text: str) -> str:
    """What a speaker said, as an agent reads it in a group: "Bob: what may I eat?". Without a speaker, the text itself.

    Further lines are indented: no text can begin a line of another speaker.
    """
    return f"{speaker}: " + "\n  ".join(text.splitlines()) if speaker else text


def question_of(turn: Turn) -> str:
    """The person's new text as an agent reads it. Before an old one stands a line that says so."""
    words = said_by(turn.speaker, turn.text)
    if turn.asked_at is None:
        return words
    day = f"{turn.asked_at.day} {turn.asked_at:%B %Y}"
    return f'[waiting since {day}: "now" and "today" may mean that day]\n{words}'


def as_agent(obj: object) -> Agent:
    """An agent from an object or a factory.

    An object with `reply(turn)` is returned as it is. Of an object with `chat(prompt)`, every turn gets its own copy. A
    factory is a class or function that returns a new object of either kind for every turn. If the copy or the new
    object has a `chat_history`, it is set to the history of the turn, a list of {"role", "content"}. `chat` may be
    async; if not, it runs in a thread of its own.

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
    """A copy that only this module can reach, so that it stays unchanged."""
    advice = "cannot be copied for every turn; pass a factory instead, a class or function that returns a fresh one"
    try:
        copied = copy.deepcopy(obj)
    except Exception as error:  # __deepcopy__ and __reduce__ may raise anything
        raise TypeError(f"this {type(obj).__name__} {advice} ({error})") from error
    if copied is obj:
        raise TypeError(f"this {type(obj).__name__} {advice} (its copy is itself)")
    return copied


class ChatAgent:
    """Answers each turn with a new object, so that no object remembers two people."""

    def __init__(self, fresh: Callable[[], Any]) -> None:
        self._fresh = fresh
        self._last: Callable[[], object] = lambda: None  # a weak reference, which keeps no history alive

    async def reply(self, turn: Turn) -> Reply:
        answer = await run_in_thread(self._start, turn)
        if inspect.isawaitable(answer):
            answer = await answer
        is_text = answer is None or isinstance(answer, str | Reply | AsyncIterator)
        return await reply_of(answer if is_text else str(answer))

    def _start(self, turn: Turn) -> object:
        """Create the object and start the chat, in a thread, as all of it may block. An async chat is only begun."""
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
        return agent.chat(question_of(turn))
