"""Buttons and slash commands on Slack, with the real SDK."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

import adapters.playground.slack.socket
import adapters.slack.adapter
import adapters.slack.directory
from adapters.playground.server import Person
from adapters.playground.slack.workspace import BOT, BOT_USER, TEAM
from adapters.protocols import DeliveryError, MalformedEvent
from adapters.slack.adapter import SlackAdapter
from adapters.slack.client import slack_client
from adapters.slack.directory import Directory
from adapters.slack.events import Me, parse_command, parse_press
from identity.support.buttons import Button
from sessions_app.messages import Address, InboundMessage, OutgoingMessage
from tests.adapters.recording import RecordingInbox, Run, running
from tests.fakes.slack import FakeSlack

JSON = dict[str, Any]
ALICE = Person("U1ALICE", "Alice", "alice")
BOB = Person("U2BOB", "Bob", "bob")
ROOM, TWO_PEOPLE = "C1ROOM", "D9TWOPEOPLE"
CANCEL, NOT_ME = Button("Cancel", "/cancel"), Button("Not me", "/notme 6f1c2d3e-0000-4000-8000-0123456789ab")
ME = Me("slack", BOT_USER, BOT, frozenset({TEAM}))
SECRETS = {"trigger_id": "13345224609.738474920.8088930838d88f008e0", "response_url": "https://hooks.slack.example/s3"}

pytestmark = pytest.mark.asyncio


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapters.slack.adapter, "PING_SECONDS", 0.2)


@pytest_asyncio.fixture
async def server() -> AsyncIterator[FakeSlack]:
    server = FakeSlack(redeliver_after=3.0)
    await server.start()
    yield server
    await server.stop()


@pytest_asyncio.fixture
async def run(server: FakeSlack) -> AsyncIterator[Run]:
    async with running(adapter_for(server)) as run:
        yield run


def adapter_for(server: FakeSlack) -> SlackAdapter:
    env = server.environment()
    tokens = {"bot_token": env["SLACK_BOT_TOKEN"], "app_token": env["SLACK_APP_TOKEN"], "api_url": env["SLACK_API_URL"]}
    return SlackAdapter(**tokens)


def to(chat: str, *buttons: Button, text: str = "Well?", thread: str = "") -> OutgoingMessage:
    return OutgoingMessage(Address("slack", chat, thread), text, "n1", buttons=buttons)


def press(**changed: object) -> JSON:
    """The payload of a pressed button, with some fields replaced or (by `...`) left out."""
    action = {"type": "button", "action_id": "botos-0", "value": "/cancel", "action_ts": "1700000000.000200"}
    message = {"ts": "1700000000.000100", "text": "Well?", "user": BOT_USER, "bot_id": BOT}
    who = {"user": {"id": ALICE.id, "team_id": TEAM}, "channel": {"id": "DU1ALICE", "name": "directmessage"}}
    payload = {"type": "block_actions", "actions": [action], "message": message, **who, **SECRETS, **changed}
    return {key: value for key, value in payload.items() if value is not ...}


def command(**changed: object) -> JSON:
    """The payload of a slash command, likewise."""
    who = {"user_id": ALICE.id, "team_id": TEAM, "channel_id": "DU1ALICE", "channel_name": "directmessage"}
    payload = {"command": "/link", "text": "WDJB-MJHT", **who, **SECRETS, **changed}
    return {key: value for key, value in payload.items() if value is not ...}


def pressed(**changed: object) -> InboundMessage:
    message = parse_press(press(**changed), ME)
    assert message is not None
    return message


# Outgoing


async def test_it_shows_the_text_above_the_buttons(run: Run, server: FakeSlack) -> None:
    chat = server.private_chat(ALICE)
    await run.adapter.send(to(chat, CANCEL, NOT_ME, text='"<!channel>" & *co*'))
    [said] = await server.wait_for(1, chat=chat)
    [posted] = server.api.posted
    section, actions = posted["blocks"]

    assert (said.buttons, said.text) == ((CANCEL, NOT_ME), '"<!channel>" & *co*')
    assert posted["text"] == '"&lt;!channel&gt;" &amp; *co*'
    assert section["text"] == {"type": "plain_text", "text": '"<!channel>" & *co*', "emoji": False}
    assert [element["action_id"] for element in actions["elements"]] == ["botos-0", "botos-1"]
    assert [element["value"] for element in actions["elements"]] == ["/cancel", NOT_ME.command]


async def test_it_splits_what_a_section_does_not_hold(run: Run, server: FakeSlack) -> None:
    await run.adapter.send(to(server.private_chat(ALICE), CANCEL, text="word " * 800))
    *sections, actions = server.api.posted[0]["blocks"]

    assert [len(section["text"]["text"]) <= 3000 for section in sections] == [True, True]
    assert " ".join(section["text"]["text"] for section in sections).split() == ["word"] * 800
    assert actions["type"] == "actions"


async def test_it_sends_no_blocks_without_buttons(run: Run, server: FakeSlack) -> None:
    await run.adapter.send(to(server.private_chat(ALICE)))

    assert "blocks" not in server.api.posted[0]


# Buttons


async def test_it_takes_a_press_for_its_command(run: Run, server: FakeSlack) -> None:
    chat = server.private_chat(ALICE)
    sent = await run.adapter.send(to(chat, CANCEL))
    before = datetime.now(UTC)
    envelope = await server.press(ALICE, sent, "/cancel")
    message = await run.inbox.wait_for_text("/cancel")
    await server.answered(envelope)

    assert server.socket.answers[envelope] is None
    assert (message.address, message.message_id, message.chat_name) == (Address("slack", chat), "", "Alice")
    assert (message.sender.user_id, message.sender.name, message.sender.username) == (ALICE.id, "Alice", "alice")
    assert (message.is_private, message.is_addressed, message.is_firsthand) == (True, True, True)
    assert message.sent_at is not None
    assert before - timedelta(seconds=1) < message.sent_at <= datetime.now(UTC) + timedelta(seconds=1)


async def test_it_gives_each_press_a_key_of_its_own(run: Run, server: FakeSlack) -> None:
    sent = await run.adapter.send(to(server.private_chat(ALICE), CANCEL))
    for _ in range(2):
        await server.press(ALICE, sent, "/cancel")
    await server.say(ALICE, "hello")
    messages = await run.inbox.wait_for(3)

    assert len({message.native_key for message in messages}) == 3
    assert [message.text for message in messages] == ["/cancel", "/cancel", "hello"]


async def test_it_answers_in_the_thread_of_the_message(run: Run, server: FakeSlack) -> None:
    chat = server.private_chat(ALICE)
    parent = await server.say(ALICE, "in a thread")
    sent = await run.adapter.send(to(chat, CANCEL, thread=parent))
    await server.press(ALICE, sent, "/cancel")

    assert (await run.inbox.wait_for_text("/cancel")).address == Address("slack", chat, parent)


@pytest.mark.parametrize(
    ("where", "is_private"),
    [
        ({}, True),
        ({"channel": {"id": ROOM}}, False),
        ({"channel": {"id": "G1GROUP"}}, False),
        ({"message": {"ts": "1700000000.000100", "bot_id": "B9OTHER"}}, False),
        ({"message": {"ts": "1700000000.000100"}}, False),
    ],
    ids=str,
)
async def test_it_takes_only_its_own_message_in_a_private_chat_for_private(where: JSON, is_private: bool) -> None:
    assert pressed(**where).is_private is is_private


async def test_it_keys_a_guest_by_team_and_user() -> None:
    assert pressed(user={"id": "U9", "team_id": "T9"}).sender.user_id == "T9:U9"
    assert parse_command(command(user_id="U9", team_id="T9"), ME).sender.user_id == "T9:U9"


@pytest.mark.parametrize(
    "other",
    [{"type": "view_submission"}, {"type": "shortcut"}, {"actions": [{"type": "static_select", "value": "/cancel"}]}],
    ids=str,
)
async def test_it_ignores_what_is_no_button(other: JSON) -> None:
    assert parse_press(press(**other), ME) is None


# Commands


async def test_it_takes_a_slash_command_for_a_written_one(run: Run, server: FakeSlack) -> None:
    chat = server.private_chat(ALICE)
    envelope = await server.command(ALICE, "/link", "wdjb mjht")
    message = await run.inbox.wait_for_text("/link wdjb mjht")
    await server.answered(envelope)
    await server.command(ALICE, "/accounts", "")
    await run.inbox.wait_for_text("/accounts")

    assert server.socket.answers[envelope] is None
    assert (message.address, message.message_id, message.is_private) == (Address("slack", chat), "", True)
    assert (message.sender.user_id, message.sender.name) == (ALICE.id, "Alice")
    assert len({one.native_key for one in run.inbox.messages}) == 2


@pytest.mark.parametrize("place", [ROOM, "G1GROUP", TWO_PEOPLE])
async def test_it_takes_a_command_elsewhere_for_no_private_one(run: Run, server: FakeSlack, place: str) -> None:
    await server.command(ALICE, "/link", "WDJB-MJHT", group=place)
    [message] = await run.inbox.wait_for(1)

    assert (message.text, message.is_private, message.is_addressed) == ("/link WDJB-MJHT", False, True)


async def test_it_does_not_take_somebody_elses_chat_with_the_bot_for_private(run: Run, server: FakeSlack) -> None:
    await server.command(ALICE, "/link", "WDJB-MJHT", group=server.private_chat(BOB))
    [message] = await run.inbox.wait_for(1)

    assert not message.is_private


async def test_it_takes_no_command_for_private_when_slack_does_not_say(
    server: FakeSlack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapters.slack.directory, "NAME_SECONDS", 0.2)
    server.faults.inject("conversations.info", status=500, times=1)
    async with running(adapter_for(server)) as run:
        await server.command(ALICE, "/link", "WDJB-MJHT")
        [message] = await run.inbox.wait_for(1)

    assert not message.is_private


async def test_it_takes_no_chat_of_several_for_private(run: Run, server: FakeSlack) -> None:
    server.workspace.private_chat(ALICE).kind = "mpim"
    await server.command(ALICE, "/link", "WDJB-MJHT")
    [message] = await run.inbox.wait_for(1)

    assert not message.is_private


async def test_it_asks_both_questions_at_once(run: Run, server: FakeSlack, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other might take longer than the three seconds in which Slack wants to hear."""
    asked, ask_person, ask_partner = asyncio.Event(), Directory._ask_person, Directory._ask_partner

    async def person(self: Directory, user_id: str) -> tuple[str, str]:
        asked.set()
        return await ask_person(self, user_id)

    async def partner(self: Directory, key: str) -> tuple[str, str]:
        await asked.wait()
        return await ask_partner(self, key)

    monkeypatch.setattr(Directory, "_ask_person", person)
    monkeypatch.setattr(Directory, "_ask_partner", partner)
    await server.command(ALICE, "/link", "WDJB-MJHT")
    [message] = await run.inbox.wait_for(1)

    assert message.is_private


async def test_it_asks_once_whose_chat_it_is(run: Run, server: FakeSlack) -> None:
    for number in range(3):
        await server.command(ALICE, "/link", str(number))
    messages = await run.inbox.wait_for(3)
    asked = [name for name, _ in server.api.calls if name == "conversations.info"]

    assert ([message.is_private for message in messages], len(asked)) == ([True] * 3, 1)


async def test_it_reads_the_text_as_it_was_typed() -> None:
    assert parse_command(command(text="a &amp; <https://b.example|b>\0"), ME).text == "/link a & b"
    assert parse_command(command(text=None), ME).text == "/link"


# Acknowledging


async def test_it_acknowledges_only_what_is_stored(server: FakeSlack, caplog: pytest.LogCaptureFixture) -> None:
    inbox = RecordingInbox()
    async with running(adapter_for(server), inbox) as run:
        sent = await run.adapter.send(to(server.private_chat(ALICE), CANCEL))
        inbox.fail_next = 1
        envelope = await server.press(ALICE, sent, "/cancel")
        await server.answered(envelope)
        [line] = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]

    assert "not stored yet: StorageError" in line
    assert [message.text for message in inbox.messages] == ["/cancel"]  # Slack tells of a press once


async def test_it_acknowledges_in_time_when_slack_names_nobody(server: FakeSlack) -> None:
    for method in ("users.info", "conversations.info"):
        server.faults.inject(method, status=429, retry_after=60, times=100)
    async with running(adapter_for(server)) as run:
        await server.answered(await server.command(ALICE, "/link", ""))  # which waits less than the 60 seconds
        assert len(run.inbox.messages) == 1


async def test_it_keeps_no_trigger_and_no_response_address(
    run: Run, server: FakeSlack, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    kept = repr([parse_command(command(), ME), pressed()])
    await server.push_raw({"envelope_id": "e-1", "type": "slash_commands", "payload": command(command="link")})
    await server.push_raw({"envelope_id": "e-2", "type": "interactive", "payload": press(actions=[])})
    await server.command(ALICE, "/link", "WDJB-MJHT")
    await run.inbox.wait_for(1)
    await server.drained()

    for secret in (*SECRETS.values(), "WDJB"):
        assert secret not in caplog.text
    assert not [secret for secret in SECRETS.values() if secret in kept]
    assert server.responses.taken == []


# Hostile payloads


def hostile(count: int) -> list[JSON]:
    """Envelopes that are malformed in one way each."""
    junk: list[object] = [None, ..., 5, True, [], [[]], "\0"]
    action = press()["actions"][0]
    times: list[object] = [None, 5, "soon", "9" * 11 + ".1"]
    words: list[object] = [5, [], True, "x" * 100_001]
    texts: tuple[object, ...] = ("hello", " /x", "!link", "/" * 65, "/" + "é" * 32, "WDJB-MJHT", "482 913", None, 5, "")
    presses = [press(**{key: value}) for key in ("user", "channel", "message") for value in (*junk, {"id": 5})]
    del presses[[one.get("message") for one in presses].index({"id": 5})]  # whose it is, is not said: not malformed
    presses += [press(type=value) for value in junk[:3]]
    presses += [press(actions=value) for value in (*junk, {}, ["x"])]
    presses += [press(actions=[{**action, "value": text}]) for text in texts]
    presses += [press(actions=[{**action, "action_ts": value}]) for value in times]
    commands = [command(**{key: value}) for key in ("user_id", "channel_id", "trigger_id") for value in junk[:-2]]
    commands += [command(command=value) for value in (*junk, "link", "/li nk", "/" + "x" * 33, "/")]
    commands += [command(text=value) for value in words]
    envelopes = [("interactive", one) for one in presses] + [("slash_commands", one) for one in commands]
    assert len(envelopes) >= count
    random.Random(7).shuffle(envelopes)
    return [
        {"envelope_id": f"e-{number}", "type": kind, "payload": payload}
        for number, (kind, payload) in enumerate(envelopes)
    ]


async def test_it_calls_a_wrong_field_malformed() -> None:
    for envelope in hostile(60):
        parse = parse_press if envelope["type"] == "interactive" else parse_command
        with pytest.raises(MalformedEvent):
            parse(envelope["payload"], ME)
    no_payloads: list[object] = [None, 5, "text", [], {}]
    for parse in (parse_press, parse_command):
        for nothing in no_payloads:
            with pytest.raises(MalformedEvent):
                parse(nothing, ME)


async def test_it_survives_hostile_payloads_and_logs_each_once(
    run: Run, server: FakeSlack, caplog: pytest.LogCaptureFixture
) -> None:
    envelopes = hostile(60)
    for envelope in envelopes:
        await server.push_raw(envelope)
    await server.drained()
    await server.say(BOB, "still there?")
    await run.inbox.wait_for(1)
    lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]

    assert [line.split()[2] for line in lines] == [f"'{envelope['envelope_id']}'" for envelope in envelopes]
    assert not [line for line in lines if "malformed" not in line or "WDJB" in line or len(line) > 200]
    assert [message.text for message in run.inbox.messages] == ["still there?"]
    assert server.socket.connections == 1


# Where the bot is, and strictness


async def test_it_says_what_the_bot_is_called(run: Run) -> None:
    assert run.inbox.found_at == ("botos", "")


async def test_the_server_refuses_blocks_that_slack_refuses(run: Run, server: FakeSlack) -> None:
    chat = server.private_chat(ALICE)
    for button in (Button("", "/x"), Button("Yes", "")):
        with pytest.raises(DeliveryError, match="invalid_blocks"):
            await run.adapter.send(to(chat, button))
    sent = await run.adapter.send(to(chat, CANCEL))
    with pytest.raises(ValueError, match="no such button"):
        await server.press(ALICE, sent, "/undo")


async def test_the_server_tells_which_button_was_pressed(run: Run, server: FakeSlack) -> None:
    sent = await run.adapter.send(to(server.private_chat(ALICE), CANCEL, NOT_ME))
    envelope = await server.press(ALICE, sent, NOT_ME.command)
    [told] = [one for one in server.pushed if envelope in one.ids]
    [action], [_, row] = told.payload["actions"], told.payload["message"]["blocks"]

    assert (action["action_id"], action["value"]) == ("botos-1", NOT_ME.command)
    assert action["block_id"] == row["block_id"]


async def test_the_server_names_the_buttons_that_the_bot_did_not(server: FakeSlack) -> None:
    button = {"type": "button", "text": {"type": "plain_text", "text": "Yes"}}
    web = slack_client(server.environment()["SLACK_API_URL"], server.bot_token)
    sent = await web.chat_postMessage(
        channel=server.private_chat(ALICE), text="Well?", blocks=[{"type": "actions", "elements": [button, button]}]
    )
    [row] = sent["message"]["blocks"]

    assert row["block_id"]
    assert len({element["action_id"] for element in row["elements"]}) == 2


async def test_the_server_tells_of_a_press_once(server: FakeSlack, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither after a while nor to the next connection, unlike a message."""
    monkeypatch.setattr(adapters.playground.slack.socket, "ANSWER_SECONDS", 0.1)
    server.socket._redeliver_after = 0.1
    api_url = server.environment()["SLACK_API_URL"]
    web, app = (slack_client(api_url, token) for token in (server.bot_token, server.app_token))
    button = {"type": "button", "text": {"type": "plain_text", "text": "Yes"}, "value": "yes"}
    blocks = [{"type": "actions", "elements": [button]}]
    sent = await web.chat_postMessage(channel=server.private_chat(ALICE), text="Well?", blocks=blocks)
    heard: list[str] = []
    async with aiohttp.ClientSession() as session:
        address = str((await app.apps_connections_open(app_token=server.app_token))["url"])
        async with session.ws_connect(address) as socket:
            await server.press(ALICE, str(sent["ts"]), "yes")
            await server.command(ALICE, "/help", "")
            while heard.count("events_api") < 3:  # the bot's own message, over and over
                heard.append((await socket.receive_json())["type"])
        await server.workspace.until(lambda: not server.socket._sockets, 10)
        await server.press(ALICE, str(sent["ts"]), "yes")
        address = str((await app.apps_connections_open(app_token=server.app_token))["url"])
        async with session.ws_connect(address) as socket:
            while heard.count("events_api") < 6:
                heard.append((await socket.receive_json())["type"])

    assert (heard.count("interactive"), heard.count("slash_commands")) == (1, 1)
