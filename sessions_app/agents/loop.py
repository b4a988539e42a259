"""The event loop of agents, in a thread of its own, and the thread that watches it.

An agent that computes without awaiting blocks only this loop: BotOS goes on receiving messages, answering commands and
pages, renewing leases, and delivering answers. If the loop is blocked for too long, the code that blocks it is
interrupted. If that does not help, the thread is abandoned, and a new one takes over the other turns.
"""

from __future__ import annotations

import asyncio
import ctypes
import faulthandler
import functools
import logging
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from contextlib import suppress
from contextvars import Context, ContextVar, copy_context
from types import FrameType
from typing import Any

from django.conf import settings

log = logging.getLogger(__name__)

MAX_LEFT_BEHIND = 64  # running threads and turns that nobody waits for
MAX_ABANDONED = 3  # threads of blocked loops: each takes its share of the interpreter
MIN_STANDSTILL = 1.0  # seconds
TICKS = 10  # checks until the loop counts as blocked
MORE_TICKS = 4  # checks after that until an interrupted loop is abandoned
GRACE = 1.0  # seconds in which a cancelled turn should end
SWITCH_SECONDS = 0.0005
FAREWELL = 1.0  # seconds that the turns of an abandoned loop have to end if it runs again


def _count_nothing(what: str, kind: str) -> None:
    pass


count: Callable[[str, str], None] = _count_nothing  # the app sets its counters here, which need Django's models


class Blocked(BaseException):
    """Raised inside the code that blocks the agents' loop."""


class Displaced(Exception):
    """The loop of this call was abandoned because of another call: start this one again."""


class NoLoopLeft(Exception):
    """Too many loops are blocked. Only a new process helps."""


def share_fairly() -> None:
    """Let threads switch sooner: while an agent computes, each step of the other threads waits."""
    sys.setswitchinterval(min(SWITCH_SECONDS, sys.getswitchinterval()))


def standstill() -> float:
    """Seconds after which an unresponsive loop counts as blocked.

    It is a quarter of an agent's time limit, so that other agents on the loop can still answer, and a lease at most.
    """
    if not settings.configured:
        return 30.0
    return max(MIN_STANDSTILL, min(settings.BOTOS_LEASE_SECONDS, settings.BOTOS_TURN_SECONDS / 4))


def end_if_silent(seconds: float) -> None:
    """End the process, to be restarted, unless this is called again within `seconds`.

    This is for code that never releases the interpreter, so that no Python thread can watch it. This watch is in C. It
    prints the stack of every thread, without values.
    """
    if sys.__stderr__ is not None:
        with suppress(OSError, ValueError):  # it may be closed
            faulthandler.dump_traceback_later(seconds, exit=True, file=sys.__stderr__)


def may_be_silent() -> None:
    """Cancel `end_if_silent`."""
    faulthandler.cancel_dump_traceback_later()


class LeftBehind:
    """Counts work that goes on although nobody waits for it, by kind. It is thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kinds: dict[object, str] = {}

    def add(self, work: Future[Any], kind: str) -> None:
        """Count the work until its future is done."""
        with self._lock:
            self._kinds[work] = kind
        count("left behind", kind)
        work.add_done_callback(self._end)

    def _end(self, work: Future[Any]) -> None:
        with self._lock:
            self._kinds.pop(work, None)

    def counts(self) -> Counter[str]:
        with self._lock:
            return Counter(self._kinds.values())

    def is_full(self, kind: str) -> bool:
        return self.counts()[kind] >= MAX_LEFT_BEHIND


class Call:
    """A coroutine on the agents' loop. Its `outcome` is the returned value and the raised error, one of them None.

    name: for the log, without words of a conversation. SystemExit is an outcome too. The error is part of the result,
    as asyncio would replace some errors.
    """

    def __init__(self, name: str, work: Callable[[], Coroutine[Any, Any, Any]], left: LeftBehind) -> None:
        self.name = name
        self.outcome: Future[tuple[Any, BaseException | None]] = Future()
        self.ended: Future[None] = Future()  # when its task is over, maybe after the outcome
        self.outcome.set_running_or_notify_cancel()
        self._work = work
        self._left = left
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> Callable[[], None]:
        """Start the task, in the loop's thread. Return a function that cancels it, in the same thread."""
        self._task = asyncio.get_running_loop().create_task(self._run())
        self._task.add_done_callback(self._end)
        return self.cancel

    async def _run(self) -> None:
        # SystemExit and KeyboardInterrupt from a task would end the loop, so no error leaves this one.
        _current.set(self)
        try:
            result = await self._work()
        except BaseException as error:  # noqa: BLE001 - any error is the outcome of this call alone
            self.fail(error)
        else:
            with suppress(InvalidStateError):
                self.outcome.set_result((result, None))

    def fail(self, error: BaseException) -> None:
        with suppress(InvalidStateError):
            self.outcome.set_result((None, error))

    def _end(self, _: asyncio.Task[None]) -> None:
        self.fail(asyncio.CancelledError())  # cancelled before its first step
        self.ended.set_result(None)

    def cancel(self) -> None:
        """Cancel the task, in the loop's thread. If it does not end, it is left behind."""
        if self._task and not self._task.done():
            self._task.cancel()
            asyncio.get_running_loop().call_later(GRACE, self._leave)

    def _leave(self) -> None:
        if not self.ended.done():
            log.warning("cancel %s failed: it goes on; it is left behind", self.name)
            self._left.add(self.ended, "turns")


_current: ContextVar[Call | None] = ContextVar("botos_agent_call", default=None)


class Room:
    """One loop, its thread, and the thread that watches it."""

    def __init__(self, executor: ThreadPoolExecutor, on_standstill: Callable[[Room], None]) -> None:
        self.loop = asyncio.new_event_loop()
        self.loop.set_default_executor(executor)
        self.calls: set[Call] = set()
        self.culprit: Call | None = None
        self.ended: Future[None] = Future()
        self.is_over = False
        self._on_standstill = on_standstill
        self._lock = threading.Lock()
        self._is_busy = threading.Event()
        self._has_turned = True
        self._thread = threading.Thread(target=self._work, name="agents", daemon=True)
        self._thread.start()
        threading.Thread(target=self._watch, name="agents-watch", daemon=True).start()

    def start(self, call: Call, context: Context) -> None:
        """Run the call in `context`. Thread-safe."""
        with self._lock:
            self.calls.add(call)
            self._is_busy.set()
        call.ended.add_done_callback(lambda _: self._remove(call))
        self.loop.call_soon_threadsafe(call.begin, context=context)

    def cancel(self, call: Call) -> None:
        """Cancel the call. Thread-safe."""
        with suppress(RuntimeError):  # an abandoned loop has ended
            self.loop.call_soon_threadsafe(call.cancel)

    def _remove(self, call: Call) -> None:
        with self._lock:
            self.calls.discard(call)
            if not self.calls:
                self._is_busy.clear()

    def _work(self) -> None:
        asyncio.set_event_loop(self.loop)
        while not self.is_over or not self.loop.is_closed():
            try:
                self.loop.run_forever()
                if self.is_over:
                    self.loop.close()
            except BaseException as error:  # noqa: BLE001 - from a task of an agent, which has it as its result too
                log.warning("run the agents' loop failed: %s from an agent; the loop goes on", type(error).__name__)
        self.ended.set_result(None)

    def _watch(self) -> None:
        """Check the loop at intervals. It counts checks, not seconds, as the whole process may stop for a while."""
        missed = 0
        while not self.is_over:
            self._is_busy.wait()
            time.sleep(standstill() / TICKS)
            missed = 0 if self._has_turned else missed + 1
            if not missed:
                if self.culprit is not None:
                    _raise_in(self._thread, None)  # it went on by itself in time
                    self.culprit = None
                self._has_turned = False
                with suppress(RuntimeError):
                    self.loop.call_soon_threadsafe(self._turn)
            elif missed == TICKS:
                self._interrupt()
            elif missed == TICKS + MORE_TICKS:
                self.is_over = True
        self._on_standstill(self)

    def _turn(self) -> None:
        self._has_turned = True

    def _interrupt(self) -> None:
        frame = sys._current_frames().get(self._thread.ident or 0)  # noqa: SLF001 - as its documentation shows
        self.culprit = _call_in(frame)
        name = self.culprit.name if self.culprit else "something"
        log.error(
            "%s keeps the agents' loop from turning for %.1f s; it is stopped at %s", name, standstill(), _stack(frame)
        )
        count("interrupted", "loops")
        _raise_in(self._thread, Blocked)

    def wind_up(self) -> None:
        """End everything if the abandoned loop runs again."""
        with suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self._cancel_all)

    def _cancel_all(self) -> None:
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.loop.call_later(FAREWELL, self.loop.stop)


class Rooms:
    """The current room of this process, and the abandoned ones."""

    def __init__(self, executor: Callable[[], ThreadPoolExecutor]) -> None:
        self._executor = executor
        self.left = LeftBehind()
        self._lock = threading.Lock()
        self._room: Room | None = None

    def start(self, call: Call) -> Callable[[], None]:
        """Run the call on the agents' loop, in a copy of the caller's context. Return a function that cancels it.

        Raises NoLoopLeft.
        """
        with self._lock:
            if self._room is None or self._room.is_over:
                if self.left.counts()["loops"] >= MAX_ABANDONED:
                    raise NoLoopLeft
                self._room = Room(self._executor(), self._abandon)
            room = self._room
            room.start(call, copy_context())
        return functools.partial(room.cancel, call)

    def _abandon(self, room: Room) -> None:
        with self._lock:
            calls, culprit = list(room.calls), room.culprit
            self.left.add(room.ended, "loops")
        log.error("the agents' loop still stands still; its thread is abandoned and a new one is started")
        for call in calls:
            call.fail(Blocked() if call is culprit else Displaced())
        room.wind_up()


def _raise_in(thread: threading.Thread, error: type[BaseException] | None) -> None:
    """Raise the error in the thread as soon as Python code runs there; None cancels that."""
    what = ctypes.py_object(error) if error else None
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), what)


def _call_in(frame: FrameType | None) -> Call | None:
    """The call whose code runs in this frame: asyncio runs each step and callback in the context of its call."""
    while frame:
        if frame.f_code is asyncio.Handle._run.__code__:  # noqa: SLF001 - nothing public tells of callbacks and tasks
            return frame.f_locals["self"]._context.get(_current)  # type: ignore[no-any-return]  # noqa: SLF001
        frame = frame.f_back
    return None


def _stack(frame: FrameType | None) -> str:
    """The places of the stack, the innermost last, without values."""
    places = traceback.walk_stack(frame)
    return " > ".join(
        reversed([f"{called.f_code.co_filename}:{line} {called.f_code.co_name}" for called, line in places])
    )
