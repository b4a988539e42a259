"""What was said on Discord while nobody listened: the real SDK reads it from the local server's histories."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio
import time_machine

from adapters import backfill
from adapters.discord.connection import Connection
from adapters.discord.events import parse_message, position_at
from adapters.playground.server import Person
from sessions_app.receiving.watermarks import Mark
from tests.adapters.discord_payloads import ALICE, BOB
from tests.adapters.recording import RecordingInbox, running
from tests.adapters.test_discord import adapter_for
from tests.fakes.discord import FakeDiscord

CAROL = Person("3003", "Carol", "carol")


@pytest_asyncio.fixture
async def server() -> AsyncIterator[FakeDiscord]:
    server = FakeDiscord()
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
def inbox() -> RecordingInbox:
    return RecordingInbox()


def known_until(server: FakeDiscord, inbox: RecordingInbox, person: Person, message_id: str) -> None:
    inbox.known[server.private_chat(person)] = Mark(int(message_id))


def texts(inbox: RecordingInbox) -> list[str]:
    return [message.text for message in inbox.messages]


@pytest.mark.asyncio
async def test_it_reads_what_was_said_before_it_started(server: FakeDiscord, inbox: RecordingInbox) -> None:
    known_until(server, inbox, ALICE, await server.say(ALICE, "seen"))
    missed = await server.say(ALICE, "missed")
    async with running(adapter_for(server), inbox):
        (message,) = await inbox.wait_for(1)

    assert (message.native_key, message.is_private, message.is_from_history) == (missed, True, True)
    assert inbox.known[server.private_chat(ALICE)].position == int(missed)


@pytest.mark.asyncio
async def test_it_reads_no_chat_that_it_does_not_know(server: FakeDiscord, inbox: RecordingInbox) -> None:
    known_until(server, inbox, ALICE, "1")
    await server.say(BOB, "to a bot that never met me")
    await server.say(ALICE, "missed")
    async with running(adapter_for(server), inbox):
        await server.say(ALICE, "live")
        await inbox.wait_for_text("live")

    assert list(dict.fromkeys(texts(inbox))) == ["missed", "live"]


@pytest.mark.asyncio
async def test_it_skips_its_own_messages(server: FakeDiscord, inbox: RecordingInbox) -> None:
    known_until(server, inbox, ALICE, await server.say(ALICE, "seen"))
    channel = server.world.private_channel(ALICE)
    server.world.write(channel, server.world.bot, "what the bot said")
    await server.say(ALICE, "missed")
    async with running(adapter_for(server), inbox):
        await inbox.wait_for_text("missed")

    assert texts(inbox) == ["missed"]


@pytest.mark.asyncio
async def test_it_takes_an_edited_message_for_not_typed(server: FakeDiscord, inbox: RecordingInbox) -> None:
    known_until(server, inbox, ALICE, await server.say(ALICE, "seen"))
    missed = await server.say(ALICE, "befor")
    await server.edit(ALICE, missed, "before")
    async with running(adapter_for(server), inbox):
        message = await inbox.wait_for_text("before")

    assert not message.is_firsthand


@pytest.mark.asyncio
async def test_it_reads_nothing_older_than_two_days(server: FakeDiscord, inbox: RecordingInbox) -> None:
    known_until(server, inbox, ALICE, "1")
    for text, hours in (("too old", 49), ("missed", 47)):
        server.world._last_id = 0  # ids grow also when the clock does not
        with time_machine.travel(datetime.now(tz=UTC) - timedelta(hours=hours)):
            await server.say(ALICE, text)
    async with running(adapter_for(server), inbox):
        await inbox.wait_for_text("missed")

    assert texts(inbox) == ["missed"]


@pytest.mark.asyncio
async def test_it_reads_nothing_that_is_forgotten(server: FakeDiscord, inbox: RecordingInbox) -> None:
    await server.say(ALICE, "forgotten")
    await asyncio.sleep(0.01)
    inbox.known[server.private_chat(ALICE)] = Mark(0, since=datetime.now(tz=UTC))
    await asyncio.sleep(0.01)
    await server.say(ALICE, "missed")
    async with running(adapter_for(server), inbox):
        await inbox.wait_for_text("missed")

    assert texts(inbox) == ["missed"]


@pytest.mark.asyncio
async def test_it_lets_live_messages_wait_for_their_own_chat_alone(server: FakeDiscord, inbox: RecordingInbox) -> None:
    known_until(server, inbox, ALICE, "1")
    await server.say(ALICE, "missed")
    server.faults.inject("GET /channels/messages", status=429, retry_after=1)
    async with running(adapter_for(server), inbox):
        await server.say(ALICE, "live")
        await server.say(BOB, "elsewhere")
        await inbox.wait_for_text("live")

    assert texts(inbox) == ["elsewhere", "missed", *["live"] * texts(inbox).count("live")]


@pytest.mark.asyncio
async def test_it_lets_an_edit_wait_for_the_message(server: FakeDiscord, inbox: RecordingInbox) -> None:
    known_until(server, inbox, ALICE, "1")
    said = await server.say(ALICE, "missed")
    server.faults.inject("GET /channels/messages", status=429, retry_after=0.5)
    async with running(adapter_for(server), inbox):
        await server.edit(ALICE, said, "changed")
        await inbox.wait_for_edits(1)

    assert texts(inbox) == ["changed"]


@pytest.mark.asyncio
async def test_it_asks_once_in_a_pause_that_discord_named(server: FakeDiscord, inbox: RecordingInbox) -> None:
    people = [Person(f"4{number:03d}", f"Person {number}") for number in range(12)]
    for person in people:
        known_until(server, inbox, person, "1")
        await server.say(person, "missed")
    server.faults.inject("GET /channels/messages", status=429, retry_after=0.5, times=backfill.READERS)
    began = asyncio.get_running_loop().time()
    async with running(adapter_for(server), inbox):
        await inbox.wait_for(len(people))

    assert asyncio.get_running_loop().time() - began > 0.5
    assert server.faults.planned[0].times == 0


@pytest.mark.asyncio
async def test_it_leaves_the_mark_where_a_history_cannot_be_read(
    server: FakeDiscord, inbox: RecordingInbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backfill, "FIRST_RETRY", 0.001)
    known_until(server, inbox, ALICE, "1")
    await server.say(ALICE, "missed")
    server.faults.inject("GET /channels/messages", status=500, times=backfill.ATTEMPTS)
    async with running(adapter_for(server), inbox):
        await server.say(ALICE, "live")
        await inbox.wait_for_text("live")

    assert inbox.known[server.private_chat(ALICE)].position == 1
    async with running(adapter_for(server), inbox):
        await inbox.wait_for_text("missed")


@pytest.mark.asyncio
async def test_it_keeps_what_waited_for_the_next_run(server: FakeDiscord, inbox: RecordingInbox) -> None:
    known_until(server, inbox, ALICE, "1")
    await server.say(ALICE, "missed")
    server.faults.inject("GET /channels/messages", status=429, retry_after=30)
    adapter = adapter_for(server)
    async with running(adapter, inbox):
        await server.acknowledged(await server.say(ALICE, "live"))
        await asyncio.sleep(0.1)
    assert texts(inbox) == []

    inbox.connected_event.clear()
    async with running(adapter, inbox):
        await inbox.wait_for_text("live")

    assert list(dict.fromkeys(texts(inbox))) == ["missed", "live"]


@pytest.mark.asyncio
async def test_it_keeps_what_waited_when_its_end_is_cut_short(
    server: FakeDiscord, inbox: RecordingInbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the loss of a lease does it: what is left behind must store nothing before what was missed."""
    asked, closing, close = asyncio.Event(), asyncio.Event(), Connection._close

    async def never_answers(*_: object) -> list[object]:
        asked.set()
        await asyncio.Event().wait()
        return []

    async def takes_its_time(self: Connection) -> None:
        closing.set()
        try:
            await asyncio.Event().wait()
        finally:
            await close(self)

    known_until(server, inbox, ALICE, "1")
    await server.say(ALICE, "missed")
    adapter = adapter_for(server)
    with monkeypatch.context() as patched:
        patched.setattr(Connection, "_page", never_answers)
        patched.setattr(Connection, "_close", takes_its_time)
        async with running(adapter, inbox) as run:
            await asked.wait()
            await server.acknowledged(await server.say(ALICE, "live"))
            run.stop.set()
            await closing.wait()
            run.task.cancel()
            with suppress(asyncio.CancelledError):
                await run.task
            left = [task for task in asyncio.all_tasks() if "coro=<Connection." in repr(task)]
    assert texts(inbox) == []
    assert left == []

    inbox.connected_event.clear()
    async with running(adapter, inbox):
        await inbox.wait_for_text("live")

    assert list(dict.fromkeys(texts(inbox))) == ["missed", "live"]


@pytest.mark.asyncio
async def test_it_passes_over_a_chat_that_is_gone(
    server: FakeDiscord, inbox: RecordingInbox, caplog: pytest.LogCaptureFixture
) -> None:
    inbox.known["99"] = Mark(1)
    known_until(server, inbox, ALICE, "1")
    await server.say(ALICE, "missed")
    server.faults.inject("GET /channels/messages", status=404)  # to the first that is asked for
    async with running(adapter_for(server), inbox):
        await inbox.wait_for_text("missed")

    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_a_position_is_found_by_its_moment() -> None:
    moment = datetime(2026, 5, 1, tzinfo=UTC)
    key = str(position_at(moment))
    raw = {"id": key, "channel_id": "7", "type": 0, "content": "hello", "author": {"id": "5", "username": "alice"}}

    message = parse_message(raw, "1")

    assert message is not None
    assert message.position == int(key)
    assert position_at(datetime(2000, 1, 1, tzinfo=UTC)) == 0
