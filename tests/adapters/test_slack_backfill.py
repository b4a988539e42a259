"""What was said on Slack while nobody listened: the real SDK reads it from the local server's histories.

The local server tells again what nobody acknowledged, for ever. Here it forgets, as Slack does after some minutes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio
import time_machine

import adapters.slack.adapter
from adapters import backfill
from adapters.playground.server import Person
from adapters.slack import backfill as slack_backfill
from adapters.slack.adapter import SlackAdapter
from adapters.slack.events import stamp_at
from sessions_app.messages import Address, OutgoingMessage
from sessions_app.receiving.watermarks import Mark
from tests.adapters.recording import RecordingInbox, running
from tests.fakes.slack import FakeSlack

ALICE = Person("U1ALICE", "Alice", "alice")
BOB = Person("U2BOB", "Bob", "bob")

pytestmark = pytest.mark.asyncio


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapters.slack.adapter, "PING_SECONDS", 0.2)


@pytest_asyncio.fixture
async def server() -> AsyncIterator[FakeSlack]:
    server = FakeSlack()
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
def inbox() -> RecordingInbox:
    return RecordingInbox()


def adapter_for(server: FakeSlack) -> SlackAdapter:
    where = server.environment()
    tokens = {"bot_token": where["SLACK_BOT_TOKEN"], "app_token": where["SLACK_APP_TOKEN"]}
    return SlackAdapter(**tokens, api_url=where["SLACK_API_URL"])


def position_of(message_id: str) -> int:
    return int(message_id.replace(".", ""))


async def say_unheard(server: FakeSlack, person: Person, text: str) -> str:
    """A person writes, and Slack has given up telling of it."""
    message_id = await server.say(person, text)
    server.socket.close()
    return message_id


def known_until(server: FakeSlack, inbox: RecordingInbox, person: Person, message_id: str = "") -> None:
    inbox.known[server.private_chat(person)] = Mark(position_of(message_id) if message_id else 1)


def texts(inbox: RecordingInbox) -> list[str]:
    return list(dict.fromkeys(message.text for message in inbox.messages))


async def test_it_reads_what_was_said_before_it_started(server: FakeSlack, inbox: RecordingInbox) -> None:
    known_until(server, inbox, ALICE, await say_unheard(server, ALICE, "seen"))
    missed = await say_unheard(server, ALICE, "missed")
    async with running(adapter_for(server), inbox):
        (message,) = await inbox.wait_for(1)

    chat = server.private_chat(ALICE)
    assert (message.native_key, message.text, message.is_from_history) == (f"{chat}:{missed}", "missed", True)
    assert (message.sender.user_id, message.sender.name, message.chat_name) == (ALICE.id, "Alice", "Alice")
    assert inbox.known[chat].position == position_of(missed)
    assert stamp_at(inbox.known[chat].position) == missed


async def test_it_reads_page_after_page_in_order(
    server: FakeSlack, inbox: RecordingInbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slack_backfill, "PAGE", 4)
    known_until(server, inbox, ALICE)
    for number in range(10):
        await say_unheard(server, ALICE, f"missed {number}")
    async with running(adapter_for(server), inbox):
        await inbox.wait_for(10)

    assert [message.text for message in inbox.messages] == [f"missed {number}" for number in range(10)]


async def test_it_has_one_key_for_what_is_read_and_what_is_told(server: FakeSlack, inbox: RecordingInbox) -> None:
    known_until(server, inbox, ALICE)
    said = await server.say(ALICE, "both")
    async with running(adapter_for(server), inbox):
        await server.acknowledged(said)
        await inbox.wait_for(2)

    assert len({message.native_key for message in inbox.messages}) == 1


async def test_it_lets_live_messages_wait_for_their_own_chat_alone(server: FakeSlack, inbox: RecordingInbox) -> None:
    known_until(server, inbox, ALICE)
    await say_unheard(server, ALICE, "missed")
    server.faults.inject("conversations.history", status=429, retry_after=1)
    async with running(adapter_for(server), inbox):
        live = await server.say(ALICE, "live")
        await server.acknowledged(await server.say(BOB, "elsewhere"))
        assert not server.socket.is_settled(live)
        await server.acknowledged(live)

    assert texts(inbox) == ["elsewhere", "missed", "live"]


async def test_it_asks_once_in_a_pause_that_slack_named(server: FakeSlack, inbox: RecordingInbox) -> None:
    people = [Person(f"U3P{number}", f"Person {number}") for number in range(12)]
    for person in people:
        await say_unheard(server, person, "missed")
        known_until(server, inbox, person)
    server.faults.inject("conversations.history", status=429, retry_after=1, times=backfill.READERS)
    began = asyncio.get_running_loop().time()
    async with running(adapter_for(server), inbox):
        await inbox.wait_for(len(people))

    assert asyncio.get_running_loop().time() - began >= 1
    assert server.faults.planned[0].times == 0


async def test_it_skips_its_own_messages_and_takes_edited_ones_for_not_typed(
    server: FakeSlack, inbox: RecordingInbox
) -> None:
    known_until(server, inbox, ALICE)
    missed = await say_unheard(server, ALICE, "befor")
    await server.edit(ALICE, missed, "before")
    server.socket.close()
    async with running(adapter_for(server)) as other:
        await other.adapter.send(OutgoingMessage(Address("slack", server.private_chat(ALICE)), "what I said", "n"))
    async with running(adapter_for(server), inbox):
        message = await inbox.wait_for_text("before")

    assert not message.is_firsthand
    assert texts(inbox) == ["before"]


async def test_it_reads_nothing_older_than_two_days(server: FakeSlack, inbox: RecordingInbox) -> None:
    known_until(server, inbox, ALICE)
    for text, hours in (("too old", 49), ("missed", 47)):
        with time_machine.travel(datetime.now(tz=UTC) - timedelta(hours=hours)):
            await say_unheard(server, ALICE, text)
    async with running(adapter_for(server), inbox):
        await inbox.wait_for_text("missed")

    assert texts(inbox) == ["missed"]


async def test_it_goes_on_at_once_where_it_may_not_look_and_leaves_the_mark(
    server: FakeSlack, inbox: RecordingInbox
) -> None:
    known_until(server, inbox, ALICE)
    await say_unheard(server, ALICE, "missed")
    chat = server.private_chat(ALICE)
    server.api.hidden[chat] = "missing_scope"
    async with running(adapter_for(server), inbox):
        await server.acknowledged(await server.say(ALICE, "live"))

    assert inbox.known[chat] == Mark(1)
    server.api.hidden.clear()
    async with running(adapter_for(server), inbox):
        await inbox.wait_for_text("missed")
