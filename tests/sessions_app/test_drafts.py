"""An answer is seen while it is made, under the turn's lease, and in the end there is one answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.db import OperationalError

from identity.models import Browser, LiveEvent, PlatformAccount
from identity.support import clock
from sessions_app import agents, db
from sessions_app.messages import Agent, Reply, Turn
from sessions_app.models import HistoryEntry, InboundEvent, Lane, OutboundDelivery
from sessions_app.outbox import queue as outbox_queue
from sessions_app.turns import drafts, lifecycle
from sessions_app.turns.leases import Claim
from sessions_app.turns.pool import Service, TurnPool
from sessions_app.web import chat_page
from tests.sessions_app.agent_samples import a_turn
from tests.sessions_app.browsing import account, browser_of, claim, write
from tests.sessions_app.talk import DATABASE, PLATFORMS

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def alice() -> PlatformAccount:
    return account("alice")


@pytest.fixture
def page(alice: PlatformAccount) -> Browser:
    return browser_of(alice)


@pytest.fixture
def claimed(page: Browser, alice: PlatformAccount) -> Claim:
    """A turn of alice's in the browser, under way."""
    write(page, alice, "hello")
    return claim(alice)


def drafted() -> list[str]:
    return list(OutboundDelivery.objects.filter(status="drafting").values_list("text", flat=True))


def queued() -> list[str]:
    waiting = OutboundDelivery.objects.filter(platform="web", status="pending").order_by("id")
    return list(waiting.values_list("text", flat=True))


def answers() -> list[str]:
    said = HistoryEntry.objects.filter(role="assistant", platform="web").order_by("id")
    return list(said.values_list("text", flat=True))


# --- one draft, under the lease


def test_it_is_one_row_that_grows_and_is_announced(page: Browser, claimed: Claim) -> None:
    LiveEvent.objects.all().delete()

    assert all([drafts.write(claimed, "Oct"), drafts.write(claimed, "Octarine.")])

    assert drafted() == ["Octarine."]
    assert [one.topic for one in LiveEvent.objects.all()] == [f"browser:{page.pk}"] * 2


def test_it_writes_nothing_when_the_lease_was_lost(claimed: Claim) -> None:
    drafts.write(claimed, "mine")
    Lane.objects.filter(pk=claimed.lease.conversation.pk).update(fence=claimed.lease.fence + 1)

    assert not drafts.write(claimed, "still mine")
    assert drafted() == ["mine"]


def test_it_is_sent_by_nobody_and_holds_up_nobody(page: Browser, claimed: Claim) -> None:
    drafts.write(claimed, "Oct")
    OutboundDelivery.objects.create(platform="web", chat_id=str(page.pk), text="a reminder")

    assert [one.text for one in outbox_queue.claim(owner="test", platforms=("web",))] == ["a reminder"]


# --- how it ends


def test_it_makes_way_for_the_answer(claimed: Claim) -> None:
    drafts.write(claimed, "Oct")
    lifecycle.finish(claimed, "Octarine.", limit=2000)

    assert (drafted(), queued(), answers()) == ([], ["Octarine."], ["Octarine."])


def test_it_makes_way_for_the_word_that_the_agent_failed(claimed: Claim) -> None:
    drafts.write(claimed, "Oct")
    lifecycle.fail(claimed)

    assert drafted() == []
    assert queued()[0].startswith("I couldn't answer that just now.")
    assert answers() == []


def test_it_makes_way_when_the_agent_is_given_up(claimed: Claim) -> None:
    drafts.write(claimed, "Oct")
    claimed.head.failures = len(lifecycle.RETRY_AFTER)
    lifecycle.fail(claimed)

    assert drafted() == []
    assert answers()[0].startswith("I still couldn't answer that.")


def test_it_makes_way_when_the_message_is_quarantined(claimed: Claim) -> None:
    drafts.write(claimed, "Oct")
    lifecycle.quarantine(claimed)

    assert drafted() == []


def test_it_goes_back_with_the_answer_that_could_not_be_written(claimed: Claim) -> None:
    drafts.write(claimed, "Oct")
    Lane.objects.filter(pk=claimed.lease.conversation.pk).update(fence=claimed.lease.fence + 1)

    with pytest.raises(lifecycle.LeaseLost):
        lifecycle.finish(claimed, "Octarine.", limit=2000)

    assert (drafted(), answers()) == (["Oct"], [])


def test_it_is_written_over_by_the_turn_that_is_done_again_after_a_crash(
    page: Browser, alice: PlatformAccount, claimed: Claim
) -> None:
    drafts.write(claimed, "Oct")
    Lane.objects.update(lease_until=clock.EPOCH)  # the process is gone
    again = claim(alice)

    drafts.write(again, "Oc")
    assert drafted() == ["Oc"]
    lifecycle.finish(again, "Octarine.", limit=2000)

    assert (drafted(), queued(), answers()) == ([], ["Octarine."], ["Octarine."])
    assert not drafts.write(claimed, "Octar")  # by one who did not notice that they are dead


# --- on the page


def test_it_is_seen_where_the_answer_will_be(page: Browser, alice: PlatformAccount) -> None:
    write(page, alice, "one")
    write(page, alice, "two")
    claimed = claim(alice)
    drafts.write(claimed, "Oct")
    before = chat_page.chat(page)
    lifecycle.finish(claimed, "Octarine.", limit=2000)
    after = chat_page.chat(page)

    assert [(line.role, line.text) for line in before.lines][-1] == ("assistant draft", "Oct")
    assert [(line.role, line.text) for line in after.lines][-1] == ("assistant", "Octarine.")
    assert [line.key for line in before.lines] == [line.key for line in after.lines]


# --- from the agent


class Streaming:
    """Answers in pieces, and tells the test when it has said each."""

    def __init__(self, *pieces: str, fails: bool = False, pause: float = 0.0) -> None:
        self._pieces, self._fails, self._pause = pieces, fails, pause
        self.shown: list[list[str]] = []

    async def reply(self, turn: Turn) -> AsyncIterator[str]:
        return self._say()

    async def _say(self) -> AsyncIterator[str]:
        for piece in self._pieces:
            yield piece
            await asyncio.sleep(self._pause)
            self.shown.append(await db.call(drafted))
        if self._fails:
            raise RuntimeError("the model hung up")


def take_turn(agent: Agent, *, streams: bool = True) -> None:
    """Answer what waits, as a worker does."""

    async def work() -> None:
        stop, answered = asyncio.Event(), asyncio.Event()
        services = {name: Service(agent, DATABASE, streams=streams) for name in (*PLATFORMS, "web")}
        pool = TurnPool(services, size=2, on_outgoing=answered.set)
        running = asyncio.create_task(pool.run(stop))
        await asyncio.wait_for(answered.wait(), 20)
        stop.set()
        await running

    async_to_sync(work)()


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drafts, "EVERY", 0.0)


def test_it_shows_what_a_streaming_agent_has_said_so_far(page: Browser, alice: PlatformAccount, often: None) -> None:
    write(page, alice, "hello")
    agent = Streaming("Oct", "ar", "ine.", pause=0.2)

    take_turn(agent)

    assert agent.shown == [["Oct"], ["Octar"], ["Octarine."]]
    assert (drafted(), queued(), answers()) == ([], ["Octarine."], ["Octarine."])


def test_it_shows_the_whole_at_the_end_where_nothing_can_be_changed(page: Browser, alice: PlatformAccount) -> None:
    write(page, alice, "hello")
    agent = Streaming("Oct", "arine.", pause=0.1)

    take_turn(agent, streams=False)

    assert agent.shown == [[], []]
    assert answers() == ["Octarine."]


def test_it_says_that_an_agent_has_failed_midway(page: Browser, alice: PlatformAccount, often: None) -> None:
    write(page, alice, "hello")
    agent = Streaming("Oct", fails=True, pause=0.2)

    take_turn(agent)

    assert agent.shown == [["Oct"]]
    assert drafted() == []
    shown = [line.text for line in chat_page.chat(page).lines]
    assert shown[-1].startswith("I couldn't answer that just now.")
    assert shown.count("hello") == 1  # it waits, and has its entry
    assert InboundEvent.objects.get(platform="web").failures == 1


def follow(claimed: Claim, *texts: str, write: Callable[..., Any], seconds: float, monkeypatch: Any) -> None:
    """Say these one after the other, and wait a while."""
    monkeypatch.setattr(drafts, "write", write)

    async def scene() -> None:
        async with drafts.following(claimed) as update:
            for text in texts:
                update(text)
                await asyncio.sleep(0.01)
            await asyncio.sleep(seconds)

    async_to_sync(scene)()


def test_it_writes_at_most_every_third_of_a_second_and_the_last_words_too(
    claimed: Claim, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []

    def write(_: Claim, text: str) -> bool:
        written.append(text)
        return True

    follow(claimed, *map(str, range(20)), write=write, seconds=0.5, monkeypatch=monkeypatch)

    assert len(written) <= 3
    assert (written[0], written[-1]) == ("0", "19")


def test_it_stops_writing_when_the_lease_is_lost(claimed: Claim, monkeypatch: pytest.MonkeyPatch, often: None) -> None:
    written: list[str] = []

    def write(_: Claim, text: str) -> bool:
        written.append(text)
        return False

    follow(claimed, "a", "b", "c", write=write, seconds=0.2, monkeypatch=monkeypatch)

    assert written == ["a"]


def test_it_goes_on_when_a_draft_cannot_be_written(
    claimed: Claim, monkeypatch: pytest.MonkeyPatch, often: None
) -> None:
    tried: list[str] = []

    def write(_: Claim, text: str) -> bool:
        tried.append(text)
        raise OperationalError("the database is away")

    follow(claimed, "a", "b", write=write, seconds=0.2, monkeypatch=monkeypatch)

    assert tried[-1] == "b"


@pytest.mark.parametrize(("said", "kept"), [("a\0b", ["ab"]), ("so \ud83d", ["so"]), ("  \0", [])])
def test_it_writes_what_can_be_stored(
    claimed: Claim, monkeypatch: pytest.MonkeyPatch, said: str, kept: list[str]
) -> None:
    follow(claimed, said, write=drafts.write, seconds=0.3, monkeypatch=monkeypatch)

    assert drafted() == kept


@pytest.mark.asyncio
async def test_it_is_called_with_the_whole_answer_so_far() -> None:
    answers: list[str] = []

    text = await agents.ask(Pieces("a", "b", "c"), a_turn("hello"), limit=5, on_text=answers.append)

    assert (text, answers) == ("abc", ["a", "ab", "abc"])


class Pieces:
    def __init__(self, *pieces: str) -> None:
        self._pieces = pieces

    async def reply(self, turn: Turn) -> AsyncIterator[str] | Reply:
        async def say() -> AsyncIterator[str]:
            for piece in self._pieces:
                yield piece

        return say()
