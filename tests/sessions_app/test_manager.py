from __future__ import annotations

import asyncio
import threading
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.db import connections

from identity import notices
from identity.flows import linking
from identity.models import PlatformAccount
from identity.notices import Template
from identity.resolvers import (
    DatabaseIdentityResolver,
    IdentityUnavailable,
    InMemoryIdentityResolver,
    Resolves,
)
from identity.support import clock
from sessions_app import agents, db, texts
from sessions_app.context import SessionContext, get_session_context
from sessions_app.manager import BotSessionManager
from sessions_app.messages import Reply, Turn
from sessions_app.mirror import mirror_to_session
from sessions_app.models import Conversation, HistoryEntry, Lane, OutboundDelivery
from sessions_app.turns import lifecycle
from tests.sessions_app.talk import claim, receive, time_passes

pytestmark = pytest.mark.django_db(transaction=True)
DATABASE = DatabaseIdentityResolver()


class Echo:
    """Answers with what was said, and keeps the turns for the test."""

    def __init__(self) -> None:
        self.turns: list[Turn] = []

    async def reply(self, turn: Turn) -> Reply:
        self.turns.append(turn)
        return Reply(f"re: {turn.text}")


def refused() -> agents.PermanentFailure:
    """What a model's provider refuses for its content."""
    return agents.PermanentFailure("refused", "I can't answer that.", is_refused=True)


def known() -> InMemoryIdentityResolver:
    """Alice is one person on two platforms."""
    resolver = InMemoryIdentityResolver()
    resolver.link("telegram", "12345", "alice")
    resolver.link("discord", "snowflake-1", "alice")
    return resolver


def link(platform: str, who: str, person: str = "alice") -> None:
    linking.link(platform=platform, platform_user_id=who, unified_user_id=person, method="pairing", actor="test")


def said(manager: BotSessionManager, user_id: str) -> list[str]:
    return [str(line["content"]) for line in manager.history(user_id)]


def chat(manager: BotSessionManager, user_id: str, prompt: str, agent: object = None, **where: Any) -> str:
    return async_to_sync(manager.chat)(agent or Echo(), user_id, prompt, **where)


# --- Keys


@pytest.mark.parametrize(
    ("platform", "user_id", "key"),
    [
        ("telegram", "12345", "bot_telegram_12345"),
        ("", "7", "bot__7"),
        ("slack", "T1:U 2", "bot_slack_T1:U 2"),
        ("discord", "Ünï", "bot_discord_Ünï"),
    ],
)
def test_it_keeps_the_key_of_old_without_a_resolver(platform: str, user_id: str, key: str) -> None:
    assert BotSessionManager(platform).storage_key(user_id) == key


@pytest.mark.parametrize("resolver", [InMemoryIdentityResolver(), DATABASE])
def test_it_takes_the_resolved_id_for_the_key(resolver: Any) -> None:
    manager = BotSessionManager("telegram", identity_resolver=resolver)
    assert manager.storage_key("12345") == "telegram:12345"

    resolver.link("telegram", "12345", "alice")

    assert manager.storage_key("12345") == "alice"


def test_it_refuses_a_store_of_another_kind() -> None:
    with pytest.raises(TypeError, match="DATABASE_URL"):
        BotSessionManager("telegram", store=object())  # type: ignore[arg-type]


def test_it_needs_no_database_to_be_made(django_assert_num_queries: Callable[[int], Any]) -> None:
    with django_assert_num_queries(0):
        BotSessionManager()


# --- Chatting


@pytest.mark.parametrize("resolver", [None, known(), DATABASE])
def test_it_answers_and_remembers(resolver: Resolves | None) -> None:
    manager = BotSessionManager("telegram", identity_resolver=resolver)
    agent = Echo()

    answers = [chat(manager, "12345", prompt, agent) for prompt in ("one", "two", "three")]

    assert answers == ["re: one", "re: two", "re: three"]
    assert said(manager, "12345") == ["one", "re: one", "two", "re: two", "three", "re: three"]
    assert [line.text for line in agent.turns[2].history] == ["one", "re: one", "two", "re: two"]
    assert not OutboundDelivery.objects.exists()


@pytest.mark.parametrize("resolver", [None, known(), DATABASE])
def test_it_takes_numbers_for_ids(resolver: Resolves | None) -> None:
    manager = BotSessionManager("telegram", identity_resolver=resolver)
    chat(manager, 12345, "one")  # type: ignore[arg-type]

    assert said(manager, "12345") == manager_said_to_a_number(manager) == ["one", "re: one"]


def manager_said_to_a_number(manager: BotSessionManager) -> list[str]:
    return [line["content"] for line in manager.history(12345)]  # type: ignore[arg-type]


def test_it_keeps_one_history_for_a_person_of_a_given_resolver() -> None:
    resolver = known()
    telegram = BotSessionManager("telegram", identity_resolver=resolver)
    discord = BotSessionManager("discord", identity_resolver=resolver)
    chat(telegram, "12345", "My favourite colour is octarine.", agents.Agent(), chat_id="12345")

    answer = chat(discord, "snowflake-1", "What's my favourite colour?", agents.Agent(), chat_id="d-1", scope="private")

    assert answer.startswith("Octarine.")
    assert telegram.history("12345") == discord.history("snowflake-1") == telegram.history("alice")
    assert Conversation.objects.get().key == "alice"


def test_it_shares_a_person_of_the_database_from_the_link_on() -> None:
    telegram, discord = (BotSessionManager(name, identity_resolver=DATABASE) for name in ("telegram", "discord"))
    chat(telegram, "12345", "before")
    chat(discord, "snowflake-1", "mine")
    link("telegram", "12345")
    link("discord", "snowflake-1")
    chat(telegram, "12345", "after")

    assert said(discord, "snowflake-1") == ["mine", "re: mine", "after", "re: after"]
    assert said(telegram, "12345") == ["before", "re: before", "after", "re: after"]


def test_it_keeps_the_platforms_apart_without_a_resolver() -> None:
    telegram, discord = BotSessionManager("telegram"), BotSessionManager("discord")
    chat(telegram, "7", "here")

    assert said(discord, "7") == []
    assert Conversation.objects.get().key == "bot_telegram_7"


@pytest.mark.parametrize("resolver", [None, known(), DATABASE])
def test_it_says_everything_about_who_asks(resolver: Resolves | None) -> None:
    agent = Echo()
    manager = BotSessionManager("telegram", identity_resolver=resolver)
    if resolver is DATABASE:
        link("telegram", "12345")

    place = {"chat_id": "c-1", "chat_name": "Alice", "thread_id": "t-1", "user_name": "Alice A.", "message_id": "m-1"}
    chat(manager, "12345", "hello", agent, **place, scope="private")

    person = "alice" if resolver else "telegram:12345"
    assert agent.turns[0].context == SessionContext("telegram", "c-1", "Alice", "t-1", "12345", "Alice A.", person)
    message = HistoryEntry.objects.get(role="user")
    assert (message.chat_id, message.thread_id, message.message_id) == ("c-1", "t-1", "m-1")
    assert str(message.author) == ("telegram:12345" if resolver is DATABASE else "None")


def test_it_leaves_the_address_alone() -> None:
    manager = BotSessionManager("telegram", identity_resolver=DATABASE)
    receive("12345", "here")

    chat(manager, "12345", "in a group", chat_id="-100", thread_id="t-1")
    chat(manager, "12345", "and from a script")

    conversation = Conversation.objects.get(kind="dm")
    assert (conversation.chat_id, conversation.thread_id) == ("chat-12345", "")
    assert [entry.chat_id for entry in HistoryEntry.objects.filter(role="user")] == ["-100", ""]


def test_it_tells_nothing_in_a_group_about_who_has_no_private_chat() -> None:
    manager = BotSessionManager("telegram", identity_resolver=DATABASE)
    chat(manager, "12345", "in a group", chat_id="-100")
    account = PlatformAccount.objects.get()
    notices.tell(account, Template.ACCOUNTS)
    assert not OutboundDelivery.objects.exists()

    receive("12345", "in private")
    notices.tell(account, Template.ACCOUNTS)

    assert OutboundDelivery.objects.get().chat_id == "chat-12345"


def test_it_gives_as_much_history_as_it_was_told() -> None:
    manager, agent = BotSessionManager("telegram", max_history=3), Echo()
    for number in range(3):
        chat(manager, "7", f"{number}", agent)

    assert said(manager, "7") == ["re: 1", "2", "re: 2"]
    assert [line.text for line in agent.turns[2].history] == ["re: 0", "1", "re: 1"]


def test_it_gives_history_as_plain_dictionaries() -> None:
    manager = BotSessionManager("telegram")
    before = clock.read().timestamp()
    chat(manager, "7", "hello")
    mirror_to_session(manager, "7", "Standup.", "cron")

    user, reply, mirror = manager.history("7")

    assert list(user) == ["role", "content", "timestamp"]
    assert (user["role"], reply["role"], mirror["role"]) == ("user", "assistant", "assistant")
    assert before <= user["timestamp"] == reply["timestamp"] <= mirror["timestamp"] <= clock.read().timestamp()
    assert (mirror["mirror"], mirror["mirror_source"]) == (True, "cron")


@pytest.mark.parametrize("resolver", [None, known(), DATABASE])
def test_it_knows_nothing_of_strangers(resolver: Resolves | None) -> None:
    manager = BotSessionManager("telegram", identity_resolver=resolver)

    assert manager.history("99") == []
    assert manager.reset("99") is False
    assert not PlatformAccount.objects.exists()
    assert not Conversation.objects.exists()


@pytest.mark.parametrize("resolver", [None, known(), DATABASE])
def test_it_puts_behind_what_was_said_before_a_reset(resolver: Resolves | None) -> None:
    manager = BotSessionManager("telegram", identity_resolver=resolver)
    chat(manager, "12345", "old")

    assert manager.reset("12345") is True
    chat(manager, "12345", "new")

    assert said(manager, "12345") == ["new", "re: new"]
    assert HistoryEntry.objects.count() == 4


def test_it_resets_a_person_on_all_platforms() -> None:
    telegram, discord = (BotSessionManager(name, identity_resolver=DATABASE) for name in ("telegram", "discord"))
    link("telegram", "12345")
    link("discord", "snowflake-1")
    chat(telegram, "12345", "here")
    chat(discord, "snowflake-1", "there")

    discord.reset("alice")

    assert telegram.history("12345") == discord.history("snowflake-1") == []


def test_it_can_be_asked_from_a_coroutine() -> None:
    manager = BotSessionManager("telegram")

    async def main() -> None:
        await manager.chat(Echo(), "7", "hello")
        assert [line["content"] for line in await manager.ahistory("7")] == ["hello", "re: hello"]
        assert await manager.areset("7")
        assert await manager.ahistory("7") == []

    async_to_sync(main)()


# --- When something goes wrong


class Failing:
    async def reply(self, turn: Turn) -> Reply:
        raise OSError("no route to model")


def test_it_says_what_an_agent_cannot_do() -> None:
    class Strict:
        async def reply(self, turn: Turn) -> Reply:
            raise agents.PermanentFailure("too long", texts.TOO_LONG)

    answer = chat(BotSessionManager("slack"), "U7", "hello", Strict())

    assert answer == str(texts.TOO_LONG).replace("/new", "!new")


def test_it_says_honestly_that_an_agent_failed() -> None:
    manager = BotSessionManager("telegram")

    answer = chat(manager, "7", "hello", Failing())

    assert answer == str(texts.GAVE_UP)
    assert said(manager, "7") == ["hello", answer]
    echo = Echo()
    assert chat(manager, "7", "again", echo) == "re: again"
    assert [line.text for line in echo.turns[0].history] == ["hello"]


def test_no_agent_reads_what_the_provider_refuses() -> None:
    class Strict:
        async def reply(self, turn: Turn) -> Reply:
            raise refused()

    manager, echo = BotSessionManager("telegram"), Echo()
    chat(manager, "7", "poison", Strict())
    chat(manager, "7", "again", echo)

    assert echo.turns[0].history == ()
    assert said(manager, "7") == ["poison", "I can't answer that.", "again", "re: again"]


def test_it_keeps_nothing_if_nobody_knows_who_it_is() -> None:
    class Broken:
        def resolve(self, platform: str, platform_user_id: str) -> str:
            raise OSError("no such file")

    manager = BotSessionManager("telegram", identity_resolver=Broken())

    for ask in (lambda: chat(manager, "7", "hello"), lambda: manager.history("7"), lambda: manager.storage_key("7")):
        with pytest.raises(IdentityUnavailable):
            ask()
    assert not Conversation.objects.exists()


def test_it_frees_the_person_if_the_asker_goes_away() -> None:
    manager = BotSessionManager("telegram", identity_resolver=DATABASE)

    async def main() -> None:
        started = asyncio.Event()

        class Slow:
            async def reply(self, turn: Turn) -> Reply:
                started.set()
                await asyncio.Event().wait()
                raise AssertionError

        task = asyncio.create_task(manager.chat(Slow(), "7", "never mind"))
        async with asyncio.timeout(10):
            await started.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        async with asyncio.timeout(10):
            assert await manager.chat(Echo(), "7", "hello") == "re: hello"

    async_to_sync(main)()

    assert said(manager, "7") == ["hello", "re: hello"]


def test_it_writes_nothing_once_somebody_else_has_the_lane() -> None:
    manager = BotSessionManager("telegram")

    class Overtaken:
        async def reply(self, turn: Turn) -> Reply:
            await sync_to_async(Lane.objects.update)(fence=99)
            return Reply("too late")

    with pytest.raises(lifecycle.LeaseLost):
        chat(manager, "7", "hello", Overtaken())

    assert not HistoryEntry.objects.exists()


# --- At the same time


class Meeting:
    """Lets nobody go on before `guests` are there together, and notes who was there at once."""

    def __init__(self, guests: int) -> None:
        self.guests = guests
        self.inside: list[str] = []
        self.together: set[frozenset[str]] = set()
        self._full = asyncio.Event()

    async def reply(self, turn: Turn) -> Reply:
        person = get_session_context().unified_user_id
        self.inside.append(person)
        self.together.add(frozenset(self.inside))
        assert len(set(self.inside)) == len(self.inside), "a person's turns overlap"
        if len(self.inside) == self.guests:
            self._full.set()
        async with asyncio.timeout(20):
            await self._full.wait()
        for _ in range(3):
            await asyncio.sleep(0)
        self.inside.remove(person)
        texts_before = [line.text for line in turn.history]
        return Reply(f"{person}: {turn.text} after {len(texts_before)}")


@pytest.mark.parametrize("resolver", ["memory", "database"])
def test_it_keeps_two_hundred_overlapping_turns_of_two_people_apart(resolver: str) -> None:
    who = known() if resolver == "memory" else DATABASE
    if resolver == "database":
        link("telegram", "12345")
        link("discord", "snowflake-1")
    bots = {name: BotSessionManager(name, identity_resolver=who, max_history=500) for name in ("telegram", "discord")}
    asked: dict[str, list[str]] = defaultdict(list)

    async def main() -> Meeting:
        agent = Meeting(guests=2)

        async def ask(platform: str, user_id: str, words: str) -> None:
            person = "alice" if user_id in {"12345", "snowflake-1"} else f"{platform}:{user_id}"
            answer = await bots[platform].chat(agent, user_id, words)
            asked[person] += [words, answer]

        async with asyncio.TaskGroup() as group:
            for number in range(50):
                for platform, user_id in (("telegram", "12345"), ("discord", "snowflake-1")):
                    group.create_task(ask(platform, user_id, f"alice {platform} {number}"))
                group.create_task(ask("telegram", "bob", f"bob {2 * number}"))
                group.create_task(ask("telegram", "bob", f"bob {2 * number + 1}"))
        return agent

    agent = async_to_sync(main)()

    alice, bob = said(bots["telegram"], "12345"), said(bots["telegram"], "bob")
    assert len(alice) == len(bob) == 200
    assert bob == asked["telegram:bob"]
    assert bob[::2] == [f"bob {number}" for number in range(100)]
    assert sorted(alice) == sorted(asked["alice"])
    for platform in bots:
        assert [text for text in alice if text.startswith(f"alice {platform}")] == [
            f"alice {platform} {number}" for number in range(50)
        ]
    # One turn after the other: each saw two entries more than the one before it.
    assert sorted(int(text.rpartition(" ")[2]) for text in alice[1::2]) == list(range(0, 200, 2))
    assert frozenset({"alice", "telegram:bob"}) in agent.together


class Gossip:
    """An agent with a memory of its own, shared by everybody, that tells all it has heard."""

    def __init__(self) -> None:
        self.chat_history: list[dict[str, str]] = []

    async def chat(self, prompt: str) -> str:
        self.chat_history.append({"role": "user", "content": prompt})
        for _ in range(3):
            await asyncio.sleep(0)
        return " | ".join(message["content"] for message in self.chat_history)


def test_it_shows_nobody_the_history_of_others_through_a_shared_agent() -> None:
    manager, agent = BotSessionManager("telegram", max_history=4), Gossip()

    async def main() -> list[str]:
        asked = (manager.chat(agent, f"user-{number % 5}", f"of user-{number % 5}") for number in range(25))
        return await asyncio.gather(*asked)

    answers = async_to_sync(main)()

    assert agent.chat_history == []
    for number, answer in enumerate(answers):
        heard = {part.strip() for part in answer.split("|")}
        assert heard == {f"of user-{number % 5}"}


def test_it_keeps_a_person_serial_over_processes() -> None:
    """Two managers are as good as two processes: they share nothing but the database."""
    inside, most = 0, 0

    class Careful:
        async def reply(self, turn: Turn) -> Reply:
            nonlocal inside, most
            inside += 1
            most = max(most, inside)
            for _ in range(5):
                await asyncio.sleep(0)
            inside -= 1
            return Reply("ok")

    async def main() -> None:
        managers = [BotSessionManager("telegram", identity_resolver=DATABASE) for _ in range(2)]
        await asyncio.gather(*(managers[number % 2].chat(Careful(), "7", f"{number}") for number in range(6)))

    async_to_sync(main)()

    assert most == 1
    assert HistoryEntry.objects.count() == 12


def test_it_may_be_used_from_several_event_loops() -> None:
    manager = BotSessionManager("telegram", identity_resolver=DATABASE)
    failures: list[Exception] = []

    def work(name: str) -> None:
        async def main() -> None:
            await asyncio.gather(*(manager.chat(Echo(), "7", f"{name} {number}") for number in range(4)))
            await db.call(connections.close_all)  # the bridge's thread outlives the test

        try:
            asyncio.run(main())
        except Exception as error:  # noqa: BLE001 - pytest does not look into threads
            failures.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert failures == []
    assert sorted(said(manager, "7")[::2]) == sorted(f"{name} {number}" for name in "ab" for number in range(4))


def test_it_remembers_nobody_that_is_gone() -> None:
    manager = BotSessionManager("telegram")
    for number in range(5):
        chat(manager, f"user-{number}", "hello")

    assert len(manager._queues) == 0


# --- Groups


@pytest.mark.parametrize("resolver", [None, known(), DATABASE])
@pytest.mark.parametrize(
    ("platform", "group"), [("telegram", "-100123"), ("slack", "C123"), ("discord", "900"), ("matrix", "!room")]
)
def test_it_keeps_private_words_and_a_groups_apart(resolver: Resolves | None, platform: str, group: str) -> None:
    manager, agent = BotSessionManager(platform, identity_resolver=resolver), Echo()
    chat(manager, "12345", "my secret", agent)
    chat(manager, "12345", "hello all", agent, chat_id=group, user_name="Alice")
    chat(manager, "67890", "hello back", agent, chat_id=group, user_name="Bob")
    chat(manager, "12345", "just us again", agent)

    heard = [[line.text for line in turn.history] for turn in agent.turns]
    assert heard == [[], [], ["hello all", "re: hello all"], ["my secret", "re: my secret"]]
    assert [line.author for line in agent.turns[2].history if line.role == "user"] == ["Alice"]
    assert said(manager, "12345") == ["my secret", "re: my secret", "just us again", "re: just us again"]
    assert [line["content"] for line in manager.history("67890", group)][::2] == ["hello all", "hello back"]


def test_it_takes_a_chat_for_private_only_where_it_knows() -> None:
    receive("7", "hello")
    telegram, slack, discord = (
        BotSessionManager(name, identity_resolver=DATABASE) for name in ("telegram", "slack", "discord")
    )
    agent = Echo()
    for manager, where in (
        (telegram, {"chat_id": "7"}),
        (telegram, {"chat_id": "chat-7"}),  # where the inbox has heard the account in private
        (telegram, {"chat_id": "-7", "scope": "private"}),
        (slack, {"chat_id": "D7"}),
        (discord, {"chat_id": "900", "scope": "private"}),
    ):
        chat(manager, "7", "in private", agent, **where)
    assert not Conversation.objects.filter(kind="group").exists()

    chat(telegram, "8", "not mine", agent, chat_id="chat-7")
    chat(telegram, "7", "said so", agent, chat_id="7", scope="group")

    assert Conversation.objects.filter(kind="group").count() == 2


def test_it_keeps_threads_of_a_group_apart() -> None:
    manager, agent = BotSessionManager("slack", identity_resolver=DATABASE), Echo()
    for thread in ("t-1", "t-2"):
        chat(manager, "U1", f"in {thread}", agent, chat_id="C1", thread_id=thread)

    assert [turn.history for turn in agent.turns] == [(), ()]
    assert manager.reset("U2", "C1", "t-1")
    assert manager.history("U1", "C1", "t-1") == []
    assert len(manager.history("U1", "C1", "t-2")) == 2
    assert not manager.reset("U1", "C1", "t-3")


@pytest.mark.parametrize("where", [{"scope": "everywhere"}, {"scope": "group"}])
def test_it_takes_no_scope_that_makes_no_sense(where: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"scope|chat_id"):
        chat(BotSessionManager("telegram"), "7", "hello", **where)

    assert not HistoryEntry.objects.exists()


# --- The same message twice


@pytest.mark.parametrize("resolver", [None, known(), DATABASE])
@pytest.mark.parametrize("chat_id", ["", "12345", "-100"])
def test_it_answers_a_message_once(resolver: Resolves | None, chat_id: str) -> None:
    manager, agent = BotSessionManager("telegram", identity_resolver=resolver), Echo()
    where = {"chat_id": chat_id, "message_id": "m-1"}

    answers = [chat(manager, "12345", text, agent, **where) for text in ("hello", "hello", "edited")]

    assert answers == ["re: hello"] * 3
    assert len(agent.turns) == 1
    assert HistoryEntry.objects.count() == 2
    assert chat(manager, "12345", "next", agent, chat_id=chat_id, message_id="m-2") == "re: next"
    assert chat(manager, "12345", "elsewhere", agent, chat_id="-200", message_id="m-1") == "re: elsewhere"
    assert not Lane.objects.exclude(owner="").exists()


def test_it_takes_no_later_answer_for_that_to_a_message_that_failed_first() -> None:
    conversation = receive("12345", "hard question")
    failed = claim(conversation)
    lifecycle.fail(failed)
    lifecycle.finish(claim(receive("12345", "easy question")), "easy answer", limit=2000)
    time_passes()
    lifecycle.finish(claim(conversation), "hard answer", limit=2000)

    manager, agent = BotSessionManager("telegram", identity_resolver=DATABASE), Echo()
    where = {"chat_id": "chat-12345", "message_id": failed.head.message_id}
    assert chat(manager, "12345", "hard question", agent, scope="private", **where) == "hard answer"
    assert not agent.turns


def test_it_answers_a_message_once_when_it_comes_twice_at_once() -> None:
    manager, agent = BotSessionManager("telegram", identity_resolver=DATABASE), Echo()

    async def twice() -> list[str]:
        return await asyncio.gather(*(manager.chat(agent, "7", "hello", message_id="m-1") for _ in range(2)))

    assert async_to_sync(twice)() == ["re: hello"] * 2
    assert len(agent.turns) == 1


def test_it_cleans_what_no_database_takes() -> None:
    manager = BotSessionManager("telegram", identity_resolver=DATABASE)

    assert chat(manager, "7", "a\x00b \ud83d") == "re: ab \ufffd"
