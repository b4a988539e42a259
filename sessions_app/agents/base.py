"""Asks an agent one question: the errors, the text of an answer, and threads for blocking code.

The pool runs agents on a loop of their own (see `agents.loop`). After a fork there is a new one.
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
from contextvars import ContextVar, copy_context
from typing import Any, ParamSpec, TypeVar

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import connections

from identity.support.text import storable
from sessions_app import texts
from sessions_app.agents import loop as agent_loop
from sessions_app.agents.loop import MAX_LEFT_BEHIND, Blocked, Call, Displaced, NoLoopLeft, Rooms
from sessions_app.agents.reasoning import without_reasoning
from sessions_app.context import clear_session_context, enter
from sessions_app.messages import Agent, Reply, Turn

MAX_ANSWER = 50_000  # characters: a few dozen messages, more than anybody reads in a chat
MAX_MODEL_NAME, MAX_TOKENS = 100, 10**8  # so that an event has room for them, a few times over
MAX_MOVES = 3  # attempts at one turn, if other turns block the agents' loop

P = ParamSpec("P")
T = TypeVar("T")
OnText = Callable[[str], object]
_running: ContextVar[Turn | None] = ContextVar("botos_turn", default=None)


class AgentError(Exception):
    """An agent gave no answer. The text of every subclass may be logged: it holds no key and no conversation.

    words: what the person reads if asking again is useless, with commands as in "/new"; empty if the turn is repeated.
    used: a reply without text that says what a model used in vain, if that is known.
    """

    words: object = ""
    used: Reply | None = None


class AgentMisconfigured(AgentError, ImproperlyConfigured):
    """The settings name an agent or a model that cannot work; the text says which setting and what to do."""

    words = texts.OPERATOR_NEEDED


class AgentTimeout(AgentError):
    """The time was up before the answer was complete."""


class EmptyReply(AgentError):
    """The agent answered nothing that a person could see."""


class AgentFailure(AgentError):
    """The agent raised an error, which is the cause where it may be seen."""


class PermanentFailure(AgentFailure):
    """The agent would fail again at the same question. The turn ends at once, and the person reads `words`.

    is_refused: whether the content is why, so that the question would make later turns fail too.
    """

    def __init__(self, reason: str, words: object, *, is_refused: bool = False) -> None:
        super().__init__(reason)
        self.words = words
        self.is_refused = is_refused


class AgentsStandStill(AgentError):
    """Too many threads of agents are blocked. Only a new process helps."""


def running_turn() -> Turn | None:
    """The turn that the calling code answers, or None outside a turn. As with the context, no message changes it."""
    return _running.get()


async def ask(
    agent: Agent, turn: Turn, *, limit: float, on_text: OnText | None = None, on_own_loop: bool = False
) -> str:
    """The text of `reply_to`."""
    return (await reply_to(agent, turn, limit=limit, on_text=on_text, on_own_loop=on_own_loop)).text


async def reply_to(
    agent: Agent, turn: Turn, *, limit: float, on_text: OnText | None = None, on_own_loop: bool = False
) -> Reply:
    """The agent's answer to `turn`: clean text, never blank. The session context is set while the agent runs.

    limit: seconds for the whole answer. on_text: called on the caller's loop with the whole answer so far, each time
    that a streamed one grows. on_own_loop: whether the agent runs on the loop of agents, where it blocks nothing else,
    or on the caller's. An agent that ignores its cancellation is left behind.

    Raises an `AgentError`: `AgentTimeout`, `EmptyReply`, `AgentMisconfigured`, `AgentsStandStill` or `AgentFailure`. A
    cancellation of the caller passes through.
    """
    for _ in range(MAX_MOVES):
        with suppress(Displaced):
            return await _ask(agent, turn, limit, on_text, on_own_loop)
    raise AgentFailure("other agents keep the loop from turning")


async def _ask(agent: Agent, turn: Turn, limit: float, on_text: OnText | None, on_own_loop: bool) -> Reply:
    if _rooms.left.is_full("turns"):
        raise AgentError(f"{MAX_LEFT_BEHIND} turns do not end although they were cancelled; no other is started")
    relay = _relayed(on_text, asyncio.get_running_loop()) if on_text else None

    async def reply() -> Reply:
        token, running = enter(turn.context), _running.set(turn)
        try:
            answer: object = agent.reply(turn)
            if inspect.isawaitable(answer):  # an async generator is not
                answer = await answer
            return await reply_of(answer, relay)
        finally:
            clear_session_context(token)
            with suppress(ValueError):  # an agent may end a generator in another context
                _running.reset(running)

    call = Call(f"{turn.key} of {type(agent).__name__}", reply, _rooms.left)
    try:
        cancel = _rooms.start(call) if on_own_loop else call.begin()
    except NoLoopLeft:
        raise AgentsStandStill("the agents' loops stand still") from None
    thinking = asyncio.wrap_future(call.outcome)
    try:
        await asyncio.wait({thinking}, timeout=limit)
        if not thinking.done():
            raise AgentTimeout(f"no answer within {limit:g} seconds")
        return _reply_or_failure(*thinking.result())
    finally:
        if not call.outcome.done():
            cancel()
        thinking.cancel()


def _reply_or_failure(reply: Reply, error: BaseException | None) -> Reply:
    """The reply, or the failure that this error means. SystemExit and a cancellation by the agent are failures too."""
    if error is None:
        return reply
    if isinstance(error, AgentError | Displaced):
        raise error
    if isinstance(error, Blocked):
        raise AgentFailure(f"it computed for {agent_loop.standstill():g} seconds without awaiting anything")
    raise AgentFailure(type(error).__name__) from error


def _relayed(on_text: OnText, loop: asyncio.AbstractEventLoop) -> OnText:
    """A function that calls `on_text` on its own loop. Its future is done after the call, so that no calls pile up."""

    def relay(text: str) -> asyncio.Future[object]:
        here = asyncio.get_running_loop()
        handled: asyncio.Future[object] = here.create_future()

        def handle() -> None:
            settle = _outcome(lambda: on_text(text))
            with suppress(RuntimeError):  # the agents' loop was abandoned and has ended
                here.call_soon_threadsafe(lambda: handled.done() or settle(handled))

        loop.call_soon_threadsafe(handle)
        return handled

    return relay


def left_behind() -> Counter[str]:
    """How many "threads", "turns" and "loops" of agents in this process go on although nobody waits for them."""
    return _rooms.left.counts()


async def text_of(answer: object, on_text: OnText | None = None) -> str:
    """The text of `reply_of`."""
    return (await reply_of(answer, on_text)).text


async def reply_of(answer: object, on_text: OnText | None = None) -> Reply:
    """The reply that a `Reply`, a `str` or an async iterator of `str` is, without reasoning and blanks around its text.

    Raises `EmptyReply` if there is no text. What an agent says about its model is kept as far as it can be stored.
    """
    text: object = answer.text if isinstance(answer, Reply) else answer
    if isinstance(text, AsyncIterator):
        text = await _joined(text, on_text)
    if text is None:
        raise EmptyReply("the agent answered None")
    if not isinstance(text, str):
        raise AgentFailure(f"the agent answered a {type(text).__name__}, which is not text")
    if not isinstance(answer, Reply):
        return Reply(_visible(text))
    used, made = (
        number if type(number) is int and 0 <= number <= MAX_TOKENS else None
        for number in (answer.input_tokens, answer.output_tokens)
    )
    return Reply(_visible(text), storable(str(answer.model))[:MAX_MODEL_NAME], used, made)


async def _joined(pieces: AsyncIterator[str], on_text: OnText | None) -> str:
    """The whole text, up to one character too many. An empty piece counts as one character.

    Each piece gives other tasks a turn.
    """
    whole, room = "", MAX_ANSWER + 1
    try:
        async for piece in pieces:
            whole += piece[:room]
            room -= max(1, len(piece))
            if on_text and piece and (told := without_reasoning(whole)).strip():
                handled = on_text(told)
                if inspect.isawaitable(handled):
                    await handled
            await asyncio.sleep(0)
            if room <= 0:
                break
    finally:
        if close := getattr(pieces, "aclose", None):
            with suppress(Exception):  # there is an answer already, or an error that matters more
                await close()
    return whole


def _visible(text: str) -> str:
    # Only the beginning, as an answer may fill the memory. Surrogates that a stream separated are a pair again.
    whole = without_reasoning(storable(text.lstrip()[: 2 * MAX_ANSWER])).strip()
    if not any(char.isprintable() and not char.isspace() for char in whole):
        raise EmptyReply("the agent answered only blanks or reasoning")
    return whole if len(whole) <= MAX_ANSWER else f"{whole[:MAX_ANSWER]}\n\n{texts.CUT_SHORT}"


async def run_in_thread(fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call blocking code in a thread of its own, with the caller's context variables, and return its result.

    There is no pool, as a call that hangs would take a place from the others. The thread is a daemon, so it does not
    delay the exit of the process. If the caller stops waiting, the thread is left behind and its result is dropped.
    Raises AgentError at once if too many threads are left behind.
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
        # Django has a connection for each thread: otherwise one would wait for the garbage collector.
        with suppress(Exception):  # a connection that cannot be closed must not lose the answer
            if settings.configured:
                connections.close_all()
        settle(future)

    threading.Thread(target=work, name=f"agent-{name}", daemon=True).start()
    return future


class _Threads(ThreadPoolExecutor):
    """The executor of the agents' loop: `asyncio.to_thread` gets the same threads as `run_in_thread`."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        return _start_thread(functools.partial(fn, *args, **kwargs), "call")


def _outcome(call: Callable[[], T]) -> Callable[[Any], None]:
    """Make the call. Return a function that settles a future with its result or its error."""
    try:
        result = call()
    except BaseException as error:  # noqa: BLE001 - even SystemExit: in a thread it can only be the agent's own
        # A future refuses StopIteration, and it would raise SystemExit or KeyboardInterrupt and end the process.
        failure: Exception = RuntimeError(f"the agent raised {type(error).__name__}")
        failure.__cause__ = error
        if isinstance(error, Exception) and not isinstance(error, StopIteration):
            failure = error
        return lambda future: future.set_exception(failure)
    return lambda future: future.set_result(result)


def _begin() -> None:
    global _rooms  # noqa: PLW0603 - a thread does not survive a fork
    _rooms = Rooms(_Threads)


_rooms: Rooms
_begin()
os.register_at_fork(after_in_child=_begin)
