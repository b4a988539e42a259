"""Buttons and commands on Discord, with the real SDK."""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import discord
import pytest
import pytest_asyncio

from adapters.discord import connection
from adapters.discord.adapter import DiscordAdapter
from adapters.discord.events import COMMAND, Interaction, parse_interaction
from adapters.protocols import DeliveryError, MalformedEvent
from identity.support.buttons import Button
from sessions_app.commands import registry as command_registry
from sessions_app.messages import Address, InboundMessage, OutgoingMessage
from tests.adapters.discord_payloads import ALICE, ME
from tests.adapters.recording import PATIENCE, Run, running
from tests.fakes.discord import FakeDiscord

JSON = dict[str, Any]
CANCEL, NOT_ME = Button("Cancel", "/cancel"), Button("Not me", "/notme 6f1c2d3e-0000-4000-8000-0123456789ab")
USER = {"id": ALICE.id, "username": "alice", "global_name": "Alice Liddell"}
TOKEN = "aW50ZXJhY3Rpb246c2VjcmV0"


@pytest_asyncio.fixture
async def server() -> AsyncIterator[FakeDiscord]:
    server = FakeDiscord()
    await server.start()
    yield server
    await server.stop()


@pytest_asyncio.fixture
async def run(server: FakeDiscord) -> AsyncIterator[Run]:
    async with running(adapter_for(server)) as run:
        yield run


@pytest.fixture(autouse=True)
def logged(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, logger="adapters")
    caplog.set_level(logging.INFO, logger="discord")  # at DEBUG the SDK writes every event, with its token
    return caplog


@pytest.fixture(autouse=True)
def _no_long_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "FIRST_RETRY", 0.01)
    monkeypatch.setattr(connection, "MAX_RETRY", 0.02)


def adapter_for(server: FakeDiscord) -> DiscordAdapter:
    where = server.environment()
    urls = {"api_url": where["DISCORD_API_URL"], "gateway_url": where["DISCORD_GATEWAY_URL"]}
    return DiscordAdapter(token=where["DISCORD_BOT_TOKEN"], **urls)


async def _at_once(client: discord.Client, shard_id: int | None, *, initial: bool = False) -> None:
    """In place of the 5 s that Discord wants between two new sessions."""


def to(chat: str, *buttons: Button) -> OutgoingMessage:
    return OutgoingMessage(Address("discord", chat), "Well?", "n1", buttons=buttons)


def warnings(logged: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in logged.records if record.levelno >= logging.WARNING]


async def commands(server: FakeDiscord) -> list[JSON]:
    """What the bot registered, once it did."""
    await server.world.changes.until(lambda: bool(server.rest.commands), 5)
    return server.rest.commands


def press(**changed: object) -> JSON:
    """A pressed button as the gateway tells of it, with some fields replaced or (by `...`) left out."""
    channel = {"id": "800", "type": 1}
    pressed = {"component_type": 2, "custom_id": "/cancel"}
    raw = {"id": "900", "type": 3, "token": TOKEN, "user": USER, "channel": channel, "channel_id": "800", "context": 1}
    return {key: value for key, value in {**raw, "data": pressed, **changed}.items() if value is not ...}


def command(name: object, *values: object, **changed: object) -> JSON:
    options = [{"name": "text", "type": 3, "value": value} for value in values]
    return press(type=2, data={"id": "1", "name": name, "type": 1, "options": options}, **changed)


def parsed(raw: JSON) -> InboundMessage:
    interaction = parse_interaction(raw, ME)
    assert interaction is not None
    return interaction.message


# -- outgoing


@pytest.mark.asyncio
async def test_it_shows_quiet_buttons_that_the_sdk_does_not_keep(server: FakeDiscord, run: Run) -> None:
    chat = server.private_chat(ALICE)
    await run.adapter.send(to(chat, CANCEL, NOT_ME))
    [said] = await server.wait_for(1, chat=chat)

    assert said.buttons == (CANCEL, NOT_ME)
    [row] = server.rest.posts[0]["components"]
    assert [(button["style"], button["custom_id"]) for button in row["components"]] == [
        (2, "/cancel"),
        (2, NOT_ME.command),
    ]
    assert isinstance(run.adapter, DiscordAdapter)
    assert run.adapter._client is not None
    assert run.adapter._client.persistent_views == []
    assert not run.adapter._client._connection._view_store._synced_message_views


@pytest.mark.asyncio
async def test_it_sends_no_components_without_buttons(server: FakeDiscord, run: Run) -> None:
    await run.adapter.send(to(server.private_chat(ALICE)))

    assert not server.rest.posts[0].get("components")


# -- incoming


@pytest.mark.asyncio
async def test_it_takes_a_press_for_its_command(server: FakeDiscord, run: Run) -> None:
    chat = server.private_chat(ALICE)
    sent = await run.adapter.send(to(chat, CANCEL))
    before = datetime.now(UTC)
    key = await server.press(ALICE, sent, "/cancel")
    message = await run.inbox.wait_for_text("/cancel")

    assert (await server.answered(key))["type"] == 6
    assert (message.native_key, message.address, message.message_id) == (key, Address("discord", chat), "")
    assert (message.sender.user_id, message.sender.name, message.sender.username) == (ALICE.id, ALICE.name, "alice")
    assert (message.is_private, message.is_addressed, message.is_firsthand) == (True, True, True)
    assert message.sent_at is not None
    assert before - timedelta(seconds=1) < message.sent_at <= datetime.now(UTC)  # it is known to a millisecond


@pytest.mark.asyncio
async def test_it_takes_a_registered_command_for_a_written_one(server: FakeDiscord, run: Run) -> None:
    await commands(server)
    key = await server.command(ALICE, "link", "wdjb mjht")
    message = await run.inbox.wait_for_text("/link wdjb mjht")
    await server.command(ALICE, "accounts")
    await run.inbox.wait_for_text("/accounts")
    answer = await server.answered(key)

    assert (message.is_private, message.native_key) == (True, key)
    assert (answer["type"], answer["data"]["flags"]) == (4, 64)
    assert "wdjb" not in json.dumps(answer)


@pytest.mark.asyncio
async def test_it_takes_a_command_elsewhere_for_no_private_one(server: FakeDiscord, run: Run) -> None:
    await commands(server)
    await server.command(ALICE, "link", "one", group="general")
    await server.command(ALICE, "link", "two", context=2)
    messages = await run.inbox.wait_for(2)

    assert [(message.text, message.is_private) for message in messages] == [("/link one", False), ("/link two", False)]


@pytest.mark.parametrize(
    ("where", "is_private"),
    [
        ({}, True),
        ({"channel": ...}, True),
        ({"context": ...}, False),
        ({"context": 0}, False),
        ({"context": 2}, False),
        ({"context": "1"}, False),
        ({"channel": {"type": 3}}, False),
        ({"guild_id": "700"}, False),
        ({"member": {"user": USER}}, False),
    ],
    ids=str,
)
def test_it_takes_only_its_own_direct_message_for_private(where: JSON, is_private: bool) -> None:
    assert parsed(press(**where)).is_private is is_private


@pytest.mark.parametrize("ignored", [{"type": 1}, {"type": 4}, {"type": 5}, {"user": {**USER, "bot": True}}], ids=str)
def test_it_ignores_what_is_no_press_of_a_person(ignored: JSON) -> None:
    assert parse_interaction(press(**ignored), ME) is None


def test_it_reads_the_time_out_of_the_id() -> None:
    sent_at = parsed(press(id="175928847299117063")).sent_at  # the example of Discord's documentation

    assert sent_at == datetime(2016, 4, 30, 11, 18, 25, 796_000, tzinfo=UTC)


@pytest.mark.asyncio
async def test_it_answers_only_when_it_is_stored(server: FakeDiscord, run: Run) -> None:
    sent = await run.adapter.send(to(server.private_chat(ALICE), CANCEL))
    run.inbox.fail_next = 10_000
    key = await server.press(ALICE, sent, "/cancel")
    with pytest.raises(TimeoutError):
        await server.answered(key, timeout=0.2)
    run.inbox.fail_next = 0

    assert (await server.answered(key))["type"] == 6
    assert [message.text for message in run.inbox.messages] == ["/cancel"]


@pytest.mark.asyncio
async def test_it_hears_on_while_an_answer_hangs(
    server: FakeDiscord, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(*anything: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(connection, "acknowledge", never)
    for patience in ("BACKGROUND_SECONDS", "CLOSING"):  # or it would end of these at the latest
        monkeypatch.setattr(connection, patience, 10 * PATIENCE)
    sent = await run.adapter.send(to(server.private_chat(ALICE), CANCEL))
    await server.press(ALICE, sent, "/cancel")
    await server.say(ALICE, "and on")
    await run.inbox.wait_for(2)
    run.stop.set()
    await run.ending()

    assert [message.text for message in run.inbox.messages] == ["/cancel", "and on"]


@pytest.mark.asyncio
async def test_it_keeps_the_token_of_an_interaction_to_itself(
    server: FakeDiscord, run: Run, logged: pytest.LogCaptureFixture
) -> None:
    sent = await run.adapter.send(to(server.private_chat(ALICE), CANCEL))
    server.faults.inject("POST /interactions/callback", status=404)
    server.faults.inject("POST /interactions/callback", status=500)
    keys = [await server.press(ALICE, sent, "/cancel") for _ in range(3)]
    await run.inbox.wait_for(3)
    await server.answered(keys[-1])

    assert len(warnings(logged)) == 2
    for token in [asked.token for asked in server.rest.interactions.values()]:
        assert token not in logged.text + repr(run.inbox.messages)
        assert token not in json.dumps([record.__dict__ for record in logged.records], default=repr)
    assert TOKEN not in repr(parse_interaction(press(), ME))


@pytest.mark.asyncio
async def test_it_keeps_a_press_out_of_the_place_it_reads_history_from(server: FakeDiscord, run: Run) -> None:
    said = await server.say(ALICE, "hello")
    sent = await run.adapter.send(to(server.private_chat(ALICE), CANCEL))
    await server.answered(await server.press(ALICE, sent, "/cancel"))

    assert {chat: str(mark.position) for chat, mark in run.inbox.known.items()} == {server.private_chat(ALICE): said}


def hostile_interactions(count: int) -> list[JSON]:
    """Each malformed in one way: a field missing, of the wrong type, too long, or no command of a button."""
    dice = random.Random(7)
    junk: list[object] = [None, ..., 5, True, [], ["x"], 1.5]
    long = ("/" + "x" * 64, "/link " + "é" * 40, "/\ud800é" * 30)
    texts: list[object] = ["hello", "link", " /link", "!link", *long, "WDJB-MJHT", "482 913", "", None, 5, {}]
    wrong: dict[str, list[object]] = {
        "data": [*junk, *({"custom_id": text} for text in texts)],
        "id": [*junk, "x", "-1", "9" * 21],
        "type": [None, ..., "3", True, 3.0, []],
        "channel_id": [*junk, "general"],
        "user": [*junk, {}, {"id": 5}, {"id": ALICE.id, "username": 5}],
        "token": [*junk, ""],
        "channel": ["x", 5, [1]],
        "member": ["x", 5, {"user": 5}, {"roles": []}],
    }
    presses = [press(**{field: value}) for field, values in wrong.items() for value in values]
    names: list[object] = ["", "Link", "li nk", "x" * 33, 5, None, "link\n"]
    words: list[object] = [5, None, [], "", {}, "x" * 100_001]
    presses += [*(command(name) for name in names), *(command("link", value) for value in words)]
    presses += [command("link", "one", "two"), press(type=2, data={"name": "link", "options": {"a": 1}})]
    assert len(presses) >= count
    return dice.sample(presses, k=len(presses))


def test_it_calls_a_wrong_field_malformed() -> None:
    for raw in hostile_interactions(60):
        with pytest.raises(MalformedEvent):
            parse_interaction(raw, ME)
    no_objects: list[object] = [None, 5, "text", [], [[]], True]
    for nothing in no_objects:
        with pytest.raises(MalformedEvent):
            parse_interaction(nothing, ME)


@pytest.mark.asyncio
async def test_it_survives_hostile_interactions_and_logs_each_once(
    server: FakeDiscord, run: Run, logged: pytest.LogCaptureFixture
) -> None:
    hostile = hostile_interactions(60)
    for raw in hostile:
        await server.push_raw({"op": 0, "t": "INTERACTION_CREATE", "d": raw})
    await server.say(ALICE, "still there?")
    await run.inbox.wait_for(1)

    lines = warnings(logged)
    assert len(hostile) >= 60
    assert len([line for line in lines if "malformed INTERACTION_CREATE: " in line]) == len(lines) == len(hostile)
    assert not [line for line in lines if TOKEN in line or "WDJB" in line or len(line) > 200]
    assert [message.text for message in run.inbox.messages] == ["still there?"]
    assert (server.gateway.identified, server.rest.callbacks) == (1, [])


# -- commands, and where the bot is


@pytest.mark.asyncio
async def test_it_registers_its_commands_for_its_own_direct_messages(server: FakeDiscord, run: Run) -> None:
    registered = await commands(server)

    assert [one["name"] for one in registered] == [one.name for one in command_registry.menu()]
    assert {tuple(one["contexts"]) for one in registered} == {(1,)}
    assert {one["options"][0]["required"] for one in registered} == {False}


@pytest.mark.asyncio
async def test_it_registers_once_and_works_without(
    server: FakeDiscord, logged: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(discord.Client, "before_identify_hook", _at_once)
    server.faults.inject("PUT /applications/commands", status=400, times=100)
    async with running(adapter_for(server)) as run:
        await server.say(ALICE, "one")
        await run.inbox.wait_for(1)
        server.lose_session()
        await server.drop_connections()
        await server.world.changes.until(lambda: server.gateway.identified == 2, 10)
        await server.say(ALICE, "two")
        await run.inbox.wait_for_text("two")

    assert [line for line in warnings(logged) if "registered" in line] == [
        "discord: its commands were not registered (HTTPException)"
    ]


@pytest.mark.asyncio
async def test_it_says_where_the_bot_is_found(server: FakeDiscord, run: Run) -> None:
    assert run.inbox.found_at == ("botos", f"https://discord.com/users/{server.world.bot['id']}")


@pytest.mark.asyncio
async def test_it_knows_an_account_that_is_gone(server: FakeDiscord, run: Run) -> None:
    server.delete_account(ALICE)
    with pytest.raises(DeliveryError) as gone:
        await run.adapter.send(to(server.private_chat(ALICE)))
    server.close_private_chat(ALICE)
    with pytest.raises(DeliveryError) as closed:
        await run.adapter.send(to(server.private_chat(ALICE)))

    assert (gone.value.gone, gone.value.permanent) == (True, True)
    assert (closed.value.gone, closed.value.permanent) == (False, True)


def test_it_carries_what_it_needs_to_answer() -> None:
    interaction = parse_interaction(command("link"), ME, platform="discord-acme")

    assert isinstance(interaction, Interaction)
    assert (interaction.id, interaction.kind, interaction.token) == ("900", COMMAND, TOKEN)
    assert interaction.message.address == Address("discord-acme", "800")


# -- the local server is strict


@pytest.mark.asyncio
async def test_the_server_lets_an_interaction_be_answered_once(server: FakeDiscord, run: Run) -> None:
    sent = await run.adapter.send(to(server.private_chat(ALICE), CANCEL))
    with pytest.raises(ValueError, match="no such button"):
        await server.press(ALICE, sent, "/undo")
    key = await server.press(ALICE, sent, "/cancel")
    await server.answered(key)
    event = {"op": 0, "t": "INTERACTION_CREATE", "d": press(id=key, token=server.rest.interactions[key].token)}
    await server.push_raw(event)
    await run.inbox.wait_for(2)
    await asyncio.sleep(0.05)

    assert len(server.rest.callbacks) == 1


@pytest.mark.asyncio
async def test_the_server_refuses_buttons_that_discord_refuses(server: FakeDiscord, run: Run) -> None:
    for buttons in ([CANCEL, CANCEL], [Button("x" * 81, "/x" * 60)]):
        with pytest.raises(DeliveryError, match="50035") as refused:
            await run.adapter.send(to(server.private_chat(ALICE), *buttons))
        assert refused.value.permanent
