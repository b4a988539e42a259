"""What belongs to one gesture waits for each other, and no longer than that."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.db import connection, transaction
from django.db.models import F
from django.test import override_settings
from django.test.utils import CaptureQueriesContext
from pytest_django import Settings

from identity.models import Pairing
from identity.support import clock
from sessions_app import inbox
from sessions_app.messages import Address, InboundMessage, Turn
from sessions_app.models import ForgottenEvent, HistoryEntry, InboundEvent
from sessions_app.receiver import Receiver
from sessions_app.receiving import tombstones
from sessions_app.turns import leases, lifecycle
from sessions_app.turns.pool import Service, TurnPool
from tests.identity import pairs
from tests.sessions_app.browsing import account, browser_of, write
from tests.sessions_app.racing import at_once
from tests.sessions_app.talk import DATABASE, PLATFORMS, command, message, receive

pytestmark = pytest.mark.django_db

TOLERANCE = 0.2  # seconds between two looks at the clock in one transaction
PASTE = " ".join(f"w{number}" for number in range(2000))  # cut within words


@pytest.fixture(autouse=True)
def is_on(settings: Settings) -> None:
    settings.BOTOS_SETTLE_SECONDS = 0.3


@pytest.fixture(params=["alone", "together"])
def arrive(request: pytest.FixtureRequest) -> Any:
    """Receive a message as a webhook does, or as the receiver of an adapter."""

    def take(said: InboundMessage) -> int | None:
        if request.param == "alone":
            return inbox.receive(said, resolver=DATABASE)
        return inbox.receive_together([said], resolver=DATABASE)[0]

    receive("alice", "first")
    receive("alice", "first", group="pub")
    InboundEvent.objects.update(done_at=clock.now(), status="done")
    return take


def event(text: str) -> InboundEvent:
    return InboundEvent.objects.get(text=text)


def seconds(text: str) -> float | None:
    """How long after its receipt a message is ready; None if it was at once."""
    found = event(text)
    return (found.ready_at - found.received_at).total_seconds() if found.ready_at else None


def let_settle() -> None:
    """As if the time of everything that waits were over."""
    InboundEvent.objects.filter(ready_at__isnull=False).update(ready_at=F("received_at"))


def turns(*conversations: int) -> list[list[str]]:
    """The texts of the turns that can be had, one after the other."""
    found = []
    while claims := leases.claim(conversations, owner="test", platforms=PLATFORMS).claims:
        for claim in claims:
            found.append([said.text for said in claim.events])
            lifecycle.finish(claim, "fine", limit=2000)
    return found


# --- How long


@pytest.mark.parametrize("group", ["", "pub"])
def test_a_text_is_ready_after_a_moment(arrive: Any, group: str) -> None:
    arrive(message("alice", "hello", group=group))

    assert seconds("hello") == pytest.approx(0.3, abs=TOLERANCE)


@pytest.mark.parametrize(
    ("platform", "length", "expected"),
    [
        ("telegram", 4096, 1.0),
        ("telegram", 3996, 1.0),
        ("telegram", 3796, 1.0),
        ("telegram", 3795, 0.3),
        ("telegram", 4097, 0.3),
        ("discord", 2000, 1.0),
        ("discord", 3990, 1.0),
        ("discord", 3000, 0.3),
        ("slack", 4000, 1.0),
        ("slack-acme", 4000, 1.0),
        ("notes", 4000, 0.3),
    ],
)
def test_a_text_that_its_app_may_have_cut_waits_longer(platform: str, length: int, expected: float) -> None:
    text = "x" * length

    inbox.receive(message("alice", text, platform=platform), resolver=DATABASE)

    assert seconds(text) == pytest.approx(expected, abs=TOLERANCE)


def test_the_length_is_that_in_units_of_the_app() -> None:
    inbox.receive(message("alice", "\N{OCTOPUS}" * 2048), resolver=DATABASE)

    assert seconds("\N{OCTOPUS}" * 2048) == pytest.approx(1.0, abs=TOLERANCE)


def test_a_message_with_which_others_come_waits_longer(arrive: Any) -> None:
    arrive(replace(message("alice", "look"), more_may_follow=True))

    assert seconds("look") == pytest.approx(1.0, abs=TOLERANCE)


@pytest.mark.parametrize(("setting", "plain", "with_others"), [(0.5, 0.5, 1.0), (2.0, 2.0, 2.0), (60.0, 3.0, 3.0)])
def test_the_setting_is_the_shortest_time(settings: Settings, setting: float, plain: float, with_others: float) -> None:
    settings.BOTOS_SETTLE_SECONDS = setting

    receive("alice", "hello")
    inbox.receive(replace(message("bob", "look"), more_may_follow=True), resolver=DATABASE)

    assert seconds("hello") == pytest.approx(plain, abs=TOLERANCE)
    assert seconds("look") == pytest.approx(with_others, abs=TOLERANCE)


def test_nothing_waits_when_it_is_off(arrive: Any, settings: Settings) -> None:
    settings.BOTOS_SETTLE_SECONDS = 0.0

    arrive(message("alice", "x" * 4096))
    arrive(replace(message("alice", "look"), more_may_follow=True))

    assert not InboundEvent.objects.filter(done_at=None, ready_at__isnull=False).exists()


# --- Together


def test_what_waits_is_ready_with_the_newest(arrive: Any) -> None:
    arrive(replace(message("alice", "look"), more_may_follow=True))
    arrive(message("alice", "what is this?"))

    assert event("look").ready_at == event("what is this?").ready_at
    assert seconds("what is this?") == pytest.approx(0.3, abs=TOLERANCE)


def test_nothing_waits_longer_than_three_seconds(arrive: Any) -> None:
    arrive(message("alice", "one"))
    InboundEvent.objects.filter(text="one").update(received_at=F("received_at") - timedelta(seconds=2.5))

    arrive(message("alice", "two"))
    arrive(replace(message("alice", "three"), more_may_follow=True))

    assert seconds("one") == 3.0
    assert event("one").ready_at == event("two").ready_at == event("three").ready_at


def test_many_that_are_stored_together_are_ready_with_the_newest() -> None:
    receive("alice", "first")
    receive("bob", "first")
    InboundEvent.objects.update(done_at=clock.now(), status="done")
    said = [("alice", "one"), ("bob", "other"), ("alice", "two"), ("alice", "three")]

    inbox.receive_together([message(who, text) for who, text in said], resolver=DATABASE)

    assert event("one").ready_at == event("two").ready_at == event("three").ready_at
    assert seconds("three") == pytest.approx(0.3, abs=TOLERANCE)
    assert seconds("other") == pytest.approx(0.3, abs=TOLERANCE)


@pytest.mark.parametrize(
    "other",
    [
        {"sender": message("bob", "").sender},
        {"address": Address("telegram", "pub", "topic")},
        {"address": Address("telegram", "cafe")},
    ],
    ids=["author", "thread", "chat"],
)
def test_messages_of_others_and_elsewhere_change_nothing(arrive: Any, other: dict[str, Any]) -> None:
    arrive(message("alice", "hello", group="pub"))
    before = event("hello").ready_at

    arrive(replace(message("alice", "else", group="pub"), **other))

    assert event("hello").ready_at == before


@pytest.mark.parametrize("place", [("chat-alice", "thread"), ("moved", "")])
def test_each_thread_and_address_of_a_private_chat_is_a_place(arrive: Any, place: tuple[str, str]) -> None:
    arrive(message("alice", "hello"))
    before = event("hello").ready_at

    arrive(replace(message("alice", "else"), address=Address("telegram", *place)))

    assert event("hello").ready_at == before


@pytest.mark.parametrize(
    "state",
    [{"starts": 1}, {"failures": 1}, {"done_at": clock.EPOCH, "status": "done"}, {"ready_at": None}],
    ids=["started", "failed", "done", "ready"],
)
def test_what_was_started_or_is_ready_waits_for_nothing_new(arrive: Any, state: dict[str, Any]) -> None:
    arrive(message("alice", "hello"))
    InboundEvent.objects.filter(text="hello").update(**state)
    before = event("hello").ready_at

    arrive(message("alice", "more"))

    assert event("hello").ready_at == before
    assert seconds("more") == pytest.approx(0.3, abs=TOLERANCE)


@pytest.mark.parametrize("is_deleted", [False, True])
def test_a_part_that_comes_again_changes_nothing(arrive: Any, *, is_deleted: bool) -> None:
    again = replace(message("alice", "one", key="key of one"), more_may_follow=True)
    arrive(again)
    arrive(message("alice", "two"))
    arrive(message("alice", "three"))
    if is_deleted:
        tombstones.remember([event("one")])
        event("one").delete()
    rows = list(InboundEvent.objects.order_by("pk").values())

    arrive(again)

    assert list(InboundEvent.objects.order_by("pk").values()) == rows
    assert ForgottenEvent.objects.count() == is_deleted


# --- At once


@pytest.mark.parametrize("text", ["/new", "/help", "/link", "/hlep", "WDJB-MJHT", "a code", "a number"])
def test_commands_codes_and_numbers_are_at_once_and_so_is_what_comes_before(arrive: Any, text: str) -> None:
    if text in {"a code", "a number"}:
        command("alice" if text == "a number" else "bob", "/link", platform="discord")
        request = Pairing.objects.get()
        if text == "a number":
            inbox.receive(message("bob", pairs.code(request)), resolver=DATABASE)
            request.refresh_from_db()
        text = pairs.number(request) if text == "a number" else pairs.code(request)
    where = {"platform": "discord"} if Pairing.objects.filter(state="claimed") else {}
    arrive(message("alice", "hello", **where))
    arrive(message("alice", "bob and", group="pub"))
    assert seconds("hello") == pytest.approx(0.3, abs=TOLERANCE)

    arrive(message("alice", text, **where))

    assert seconds("hello") is None
    assert InboundEvent.objects.order_by("pk").last().ready_at is None  # type: ignore[union-attr]
    assert seconds("bob and") == pytest.approx(0.3, abs=TOLERANCE)  # in another conversation


def test_a_command_keeps_its_place_behind_quick_messages() -> None:
    alice = receive("alice", "one")
    receive("alice", "two")

    receive("alice", "/new")

    assert not InboundEvent.objects.exclude(ready_at=None).exists()
    assert turns(alice) == [["one", "two"], ["/new"]]


def test_a_command_leaves_to_others_in_the_group_their_time() -> None:
    receive("alice", "hello", group="pub")

    receive("bob", "/new", group="pub")

    assert seconds("hello") == pytest.approx(0.3, abs=TOLERANCE)


def test_what_failed_before_keeps_its_time_when_a_command_comes() -> None:
    receive("alice", "hello")
    InboundEvent.objects.update(failures=1)

    receive("alice", "/new")

    assert seconds("hello") == pytest.approx(0.3, abs=TOLERANCE)


def test_words_behind_a_command_wait_as_a_message_does() -> None:
    receive("alice", "before")

    receive("alice", "/new what is the weather?")

    assert (seconds("before"), seconds("/new")) == (None, None)
    assert seconds("what is the weather?") == pytest.approx(0.3, abs=TOLERANCE)


def test_a_message_in_a_browser_is_at_once() -> None:
    with override_settings(BOTOS_SETTLE_SECONDS=0.0):
        alice = account("alice")
    page = browser_of(alice)
    receive("alice", "hello")

    write(page, alice, "from the page")

    assert (seconds("hello"), seconds("from the page")) == (None, None)


# --- The turn


@pytest.mark.parametrize(
    ("platform", "cut"), [("telegram", 4096), ("discord", 2000), ("discord", 4000), ("slack", 4000)]
)
def test_a_paste_that_the_app_cut_is_one_text(platform: str, cut: int) -> None:
    parts = [PASTE[start : start + cut] for start in range(0, len(PASTE), cut)]
    alice = [receive("alice", part, platform=platform) for part in parts]
    assert InboundEvent.objects.values("ready_at").distinct().count() == 1
    let_settle()

    (claim,) = leases.claim(alice, owner="test", platforms=PLATFORMS).claims
    turn = lifecycle.begin(claim, resolver=DATABASE)
    lifecycle.finish(claim, "long", limit=2000)

    assert turn.text == PASTE
    assert list(HistoryEntry.objects.filter(role="user").order_by("pk").values_list("text", flat=True)) == parts


@pytest.mark.django_db(transaction=True)
def test_a_pool_asks_once_what_comes_in_several_messages(settings: Settings) -> None:
    settings.BOTOS_SETTLE_SECONDS = 1.5
    settings.BOTOS_SWEEP_SECONDS = 3600.0
    asked: list[str] = []

    async def scene() -> None:
        answered, stop = asyncio.Event(), asyncio.Event()

        class Agent:
            async def reply(self, turn: Turn) -> str:
                asked.append(turn.text)
                answered.set()
                return "fine"

        pool = TurnPool({"telegram": Service(Agent(), DATABASE)}, size=4, on_outgoing=lambda: None)
        running = asyncio.create_task(pool.run(stop))
        receiver = Receiver(DATABASE, on_turn=pool.notify, on_outgoing=lambda: None)
        for text in ("hello", "are you there?", "it is urgent"):
            await receiver.receive(message("alice", text))
        async with asyncio.timeout(30):
            await answered.wait()
        stop.set()
        await running

    async_to_sync(scene)()

    assert asked == ["hello\nare you there?\nit is urgent"]
    assert not InboundEvent.objects.filter(done_at=None).exists()


def test_quick_messages_are_lines_of_one_turn() -> None:
    alice = [receive("alice", text) for text in ("hello", "are you there?", "it is urgent")]
    let_settle()

    (claim,) = leases.claim(alice, owner="test", platforms=PLATFORMS).claims

    assert lifecycle.begin(claim, resolver=DATABASE).text == "hello\nare you there?\nit is urgent"


# --- What it costs


@pytest.mark.parametrize("text", ["again", "/new", "call 482 913"])
def test_it_costs_one_statement_and_none_when_it_is_off(arrive: Any, text: str) -> None:
    def cost() -> int:
        with CaptureQueriesContext(connection) as queries:
            arrive(message("alice", text))
        return len(queries)

    arrive(message("alice", text))
    with_settling = cost()
    with override_settings(BOTOS_SETTLE_SECONDS=0.0):
        assert cost() == with_settling - 1
    assert InboundEvent.objects.order_by("pk").last().ready_at is None  # type: ignore[union-attr]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("text", ["more", "/new"])
def test_it_waits_for_no_transaction_that_holds_an_earlier_message(text: str) -> None:
    if connection.vendor != "postgresql":
        pytest.skip("SQLite has one writer at a time")
    alice = receive("alice", "hello")
    results: list[object] = []

    def take() -> None:
        returned, raised = at_once(lambda: receive("alice", text))
        results.extend([*returned, *raised])

    with transaction.atomic():
        list(InboundEvent.objects.select_for_update())
        receiving = threading.Thread(target=take)
        receiving.start()
        receiving.join(10)
        has_waited = receiving.is_alive()
    receiving.join(10)

    assert not has_waited
    assert results == [alice]
