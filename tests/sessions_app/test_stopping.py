"""A person stops their turn, from any of their apps: it is answered or stopped, and never both."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.test import override_settings

from identity.flows import linking
from identity.support import clock
from sessions_app import db, inbox, texts
from sessions_app.agents.chat_object import question_of, shape
from sessions_app.messages import Agent, InboundMessage, Reply, Turn
from sessions_app.models import HistoryEntry, InboundEvent, Lane, OutboundDelivery
from sessions_app.outbox import queue as outbox_queue
from sessions_app.turns import drafts, leases, lifecycle, stopping
from sessions_app.turns import pool as turn_pool
from sessions_app.turns.leases import Claim
from sessions_app.turns.pool import Service, TurnPool
from sessions_app.wakeups import local as local_wakeups
from sessions_app.wakeups import redis as redis_wakeups
from tests.journeys.redis_server import redis_server
from tests.sessions_app.racing import at_once
from tests.sessions_app.talk import (
    DATABASE,
    PLATFORMS,
    Signal,
    answer_in_turn,
    claim,
    is_busy,
    message,
    receive,
    say,
)
from tests.sessions_app.talk import texts as words

pytestmark = pytest.mark.django_db(transaction=True)

HAVE_STOPPED, NOTHING, MARK = str(texts.HAVE_STOPPED), str(texts.NOTHING_TO_STOP), str(texts.STOPPED)


def press(who: str, *, platform: str = "telegram", group: str = "") -> str:
    """The answer to `/stop`, which waits for nothing."""
    return send(message(who, "/stop", platform=platform, group=group))


def send(asked: InboundMessage) -> str:
    assert inbox.receive(asked, resolver=DATABASE) is None
    return OutboundDelivery.objects.latest("pk").text


def link(*accounts: tuple[str, str]) -> None:
    for platform, who in accounts:
        linking.link(platform=platform, platform_user_id=who, unified_user_id="alice", method="pairing", actor="test")


def finish(claimed: Claim, text: str = "Octarine.") -> None:
    lifecycle.finish(claimed, text, limit=outbox_queue.TEXT_LIMIT)


def told(**where: str) -> list[str]:
    return list(OutboundDelivery.objects.filter(**where).order_by("pk").values_list("text", flat=True))


def outcomes() -> list[tuple[str, str, str]]:
    return list(InboundEvent.objects.filter(kind="message").order_by("pk").values_list("text", "status", "reason"))


# --- What ends


def test_it_ends_the_running_turn_and_keeps_the_question() -> None:
    chat = say("alice", "hello")
    claimed = claim(receive("alice", "a long question"))
    OutboundDelivery.objects.all().delete()

    assert press("alice") == HAVE_STOPPED

    for end in (finish, lifecycle.fail, lifecycle.quarantine):
        with pytest.raises(lifecycle.Stopped):
            end(claimed)
    assert outcomes()[-1] == ("a long question", "done", stopping.REASON)
    assert words(chat) == ["hello", "re: hello", "a long question", MARK]
    assert told() == [HAVE_STOPPED]


def test_it_keeps_the_lane_until_the_turn_is_given_back() -> None:
    chat = receive("alice", "a long question")
    claimed = claim(chat)
    press("alice")
    receive("alice", "the next one")
    assert is_busy(chat)

    lifecycle.release(claimed)

    finish(claim(chat), "answered")
    assert words(chat) == ["a long question", MARK, "the next one", "answered"]
    assert InboundEvent.objects.get(text="a long question").starts == 1


def test_it_asks_what_stands_behind_it_once_the_turn_is_given_back() -> None:
    chat = receive("alice", "a long question")
    claimed = claim(chat)
    receive("alice", "/stop tell me a joke instead")
    assert is_busy(chat)

    lifecycle.release(claimed)

    finish(claim(chat), "A joke.")
    assert words(chat) == ["a long question", MARK, "tell me a joke instead", "A joke."]
    assert outcomes() == [("a long question", "done", stopping.REASON), ("tell me a joke instead", "done", "")]
    assert told() == [HAVE_STOPPED, "A joke."]


def test_it_makes_what_was_shown_so_far_the_answer() -> None:
    receive("alice", "first")
    receive("alice", "second")
    claimed = claim(receive("alice", "third"))
    drafts.write(claimed, "Octa")

    press("alice")

    marked = f"Octa\n\n{texts.STOPPED}"
    assert told() == [marked, HAVE_STOPPED]
    reply = HistoryEntry.objects.get(role="assistant")
    assert (reply.text, reply.event, reply.source) == (marked, claimed.head, "reply")
    assert reply.said_at == claimed.events[-1].received_at
    assert OutboundDelivery.objects.get(text=marked).entry == reply
    assert words(claimed.lease.conversation.pk) == ["first", "second", "third", marked]
    assert not drafts.write(claimed, "Octarine")  # by the process that has not noticed yet
    assert not OutboundDelivery.objects.filter(status="drafting").exists()


def test_it_ends_what_waits_and_has_failed_and_leaves_commands_alone() -> None:
    chat = receive("alice", "fails")
    lifecycle.fail(claim(chat))
    receive("alice", "waits")
    receive("alice", "/new")
    receive("bob", "another person's")
    OutboundDelivery.objects.all().delete()

    assert press("alice") == HAVE_STOPPED

    assert outcomes() == [
        ("fails", "done", stopping.REASON),
        ("waits", "done", stopping.REASON),
        ("another person's", "pending", ""),
    ]
    assert words(chat) == ["fails", "waits", MARK]
    answer_in_turn(chat)
    assert words(chat) == []


def test_it_keeps_one_entry_of_a_message_that_has_one() -> None:
    receive("alice", "a long question")
    event = InboundEvent.objects.get()
    kept = {"conversation": event.conversation, "event": event, "platform": "telegram", "source": "message"}
    HistoryEntry.objects.create(**kept, role="user", text=event.text, said_at=event.received_at)

    assert press("alice") == HAVE_STOPPED
    assert HistoryEntry.objects.get(role="user").text == "a long question"


def test_it_notes_an_edit_that_came_during_the_turn() -> None:
    claim(receive("alice", "a long question"))
    InboundEvent.objects.update(edited="a short question")

    press("alice")

    assert HistoryEntry.objects.get(role="user").metadata == {"edited": "a short question"}


def test_an_agent_does_not_take_what_was_stopped_for_a_part_of_the_next_question() -> None:
    claimed = claim(receive("alice", "a long question"))
    press("alice")
    lifecycle.release(claimed)

    turn = lifecycle.begin(claim(receive("alice", "the next one")), resolver=DATABASE)

    assert question_of(turn) == "the next one"
    assert shape(turn.history) == [("user", "a long question"), ("assistant", MARK)]


def test_what_waited_behind_a_shown_answer_is_marked_too() -> None:
    claimed = claim(receive("alice", "a long question"))
    drafts.write(claimed, "Octa")
    chat = receive("alice", "waits")

    press("alice")

    assert words(chat) == ["a long question", f"Octa\n\n{MARK}", "waits", MARK]


def test_it_says_that_nothing_runs() -> None:
    say("alice", "hello")
    claim(receive("bob", "a long question"))

    assert press("alice") == NOTHING
    assert press("carol") == NOTHING  # who has never written before


def test_it_stops_the_turn_of_a_linked_account_on_another_app() -> None:
    link(("telegram", "alice"), ("discord", "al"))
    claimed = claim(receive("alice", "a long question"))
    receive("al", "and another", platform="discord")

    assert press("al", platform="discord") == HAVE_STOPPED

    with pytest.raises(lifecycle.Stopped):
        finish(claimed)
    assert {reason for _, _, reason in outcomes()} == {stopping.REASON}
    assert (told(platform="telegram"), told(platform="discord")) == ([], [HAVE_STOPPED])


def test_it_stops_the_turn_that_runs_although_an_older_one_crashed_on_an_app_that_is_not_served() -> None:
    link(("telegram", "alice"), ("discord", "al"))
    claim(receive("al", "crashed", platform="discord"))
    Lane.objects.update(lease_until=clock.EPOCH)
    chat = receive("alice", "a long question")
    (claimed,) = leases.claim([chat], owner="test", platforms=["telegram"]).claims

    press("alice")

    assert leases.stopped([claimed.lease]) == {claimed.lease}


def test_it_ends_no_private_turn_from_a_group_and_the_other_way_round() -> None:
    private, group = claim(receive("alice", "in private")), claim(receive("alice", "in the group", group="pub"))

    assert press("alice", group="other") == NOTHING
    assert press("alice") == HAVE_STOPPED

    finish(group)
    with pytest.raises(lifecycle.Stopped):
        finish(private)


def test_it_ends_nobody_elses_turn_in_a_group() -> None:
    chat = receive("bob", "bob's question", group="pub")
    claimed = claim(chat)
    receive("alice", "alice's question", group="pub")

    assert press("mallory", group="pub") == NOTHING
    assert press("alice", group="pub") == HAVE_STOPPED  # her own, which waits
    finish(claimed)

    assert outcomes() == [("bob's question", "done", ""), ("alice's question", "done", stopping.REASON)]
    assert press("bob", group="pub") == NOTHING


def test_it_ends_ones_own_turn_in_a_group_and_leaves_what_others_wait_for() -> None:
    chat = receive("alice", "alice's question", group="pub")
    claimed = claim(chat)
    receive("bob", "bob's question", group="pub")

    assert press("alice", group="pub") == HAVE_STOPPED
    with pytest.raises(lifecycle.Stopped):
        finish(claimed)
    lifecycle.release(claimed)
    finish(claim(chat))

    assert outcomes() == [("alice's question", "done", stopping.REASON), ("bob's question", "done", "")]


def test_it_ends_nobody_elses_turn_where_ones_own_message_crashed_and_then_failed() -> None:
    chat = receive("alice", "crashes, and fails", group="pub")
    claim(chat)
    Lane.objects.update(lease_until=clock.EPOCH)
    lifecycle.fail(claim(chat))
    receive("bob", "bob's question", group="pub")
    claimed = claim(chat)

    assert press("alice", group="pub") == HAVE_STOPPED

    assert not leases.stopped([claimed.lease])
    finish(claimed)
    assert outcomes() == [("crashes, and fails", "done", stopping.REASON), ("bob's question", "done", "")]


def test_it_stops_no_turn_that_a_program_has_begun() -> None:
    chat = say("alice", "hello")
    lease = leases.hold(Lane.objects.get(pk=chat).conversation, owner="program")
    receive("alice", "a question that crashed before")
    InboundEvent.objects.filter(done_at=None).update(starts=1)

    assert press("alice") == HAVE_STOPPED

    question = HistoryEntry(conversation=lease.conversation, text="asked", platform="telegram")
    lifecycle.record(lease, question=question, answered="Octarine.")


def test_it_has_no_effect_on_a_later_turn_even_if_it_is_delivered_again() -> None:
    asked = message("alice", "/stop")
    claimed = claim(receive("alice", "a long question"))
    assert send(asked) == HAVE_STOPPED
    lifecycle.release(claimed)
    again = claim(receive("alice", "the next one"))

    assert inbox.receive(asked, resolver=DATABASE) is None

    assert not leases.stopped([again.lease])
    finish(again)
    assert outcomes()[-1] == ("the next one", "done", "")


def test_it_leaves_nothing_for_the_next_process_when_the_one_that_answers_crashes() -> None:
    chat = receive("alice", "a long question")
    claim(chat)
    press("alice")

    Lane.objects.update(lease_until=clock.EPOCH)

    assert not leases.claim([chat], owner="next", platforms=PLATFORMS).claims


def test_it_stops_what_a_crashed_process_has_left() -> None:
    claimed = claim(receive("alice", "a long question"))
    Lane.objects.update(lease_until=clock.EPOCH)

    assert press("alice") == HAVE_STOPPED

    with pytest.raises(lifecycle.Stopped):  # it was only slow
        finish(claimed)


def test_it_stops_in_its_turn_only_what_was_asked_before() -> None:
    """As where the answer failed at receipt."""
    receive("alice", "before")
    chat = receive("alice", "/new")
    receive("alice", "after")
    InboundEvent.objects.filter(text="/new").update(text="/stop")
    InboundEvent.objects.filter(text="before").update(failures=1, starts=1)
    stop = InboundEvent.objects.get(text="/stop")

    assert stopping.stop(stop.conversation, stop.account, before=stop.pk)

    assert [status for _, status, _ in outcomes()] == ["done", "pending"]
    answer_in_turn(chat)
    assert told()[-1] == NOTHING


def test_it_offers_a_button_where_it_says_that_it_tries_again() -> None:
    lifecycle.fail(claim(receive("alice", "fails")))
    OutboundDelivery.objects.exclude(text=str(texts.TRYING_AGAIN)).delete()

    (delivery,) = outbox_queue.claim(owner="test", platforms=PLATFORMS)
    sent = outbox_queue.outgoing(delivery)

    assert (sent.text, [(one.label, one.command) for one in sent.buttons]) == (
        str(texts.TRYING_AGAIN),
        [("Stop", "/stop")],
    )


# --- In a pool


class Endless:
    """Says a word, then waits forever; it answers "quick" at once."""

    def __init__(self, *, clings: bool = False) -> None:
        self.said, self.ended = Signal(), Signal()
        self._clings = clings

    async def reply(self, turn: Turn) -> AsyncIterator[str]:
        return self._words(turn)

    async def _words(self, turn: Turn) -> AsyncIterator[str]:
        if turn.text == "quick":
            yield "here you are"
            return
        try:
            yield "Octa"
            self.said.set()
            await asyncio.Event().wait()
        finally:
            self.ended.set()
            if self._clings:
                await asyncio.sleep(0.5)


@asynccontextmanager
async def running(agent: Agent, *, streams: bool = True) -> AsyncIterator[TurnPool]:
    stop = asyncio.Event()
    services = {platform: Service(agent, DATABASE, streams=streams) for platform in PLATFORMS}
    pool = TurnPool(services, size=4, on_outgoing=lambda: None)
    job = asyncio.create_task(pool.run(stop))
    try:
        yield pool
    finally:
        stop.set()
        await job


async def until(holds: Any) -> None:
    async with asyncio.timeout(30):
        while not await db.call(holds):  # noqa: ASYNC110 - the database tells nobody
            await asyncio.sleep(0.01)


def is_free() -> bool:
    return not Lane.objects.exclude(owner="").exists()


@pytest.fixture
def only_wake_ups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turn_pool, "STOP_SECONDS", 3600.0)


@pytest.fixture(autouse=True)
def _without_sweeps() -> Iterator[None]:
    with override_settings(BOTOS_SWEEP_SECONDS=3600):
        yield


async def stopped_in(pool: TurnPool, agent: Endless, *, platform: str = "telegram", who: str = "alice") -> None:
    """Ask on Telegram, wait until something is shown, and stop."""
    pool.notify(await db.call(receive, "alice", "a long question"))
    await agent.said.wait()
    await until(OutboundDelivery.objects.filter(status="drafting").exists)
    assert await db.call(press, who, platform=platform) == HAVE_STOPPED
    async with asyncio.timeout(30):
        await agent.ended.wait()
    await until(is_free)


@pytest.mark.parametrize(("platform", "who"), [("telegram", "alice"), ("discord", "al")])
@pytest.mark.usefixtures("only_wake_ups")
def test_a_pool_ends_the_agent_and_answers_the_next_message(platform: str, who: str) -> None:
    async def scene() -> None:
        agent = Endless()
        async with running(agent) as pool:
            with local_wakeups.answered_by(pool.notify, stop=pool.look_for_stops):
                await stopped_in(pool, agent, platform=platform, who=who)
                pool.notify(await db.call(receive, "alice", "quick"))
                await until(InboundEvent.objects.filter(text="quick", status="done").exists)

    link(("telegram", "alice"), ("discord", "al"))
    async_to_sync(scene)()

    said = list(HistoryEntry.objects.order_by("said_at", "pk").values_list("text", flat=True))
    assert said == ["a long question", f"Octa\n\n{texts.STOPPED}", "quick", "here you are"]
    assert InboundEvent.objects.get(text="a long question").failures == 0


def test_a_pool_finds_a_stop_that_nobody_tells_it_of() -> None:
    async def scene() -> None:
        agent = Endless()
        async with running(agent) as pool:
            await stopped_in(pool, agent)

    async_to_sync(scene)()

    assert told()[-2:] == [f"Octa\n\n{texts.STOPPED}", HAVE_STOPPED]


@pytest.mark.usefixtures("only_wake_ups")
def test_a_pool_is_told_of_a_stop_through_redis() -> None:
    async def scene(url: str) -> None:
        agent, notifier = Endless(), redis_wakeups.Notifier(url)
        async with running(agent) as pool:
            listening = asyncio.create_task(redis_wakeups.listen(url, {redis_wakeups.STOPPED: pool.look_for_stops}))
            async with asyncio.timeout(30):
                while not dict(notifier._redis.pubsub_numsub(redis_wakeups.STOPPED))[b"botos.stopped"]:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            with local_wakeups.answered_by(pool.notify, stop=notifier.notify_of_stop):
                await stopped_in(pool, agent)
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
        notifier.close()

    with redis_server() as server:
        async_to_sync(partial(scene, server.url))()

    assert told()[-1] == HAVE_STOPPED


@pytest.mark.usefixtures("only_wake_ups")
def test_a_pool_leaves_an_agent_behind_that_clings() -> None:
    async def scene() -> None:
        agent = Endless(clings=True)
        async with running(agent) as pool:
            with local_wakeups.answered_by(pool.notify, stop=pool.look_for_stops):
                await stopped_in(pool, agent)

    async_to_sync(scene)()

    assert InboundEvent.objects.get(text="a long question").reason == stopping.REASON


@pytest.mark.usefixtures("only_wake_ups")
def test_a_pool_asks_no_agent_for_long_where_the_stop_came_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the claim and the agent's start."""
    really = lifecycle.begin

    def begin(*args: Any, **kwargs: Any) -> Turn:
        if InboundEvent.objects.filter(done_at=None).exists():
            assert press("alice") == HAVE_STOPPED
        return really(*args, **kwargs)

    async def scene() -> None:
        agent = Endless()
        async with running(agent) as pool:
            with local_wakeups.answered_by(pool.notify, stop=pool.look_for_stops):
                pool.notify(await db.call(receive, "alice", "a long question"))
                await until(InboundEvent.objects.filter(reason=stopping.REASON).exists)
                await until(is_free)

    monkeypatch.setattr(lifecycle, "begin", begin)
    async_to_sync(scene)()

    assert [entry.text for entry in HistoryEntry.objects.filter(role="assistant")] == [MARK]


def test_a_pool_writes_no_answer_that_came_after_the_stop() -> None:
    class StoppedWhileItAnswers:
        async def reply(self, turn: Turn) -> Reply:
            if turn.text == "a long question":
                await asyncio.to_thread(press, "alice")
            return Reply("Octarine.")

    async def scene() -> None:
        async with running(StoppedWhileItAnswers(), streams=False) as pool:
            for who, text in (("alice", "a long question"), ("bob", "hello")):
                pool.notify(await db.call(receive, who, text))
            await until(lambda: not InboundEvent.objects.filter(done_at=None).exists() and is_free())

    async_to_sync(scene)()

    assert [entry.author_id for entry in HistoryEntry.objects.filter(text="Octarine.")] == [
        InboundEvent.objects.get(text="hello").account_id
    ]


def test_a_pool_frees_the_lane_where_messages_were_ended_while_the_agent_answered() -> None:
    """As by `/forget` in a group, and by `/stop` where it is not known whose turn runs."""

    class EndedWhileItAnswers:
        async def reply(self, turn: Turn) -> Reply:
            if turn.text == "alice's question":
                ended = InboundEvent.objects.filter(text=turn.text)
                await asyncio.to_thread(ended.update, status="done", done_at=clock.now())
            return Reply("Octarine.")

    async def scene() -> None:
        async with running(EndedWhileItAnswers(), streams=False) as pool:
            pool.notify(await db.call(receive, "alice", "alice's question", group="pub"))
            pool.notify(await db.call(receive, "bob", "bob's question", group="pub"))
            await until(InboundEvent.objects.filter(text="bob's question", status="done").exists)

    async_to_sync(scene)()

    assert [entry.text for entry in HistoryEntry.objects.order_by("pk")] == ["bob's question", "Octarine."]


# --- At random


def test_a_turn_is_answered_or_stopped_and_never_both() -> None:
    chosen, ends = random.Random(7), set()
    for number in range(40):
        question, chat = f"question {number}", receive("alice", f"question {number}")
        begun = claim(chat) if chosen.random() < 0.5 else None
        if begun and chosen.random() < 0.5:
            drafts.write(begun, f"draft {number}")
        jobs: list[Callable[[], object]] = [
            partial(_take_turn, chat, begun, f"answer {number}"),
            partial(send, message("alice", "/stop")),
        ]
        first, second = chosen.sample(jobs, 2)

        returned, raised = at_once(first, partial(_later, second, by=chosen.randrange(60)))

        event = InboundEvent.objects.get(text=question)
        is_stopped = event.reason == stopping.REASON
        ends.add((is_stopped, begun is None))
        assert [type(error) for error in raised] in ([[lifecycle.Stopped], []] if is_stopped else [[]])
        assert (HAVE_STOPPED in returned, NOTHING in returned) == (is_stopped, not is_stopped)
        said = list(HistoryEntry.objects.filter(event=event, role="assistant").values_list("text", flat=True))
        assert said in ([[MARK], [f"draft {number}\n\n{MARK}"]] if is_stopped else [[f"answer {number}"]])
        assert (event.status, event.entries.filter(role="user").count()) == ("done", 1)
        Lane.objects.update(owner="", lease_until=clock.EPOCH)
    assert len(ends) == 4, "each end, of a turn that had begun and of one that had not"


def _later(job: Callable[[], object], *, by: int) -> object:
    """Do the job after so many questions to the database."""
    for _ in range(by):
        Lane.objects.exists()
    return job()


def _take_turn(chat: int, begun: Claim | None, text: str) -> None:
    claims = [begun] if begun else leases.claim([chat], owner="test", platforms=PLATFORMS).claims
    for claimed in claims:
        finish(claimed, text)
