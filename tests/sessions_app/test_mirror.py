from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.db import connections
from django.http import HttpRequest, HttpResponse
from django.test import AsyncRequestFactory, RequestFactory

from identity import notices
from identity.flows import linking
from identity.models import PlatformAccount, UnifiedUser
from identity.notices import Template
from identity.resolvers import DatabaseIdentityResolver, InMemoryIdentityResolver
from sessions_app import db, mirror
from sessions_app.history import window
from sessions_app.manager import BotSessionManager
from sessions_app.messages import Reply, Turn
from sessions_app.mirror import amirror_to_session, mirror_to_session
from sessions_app.models import Conversation, HistoryEntry, OutboundDelivery
from sessions_app.outbox.notify import tell
from tests.sessions_app.talk import receive

pytestmark = pytest.mark.django_db(transaction=True)
DATABASE = DatabaseIdentityResolver()


class Echo:
    async def reply(self, turn: Turn) -> Reply:
        return Reply(f"re: {turn.text}")


def link(platform: str, who: str, person: str = "alice") -> None:
    linking.link(platform=platform, platform_user_id=who, unified_user_id=person, method="pairing", actor="test")


def chat(manager: BotSessionManager, user_id: str, prompt: str, agent: object = None) -> str:
    return async_to_sync(manager.chat)(agent or Echo(), user_id, prompt, chat_id=f"chat-{user_id}", scope="private")


def texts() -> list[str]:
    return list(HistoryEntry.objects.order_by("id").values_list("text", flat=True))


@pytest.fixture
def manager() -> BotSessionManager:
    """On Telegram, where somebody with the id 7 has said hello."""
    made = BotSessionManager("telegram", identity_resolver=DATABASE)
    chat(made, "7", "hello")
    return made


def test_it_writes_one_entry_and_sends_nothing(manager: BotSessionManager) -> None:
    Conversation.objects.update(chat_id="chat-7")  # as when they have written there

    done = mirror_to_session(
        session_mgr=manager, user_id="7", message_text="Standup in 5.", source_label="cron", metadata={"job": 3}
    )

    assert done is True
    entry = HistoryEntry.objects.latest("id")
    assert (entry.role, entry.source, entry.source_label, entry.text) == (
        "assistant",
        "mirror",
        "cron",
        "Standup in 5.",
    )
    assert (entry.metadata, entry.platform, entry.chat_id) == ({"job": 3}, "telegram", "chat-7")
    assert HistoryEntry.objects.count() == 3
    assert not OutboundDelivery.objects.exists()
    last = manager.history("7")[-1]
    assert (last["role"], last["content"], last["mirror"], last["mirror_source"]) == (
        "assistant",
        "Standup in 5.",
        True,
        "cron",
    )


@pytest.mark.parametrize("text", ["", "  \n", None, 7])
def test_it_writes_nothing_for_no_text(manager: BotSessionManager, text: Any) -> None:
    assert mirror_to_session(manager, "7", text) is False
    assert async_to_sync(amirror_to_session)(manager, "7", text) is False
    assert len(texts()) == 2


def test_it_lets_metadata_override_nothing(manager: BotSessionManager) -> None:
    lies = {"role": "user", "content": "x", "timestamp": 0, "mirror": False, "mirror_source": "you", "kept": "yes"}

    assert mirror_to_session(manager, "7", "Standup.", "cron", metadata=lies)

    assert HistoryEntry.objects.latest("id").metadata == {"kept": "yes"}
    last = manager.history("7")[-1]
    assert (last["role"], last["content"], last["mirror"], last["mirror_source"]) == (
        "assistant",
        "Standup.",
        True,
        "cron",
    )
    assert last["timestamp"] > 0


def test_it_finds_a_person_where_they_spoke_last() -> None:
    managers = {name: BotSessionManager(name, identity_resolver=DATABASE) for name in ("telegram", "discord")}
    for name in managers:
        link(name, "7")
    for name, manager in managers.items():
        chat(manager, "7", f"on {name}")
    assert mirror_to_session(managers["telegram"], "alice", "one", "cron")
    chat(managers["telegram"], "7", "back here")
    assert mirror_to_session(managers["discord"], "alice", "two", "cron")

    where = dict(HistoryEntry.objects.filter(source="mirror").values_list("text", "platform"))
    assert where == {"one": "discord", "two": "telegram"}
    assert managers["discord"].history("7") == managers["telegram"].history("alice")


def test_it_does_not_take_a_link_that_ended_for_the_person() -> None:
    manager = BotSessionManager("telegram", identity_resolver=DATABASE)
    link("telegram", "7")
    chat(manager, "7", "hello")
    linking.unlink(platform="telegram", platform_user_id="7", actor="test")

    assert mirror_to_session(manager, "alice", "Standup.") is False


@pytest.mark.parametrize("resolver", [None, InMemoryIdentityResolver(), DATABASE])
def test_it_reaches_an_account_that_has_never_written(resolver: Any) -> None:
    manager = BotSessionManager("telegram", identity_resolver=resolver)

    assert mirror_to_session(manager, "99", "Welcome, Zoe.", "cron") is True
    assert [line["content"] for line in manager.history("99")] == ["Welcome, Zoe."]
    chat(manager, "99", "who am I?")
    assert texts() == ["Welcome, Zoe.", "who am I?", "re: who am I?"]
    assert len(manager.history("99")) == 3


def test_it_reaches_a_linked_person_who_has_never_written() -> None:
    link("discord", "8")
    link("telegram", "8")
    manager = BotSessionManager("telegram", identity_resolver=DATABASE)

    assert mirror_to_session(manager, "alice", "Welcome.") is True

    assert [line["content"] for line in manager.history("alice")] == ["Welcome."]
    receive("8", "hello")
    assert "Welcome." in [line["content"] for line in manager.history("8")]


def test_it_reaches_a_person_of_another_resolver_who_has_never_written() -> None:
    resolver = InMemoryIdentityResolver()
    resolver.link("discord", "8", "alice")
    manager = BotSessionManager("telegram", identity_resolver=resolver)

    assert mirror_to_session(manager, "alice", "Welcome.") is True

    other = BotSessionManager("discord", identity_resolver=resolver)
    assert [line["content"] for line in other.history("8")] == ["Welcome."]


def test_it_opens_no_chat_that_nobody_has_written_in(settings: Any) -> None:
    """There is nowhere to send to, and the notice about what is kept is still to come."""
    settings.BOTOS_PRIVACY_NOTICE = "This is kept."
    link("telegram", "8")
    manager = BotSessionManager("telegram", identity_resolver=DATABASE)
    mirror_to_session(manager, "alice", "Welcome.")
    account = PlatformAccount.objects.get()

    notices.tell(account, Template.ACCOUNTS)
    with pytest.raises(ValueError, match="no private chat"):
        tell(person=UnifiedUser.objects.get(), text="hello", label="operator", actor="root")
    assert not OutboundDelivery.objects.exists()

    receive("8", "hello")
    assert OutboundDelivery.objects.get().chat_id == "chat-8"


def test_it_draws_no_message_away_from_a_chat_that_is_there() -> None:
    receive("8", "hello", platform="telegram")
    link("telegram", "8")
    link("discord", "8")
    manager = BotSessionManager("discord", identity_resolver=DATABASE)
    mirror_to_session(manager, "8", "Welcome.")

    chat_told = tell(person=UnifiedUser.objects.get(), text="hello", label="operator", actor="root")

    assert chat_told.platform == "telegram"


def test_it_takes_the_id_of_a_person_that_another_resolver_knows() -> None:
    resolver = InMemoryIdentityResolver()
    resolver.link("telegram", "7", "alice")
    manager = BotSessionManager("telegram", identity_resolver=resolver)
    chat(manager, "7", "hello")

    assert mirror_to_session(manager, "alice", "one")
    assert mirror_to_session(manager, "7", "two")
    assert [line["content"] for line in manager.history("alice")] == ["hello", "re: hello", "one", "two"]


def test_it_takes_a_raw_id_without_a_resolver() -> None:
    manager = BotSessionManager("telegram")
    chat(manager, "7", "hello")

    assert mirror_to_session(manager, "7", "Standup.")
    assert manager.history("7")[-1]["content"] == "Standup."


class Noting:
    """A lock that notes what was in history when it was taken and given back."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def __enter__(self) -> None:
        self.seen.append(len(texts()))

    def __exit__(self, *error: object) -> None:
        self.seen.append(len(texts()))


def test_it_holds_the_lock_around_the_write(manager: BotSessionManager) -> None:
    lock = Noting()

    assert mirror_to_session(manager, "7", "Standup.", lock=lock)

    assert lock.seen == [2, 3]


def test_it_gives_the_lock_back_if_the_write_fails(manager: BotSessionManager, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = threading.RLock()
    monkeypatch.setattr(window, "entry", None)

    assert mirror_to_session(manager, "7", "Standup.", lock=lock) is False

    taken: list[bool] = []
    thread = threading.Thread(target=lambda: taken.append(lock.acquire(blocking=False)))
    thread.start()
    thread.join()
    assert taken == [True]


class Broken:
    def resolve(self, platform: str, platform_user_id: str) -> str:
        raise OSError("the words of a secret message")


@pytest.mark.parametrize("way", ["plain", "coroutine", "durable"])
@pytest.mark.parametrize(
    ("session_mgr", "metadata"),
    [(BotSessionManager("telegram", identity_resolver=Broken()), None), (None, None), ("ok", {"not": object()})],
)
def test_it_never_raises_and_logs_no_words(
    manager: BotSessionManager, session_mgr: Any, metadata: Any, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    mgr = manager if session_mgr == "ok" else session_mgr

    async def in_a_coroutine() -> bool:
        accepted = mirror_to_session(mgr, "7", "a secret message", "cron", metadata)
        await db.drain()
        return not accepted

    with caplog.at_level(logging.DEBUG, logger="sessions_app.mirror"):
        if way == "plain":
            failed = mirror_to_session(mgr, "7", "a secret message", "cron", metadata) is False
        elif way == "coroutine":
            failed = async_to_sync(in_a_coroutine)() is False  # True means accepted
        else:
            failed = async_to_sync(amirror_to_session)(mgr, "7", "a secret message", "cron", metadata) is False

    assert failed
    assert "mirror a message failed" in caplog.text
    assert "secret message" not in caplog.text
    assert len(texts()) == 2


def test_it_survives_what_no_database_takes(manager: BotSessionManager) -> None:
    assert mirror_to_session(manager, "7", "a\x00b", "x" * 200) is True
    assert mirror_to_session(manager, "7", "half a pair \ud83d", "a\x00", {"a\x00": ["\ud83d", 7]}) is True
    assert HistoryEntry.objects.latest("id").metadata == {"a": ["\ufffd", 7]}
    assert mirror_to_session(manager, "7", " \x00") is False
    assert mirror_to_session(manager, "x" * 500, "nobody") is False
    assert mirror_to_session(manager, "7", "still here") is True
    assert texts()[2:] == ["ab", "half a pair \ufffd", "still here"]


# --- From everywhere, once each


def test_it_works_from_a_view(manager: BotSessionManager) -> None:
    def view(request: HttpRequest) -> HttpResponse:
        return HttpResponse(str(mirror_to_session(manager, "7", "from a view", "web")))

    assert view(RequestFactory().get("/")).content == b"True"
    assert texts()[2:] == ["from a view"]


def test_it_works_from_an_async_view(manager: BotSessionManager) -> None:
    async def view(request: HttpRequest) -> HttpResponse:
        return HttpResponse(str(mirror_to_session(manager, "7", "from an async view", "web")))

    assert async_to_sync(view)(AsyncRequestFactory().get("/")).content == b"True"
    async_to_sync(db.drain)()
    assert texts()[2:] == ["from an async view"]


def test_it_works_from_a_thread_and_leaves_no_connection(manager: BotSessionManager) -> None:
    seen: list[object] = []

    def work() -> None:
        seen.append(mirror_to_session(manager, "7", "from a thread"))
        seen.append(connections["default"].connection)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(10)

    assert seen == [True, None]
    assert texts()[2:] == ["from a thread"]


def test_it_works_from_a_program_whose_loop_ends_at_once(manager: BotSessionManager) -> None:
    """Accepted is accepted: the loop may be gone before anybody has waited for anything."""

    async def main() -> list[bool]:
        return [mirror_to_session(manager, "7", f"mirror {number}") for number in range(3)]

    accepted: list[bool] = []
    thread = threading.Thread(target=lambda: accepted.extend(asyncio.run(main())))
    thread.start()
    thread.join(10)
    async_to_sync(db.drain)()

    assert accepted == [True, True, True]
    assert texts()[2:] == ["mirror 0", "mirror 1", "mirror 2"]


def test_it_does_not_block_a_coroutine(manager: BotSessionManager) -> None:
    lock = threading.RLock()  # held by somebody who waits for the coroutine to go on

    async def main() -> None:
        went_on = threading.Event()
        held = threading.Event()

        def hold() -> None:
            with lock:
                held.set()
                went_on.wait(10)

        thread = threading.Thread(target=hold)
        thread.start()
        await asyncio.to_thread(held.wait, 10)
        assert mirror_to_session(manager, "7", "from a coroutine", lock=lock) is True
        assert thread.is_alive()
        went_on.set()
        await db.drain()
        thread.join()

    async_to_sync(main)()

    assert texts()[2:] == ["from a coroutine"]


def test_it_can_be_waited_for_in_a_coroutine(manager: BotSessionManager) -> None:
    async def main() -> list[dict[str, Any]]:
        assert await amirror_to_session(manager, "7", "durable", "cron") is True
        return await manager.ahistory("7")

    assert async_to_sync(main)()[-1]["content"] == "durable"


@contextmanager
def _closing() -> Iterator[None]:
    try:
        yield
    finally:
        connections.close_all()


@pytest.mark.parametrize("tool", ["async", "sync"])
def test_it_works_inside_a_turn_before_the_turn_is_over(manager: BotSessionManager, tool: str) -> None:
    class Reminding:
        async def reply(self, turn: Turn) -> Reply:
            assert mirror_to_session(manager, turn.context.user_id, "by the way", "tool") is True
            return Reply("done")

    class RemindingInAThread:
        def chat(self, prompt: str) -> str:
            assert mirror_to_session(manager, "7", "by the way", "tool") is True
            return "done"

    chat(manager, "7", "remind me", Reminding() if tool == "async" else RemindingInAThread())

    # Drained before the turn ended: it is written before the turn is.
    assert texts()[2:] == ["by the way", "remind me", "done"]


def test_it_writes_each_of_many_once_from_everywhere_at_once(manager: BotSessionManager) -> None:
    lock = threading.RLock()

    def threads(name: str) -> None:
        with _closing():
            for number in range(5):
                assert mirror_to_session(manager, "7", f"{name} {number}", lock=lock)

    async def coroutine(name: str) -> None:
        for number in range(5):
            assert mirror_to_session(manager, "7", f"{name} {number}", lock=lock)
            await asyncio.sleep(0)

    async def main() -> None:
        jobs = [asyncio.to_thread(threads, name) for name in ("a", "b")]
        await asyncio.gather(*jobs, coroutine("c"), coroutine("d"))
        await db.drain()

    async_to_sync(main)()

    written = texts()[2:]
    assert sorted(written) == sorted(f"{name} {number}" for name in "abcd" for number in range(5))
    for name in "abcd":
        assert [text for text in written if text.startswith(name)] == [f"{name} {number}" for number in range(5)]


def test_it_says_what_it_takes() -> None:
    assert list(mirror.mirror_to_session.__annotations__)[:6] == [
        "session_mgr",
        "user_id",
        "message_text",
        "source_label",
        "metadata",
        "lock",
    ]
