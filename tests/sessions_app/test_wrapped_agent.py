from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from sessions_app.agents.base import AgentFailure, AgentTimeout, EmptyReply, ask
from sessions_app.agents.chat_object import as_agent, shape
from sessions_app.context import get_session_context
from sessions_app.messages import Reply, Turn
from tests.sessions_app.agent_samples import a_turn, assistant, mirror, user


class Naughty:
    """Keeps what it hears, as a PraisonAI agent does, and shows all of it to whoever asks."""

    def __init__(self) -> None:
        self.chat_history: list[dict[str, str]] = []

    def chat(self, prompt: str) -> str:
        self.chat_history.append({"role": "user", "content": prompt})
        time.sleep(0.005)  # time for somebody else's words to get in
        return " | ".join(message["content"] for message in self.chat_history)


class Saying:
    """Answers always the same; has no chat_history."""

    def __init__(self, answer: object) -> None:
        self.answer = answer

    def chat(self, prompt: str) -> object:
        return self.answer


def test_it_joins_what_one_side_says_in_a_row() -> None:
    history = [user("Hi"), user("Anyone?"), assistant("Hello!"), user("My dog is Rex.")]

    assert shape(history) == [("user", "Hi\n\nAnyone?"), ("assistant", "Hello!"), ("user", "My dog is Rex.")]


def test_it_says_who_sent_a_mirror() -> None:
    history = [assistant("Hello!"), mirror("Standup in 5."), mirror("Hm.", label="")]

    assert shape(history) == [
        ("assistant", "Hello!\n\n[sent to the person by cron] Standup in 5.\n\n[sent to the person] Hm.")
    ]


def test_it_leaves_out_blank_lines_and_leaves_the_rows_as_they_are() -> None:
    history = (user("Hi"), assistant("  \n"), user("there"))

    assert shape(history) == [("user", "Hi\n\nthere")]
    assert history == (user("Hi"), assistant("  \n"), user("there"))


def test_it_leaves_an_object_with_reply_as_it_is() -> None:
    class Ready:
        async def reply(self, turn: Turn) -> Reply:
            return Reply("Hello.")

    ready = Ready()

    assert as_agent(ready) is ready


@pytest.mark.parametrize("thing", [None, "my.agent", 7, object()])
def test_it_refuses_what_is_no_agent(thing: object) -> None:
    with pytest.raises(TypeError, match=r"neither reply\(turn\) nor chat\(prompt\)"):
        as_agent(thing)


@pytest.mark.asyncio
async def test_it_gives_the_history_of_the_turn_to_the_wrapped_agent() -> None:
    turn = a_turn("Now?", user("Hi"), assistant("Hello!"), mirror("Standup."))

    answer = await ask(as_agent(Naughty()), turn, limit=5)

    assert answer == "Hi | Hello!\n\n[sent to the person by cron] Standup. | Now?"


@pytest.mark.asyncio
async def test_it_hands_over_role_and_content() -> None:
    seen: list[object] = []

    class Recording:
        chat_history: list[dict[str, str]] = []

        def chat(self, prompt: str) -> str:
            seen.extend(self.chat_history)
            return "ok"

    await ask(as_agent(Recording), a_turn("Now?", user("Hi"), assistant("Hello!")), limit=5)

    assert seen == [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]
    assert Recording.chat_history == []


@pytest.mark.asyncio
async def test_it_adds_no_chat_history_to_an_object_without_one() -> None:
    class Bare:
        __slots__ = ()

        def chat(self, prompt: str) -> str:
            return prompt

    assert await ask(as_agent(Bare()), a_turn("Hi", user("Before")), limit=5) == "Hi"


@pytest.mark.asyncio
@pytest.mark.parametrize("wrapped", [Naughty(), Naughty], ids=["prototype", "factory"])
async def test_it_never_shares_an_object_between_two_people(wrapped: object) -> None:
    agent = as_agent(wrapped)
    turns = [a_turn(f"prompt of {n}", user(f"secret of {n}")) for n in range(50)]

    answers = await asyncio.gather(*(ask(agent, turn, limit=30) for turn in turns))

    assert answers == [f"secret of {n} | prompt of {n}" for n in range(50)]


@pytest.mark.asyncio
async def test_it_keeps_its_prototype_as_new_even_if_the_original_is_used() -> None:
    class Counting:
        def __init__(self) -> None:
            self.heard: list[str] = []

        def chat(self, prompt: str) -> str:
            self.heard.append(prompt)
            return " | ".join(self.heard)

    original = Counting()
    agent = as_agent(original)
    original.chat("by somebody else")

    assert await ask(agent, a_turn("one"), limit=5) == "one"
    assert await ask(agent, a_turn("two"), limit=5) == "two"


def test_it_asks_for_a_factory_instead_of_an_object_that_cannot_be_copied() -> None:
    class Locked(Naughty):
        def __init__(self) -> None:
            super().__init__()
            self.lock = threading.Lock()

    with pytest.raises(TypeError, match="this Locked cannot be copied for every turn; pass a factory"):
        as_agent(Locked())
    assert callable(as_agent(Locked).reply)


def test_it_asks_for_a_factory_instead_of_an_object_that_pretends_to_be_copied() -> None:
    class Singleton(Naughty):
        def __deepcopy__(self, memo: object) -> Singleton:
            return self

    with pytest.raises(TypeError, match="pass a factory"):
        as_agent(Singleton())


@pytest.mark.asyncio
async def test_it_makes_a_fresh_agent_with_reply_for_every_turn() -> None:
    class Answering:
        def __init__(self) -> None:
            self.heard: list[str] = []

        async def reply(self, turn: Turn) -> Reply:
            self.heard.append(turn.text)
            return Reply(" | ".join(self.heard))

    agent = as_agent(Answering)

    assert [await ask(agent, a_turn(text), limit=5) for text in ("one", "two")] == ["one", "two"]


@pytest.mark.asyncio
async def test_it_awaits_an_async_chat_on_the_loop() -> None:
    loop = asyncio.get_running_loop()

    class Async:
        async def chat(self, prompt: str) -> str:
            assert asyncio.get_running_loop() is loop
            return f"{get_session_context().user_name} said {prompt}"

    assert await ask(as_agent(Async()), a_turn("Hi"), limit=5) == "Alice said Hi"


@pytest.mark.asyncio
async def test_it_runs_a_sync_chat_off_the_loop_and_in_the_context() -> None:
    class Sync:
        def chat(self, prompt: str) -> str:
            assert threading.current_thread() is not threading.main_thread()
            return f"{get_session_context().user_name} said {prompt}"

    assert await ask(as_agent(Sync()), a_turn("Hi"), limit=5) == "Alice said Hi"


@pytest.mark.asyncio
async def test_it_collects_a_streaming_chat() -> None:
    class Streaming:
        async def chat(self, prompt: str) -> AsyncIterator[str]:
            yield "Oct"
            yield "arine."

    assert await ask(as_agent(Streaming()), a_turn("Hi"), limit=5) == "Octarine."


@pytest.mark.asyncio
@pytest.mark.parametrize(("answer", "text"), [("Hi", "Hi"), (42, "42"), (Reply("Hi"), "Hi")])
async def test_it_makes_text_of_the_answer(answer: object, text: str) -> None:
    assert await ask(as_agent(Saying(answer)), a_turn("Hi"), limit=5) == text


@pytest.mark.asyncio
@pytest.mark.parametrize("answer", [None, "", "  "])
async def test_it_takes_no_answer_for_an_error(answer: object) -> None:
    with pytest.raises(EmptyReply):
        await ask(as_agent(Saying(answer)), a_turn("Hi"), limit=5)


@pytest.mark.asyncio
async def test_it_stops_waiting_for_a_hung_chat_and_serves_the_next() -> None:
    release = threading.Event()

    class Hanging:
        def chat(self, prompt: str) -> str:
            if prompt == "hang":
                release.wait()
            return "ok"

    agent = as_agent(Hanging())
    try:
        with pytest.raises(AgentTimeout):
            await ask(agent, a_turn("hang"), limit=0.05)
        assert await ask(agent, a_turn("Hi"), limit=5) == "ok"
    finally:
        release.set()


@pytest.mark.asyncio
@pytest.mark.parametrize("made", ["text", 7])
async def test_it_says_that_a_factory_made_no_agent(made: Any) -> None:
    with pytest.raises(AgentFailure) as caught:
        await ask(as_agent(lambda: made), a_turn("Hi"), limit=5)

    assert "which has neither reply nor chat" in str(caught.value.__cause__)


@pytest.mark.asyncio
async def test_it_refuses_a_factory_that_gives_the_same_object_twice() -> None:
    class Chatty:
        def chat(self, prompt: str) -> str:
            return prompt

    kept = Chatty()
    agent = as_agent(lambda: kept)
    await agent.reply(a_turn("one"))

    with pytest.raises(TypeError, match="same object"):
        await agent.reply(a_turn("two"))
