from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextvars import Context, copy_context
from dataclasses import FrozenInstanceError, fields

import pytest

from sessions_app import agents
from sessions_app.context import (
    SessionContext,
    clear_session_context,
    get_session_context,
    set_session_context,
)
from sessions_app.messages import Reply, Turn

EMPTY = SessionContext()
ALICE = SessionContext("telegram", "c-1", "Alice", "t-1", "12345", "Alice A.", "alice")
NAMES = ("platform", "chat_id", "chat_name", "thread_id", "user_id", "user_name", "unified_user_id")


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    clear_session_context()
    yield
    clear_session_context()


def test_it_has_seven_fields_that_are_empty_outside_a_turn() -> None:
    assert tuple(field.name for field in fields(SessionContext)) == NAMES
    assert Context().run(get_session_context) == EMPTY
    assert set(vars_of(get_session_context()).values()) == {""}


def vars_of(context: SessionContext) -> dict[str, str]:
    return {name: getattr(context, name) for name in NAMES}


def test_it_cannot_be_changed_by_a_tool() -> None:
    with pytest.raises(FrozenInstanceError):
        get_session_context().user_id = "mallory"  # type: ignore[misc]


def test_it_sets_all_fields_by_name_and_goes_back() -> None:
    token = set_session_context(**vars_of(ALICE))
    assert get_session_context() == ALICE

    clear_session_context(token)

    assert get_session_context() == EMPTY


def test_it_takes_names_only() -> None:
    with pytest.raises(TypeError):
        set_session_context("telegram")  # type: ignore[call-arg]


def test_it_replaces_the_whole_context() -> None:
    set_session_context(**vars_of(ALICE))

    set_session_context(platform="discord")

    assert get_session_context() == SessionContext(platform="discord")


def test_it_goes_back_to_the_turn_around_it() -> None:
    outer = set_session_context(**vars_of(ALICE))
    inner = set_session_context(platform="discord")

    clear_session_context(inner)
    assert get_session_context() == ALICE
    clear_session_context(outer)
    assert get_session_context() == EMPTY


def test_it_becomes_empty_without_a_token() -> None:
    set_session_context(**vars_of(ALICE))
    set_session_context(platform="discord")

    clear_session_context()

    assert get_session_context() == EMPTY


def test_it_becomes_empty_with_a_token_of_another_context() -> None:
    foreign = Context().run(set_session_context, platform="slack")
    set_session_context(**vars_of(ALICE))

    clear_session_context(foreign)

    assert get_session_context() == EMPTY


def test_it_becomes_empty_with_a_token_that_was_used() -> None:
    token = set_session_context(platform="slack")
    clear_session_context(token)
    set_session_context(**vars_of(ALICE))

    clear_session_context(token)

    assert get_session_context() == EMPTY


def test_it_shows_each_of_many_turns_its_own() -> None:
    class WhoAmI:
        async def reply(self, turn: Turn) -> Reply:
            seen = set()
            for _ in range(5):
                await asyncio.sleep(0)
                seen.add(get_session_context().user_id)
                seen.add((await asyncio.to_thread(get_session_context)).user_id)
            return Reply(",".join(sorted(seen)))

    async def main() -> list[str]:
        turns = (Turn(f"{n}", "who?", (), SessionContext("telegram", user_id=f"user-{n}")) for n in range(20))
        return await asyncio.gather(*(agents.ask(WhoAmI(), turn, limit=20) for turn in turns))

    assert asyncio.run(main()) == [f"user-{number}" for number in range(20)]


def test_it_goes_along_into_synchronous_agents_and_tools() -> None:
    class Asking:
        def chat(self, prompt: str) -> str:
            context = get_session_context()
            return f"You are {context.user_name or context.user_id} on {context.platform}"

    turn = Turn("1", "who?", (), ALICE)

    assert asyncio.run(agents.ask(agents.as_agent(Asking()), turn, limit=20)) == "You are Alice A. on telegram"
    assert get_session_context() == EMPTY


def test_it_is_empty_again_after_a_turn_that_failed() -> None:
    class Failing:
        async def reply(self, turn: Turn) -> Reply:
            raise OSError

    async def main() -> SessionContext:
        with pytest.raises(agents.AgentFailure):
            await agents.ask(Failing(), Turn("1", "x", (), ALICE), limit=20)
        return get_session_context()

    assert asyncio.run(main()) == EMPTY


def test_it_does_not_reach_a_thread_that_nobody_gave_it() -> None:
    set_session_context(**vars_of(ALICE))
    seen: list[SessionContext] = []
    given = copy_context()

    for target in (lambda: seen.append(get_session_context()), lambda: seen.append(given.run(get_session_context))):
        thread = threading.Thread(target=target)
        thread.start()
        thread.join(10)

    assert seen == [EMPTY, ALICE]


def test_it_travels_as_a_dictionary() -> None:
    context = SessionContext("telegram", chat_id="-1", user_id="7", user_name="Alice", unified_user_id="alice")

    assert list(context.to_dict()) == [
        "platform",
        "chat_id",
        "chat_name",
        "thread_id",
        "user_id",
        "user_name",
        "unified_user_id",
    ]
    assert SessionContext.from_dict(context.to_dict()) == context
    assert SessionContext.from_dict({"user_id": 7, "chat_id": None, "more": "x"}) == SessionContext(user_id="7")
