from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import cast

import pytest

from sessions_app import texts
from sessions_app.agents import base as answering
from sessions_app.agents.base import (
    MAX_ANSWER,
    AgentError,
    AgentFailure,
    AgentTimeout,
    EmptyReply,
    ask,
    reply_of,
    run_in_thread,
    text_of,
)
from sessions_app.context import SessionContext, enter, get_session_context
from sessions_app.messages import Agent, Reply, Turn
from tests.sessions_app.agent_samples import ALICE, BOB, a_turn


class Scripted:
    """An agent whose whole mind is one function."""

    def __init__(self, mind: Callable[[Turn], object]) -> None:
        self.mind = mind

    async def reply(self, turn: Turn) -> Reply | str | AsyncIterator[str]:
        answer = self.mind(turn)
        return await answer if asyncio.iscoroutine(answer) else answer  # type: ignore[return-value]


async def pieces(*texts: str) -> AsyncIterator[str]:
    for text in texts:
        yield text


def raising(error: BaseException) -> Agent:
    def mind(turn: Turn) -> object:
        raise error

    return Scripted(mind)


@pytest.mark.asyncio
@pytest.mark.parametrize("answer", [Reply(" Hello. \n"), "Hello.", "Hel\0lo."])
async def test_it_takes_the_text_of_an_answer(answer: object) -> None:
    assert await text_of(answer) == "Hello."


@pytest.mark.asyncio
async def test_it_cuts_an_answer_that_goes_on_and_on() -> None:
    cut = await text_of("octarine " * MAX_ANSWER)

    assert cut.endswith(f"\n\n{texts.CUT_SHORT}")
    assert len(cut) == MAX_ANSWER + 2 + len(str(texts.CUT_SHORT))
    assert await text_of("o" * MAX_ANSWER) == "o" * MAX_ANSWER


async def without_end(piece: str) -> AsyncIterator[str]:
    while True:  # and without awaiting anything
        yield piece


@pytest.mark.asyncio
@pytest.mark.parametrize("piece", ["octarine ", "o" * 10 * MAX_ANSWER])
async def test_it_stops_a_streamed_answer_that_goes_on_and_on(piece: str) -> None:
    answers: list[str] = []

    cut = await text_of(without_end(piece), answers.append)

    assert cut.endswith(f"\n\n{texts.CUT_SHORT}")
    assert len(answers[-1]) == MAX_ANSWER + 1


@pytest.mark.asyncio
async def test_it_stops_a_stream_of_nothing() -> None:
    with pytest.raises(EmptyReply):
        await text_of(without_end(""))


@pytest.mark.asyncio
async def test_it_closes_a_stream_that_it_stops() -> None:
    closed = []

    async def open_ended() -> AsyncIterator[str]:
        try:
            while True:
                yield "o" * MAX_ANSWER
        finally:
            closed.append(True)
            raise RuntimeError("closing went wrong")

    assert str(texts.CUT_SHORT) in await text_of(open_ended())
    assert closed == [True]


@pytest.mark.asyncio
async def test_it_makes_no_copies_of_a_huge_answer() -> None:
    huge = "o" * 20_000_000
    tracemalloc.start()
    try:
        await text_of(huge)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < len(huge) / 10


@pytest.mark.asyncio
async def test_it_collects_a_streamed_answer() -> None:
    assert await text_of(pieces("Oct", "ar", "ine.", " ")) == "Octarine."


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("reply", "kept"),
    [
        (Reply(" Hello. ", "gpt-5-mini", 12, 0), Reply("Hello.", "gpt-5-mini", 12, 0)),
        (Reply("Hello.", "x" * 200, -1, 2**31), Reply("Hello.", "x" * 100)),
        (Reply("Hello.", cast(str, 5), cast(int, 1.5), cast(int, True)), Reply("Hello.", "5")),
        ("Hello.", Reply("Hello.")),
    ],
)
async def test_it_keeps_what_a_model_used_as_far_as_it_can_be_stored(reply: Reply | str, kept: Reply) -> None:
    assert await reply_of(reply) == kept


@pytest.mark.asyncio
async def test_it_makes_text_that_can_be_stored() -> None:
    assert await text_of(pieces("\ud83d", "\ude00 \ud800!")) == "\U0001f600 \ufffd!"


@pytest.mark.asyncio
@pytest.mark.parametrize("answer", [None, "", " \n\t", "\0", "\u200b\u200d \u00a0", Reply("")])
async def test_it_refuses_an_empty_answer(answer: object) -> None:
    with pytest.raises(EmptyReply):
        await text_of(answer)


@pytest.mark.asyncio
@pytest.mark.parametrize("answer", [42, b"Hello.", Reply(text=7)])  # type: ignore[arg-type]
async def test_it_refuses_what_is_not_text(answer: object) -> None:
    with pytest.raises(AgentFailure, match="not text"):
        await text_of(answer)


@pytest.mark.asyncio
async def test_it_sets_the_context_for_the_agent_and_puts_back_the_old_one() -> None:
    enter(BOB)
    seen: list[SessionContext] = []

    def look(turn: Turn) -> str:
        seen.append(get_session_context())
        return "Hello."

    agent = Scripted(look)

    assert await ask(agent, a_turn("Hi"), limit=5) == "Hello."

    assert seen == [ALICE]
    assert get_session_context() == BOB


@pytest.mark.asyncio
async def test_it_puts_back_the_old_context_after_a_failure() -> None:
    with pytest.raises(AgentFailure):
        await ask(raising(ValueError()), a_turn("Hi"), limit=5)

    assert get_session_context() == SessionContext()


@pytest.mark.asyncio
async def test_it_asks_an_agent_written_as_a_generator() -> None:
    class Streaming:
        async def reply(self, turn: Turn) -> AsyncIterator[str]:
            yield get_session_context().user_name
            yield "!"

    assert await ask(Streaming(), a_turn("Hi"), limit=5) == "Alice!"  # type: ignore[arg-type]


@pytest.mark.asyncio
async def test_it_stops_an_agent_at_the_limit() -> None:
    with pytest.raises(AgentTimeout, match=r"within 0\.01 seconds"):
        await ask(Scripted(lambda turn: asyncio.Event().wait()), a_turn("Hi"), limit=0.01)


@pytest.mark.asyncio
async def test_it_stops_an_endless_stream_at_the_limit() -> None:
    async def endless() -> AsyncIterator[str]:
        while True:
            yield "and "
            await asyncio.sleep(0)

    with pytest.raises(AgentTimeout):
        await ask(Scripted(lambda turn: endless()), a_turn("Hi"), limit=0.01)


@pytest.mark.asyncio
async def test_it_calls_it_a_timeout_whatever_the_agent_makes_of_being_stopped() -> None:
    async def stubborn() -> str:
        try:
            await asyncio.Event().wait()
        finally:
            raise RuntimeError("cleaning up went wrong")

    with pytest.raises(AgentTimeout):
        await ask(Scripted(lambda turn: stubborn()), a_turn("Hi"), limit=0.01)


@pytest.mark.asyncio
async def test_it_tells_the_agents_own_timeout_from_the_limit() -> None:
    error = TimeoutError("the weather service")

    with pytest.raises(AgentFailure, match=r"^TimeoutError$") as caught:
        await ask(raising(error), a_turn("Hi"), limit=5)

    assert caught.value.__cause__ is error


@pytest.mark.asyncio
async def test_it_names_a_failure_without_its_words() -> None:
    with pytest.raises(AgentFailure) as caught:
        await ask(raising(ValueError("key sk-secret")), a_turn("Hi"), limit=5)

    assert str(caught.value) == "ValueError"


@pytest.mark.asyncio
async def test_it_lets_an_agents_own_agent_error_through() -> None:
    error = AgentError("as it is")

    with pytest.raises(AgentError) as caught:
        await ask(raising(error), a_turn("Hi"), limit=5)

    assert caught.value is error


@pytest.mark.asyncio
async def test_it_lets_a_cancellation_of_the_caller_through() -> None:
    started = asyncio.Event()

    async def wait() -> None:
        started.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(ask(Scripted(lambda turn: wait()), a_turn("Hi"), limit=60))
    await started.wait()
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


@pytest.mark.asyncio
async def test_it_takes_a_cancellation_inside_the_agent_for_a_failure() -> None:
    inner: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    inner.cancel()

    with pytest.raises(AgentFailure, match="CancelledError"):
        await ask(Scripted(lambda turn: _wait_for(inner)), a_turn("Hi"), limit=5)


async def _wait_for(future: asyncio.Future[str]) -> str:
    return await future


@pytest.mark.asyncio
async def test_it_runs_in_a_daemon_thread_of_its_own_with_the_context() -> None:
    enter(ALICE)

    def look(prefix: str, *, suffix: str) -> tuple[str, bool, bool]:
        thread = threading.current_thread()
        return prefix + get_session_context().user_name + suffix, thread.daemon, thread is threading.main_thread()

    assert await run_in_thread(look, "<", suffix=">") == ("<Alice>", True, False)


@pytest.mark.asyncio
async def test_it_is_not_held_up_by_any_number_of_hung_threads() -> None:
    release = threading.Event()
    hung = [asyncio.create_task(run_in_thread(release.wait)) for _ in range(100)]
    try:
        assert await asyncio.wait_for(run_in_thread(lambda: "quick"), 5) == "quick"
    finally:
        release.set()
        assert all(await asyncio.gather(*hung))


@pytest.mark.asyncio
@pytest.mark.parametrize("error", [StopIteration(), SystemExit(3), KeyboardInterrupt()])
async def test_it_survives_what_no_future_can_carry(error: BaseException) -> None:
    def leave() -> None:
        raise error

    with pytest.raises(RuntimeError, match=type(error).__name__) as caught:
        await asyncio.wait_for(run_in_thread(leave), 5)

    assert caught.value.__cause__ is error


@pytest.mark.asyncio
async def test_it_drops_the_result_of_a_thread_that_nobody_waits_for() -> None:
    complaints: list[dict[str, object]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    started, release, threads = threading.Event(), threading.Event(), []

    def slow() -> None:
        threads.append(threading.current_thread())
        started.set()
        release.wait()
        raise ValueError("too late")

    task = asyncio.create_task(run_in_thread(slow))
    await run_in_thread(started.wait)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    release.set()
    await run_in_thread(threads[0].join)
    await asyncio.sleep(0)

    assert complaints == []


def test_it_takes_no_offence_at_a_closed_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    crashes: list[object] = []
    monkeypatch.setattr(threading, "excepthook", crashes.append)
    release, threads = threading.Event(), []

    def slow() -> None:
        threads.append(threading.current_thread())
        release.wait()

    async def give_up() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(run_in_thread(slow), 0.01)

    asyncio.run(give_up())
    release.set()
    threads[0].join(5)

    assert not threads[0].is_alive()
    assert crashes == []


def test_it_does_not_hold_up_the_exit_of_the_process() -> None:
    program = """
import asyncio, threading
from sessions_app.agents.base import run_in_thread
async def main():
    try:
        await asyncio.wait_for(run_in_thread(threading.Event().wait), 0.01)
    except TimeoutError:
        print("gave up", flush=True)
asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=20, check=True)

    assert (done.stdout, done.stderr) == ("gave up\n", "")


@pytest.mark.asyncio
@pytest.mark.parametrize("is_broken", [False, True])
async def test_it_closes_the_database_connections_of_the_thread(
    monkeypatch: pytest.MonkeyPatch, is_broken: bool
) -> None:
    closed_in: list[int] = []

    def close_all() -> None:
        closed_in.append(threading.get_ident())
        if is_broken:
            raise OSError("gone")

    monkeypatch.setattr(answering, "settings", SimpleNamespace(configured=True))
    monkeypatch.setattr(answering, "connections", SimpleNamespace(close_all=close_all))

    worked_in = await asyncio.wait_for(run_in_thread(threading.get_ident), 5)

    assert closed_in == [worked_in]


@pytest.mark.asyncio
@pytest.mark.parametrize("answer", ["<think>secret</think>Hello.", Reply("secret</think>\nHello.")])
async def test_it_takes_reasoning_out_of_every_agents_answer(answer: object) -> None:
    assert await text_of(answer) == "Hello."


@pytest.mark.asyncio
async def test_it_has_no_answer_if_there_is_only_reasoning() -> None:
    with pytest.raises(EmptyReply):
        await text_of(pieces("<think>", "secret"))


@pytest.mark.asyncio
async def test_it_shows_no_reasoning_while_an_answer_grows() -> None:
    shown: list[str] = []

    answer = await text_of(pieces("<think>sec", "ret</think>", "\n\nHel", "lo."), shown.append)

    assert (answer, [text.strip() for text in shown]) == ("Hello.", ["Hel", "Hello."])
