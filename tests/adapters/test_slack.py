"""The Slack adapter with the real SDK against the local Slack server."""

from __future__ import annotations

import asyncio
import html
import logging
import random
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
import time_machine
from aiohttp import web

import adapters.slack.adapter
import adapters.slack.client
import adapters.slack.directory
from adapters.playground.server import Person
from adapters.playground.slack.workspace import BOT, BOT_USER, TEAM
from adapters.protocols import DeliveryError, MalformedEvent, NeedsConfiguration, PlatformAdapter
from adapters.slack.adapter import SlackAdapter
from adapters.slack.client import REPEAT
from adapters.slack.directory import Directory
from adapters.slack.events import Me, parse_event
from adapters.slack.receiver import Receiver
from identity.support.buttons import Button
from sessions_app.messages import Address, InboundMessage, OutgoingMessage
from tests.adapters.quoting import NAMES, quoting
from tests.adapters.recording import PATIENCE, OneByOneInbox, RecordingInbox, Run, called, running
from tests.fakes.server import FakeServer
from tests.fakes.slack import FakeSlack

ALICE = Person("U1ALICE", "Alice", "alice")
BOB = Person("U2BOB", "Bob", "bob")
MALLORY = Person("U3MALLORY", "Mallory", "mallory")
ROOM = "C1ROOM"

pytestmark = pytest.mark.asyncio


class GatedInbox(RecordingInbox):
    """Stores nothing until `gate` is set; `entered` says that a message waits."""

    def __init__(self) -> None:
        super().__init__()
        self.entered = asyncio.Event()
        self.gate = asyncio.Event()

    async def receive(self, message: InboundMessage) -> None:
        self.entered.set()
        await self.gate.wait()
        await super().receive(message)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK notices a dead socket at its next ping."""
    monkeypatch.setattr(adapters.slack.adapter, "PING_SECONDS", 0.2)


@pytest_asyncio.fixture
async def server() -> AsyncIterator[FakeSlack]:
    server = FakeSlack(redeliver_after=60.0)  # a busy machine must not turn one message into two
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
def impatient(server: FakeSlack) -> None:
    """Slack tells again soon of what is not acknowledged."""
    server.socket._redeliver_after = 0.3


@pytest_asyncio.fixture
async def run(server: FakeSlack) -> AsyncIterator[Run]:
    async with running(adapter_for(server)) as run:
        yield run


def adapter_for(server: FakeSlack, **changes: str) -> SlackAdapter:
    env = server.environment()
    tokens = {"bot_token": env["SLACK_BOT_TOKEN"], "app_token": env["SLACK_APP_TOKEN"], "api_url": env["SLACK_API_URL"]}
    return SlackAdapter(**{**tokens, **changes})


def to(chat: str, text: str, *, thread: str = "", nonce: str = "n-1", possibly_sent: bool = False) -> OutgoingMessage:
    return OutgoingMessage(Address("slack", chat, thread), text, nonce, possibly_sent)


def written(words: str, /, **changes: Any) -> dict[str, Any]:
    """A message event as Slack sends it."""
    event = {"type": "message", "user": ALICE.id, "text": words, "channel": "DU1ALICE", "channel_type": "im"}
    return {**event, "ts": "1700000000.000100", "team": TEAM, **changes}


async def heard(run: Run, server: FakeSlack, event: object) -> list[InboundMessage]:
    """What the adapter hands in for one raw event."""
    before = len(run.inbox.messages)
    await server.push_raw(event)
    await server.drained()
    return run.inbox.messages[before:]


async def refused(run: Run, message: OutgoingMessage) -> DeliveryError:
    with pytest.raises(DeliveryError) as caught:
        await run.adapter.send(message)
    return caught.value


# Contracts


async def test_it_fulfils_the_protocols() -> None:
    adapter = SlackAdapter(bot_token="xoxb-1", app_token="xapp-1", platform="slack-acme")
    server: FakeServer = FakeSlack()
    assert isinstance(adapter, PlatformAdapter)
    assert (adapter.platform, adapter.text_limit, server.platform) == ("slack-acme", 4000, "slack")


# Receiving


async def test_it_hands_in_a_private_message(run: Run, server: FakeSlack) -> None:
    ts = await server.say(ALICE, "a < b & c")
    await server.acknowledged(ts)
    [message] = run.inbox.messages
    assert message.native_key == f"DU1ALICE:{ts}"
    assert message.address == Address("slack", "DU1ALICE", "")
    assert (message.sender.user_id, message.sender.name, message.sender.username) == ("U1ALICE", "Alice", "alice")
    assert (message.text, message.message_id, message.chat_name) == ("a < b & c", ts, "Alice")
    assert (message.is_private, message.is_addressed, message.is_firsthand) == (True, True, True)
    assert message.sent_at == datetime.fromtimestamp(float(ts), UTC)


async def test_it_names_the_platform_as_it_was_told(server: FakeSlack) -> None:
    async with running(adapter_for(server, platform="slack-acme")) as run:
        await server.say(ALICE, "hello")
        [message] = await run.inbox.wait_for(1)
    assert message.address.platform == "slack-acme"


async def test_it_takes_a_group_chat_for_a_group(run: Run, server: FakeSlack) -> None:
    await server.say(ALICE, "hello all", group="G1GROUP")
    [message] = await run.inbox.wait_for(1)
    assert (message.is_private, message.is_addressed) == (False, False)


async def test_it_knows_a_private_chat_by_its_id_when_the_type_is_missing(run: Run, server: FakeSlack) -> None:
    [private] = await heard(run, server, written("hello", channel_type=None))
    [room] = await heard(run, server, written("hello", channel_type=None, channel=ROOM))
    [group] = await heard(run, server, written("hello", channel_type="mpim", channel="D9ODD"))
    assert (private.is_private, room.is_private, group.is_private) == (True, False, False)


async def test_it_gives_both_events_of_a_mention_one_key(run: Run, server: FakeSlack) -> None:
    ts = await server.say(ALICE, "what time is it?", group=ROOM, mention=True)
    await server.acknowledged(ts)
    first, second = run.inbox.messages
    assert first == second
    assert (first.native_key, first.text, first.chat_name) == (f"{ROOM}:{ts}", "what time is it?", "room-c1room")
    assert (first.is_private, first.is_addressed) == (False, True)


async def test_it_takes_slacks_word_for_a_mention(run: Run, server: FakeSlack) -> None:
    [message] = await heard(run, server, written("hello", type="app_mention", channel=ROOM, channel_type=None))
    assert (message.is_private, message.is_addressed) == (False, True)


async def test_it_keeps_the_blanks_around_a_text_that_may_go_on_elsewhere(run: Run, server: FakeSlack) -> None:
    [message] = await heard(run, server, written(" and more\n"))

    assert message.text == " and more\n"


async def test_it_strips_its_mention_and_keeps_those_of_others(run: Run, server: FakeSlack) -> None:
    text = f"<@{BOT_USER}>: ask <@U2BOB> or <@{BOT_USER}|botos> now"
    [message] = await heard(run, server, written(text, channel=ROOM, channel_type="channel"))
    assert (message.text, message.is_addressed) == ("ask <@U2BOB> or now", True)


async def test_it_does_not_take_a_room_message_for_its_own(run: Run, server: FakeSlack) -> None:
    await server.say(BOB, "not for you", group=ROOM)
    [message] = await run.inbox.wait_for(1)
    assert (message.is_private, message.is_addressed) == (False, False)
    assert "users.info" not in [method for method, _ in server.api.calls]


async def test_it_keeps_the_thread_of_a_reply(run: Run, server: FakeSlack) -> None:
    parent = await server.say(ALICE, "parent", group=ROOM)
    await server.say(BOB, "reply", group=ROOM, thread=parent)
    reply = await run.inbox.wait_for_text("reply")
    assert (reply.address.thread_id, reply.is_addressed) == (parent, False)


async def test_it_takes_a_reply_to_its_own_message_as_addressed(run: Run, server: FakeSlack) -> None:
    server.workspace.channel(ROOM)
    parent = await run.adapter.send(to(ROOM, "I am here"))
    await server.say(BOB, "good", group=ROOM, reply_to=parent)
    reply = await run.inbox.wait_for_text("good")
    assert (reply.address.thread_id, reply.is_addressed) == (parent, True)


async def test_it_puts_the_parent_of_a_thread_in_no_thread(run: Run, server: FakeSlack) -> None:
    [message] = await heard(run, server, written("parent", thread_ts="1700000000.000100"))
    assert message.address.thread_id == ""


async def test_it_hands_in_an_edit(run: Run, server: FakeSlack) -> None:
    ts = await server.say(ALICE, "before")
    await server.edit(ALICE, ts, "after & <now>")
    [edit] = await run.inbox.wait_for_edits(1)
    assert (edit.address, edit.message_id, edit.text) == (Address("slack", "DU1ALICE"), ts, "after & <now>")


async def test_it_ignores_a_change_that_changes_no_words(run: Run, server: FakeSlack) -> None:
    message = written("look: <http://x.example>", attachments=[{"title": "unfurled"}])
    change = {"subtype": "message_changed", "message": message, "previous_message": written("look: <http://x.example>")}
    await heard(run, server, {"type": "message", "channel": "DU1ALICE", "ts": "1700000001.000100", **change})
    by_bot = {"subtype": "message_changed", "message": written("new", bot_id="B9"), "previous_message": written("old")}
    await heard(run, server, {"type": "message", "channel": "DU1ALICE", "ts": "1700000002.000100", **by_bot})
    assert (run.inbox.messages, run.inbox.edits) == ([], [])


@pytest.mark.parametrize(
    "change",
    [
        {"subtype": "bot_message"},
        {"bot_id": "B9OTHER"},
        {"user": BOT_USER},
        {"user": "USLACKBOT"},
        {"subtype": "channel_join"},
        {"subtype": "message_deleted"},
        {"type": "reaction_added"},
        {"type": "app_mention", "bot_id": "B9OTHER"},
        {"text": "  "},
    ],
)
async def test_it_ignores_what_no_person_wrote(run: Run, server: FakeSlack, change: dict[str, str]) -> None:
    assert await heard(run, server, written("hello", **change)) == []


@pytest.mark.parametrize(
    "by", [{"bot_id": "B9OTHER"}, {"bot_id": "B9OTHER", "subtype": "bot_message", "username": "w"}]
)
async def test_it_hears_what_a_bot_posts_in_a_channel_and_answers_nothing(
    run: Run, server: FakeSlack, by: dict[str, Any]
) -> None:
    posted = written(f"<@{BOT_USER}> ABCD-EFGH", channel="C1PUB", channel_type="channel", **by)
    [message] = await heard(run, server, {**posted, "type": "app_mention"})
    assert (message.text, message.is_addressed) == ("ABCD-EFGH", False)


async def test_it_hears_what_a_bot_adds_to_its_post(run: Run, server: FakeSlack) -> None:
    message = written("ABCD-EFGH", bot_id="B9OTHER")
    change = {"subtype": "message_changed", "message": message, "previous_message": written("thinking ...")}
    await heard(run, server, {"type": "message", "channel": "C1PUB", "ts": "1700000001.000100", **change})
    [edit] = run.inbox.edits
    assert edit.text == "ABCD-EFGH"


async def test_it_does_not_hear_itself_in_a_channel(run: Run, server: FakeSlack) -> None:
    posted = written("ABCD-EFGH", channel="C1PUB", channel_type="channel", bot_id=BOT)
    assert await heard(run, server, posted) == []


@pytest.mark.parametrize("subtype", ["thread_broadcast", "file_share"])
async def test_it_hears_text_beside_a_file_and_broadcast_replies(run: Run, server: FakeSlack, subtype: str) -> None:
    [message] = await heard(run, server, written("see this", subtype=subtype))
    assert message.text == "see this"


async def test_it_keys_a_guest_by_team_and_user(run: Run, server: FakeSlack) -> None:
    server.guest(MALLORY, "T9OTHER")
    await server.say(MALLORY, "hello", group=ROOM, mention=True)
    await server.say(ALICE, "hello too")
    messages = await run.inbox.wait_for(3)
    assert [message.sender.user_id for message in messages] == ["T9OTHER:U3MALLORY"] * 2 + ["U1ALICE"]
    assert messages[0].sender.name == "Mallory"


@pytest.mark.parametrize(
    ("raw", "read"),
    [
        ("<http://x.example/?a=1&amp;b=2>", "http://x.example/?a=1&b=2"),
        ("<http://x.example|the page>", "the page"),
        ("<#C123|general> <#C124>", "#general #C124"),
        ("<!here> <!subteam^S1|@team>", "@here @team"),
        ("&amp;lt; &copy;", "&lt; &copy;"),
        ("nul\0 and \ud83d half \ud83d\ude00", "nul and \ufffd half \U0001f600"),
    ],
)
async def test_it_reads_slacks_mark_up(run: Run, server: FakeSlack, raw: str, read: str) -> None:
    [message] = await heard(run, server, written(raw))
    assert message.text == read


async def test_it_keeps_the_order_of_fast_messages(run: Run, server: FakeSlack) -> None:
    texts = [f"message {number}" for number in range(50)]
    for text in texts:
        await server.say(ALICE, text)
    await run.inbox.wait_for(50)
    await server.drained()
    assert [message.text for message in run.inbox.messages] == texts
    asked = [method for method, _ in server.api.calls if method == "users.info"]
    assert len(asked) == 1


async def test_it_delivers_without_a_name_when_slack_gives_none(run: Run, server: FakeSlack) -> None:
    server.faults.inject("users.info", status=500)
    await server.say(ALICE, "hello")
    [message] = await run.inbox.wait_for(1)
    assert (message.sender.name, message.chat_name) == ("", "")


async def test_it_waits_for_a_name_no_longer_than_it_may(server: FakeSlack, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(*_: object, **__: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(adapters.slack.directory, "NAME_SECONDS", 0.01)
    monkeypatch.setattr("slack_sdk.web.async_client.AsyncWebClient.users_info", never)
    async with running(adapter_for(server)) as run:
        await server.say(ALICE, "hello")
        [message] = await run.inbox.wait_for(1)
    assert message.sender.name == ""


async def test_it_forgets_the_oldest_names(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    class Web:
        async def users_info(self, user: str) -> dict[str, Any]:
            asked.append(user)
            return {"user": {"name": user, "profile": {"real_name": user.title()}}}

    directory = Directory(Web(), size=2)  # type: ignore[arg-type]
    names = [await directory.person(user) for user in ("u1", "u2", "T9:u1", "u2", "u1")]
    assert names[0] == ("U1", "u1")
    assert asked == ["u1", "u2", "u1", "u1"]


# Acknowledging


async def test_it_acknowledges_only_what_is_stored(server: FakeSlack) -> None:
    inbox = GatedInbox()
    async with running(adapter_for(server), inbox):
        ts = await server.say(ALICE, "hello")
        await inbox.entered.wait()
        with pytest.raises(TimeoutError):
            await server.acknowledged(ts, timeout=0.2)
        inbox.gate.set()
        await server.acknowledged(ts)
    assert {message.message_id for message in inbox.messages} == {ts}


async def test_it_hands_in_together_what_it_hears_meanwhile(server: FakeSlack, monkeypatch: pytest.MonkeyPatch) -> None:
    has_heard_all = called(monkeypatch, Receiver, "put", times=4)
    inbox, wanted = OneByOneInbox(), ["one", "two", "three", "four"]
    async with running(adapter_for(server), inbox):
        first = await server.say(ALICE, wanted[0])
        await inbox.wait_for_begun(1)
        others = [await server.say(ALICE, text) for text in wanted[1:]]
        await asyncio.wait_for(has_heard_all.wait(), PATIENCE)
        inbox.release(1)
        assert await inbox.wait_for_begun(4) == wanted
        await server.acknowledged(first)
        with pytest.raises(TimeoutError):
            await server.acknowledged(others[0], timeout=0.1)
        inbox.release(3)
        for ts in others:
            await server.acknowledged(ts)

    assert [message.text for message in inbox.messages] == wanted


@pytest.mark.usefixtures("impatient")
async def test_it_insists_on_a_message_that_was_not_stored_before_it_takes_the_next(
    run: Run, server: FakeSlack, caplog: pytest.LogCaptureFixture
) -> None:
    run.inbox.fail_next = 3
    first = await server.say(ALICE, "my secret")
    second = await server.say(ALICE, "the next one")
    await server.acknowledged(first)
    await server.acknowledged(second)
    texts = [message.text for message in run.inbox.messages]  # some again: Slack had given up on them
    assert list(dict.fromkeys(texts)) == ["my secret", "the next one"]
    records = [record for record in caplog.records if "not stored" in record.getMessage()]
    assert len(records) == 3
    assert "Storage" in records[0].getMessage()
    assert "secret" not in caplog.text


async def test_it_stops_while_a_message_cannot_be_stored_and_does_not_acknowledge_it(server: FakeSlack) -> None:
    inbox = RecordingInbox()
    async with running(adapter_for(server), inbox):
        inbox.fail_next = 1_000_000
        ts = await server.say(ALICE, "hello")
        await inbox.failed.wait()
    with pytest.raises(TimeoutError):
        await server.acknowledged(ts, timeout=0.2)


async def test_it_hands_in_a_repetition_under_the_same_key(run: Run, server: FakeSlack) -> None:
    ts = await server.say(ALICE, "hello")
    await server.acknowledged(ts)
    await server.redeliver(ts)
    first, second = await run.inbox.wait_for(2)
    assert first == second


@pytest.mark.usefixtures("impatient")
async def test_it_loses_nothing_when_the_socket_drops(run: Run, server: FakeSlack) -> None:
    for number in range(3):
        await server.drop_connections()
        await server.say(ALICE, f"in the dark {number}")
        await server.drained()
    assert [message.text for message in run.inbox.messages] == [f"in the dark {number}" for number in range(3)]
    assert server.socket.connections == 4


@pytest.mark.usefixtures("impatient")
async def test_it_gets_again_what_a_drop_left_unacknowledged(server: FakeSlack) -> None:
    inbox = GatedInbox()
    async with running(adapter_for(server), inbox):
        ts = await server.say(ALICE, "hello")
        await inbox.entered.wait()
        await server.drop_connections()
        inbox.gate.set()
        await server.acknowledged(ts)
    assert {message.native_key for message in inbox.messages} == {f"DU1ALICE:{ts}"}


async def test_it_moves_to_a_new_socket_when_slack_asks(run: Run, server: FakeSlack) -> None:
    await server.socket.refresh()
    await server.workspace.until(lambda: server.socket.connections == 2, 10)
    ts = await server.say(ALICE, "still there?")
    await server.acknowledged(ts)
    assert [message.text for message in run.inbox.messages] == ["still there?"]


@pytest.mark.usefixtures("impatient")
async def test_it_comes_back_after_an_outage(run: Run, server: FakeSlack) -> None:
    server.faults.outage = True
    await server.drop_connections()
    await server.say(ALICE, "anybody?")
    error = await refused(run, to("DU1ALICE", "hello"))
    server.faults.outage = False
    await server.drained()
    assert (error.permanent, error.ambiguous) == (False, True)
    assert [message.text for message in run.inbox.messages] == ["anybody?"]


async def test_it_gives_up_a_connection_that_does_not_come_back(
    server: FakeSlack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapters.slack.adapter, "LOST_SECONDS", 0.5)
    async with running(adapter_for(server)) as run:
        server.faults.outage = True
        await server.drop_connections()
        with pytest.raises(ConnectionError, match="lost"):
            await run.ending()


# Hostile events


def hostile(count: int) -> list[object]:
    """Events no person could have caused, the same ones every time."""
    chance = random.Random(7)
    junk: list[object] = [None, True, 0, -1, 1e308, "", "\0\x1b[2J\x7f", "\ud800", [], [[]], {}, {"a": None}, "x" * 200]
    keys = (*written(""), "thread_ts", "subtype", "message", "bot_id")
    events: list[object] = [written("x" * 1_000_000), written("x" * 100_001), *junk]
    while len(events) < count:
        event = written(chance.choice(("hello", "\0\0", "<" * 5000, "\udfff<@>")))
        for key in chance.sample(keys, chance.randint(1, 4)):
            if chance.random() < 0.4:
                event.pop(key, None)
            else:
                event[key] = chance.choice(junk)
        if chance.random() < 0.2:
            event = {"type": "message", "subtype": "message_changed", "message": event, "channel": "D1"}
        events.append(event)
    return events


def is_malformed(event: object) -> bool:
    try:
        parse_event({"event": event}, Me("slack", BOT_USER, BOT, frozenset({TEAM})))
    except MalformedEvent:
        return True
    return False


async def test_it_survives_hostile_events_and_logs_each_once(
    run: Run, server: FakeSlack, caplog: pytest.LogCaptureFixture
) -> None:
    events = hostile(300)
    for event in events:
        caplog.clear()
        await server.push_raw(event)
        await server.drained()
        lines = [record.getMessage() for record in caplog.records]
        assert len(lines) == is_malformed(event), lines
        assert all("malformed" in line and "'Ev" in line and len(line) < 200 for line in lines)
    assert 100 < sum(is_malformed(event) for event in events) < 290
    await server.say(BOB, "a good one")
    assert (await run.inbox.wait_for_text("a good one")).sender.user_id == BOB.id


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (5, "event is not an object"),
        ({}, "type is not a string"),
        (written("x", text=None), "text is not a string"),
        (written("x", text=["secret"]), "text is not a string"),
        (written("x", user=None), "user is not a string"),
        (written("x", user="U1:U2"), "user is not an id"),
        (written("x", team="T9 secret"), "team is not an id"),
        (written("x", ts="soon"), "ts is not a timestamp"),
        (written("x", ts="99999999999.1"), "ts is not a timestamp"),
        (written("x", thread_ts={}), "thread_ts is not a string"),
        (written("x", channel="C1\n"), "channel is not an id"),
        (written("x", channel_type=4), "channel_type is not a string"),
        (written("x", subtype=[]), "subtype is not a string"),
        (written("x", subtype="message_changed"), "message is not an object"),
        (written("x" * 100_001), "text is longer than 100000 characters"),
    ],
)
async def test_it_says_what_is_wrong_with_an_event(
    run: Run, server: FakeSlack, caplog: pytest.LogCaptureFixture, event: object, reason: str
) -> None:
    assert await heard(run, server, event) == []
    [record] = caplog.records
    assert (record.levelno, record.getMessage().partition("dropped: ")[2]) == (logging.WARNING, reason)
    assert "secret" not in caplog.text


@pytest.mark.parametrize("payload", [None, 5, "text", [], {}, {"event": None}])
async def test_it_acknowledges_an_envelope_without_an_event(
    run: Run, server: FakeSlack, caplog: pytest.LogCaptureFixture, payload: object
) -> None:
    await server.push_raw({"envelope_id": "e-1", "type": "events_api", "payload": payload})
    await server.push_raw({"envelope_id": "e-2", "type": "events_api"})
    await server.drained()
    assert [record.getMessage().split()[2] for record in caplog.records] == ["'e-1'", "'e-2'"]


async def test_it_takes_the_longest_text_that_a_person_may_write(run: Run, server: FakeSlack) -> None:
    [message] = await heard(run, server, written("x" * 100_000))
    assert len(message.text) == 100_000


# Configuration


@pytest.mark.parametrize("token", ["xoxb-wrong", "", "app"])
async def test_it_says_that_the_bot_token_is_wrong(
    server: FakeSlack, caplog: pytest.LogCaptureFixture, token: str
) -> None:
    wrong = server.app_token if token == "app" else token
    with pytest.raises(NeedsConfiguration, match="SLACK_BOT_TOKEN is refused by Slack") as caught:
        await adapter_for(server, bot_token=wrong).run(RecordingInbox(), asyncio.Event())
    assert caught.value.__suppress_context__
    assert not wrong or wrong not in str(caught.value) + caplog.text


@pytest.mark.parametrize("token", ["xapp-wrong", "", "bot"])
async def test_it_says_that_the_app_token_is_wrong(
    server: FakeSlack, caplog: pytest.LogCaptureFixture, token: str
) -> None:
    wrong, inbox = server.bot_token if token == "bot" else token, RecordingInbox()
    with pytest.raises(NeedsConfiguration, match="SLACK_APP_TOKEN is refused by Slack") as caught:
        await adapter_for(server, app_token=wrong).run(inbox, asyncio.Event())
    assert caught.value.__suppress_context__
    assert not inbox.connected_event.is_set()
    assert not wrong or wrong not in str(caught.value) + caplog.text


async def test_it_connects_to_the_address_that_it_checked(run: Run, server: FakeSlack) -> None:
    assert [method for method, _ in server.api.calls] == ["auth.test", "apps.connections.open"]


async def test_it_does_not_blame_the_tokens_for_an_outage(server: FakeSlack) -> None:
    server.faults.outage = True
    with pytest.raises(ConnectionError):
        await adapter_for(server).run(RecordingInbox(), asyncio.Event())


async def test_it_does_not_blame_the_tokens_when_nobody_listens(server: FakeSlack) -> None:
    adapter = adapter_for(server)
    await server.stop()
    with pytest.raises(ConnectionError, match="cannot be reached"):
        await adapter.run(RecordingInbox(), asyncio.Event())


async def test_it_ends_when_the_bot_token_is_refused_on_a_send(run: Run, server: FakeSlack) -> None:
    server.faults.inject("chat.postMessage", status=401)
    error = await refused(run, to(server.private_chat(ALICE), "hello"))
    with pytest.raises(ConnectionError):
        await run.ending()
    assert not error.permanent


async def test_it_connects_directly_to_loopback_whatever_the_proxy(
    server: FakeSlack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    async with running(adapter_for(server)) as run:
        await server.say(ALICE, "hello")
        await run.inbox.wait_for(1)
        assert await run.adapter.send(to("DU1ALICE", "hello"))


@contextmanager
def logged(words: str) -> Iterator[asyncio.Event]:
    """An event that is set once the SDK logs these words."""
    event = asyncio.Event()

    class Listening(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if words in record.getMessage():
                event.set()

    listening = Listening()
    adapters.slack.client.quiet.addHandler(listening)
    yield event
    adapters.slack.client.quiet.removeHandler(listening)


async def test_it_keeps_tokens_and_tickets_out_of_the_log(server: FakeSlack, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with running(adapter_for(server)) as run:
        ts = await server.say(ALICE, "hello")
        await server.acknowledged(ts)
        server.faults.inject("websocket", status=503, times=1)
        server.faults.inject("chat.postMessage", status=500)
        error = await refused(run, to("DU1ALICE", "hello"))
        with logged("Failed to connect") as failed:
            await server.drop_connections()
            await asyncio.wait_for(failed.wait(), 10)
    texts = caplog.text + str(error) + repr(error)
    assert "ticket=***" in texts
    assert not re.search(r"ticket=\w", texts)
    for secret in (server.bot_token, server.app_token, "hello"):
        assert secret not in texts


# Sending


async def test_it_sends_plain_text_with_its_nonce(run: Run, server: FakeSlack) -> None:
    chat = server.private_chat(ALICE)
    ts = await run.adapter.send(to(chat, "a < b & <!channel>", nonce="n-42"))
    [said] = await server.wait_for(1, chat=chat)
    [posted] = server.api.posted
    assert (said.message_id, said.text, said.thread_id) == (ts, "a < b & <!channel>", "")
    assert posted["text"] == "a &lt; b &amp; &lt;!channel&gt;"
    assert posted["metadata"] == {"event_type": "botos_delivery", "event_payload": {"id": "n-42"}}
    assert (posted["unfurl_links"], posted["unfurl_media"], posted["mrkdwn"]) == (False, False, False)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("buttons", [(), (Button("Not me", "/notme"),)])
async def test_it_shows_a_name_and_no_mark_up(
    run: Run, server: FakeSlack, name: str, buttons: tuple[Button, ...]
) -> None:
    text = quoting(name, "slack")

    await run.adapter.send(replace(to(server.private_chat(ALICE), text), buttons=buttons))

    [posted] = server.api.posted
    assert text == quoting(name, "")
    assert (html.unescape(posted["text"]), "<" in posted["text"]) == (text, False)
    assert (posted["mrkdwn"], posted["parse"]) == (False, "none")
    shown = [block["text"] for block in posted.get("blocks", []) if block["type"] == "section"]
    assert shown == [{"type": "plain_text", "text": text, "emoji": False}] * len(buttons)


async def test_it_sends_into_a_thread(run: Run, server: FakeSlack) -> None:
    parent = await server.say(ALICE, "parent", group=ROOM)
    await run.adapter.send(to(ROOM, "reply", thread=parent))
    [said] = await server.wait_for(1, chat=ROOM)
    assert said.thread_id == parent


@pytest.mark.parametrize("name", [ALICE.name, "channel", "<!channel>", "<@U2BOB>"])
async def test_it_names_who_asked_in_a_channel_and_begins_no_thread(run: Run, server: FakeSlack, name: str) -> None:
    asked = await server.say(ALICE, "hello?", group=ROOM, mention=True)
    await run.adapter.send(replace(to(ROOM, "hello"), reply_to=asked, asker=name))
    [said] = await server.wait_for(1, chat=ROOM)
    [posted] = server.api.posted

    assert (said.text, said.thread_id) == (f"@{name}: hello", "")
    assert (posted["mrkdwn"], posted["parse"], "<" in posted["text"]) == (False, "none", False)


async def test_it_names_nobody_in_a_thread_and_in_a_private_chat(run: Run, server: FakeSlack) -> None:
    parent = await server.say(ALICE, "parent", group=ROOM)
    await run.adapter.send(replace(to(ROOM, "reply", thread=parent), reply_to=parent, asker="Alice"))
    await run.adapter.send(replace(to(server.private_chat(ALICE), "hi", nonce="n-2"), reply_to=parent))

    assert [posted["text"] for posted in server.api.posted] == ["reply", "hi"]


@pytest.mark.parametrize(("possibly_sent", "mark"), [(False, ""), (True, REPEAT)])
async def test_it_sends_the_longest_text_however_much_is_escaped(
    run: Run, server: FakeSlack, possibly_sent: bool, mark: str
) -> None:
    server.api.hidden[server.workspace.channel(ROOM).id] = "missing_scope"
    longest = "&" * run.adapter.text_limit
    await run.adapter.send(to(ROOM, longest, possibly_sent=possibly_sent))
    [said] = await server.wait_for(1, chat=ROOM)
    assert said.text == longest + mark


async def test_it_does_not_hear_itself(run: Run, server: FakeSlack) -> None:
    ts = await run.adapter.send(to(server.private_chat(ALICE), "hello"))
    await server.acknowledged(ts)
    assert run.inbox.messages == []


async def test_it_refuses_to_send_while_it_is_not_connected(server: FakeSlack) -> None:
    adapter = adapter_for(server)
    with pytest.raises(DeliveryError, match="slack is not connected"):
        await adapter.send(to("DU1ALICE", "early"))
    async with running(adapter) as run:
        assert await run.adapter.send(to(server.private_chat(ALICE), "now"))
    with pytest.raises(DeliveryError, match="slack is not connected"):
        await adapter.send(to("DU1ALICE", "late"))


async def test_it_waits_as_long_as_slack_asks(run: Run, server: FakeSlack) -> None:
    server.faults.inject("chat.postMessage", status=429, retry_after=7.5)
    error = await refused(run, to(server.private_chat(ALICE), "hello"))
    assert (error.permanent, error.retry_after, error.ambiguous) == (False, 7.5, False)


@pytest.mark.parametrize("code", ["is_archived", "not_in_channel", "user_disabled", "channel_not_found"])
async def test_it_gives_up_what_slack_will_never_take(run: Run, server: FakeSlack, code: str) -> None:
    server.api.refusals[server.workspace.channel(ROOM).id] = code
    error = await refused(run, to(ROOM, "hello"))
    assert (error.permanent, error.ambiguous, str(error)) == (True, False, f"slack refuses the message: {code}")
    assert error.gone is (code == "user_disabled")


async def test_it_gives_up_unknown_channels_and_impossible_texts(run: Run, server: FakeSlack) -> None:
    chat = server.private_chat(ALICE)
    errors = [await refused(run, to(*what)) for what in (("C9", "x"), (chat, " \n"), (chat, "x" * 40_001))]
    assert [str(error).split()[-1] for error in errors] == ["channel_not_found", "no_text", "msg_too_long"]
    assert all(error.permanent for error in errors)


@pytest.mark.parametrize(("code", "ambiguous"), [("fatal_error", True), ("internal_error", True), ("new_error", False)])
async def test_it_tries_again_after_a_failure_of_slack(run: Run, server: FakeSlack, code: str, ambiguous: bool) -> None:
    server.api.refusals[server.workspace.channel(ROOM).id] = code
    error = await refused(run, to(ROOM, "hello"))
    assert (error.permanent, error.ambiguous) == (False, ambiguous)


@pytest.mark.parametrize("status", [500, 503])
async def test_it_is_unsure_after_a_server_error(run: Run, server: FakeSlack, status: int) -> None:
    server.faults.inject("chat.postMessage", status=status)
    error = await refused(run, to(server.private_chat(ALICE), "hello"))
    assert (error.permanent, error.retry_after, error.ambiguous) == (False, None, True)


async def test_it_is_unsure_after_a_lost_answer_and_does_not_repeat_by_itself(run: Run, server: FakeSlack) -> None:
    chat = server.private_chat(ALICE)
    server.faults.inject("chat.postMessage", lose_response=True)
    error = await refused(run, to(chat, "once"))
    assert (error.permanent, error.ambiguous) == (False, True)
    assert len(await server.wait_for(1, chat=chat)) == 1


async def test_it_says_so_when_something_on_the_way_answers_in_plain_text(
    run: Run, server: FakeSlack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The SDK takes it for the content of a file, and fails with an AttributeError."""
    monkeypatch.setattr(web, "json_response", lambda *_, **__: web.Response(text="Welcome to the proxy"))
    error = await refused(run, to(server.private_chat(ALICE), "hello"))
    assert str(error) == "slack did not answer: the answer is not JSON; check SLACK_API_URL and any proxy on the way"
    assert (error.permanent, error.ambiguous) == (False, True)


async def test_it_is_sure_when_nobody_listened(run: Run, server: FakeSlack) -> None:
    await server.stop()
    error = await refused(run, to("DU1ALICE", "hello"))
    assert (error.permanent, error.ambiguous) == (False, False)


@pytest.mark.parametrize("in_thread", [False, True])
async def test_it_finds_an_earlier_attempt_by_its_nonce(run: Run, server: FakeSlack, in_thread: bool) -> None:
    thread = await server.say(ALICE, "parent") if in_thread else ""
    chat = server.private_chat(ALICE)
    server.faults.inject("chat.postMessage", lose_response=True)
    await refused(run, to(chat, "once", thread=thread, nonce="n-7"))
    await run.adapter.send(to(chat, "another", thread=thread, nonce="n-8"))
    ts = await run.adapter.send(to(chat, "once", thread=thread, nonce="n-7", possibly_sent=True))
    said = await server.wait_for(2, chat=chat)
    assert [(one.message_id == ts, one.text) for one in said] == [(True, "once"), (False, "another")]


async def test_it_sends_a_repeat_that_did_not_get_through(run: Run, server: FakeSlack) -> None:
    chat = server.private_chat(ALICE)
    await run.adapter.send(to(chat, "other", nonce="n-1"))
    await run.adapter.send(to(chat, "again", nonce="n-2", possibly_sent=True))
    assert [said.text for said in await server.wait_for(2, chat=chat)] == ["other", "again"]


async def test_it_looks_on_the_next_pages(run: Run, server: FakeSlack) -> None:
    chat = server.private_chat(ALICE)
    ts = await run.adapter.send(to(chat, "once", nonce="n-7"))
    for number in range(250):
        await server.say(ALICE, f"{number}")
    assert await run.adapter.send(to(chat, "once", nonce="n-7", possibly_sent=True)) == ts


async def test_it_looks_as_far_back_as_the_message_is_old(run: Run, server: FakeSlack) -> None:
    chat = server.private_chat(ALICE)
    ts = await run.adapter.send(to(chat, "once", nonce="n-7"))
    repeat = replace(to(chat, "once", nonce="n-7", possibly_sent=True), waited=60 * 3600.0)
    with time_machine.travel(datetime.now(tz=UTC) + timedelta(hours=60)):
        assert await run.adapter.send(repeat) == ts


async def test_it_marks_a_repeat_where_there_is_too_much_to_look_through(
    run: Run, server: FakeSlack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapters.slack.client.LOOK_BACK_PAGES", 1)
    chat = server.private_chat(ALICE)
    await run.adapter.send(to(chat, "once", nonce="n-7"))
    for number in range(200):
        await server.say(ALICE, f"{number}")
    await run.adapter.send(to(chat, "once", nonce="n-7", possibly_sent=True))
    assert [said.text for said in await server.wait_for(2, chat=chat)] == ["once", "once" + REPEAT]


async def test_it_is_not_fooled_by_a_nonce_of_another_app(run: Run, server: FakeSlack) -> None:
    channel = server.workspace.channel(ROOM)
    metadata = {"event_type": "botos_delivery", "event_payload": {"id": "n-7"}}
    forged = {"text": "mine", "user": MALLORY.id, "bot_id": "B9OTHER", "metadata": metadata}
    await server.workspace.write(channel, forged, author=MALLORY.id)
    await run.adapter.send(to(ROOM, "ours", nonce="n-7", possibly_sent=True))
    assert [said.text for said in await server.wait_for(1, chat=ROOM)] == ["ours"]


async def test_it_stays_unsure_when_it_cannot_look(run: Run, server: FakeSlack) -> None:
    chat = server.private_chat(ALICE)
    server.faults.inject("conversations.history", status=429, retry_after=3)
    error = await refused(run, to(chat, "hello", possibly_sent=True))
    assert (error.retry_after, error.ambiguous, server.said) == (3.0, True, [])


async def test_it_marks_a_repeat_where_it_may_not_look(run: Run, server: FakeSlack) -> None:
    server.api.hidden[server.workspace.channel(ROOM).id] = "missing_scope"
    await run.adapter.send(to(ROOM, "hello", possibly_sent=True))
    assert [said.text for said in await server.wait_for(1, chat=ROOM)] == ["hello" + REPEAT]


# Stopping


async def test_it_stops_promptly_and_may_run_again(server: FakeSlack) -> None:
    adapter = adapter_for(server)
    for _ in range(2):
        async with running(adapter) as run:
            await server.say(ALICE, "hello")
            await run.inbox.wait_for(1)
            run.stop.set()
            async with asyncio.timeout(1):
                await run.task
            assert run.task.exception() is None
    await asyncio.sleep(0)  # the SDK cancels its tasks and does not wait for them
    assert not [task for task in asyncio.all_tasks() if "ModeClient" in str(task.get_coro())]


async def test_it_finishes_the_event_in_hand_when_it_stops(server: FakeSlack, monkeypatch: pytest.MonkeyPatch) -> None:
    inbox, queued, put = GatedInbox(), asyncio.Semaphore(0), Receiver.put

    def watched(self: Receiver, *envelope: Any) -> None:
        put(self, *envelope)
        queued.release()

    monkeypatch.setattr(Receiver, "put", watched)
    async with running(adapter_for(server), inbox) as run:
        in_hand = await server.say(ALICE, "in hand")
        await inbox.entered.wait()
        await server.say(ALICE, "behind it")
        for _ in range(2):
            await queued.acquire()
        run.stop.set()
        await asyncio.wait({run.task}, timeout=0.2)
        assert not run.task.done()
        inbox.gate.set()
        await run.ending()
    assert [message.text for message in inbox.messages] == ["in hand"]
    assert server.socket.acks == [in_hand]


async def test_it_stops_while_it_cannot_connect(server: FakeSlack) -> None:
    server.faults.inject("websocket", status=503, times=1000)
    stop = asyncio.Event()
    task = asyncio.create_task(adapter_for(server).run(RecordingInbox(), stop))
    await server.workspace.until(lambda: server.faults.planned[0].times < 1000, 10)
    stop.set()
    async with asyncio.timeout(1):
        await task


# The local server is strict


async def call(server: FakeSlack, method: str, token: str, **kinds: Any) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    url = server.environment()["SLACK_API_URL"] + method
    async with aiohttp.ClientSession() as session, session.post(url, headers=headers, **kinds) as response:
        return dict(await response.json())


async def test_the_server_refuses_tokens_and_arguments_as_slack_does(server: FakeSlack) -> None:
    chat, bot = server.private_chat(ALICE), server.bot_token
    answers = [
        await call(server, "auth.test", ""),
        await call(server, "auth.test", "xoxb-wrong"),
        await call(server, "apps.connections.open", bot),
        await call(server, "chat.postMessage", bot, json={"channel": chat, "text": 5}),
        await call(server, "chat.postMessage", bot, json={"channel": chat, "text": ""}),
        await call(server, "chat.postMessage", bot, json={"channel": chat, "text": "x" * 40_001}),
        await call(server, "chat.postMessage", bot, json={"channel": "C9", "text": "x"}),
        await call(server, "chat.noSuchMethod", bot),
    ]
    assert [answer["error"] for answer in answers] == [
        "invalid_auth",
        "invalid_auth",
        "not_allowed_token_type",
        "invalid_arguments",
        "no_text",
        "msg_too_long",
        "channel_not_found",
        "unknown_method",
    ]


async def test_the_server_takes_forms_and_json_alike(server: FakeSlack) -> None:
    chat = server.private_chat(ALICE)
    form = {"channel": chat, "text": "form", "mrkdwn": "false", "blocks": "[]"}
    posted = await call(server, "chat.postMessage", server.bot_token, data=form)
    typed = {"channel": chat, "ts": posted["ts"], "text": "changed"}
    updated = await call(server, "chat.update", server.bot_token, json=typed)
    assert (posted["ok"], updated["ok"], server.api.posted[0]["blocks"]) == (True, True, [])
    assert [said.text for said in server.said] == ["changed"]
    assert posted["message"]["bot_id"] == BOT
