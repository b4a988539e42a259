"""Asking an agent one question: what can go wrong, the text of an answer, and threads for code that is not async.

The pool has agents run on a loop of their own (see agent_loop); after a fork it is a new one.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from typing import Any, ParamSpec, TypeVar

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import connections

from identity.support.text import storable
from sessions_app import texts
from sessions_app.agents import loop as agent_loop
from sessions_app.agents.loop import MAX_LEFT_BEHIND, Blocked, Call, Displaced, NoLoopLeft, Rooms
from sessions_app.context import clear_session_context, enter
from sessions_app.messages import Agent, Reply, Turn

MAX_ANSWER = 50_000  # characters: what nobody reads in a chat, and a few dozen messages
MAX_MOVES = 3  # how often one turn is asked again because another one blocked the agents' loop

P = ParamSpec("P")
T = TypeVar("T")
Hear = Callable[[str], object]


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


class AgentsStandStill(AgentError):
    """Too many threads of agents stand still for one more. Only a new process helps."""


async def ask(agent: Agent, turn: Turn, *, limit: float, heard: Hear | None = None, on_own_loop: bool = False) -> str:
    """The agent's answer to `turn` as clean text, never blank, with the session context set while it thinks.

    `limit` is in seconds and covers the whole answer. Raises an `AgentError`: `AgentTimeout`, `EmptyReply`,
    `AgentMisconfigured`, `AgentsStandStill` or `AgentFailure`. A cancellation of the caller passes through. An agent
    that does not let itself be cancelled is left behind. `heard` is told the whole answer so far on the caller's loop,
    each time that a streamed one grows. `on_own_loop`: whether the agent runs on the loop of agents, where it stops
    nothing else, or on the caller's.
    """
    for _ in range(MAX_MOVES):
        with suppress(Displaced):
            return await _ask(agent, turn, limit, heard, on_own_loop)
    raise AgentFailure("other agents keep the loop from turning")


async def _ask(agent: Agent, turn: Turn, limit: float, heard: Hear | None, on_own_loop: bool) -> str:
    if _rooms.left.is_full("turns"):
        raise AgentError(f"{MAX_LEFT_BEHIND} turns do not end although they were cancelled; no other is started")
    hear = _relayed(heard, asyncio.get_running_loop()) if heard else None
    call = Call(f"{turn.key} of {type(agent).__name__}", lambda: _think(agent, turn, hear), _rooms.left)
    try:
        cancel = _rooms.start(call) if on_own_loop else call.begin()
    except NoLoopLeft:
        raise AgentsStandStill("the agents' loops stand still") from None
    thinking = asyncio.wrap_future(call.outcome)
    try:
        await asyncio.wait({thinking}, timeout=limit)
        if not thinking.done():
            raise AgentTimeout(f"no answer within {limit:g} seconds")
        return _text_or_failure(*thinking.result())
    finally:
        if not call.outcome.done():
            cancel()
        thinking.cancel()


async def _think(agent: Agent, turn: Turn, heard: Hear | None) -> str:
    token = enter(turn.context)
    try:
        return await text_of(await _answer(agent, turn), heard)
    finally:
        clear_session_context(token)


def _text_or_failure(text: str, error: BaseException | None) -> str:
    """Everything but our own cancellation is a failure of this agent: SystemExit, or one that cancels itself."""
    if error is None:
        return text
    if isinstance(error, AgentError | Displaced):
        raise error
    if isinstance(error, Blocked):
        raise AgentFailure(f"it computed for {agent_loop.standstill():g} seconds without awaiting anything")
    raise AgentFailure(type(error).__name__) from error


def _relayed(heard: Hear, loop: asyncio.AbstractEventLoop) -> Hear:
    """Tells `heard` on its own loop. What it returns is done when that has happened, so that nothing piles up."""

    def hear(text: str) -> asyncio.Future[object]:
        here = asyncio.get_running_loop()
        told: asyncio.Future[object] = here.create_future()

        def tell() -> None:
            settle = _outcome(lambda: heard(text))
            with suppress(RuntimeError):  # the agents' loop was abandoned and has ended
                here.call_soon_threadsafe(_unless_done, told, settle)

        loop.call_soon_threadsafe(tell)
        return told

    return hear


def left_behind() -> Counter[str]:
    """What of this process's agents goes on although nobody waits for it: "threads", "turns" and "loops"."""
    return _rooms.left.counts()


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
    """Stops at one character too many; an empty piece counts as one. The loop turns at each piece."""
    whole, room = "", MAX_ANSWER + 1
    try:
        async for piece in pieces:
            whole += piece[:room]
            room -= max(1, len(piece))
            if heard and piece:
                told = heard(whole)
                if inspect.isawaitable(told):
                    await told
            await asyncio.sleep(0)
            if room <= 0:
                break
    finally:
        if close := getattr(pieces, "aclose", None):
            with suppress(Exception):  # the answer is there already, or what went wrong is on its way
                await close()
    return whole


def _visible(text: str) -> str:
    # Only so much is looked at, since an answer may be as large as the memory. A pair that a stream tore apart is whole
    # again.
    whole = storable(text.lstrip()[: 2 * MAX_ANSWER]).strip()
    if not any(char.isprintable() and not char.isspace() for char in whole):
        raise EmptyReply("the agent answered only blanks")
    return whole if len(whole) <= MAX_ANSWER else f"{whole[:MAX_ANSWER]}\n\n{texts.CUT_SHORT}"


async def run_in_thread(fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call blocking code in a thread of its own, with the caller's context variables, and wait for what it returns.

    Not a pool: one call that hangs for good must not take a place from the others. The thread is a daemon, so it
    does not hold up the exit of the process either. A caller that stops waiting leaves the thread behind, whose
    result is then dropped. Raises AgentError at once where too many have been left behind and go on.
    """
    work = _start_thread(functools.partial(copy_context().run, fn, *args, **kwargs), getattr(fn, "__name__", "call"))
    try:
        return await asyncio.wrap_future(work)
    finally:
        if not work.done():
            _rooms.left.add(work, "threads")


def _start_thread(call: Callable[[], T], name: str) -> Future[T]:
    if _rooms.left.is_full("threads"):
        raise AgentError(f"{MAX_LEFT_BEHIND} threads of agents and tools do not end; no other is started")
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()

    def work() -> None:
        settle = _outcome(call)
        _close_database()
        settle(future)

    threading.Thread(target=work, name=f"agent-{name}", daemon=True).start()
    return future


class _Threads(ThreadPoolExecutor):
    """The agents' loop's own: `asyncio.to_thread` and the like get threads as `run_in_thread` makes them."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        return _start_thread(functools.partial(fn, *args, **kwargs), "call")


def _outcome(call: Callable[[], T]) -> Callable[[Any], None]:
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


def _begin() -> None:
    global _rooms  # noqa: PLW0603 - a thread does not survive a fork
    _rooms = Rooms(_Threads)


_rooms: Rooms
_begin()
os.register_at_fork(after_in_child=_begin)
