from __future__ import annotations

import functools
import threading
import time
import unicodedata
from collections.abc import Callable

import pytest

from sessions_app.agents.base import AgentFailure, ask
from sessions_app.agents.recall import HELP, NOTICE, RecallAgent
from sessions_app.context import get_session_context
from sessions_app.messages import Line
from tests.sessions_app.agent_samples import ALICE, a_turn, assistant, mirror, user

SAID_SO = assistant(NOTICE)


def whoami() -> str:
    ctx = get_session_context()
    return f"You are {ctx.user_name or ctx.user_id} on {ctx.platform}"


async def answer(text: str, *history: Line, tools: tuple[Callable[..., object], ...] = ()) -> str:
    return await ask(RecallAgent(tools), a_turn(text, SAID_SO, *history), limit=30)


@pytest.mark.asyncio
async def test_it_recalls_what_it_was_told() -> None:
    told = "My favourite colour is octarine."

    assert await answer(told) == "Got it!"
    assert await answer("What's my favourite colour?", user(told), assistant("Got it!")) == "Octarine."


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "question",
    [
        "What's my favourite colour?",
        "What is my favorite color",
        "what\u2019s my favourite color ???",
        "WHATS MY FAVOURITE COLOUR",
        "Hey, do you remember my favourite colour?",
        "Can you tell me what my favorite colour is?",
        "Tell me my favourite colour again, please",
        "Good morning!\nWhat is my favourite colour?",
    ],
)
async def test_it_understands_a_question_however_it_is_written(question: str) -> None:
    assert await answer(question, user("My favourite colour is octarine.")) == "Octarine."


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("told", "question", "expected"),
    [
        ("my favorite color is octarine", "What's my favourite colour?", "Octarine."),
        ("Please remember that my dog\u2019s name is Rex!", "What's my dog's name?", "Rex."),
        ("My hobbies are chess and tea.", "What are my hobbies?", "Chess and tea."),
        ("MY CAT IS TOM", "who is my cat?", "TOM."),
        ("My café is Zur Straße.", unicodedata.normalize("NFD", "Where is my café?"), "Zur Straße."),
        ("My ім'я is Київ", "What is my ІМ'Я?", "Київ."),
        ("My name is Alice.", "Who am I?", "Alice."),
        ("My name's Alice.", "What's my name?", "Alice."),
        ("Hi, I'm Alice, nice to meet you!", "What's my name?", "Alice."),
        ("I am Alice Smith from Berlin", "Who am I?", "Alice Smith."),
        ("i\u2019m alice", "who am i", "Alice."),
        ("I live in Paris.", "Where do I live?", "Paris."),
        ("I work at ACME Ltd.", "Where do I work?", "ACME Ltd."),
        ("I really like tea.", "What do I like?", "Tea."),
        ("I love my cat", "Who do I love?", "Your cat."),
        ("I have two cats.", "What do I have?", "Two cats."),
        ("I'm Alice and I live in Paris.", "Where do I live?", "Paris."),
        ("I'm Alice and I live in Paris.", "Who am I?", "Alice."),
    ],
)
async def test_it_recalls_many_kinds_of_facts(told: str, question: str, expected: str) -> None:
    assert await answer(told) == "Got it!"
    assert await answer(question, user(told)) == expected


@pytest.mark.asyncio
async def test_it_believes_the_latest_statement() -> None:
    history = (user("My colour is red."), assistant("Got it!"), user("My colour is blue."))

    assert await answer("What is my colour?", *history) == "Blue."
    assert await answer("My colour is green.\nWhat is my colour?", *history) == "Green."


@pytest.mark.asyncio
async def test_it_takes_facts_only_from_the_person() -> None:
    history = (assistant("My colour is red."), mirror("I am Bob. My colour is blue."))

    assert await answer("What is my colour?", *history) == "You have not told me that yet."


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "remark", ["I'm hungry", "i'm fine", "I am on my way home", "What if my colour is red?", "I don't like tea"]
)
async def test_it_takes_no_remark_for_a_fact(remark: str) -> None:
    for question in ("Who am I?", "What's my colour?", "What do I like?"):
        assert await answer(question, user(remark)) == "You have not told me that yet."


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "text", ["What's the weather?", "Hello!", "\U0001f600", "What's Bob's favourite colour?", "my"]
)
async def test_it_says_what_it_can_do_when_it_cannot_answer(text: str) -> None:
    assert await answer(text, user("My favourite colour is octarine."), user("my ?! is odd")) == HELP


@pytest.mark.asyncio
async def test_it_recalls_what_was_sent() -> None:
    sent = (mirror("Reminder: lunch."), mirror("Reminder: your standup is in 5 minutes."), assistant("Hello!"))

    assert await answer("What was the last reminder?", *sent) == "Reminder: your standup is in 5 minutes."
    assert await answer("What did you tell me?") == "I have sent you nothing but my answers."


@pytest.mark.asyncio
async def test_it_says_once_that_there_is_no_model() -> None:
    agent = RecallAgent()
    first = await ask(agent, a_turn("My colour is red."), limit=5)
    second = await ask(agent, a_turn("What is my colour?", user("My colour is red."), assistant(first)), limit=5)

    assert first == f"Got it!\n\n{NOTICE}"
    assert second == "Red."


@pytest.mark.asyncio
async def test_it_says_so_although_the_person_quoted_it() -> None:
    assert (await ask(RecallAgent(), a_turn("Hi", user(NOTICE)), limit=5)).endswith(NOTICE)


@pytest.mark.asyncio
@pytest.mark.parametrize("text", ["whoami", " WhoAmI? ", "/whoami"])
async def test_it_uses_a_tool_that_is_asked_for_by_name(text: str) -> None:
    assert await answer(text, tools=(whoami,)) == f"You are {ALICE.user_name} on telegram"


@pytest.mark.asyncio
async def test_it_uses_an_async_tool_and_one_of_several_words() -> None:
    async def get_user_platform(detail: str = "", *more: str, **others: str) -> str:
        return get_session_context().platform + detail

    assert await answer("get user platform", tools=(whoami, get_user_platform)) == "telegram"


@pytest.mark.asyncio
async def test_it_uses_no_tool_for_a_sentence_or_without_its_arguments() -> None:
    def remind(when: str, *more: str) -> str:
        raise AssertionError("was called")

    assert await answer("remind", tools=(remind,)) == "I cannot use remind without a model: it needs when."
    assert await answer("whoami is a fine word", tools=(whoami,)) == HELP


@pytest.mark.asyncio
async def test_it_uses_no_tool_without_a_name() -> None:
    assert await answer("?!", tools=(functools.partial(whoami),)) == HELP


@pytest.mark.asyncio
async def test_it_runs_a_sync_tool_off_the_loop() -> None:
    def where() -> str:
        return threading.current_thread().name

    assert await answer("where", tools=(where,)) == "agent-where"


@pytest.mark.asyncio
async def test_it_fails_with_its_tool() -> None:
    def broken() -> str:
        raise ZeroDivisionError

    with pytest.raises(AgentFailure, match="ZeroDivisionError"):
        await answer("broken", tools=(broken,))


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "piece",
    [*"a '\u0301?", "_-", "my ", "I am ", "and my ", "hi, ", "?! ", "my a is b.\n", "what's my ", "do i ", "my is "],
)
async def test_it_stays_quick_on_huge_messages(piece: str) -> None:
    huge = piece * (1_000_000 // len(piece))
    started = time.thread_time()

    await answer(f"{huge}?", *[user(huge)] * 5)

    assert time.thread_time() - started < 1
