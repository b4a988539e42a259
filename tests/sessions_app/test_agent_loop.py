from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from sessions_app.agents import base as answering
from sessions_app.agents import loop as agent_loop
from sessions_app.agents.base import (
    AgentError,
    AgentFailure,
    AgentsStandStill,
    AgentTimeout,
    ask,
    left_behind,
    run_in_thread,
)
from tests.sessions_app.agent_samples import a_turn
from tests.sessions_app.talk import Signal
from tests.sessions_app.test_answering import Scripted


@pytest.fixture(autouse=True)
def rooms(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the test's own, so that what it leaves behind is nobody else's."""
    monkeypatch.setattr(answering, "_rooms", agent_loop.Rooms(answering._Threads))


@pytest.fixture
def release() -> Iterator[threading.Event]:
    """Ends what a test has standing still."""
    event = threading.Event()
    yield event
    event.set()


async def asked(mind: Callable[[Any], object], text: str = "Hi", limit: float = 20.0) -> str:
    return await ask(Scripted(mind), a_turn(text), limit=limit, on_own_loop=True)


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110 - threads tell nobody
            await asyncio.sleep(0.01)


class OwnEnd(BaseException):
    pass


def directly(error: BaseException) -> object:
    raise error


async def awaited(error: BaseException) -> str:
    await asyncio.sleep(0)
    raise error


async def in_a_task(error: BaseException) -> str:
    return await asyncio.create_task(awaited(error))


async def in_a_group(error: BaseException) -> str:
    async with asyncio.TaskGroup() as group:
        group.create_task(awaited(error))
    return "unreachable"


async def streamed(error: BaseException) -> AsyncIterator[str]:
    yield "so far"
    raise error


async def in_a_tool(error: BaseException) -> str:
    return await run_in_thread(lambda: _raise(error))


async def in_a_callback(error: BaseException) -> str:
    asyncio.get_running_loop().call_soon(_raise, error)
    await asyncio.sleep(0.01)
    raise error


def _raise(error: BaseException) -> str:
    raise error


ERRORS = [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), OwnEnd(), asyncio.CancelledError()]
WAYS = [directly, awaited, in_a_task, in_a_group, streamed, in_a_tool, in_a_callback]
# A group takes a task that was cancelled for one that is done.
RAISED = [
    (way, error) for way in WAYS for error in ERRORS if (way, type(error)) != (in_a_group, asyncio.CancelledError)
]


@pytest.mark.asyncio
@pytest.mark.parametrize(("way", "error"), RAISED)
async def test_it_takes_whatever_is_raised_for_a_failure_and_goes_on(
    way: Callable[[BaseException], object], error: BaseException
) -> None:
    with pytest.raises(AgentFailure):
        await asked(lambda turn: way(error))

    assert await asked(lambda turn: "fine") == "fine"


@pytest.mark.asyncio
async def test_it_fails_where_an_agent_cancels_its_own_task() -> None:
    async def give_up() -> str:
        task = asyncio.current_task()
        assert task
        task.cancel()
        await asyncio.sleep(0)
        return "unreachable"

    with pytest.raises(AgentFailure, match="CancelledError"):
        await asked(lambda turn: give_up())


def test_it_serves_one_event_loop_after_another_on_one_of_its_own() -> None:
    async def loop_of_agents() -> str:
        return str(id(asyncio.get_running_loop()))

    assert len({asyncio.run(asked(lambda turn: loop_of_agents())) for _ in range(3)}) == 1


def test_it_serves_after_a_fork() -> None:
    program = """
import asyncio, os
from sessions_app.agents.base import ask
from sessions_app.context import SessionContext
from sessions_app.messages import Turn

class Agent:
    async def reply(self, turn):
        return "Hello."

def talk():
    return asyncio.run(ask(Agent(), Turn("1", "Hi", (), SessionContext()), limit=10, on_own_loop=True))

assert talk() == "Hello."
if (child := os.fork()) == 0:
    os._exit(0 if talk() == "Hello." else 1)
assert os.waitpid(child, 0)[1] == 0
"""
    subprocess.run([sys.executable, "-c", program], timeout=30, check=True)


@pytest.mark.asyncio
async def test_it_calls_on_text_on_the_callers_loop() -> None:
    answers: list[tuple[str, threading.Thread]] = []

    async def say() -> AsyncIterator[str]:
        for piece in "abc":
            yield piece

    text = await ask(
        Scripted(lambda turn: say()),
        a_turn("Hi"),
        limit=20,
        on_text=lambda so_far: answers.append((so_far, threading.current_thread())),
        on_own_loop=True,
    )

    assert text == "abc"
    assert answers == [(so_far, threading.current_thread()) for so_far in ("a", "ab", "abc")]


@pytest.mark.asyncio
async def test_it_counts_turns_that_swallow_their_cancellation_and_bounds_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_loop, "MAX_LEFT_BEHIND", 1)
    monkeypatch.setattr(agent_loop, "GRACE", 0.01)
    enough = Signal()

    async def stay() -> str:
        while not enough.is_set():
            try:
                await enough.wait()
            except asyncio.CancelledError:
                continue
        return "too late"

    with pytest.raises(AgentTimeout):
        await asked(lambda turn: stay(), limit=0.05)
    await until(lambda: left_behind()["turns"] == 1)

    with pytest.raises(AgentError, match="turns do not end"):
        await asked(lambda turn: "fine")

    enough.set()
    await until(lambda: left_behind()["turns"] == 0)
    assert await asked(lambda turn: "fine") == "fine"


async def to_thread(call: Callable[[], object]) -> object:
    """As code does that knows nothing of BotOS."""
    return await asyncio.to_thread(call)


@pytest.mark.asyncio
@pytest.mark.parametrize("start", [run_in_thread, to_thread])
async def test_it_counts_threads_that_do_not_end_and_bounds_them(
    monkeypatch: pytest.MonkeyPatch, release: threading.Event, start: Callable[..., Any]
) -> None:
    monkeypatch.setattr(agent_loop, "MAX_LEFT_BEHIND", 1)

    with pytest.raises(AgentTimeout):
        await asked(lambda turn: run_in_thread(release.wait), limit=0.05)
    await until(lambda: left_behind()["threads"] == 1)

    with pytest.raises(AgentError, match="threads of agents and tools do not end"):
        await asked(lambda turn: start(lambda: "fine"))
    assert await asked(lambda turn: "no thread") == "no thread"

    release.set()
    await until(lambda: left_behind()["threads"] == 0)
    assert await asked(lambda turn: start(lambda: "fine")) == "fine"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_loop, "standstill", lambda: 0.3)


@pytest.mark.asyncio
@pytest.mark.usefixtures("impatient")
async def test_it_interrupts_code_that_computes_without_awaiting(caplog: pytest.LogCaptureFixture) -> None:
    async def compute(secret: str) -> str:
        while True:
            pass

    async def in_a_task(secret: str) -> str:
        return await asyncio.create_task(compute(secret))

    beside = asyncio.create_task(asked(lambda turn: asyncio.sleep(0.5, "fine")))
    with pytest.raises(AgentFailure, match="without awaiting"):
        await asked(lambda turn: in_a_task("octarine"), "octarine")

    assert await beside == "fine"
    assert left_behind().total() == 0
    [line] = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert "of Scripted keeps the agents' loop from turning" in line
    assert "test_agent_loop.py" in line
    assert line.endswith("compute")
    assert "octarine" not in line


@pytest.mark.asyncio
@pytest.mark.usefixtures("impatient")
async def test_it_goes_on_with_a_new_loop_where_one_cannot_be_interrupted(release: threading.Event) -> None:
    started = Signal()

    async def stand_still() -> str:
        await started.wait()
        release.wait()  # in C, where no exception arrives
        return "too late"

    async def innocent() -> str:
        started.set()
        await asyncio.sleep(0.2)
        return threading.current_thread().name

    beside = asyncio.create_task(asked(lambda turn: innocent()))
    with pytest.raises(AgentFailure, match="without awaiting"):
        await asked(lambda turn: stand_still())

    assert await beside == "agents"
    assert left_behind() == {"loops": 1}
    release.set()
    await until(lambda: not left_behind())


@pytest.mark.asyncio
@pytest.mark.usefixtures("impatient")
async def test_it_refuses_at_once_when_too_many_loops_stand_still(
    monkeypatch: pytest.MonkeyPatch, release: threading.Event
) -> None:
    monkeypatch.setattr(agent_loop, "MAX_ABANDONED", 1)

    async def stand_still() -> str:
        release.wait()
        return "too late"

    with pytest.raises(AgentFailure, match="without awaiting"):
        await asked(lambda turn: stand_still())
    with pytest.raises(AgentsStandStill):
        await asked(lambda turn: "fine")

    release.set()
    await until(lambda: not left_behind())
    assert await asked(lambda turn: "fine") == "fine"


def test_it_ends_a_process_whose_interpreter_is_kept_by_one_thread() -> None:
    program = """
import ctypes
from sessions_app.agents.loop import end_if_silent
end_if_silent(0.2)
ctypes.PyDLL(None).sleep(60)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)

    assert done.returncode == 1
    assert "Timeout" in done.stderr
