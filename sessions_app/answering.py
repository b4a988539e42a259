"""Asking an agent one question: what can go wrong, the text of an answer, and threads for code that is not async."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from contextvars import copy_context
from typing import Any, ParamSpec, TypeVar

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import connections

from sessions_app import texts
from sessions_app.context import clear_session_context, enter
from sessions_app.messages import Agent, Reply, Turn

LONGEST_ANSWER = 50_000  # characters: what nobody reads in a chat, and a few dozen messages

P = ParamSpec("P")
T = TypeVar("T")
Hear = Callable[[str], None]


class AgentError(Exception):
    """An agent gave no answer. The text of every subclass is fit for a log: no key and no words of a conversation."""


class AgentMisconfigured(AgentError, ImproperlyConfigured):
    """The settings name an agent or a model that cannot work; the text says which setting and what to do."""


class AgentTimeout(AgentError):
    """The time was up before the answer was complete."""


class EmptyReply(AgentError):
    """The agent answered nothing that a person could see."""


class AgentFailure(AgentError):
    """The agent raised something, which is the cause where it is fit to be seen."""


async def ask(agent: Agent, turn: Turn, *, limit: float, heard: Hear | None = None) -> str:
    """The agent's answer to `turn` as clean text, never blank, with the session context set while it thinks.

    `limit` is in seconds and covers the whole answer. Raises an `AgentError`: `AgentTimeout`, `EmptyReply`,
    `AgentMisconfigured` or `AgentFailure`. A cancellation of the caller passes through. An agent that does not let
    itself be cancelled is left behind. `heard` is told the whole answer so far, each time that a streamed one grows.
    """
    thinking = asyncio.create_task(_think(agent, turn, heard))
    thinking.add_done_callback(_forget)
    try:
        await asyncio.wait({thinking}, timeout=limit)
    finally:
        thinking.cancel()
    if not thinking.done():
        raise AgentTimeout(f"no answer within {limit:g} seconds")
    return _result_of(thinking)


async def _think(agent: Agent, turn: Turn, heard: Hear | None) -> str:
    token = enter(turn.context)
    try:
        return await text_of(await _answer(agent, turn), heard)
    finally:
        clear_session_context(token)


def _result_of(thinking: asyncio.Task[str]) -> str:
    try:
        return thinking.result()
    except AgentError:
        raise
    except (Exception, asyncio.CancelledError) as error:  # a cancellation that came out of something it waited for
        raise AgentFailure(type(error).__name__) from error


def _forget(thinking: asyncio.Task[str]) -> None:
    """Look at what came of it also when nobody waits any more, so that asyncio does not complain."""
    if not thinking.cancelled():
        thinking.exception()


async def _answer(agent: Agent, turn: Turn) -> object:
    """What `reply` gives; one that is written as an async generator needs no awaiting."""
    answer: object = agent.reply(turn)
    return await answer if inspect.isawaitable(answer) else answer


async def text_of(answer: object, heard: Hear | None = None) -> str:
    """The text of a `Reply`, a `str` or an async iterator of `str`, stripped. Raises `EmptyReply` if there is none."""
    if isinstance(answer, Reply):
        answer = answer.text
    if isinstance(answer, AsyncIterator):
        answer = await _joined(answer, heard)
    if answer is None:
        raise EmptyReply("the agent answered None")
    if not isinstance(answer, str):
        raise AgentFailure(f"the agent answered a {type(answer).__name__}, which is not text")
    return _visible(answer)


async def _joined(pieces: AsyncIterator[str], heard: Hear | None) -> str:
    whole = ""
    async for piece in pieces:
        whole += piece
        if heard:
            heard(whole)
    return whole


def _visible(text: str) -> str:
    # UTF-16 joins surrogates that a stream tore apart and replaces lone ones: neither a database nor a platform
    # takes those, nor NUL.
    whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").replace("\0", "").strip()
    if not any(char.isprintable() and not char.isspace() for char in whole):
        raise EmptyReply("the agent answered only blanks")
    return whole if len(whole) <= LONGEST_ANSWER else f"{whole[:LONGEST_ANSWER]}\n\n{texts.CUT_SHORT}"


async def run_in_thread(fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call blocking code in a thread of its own, with the caller's context variables, and wait for what it returns.

    Not a pool: one call that hangs for good must not take a place from the others. The thread is a daemon, so it
    does not hold up the exit of the process either. A caller that stops waiting leaves the thread behind, whose
    result is then dropped.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()
    context = copy_context()

    def work() -> None:
        settle = _outcome(lambda: context.run(fn, *args, **kwargs))
        _close_database()
        with suppress(RuntimeError):  # the loop was closed while the call was running
            loop.call_soon_threadsafe(_unless_done, future, settle)

    threading.Thread(target=work, name=f"agent-{getattr(fn, '__name__', 'call')}", daemon=True).start()
    return await future


def _outcome(call: Callable[[], T]) -> Callable[[asyncio.Future[T]], None]:
    """Make the call; what comes back settles a future with its result or its error."""
    try:
        result = call()
    except BaseException as error:  # noqa: BLE001 - even SystemExit: in a thread it can only be the agent's own
        failure = _fit_for_a_future(error)
        return lambda future: future.set_exception(failure)
    return lambda future: future.set_result(result)


def _fit_for_a_future(error: BaseException) -> Exception:
    """A future refuses StopIteration, and SystemExit or KeyboardInterrupt would come out of it and end the process."""
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    wrapped = RuntimeError(f"the agent raised {type(error).__name__}")
    wrapped.__cause__ = error
    return wrapped


def _unless_done(future: asyncio.Future[Any], settle: Callable[[asyncio.Future[Any]], None]) -> None:
    if not future.done():
        settle(future)


def _close_database() -> None:
    """Django keeps a connection per thread: one opened in an agent's thread would be left for the garbage collector."""
    with suppress(Exception):  # a connection that cannot even be closed must not lose the answer
        if settings.configured:
            connections.close_all()
