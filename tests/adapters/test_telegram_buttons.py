"""Buttons and commands on Telegram, with the real SDK."""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from telegram.error import BadRequest, Forbidden

from adapters.playground.server import Person
from adapters.protocols import MalformedEvent
from adapters.telegram.adapter import TelegramAdapter
from adapters.telegram.events import BotIdentity, Press, parse_update
from identity.support.buttons import Button
from sessions_app.commands import registry as command_registry
from sessions_app.messages import Address, InboundMessage, OutgoingMessage
from tests.adapters.recording import RecordingInbox, Run, StorageError, running
from tests.fakes.telegram import FakeTelegram

JSON = dict[str, Any]
ALICE = Person("1001", "Alice Liddell", "alice")
BOB = Person("1002", "Bob")
GROUP = "-100200300"
ME = BotIdentity(777001, "BotosPlaygroundBot")
CANCEL, NOT_ME = Button("Cancel", "/cancel"), Button("Not me", "/notme 6f1c2d3e-0000-4000-8000-0123456789ab")


@pytest_asyncio.fixture
async def server() -> AsyncIterator[FakeTelegram]:
    server = FakeTelegram()
    await server.start()
    yield server
    await server.stop()


@pytest_asyncio.fixture
async def run(server: FakeTelegram) -> AsyncIterator[Run]:
    async with running(adapter_for(server)) as run:
        yield run


def adapter_for(server: FakeTelegram) -> TelegramAdapter:
    return TelegramAdapter(token=server.token, api_url=server.url)


def to(chat: str, *buttons: Button, copy: str = "") -> OutgoingMessage:
    return OutgoingMessage(Address("telegram", chat), "Well?", "n1", buttons=buttons, copy=copy)


async def shown(server: FakeTelegram, run: Run, person: Person, *buttons: Button) -> str:
    """The id of a message with buttons in somebody's private chat."""
    await server.say(person, "hello")
    await run.inbox.wait_for_text("hello")
    return await run.adapter.send(to(person.id, *buttons))


def press(**changed: object) -> JSON:
    """One update of a pressed button, with some of its fields replaced or (by `...`) left out."""
    alice = {"id": 1001, "is_bot": False, "first_name": "Alice", "last_name": "Liddell", "username": "alice"}
    chat = {"id": 1001, "type": "private", "first_name": "Alice"}
    message = {"message_id": 5, "date": 1, "chat": chat, "from": {"id": 777001, "is_bot": True, "first_name": "BotOS"}}
    query = {"id": "q1", "from": alice, "message": message, "chat_instance": "1", "data": "/cancel", **changed}
    return {"update_id": 1, "callback_query": {key: value for key, value in query.items() if value is not ...}}


def pressed(**changed: object) -> InboundMessage:
    event = parse_update(press(**changed), ME)
    assert isinstance(event, Press)
    return event.message


def in_chat(**chat: object) -> JSON:
    return {"message_id": 5, "date": 1, "chat": chat}


# -- outgoing


@pytest.mark.asyncio
async def test_it_shows_one_button_a_row_and_one_that_copies(server: FakeTelegram, run: Run) -> None:
    await server.say(ALICE, "hello")
    await run.adapter.send(to("1001", CANCEL, NOT_ME, copy="WDJB-MJHT"))
    [said] = await server.wait_for(1, chat="1001")

    assert said.buttons == (CANCEL, NOT_ME)
    assert server.api.sends[0]["reply_markup"]["inline_keyboard"] == [
        [{"text": "Copy code", "copy_text": {"text": "WDJB-MJHT"}}],
        [{"text": "Cancel", "callback_data": "/cancel"}],
        [{"text": "Not me", "callback_data": NOT_ME.command}],
    ]


@pytest.mark.asyncio
async def test_it_sends_no_keyboard_without_buttons(server: FakeTelegram, run: Run) -> None:
    await server.say(ALICE, "hello")
    await run.adapter.send(to("1001"))

    assert server.api.sends[0]["reply_markup"] is None


# -- incoming


@pytest.mark.asyncio
async def test_it_takes_a_press_for_its_command(server: FakeTelegram, run: Run) -> None:
    query = await server.press(ALICE, await shown(server, run, ALICE, CANCEL), "/cancel")
    message = await run.inbox.wait_for_text("/cancel")
    await server.answered(query)

    assert message.address == Address("telegram", "1001")
    assert (message.sender.user_id, message.sender.name, message.sender.username) == ("1001", "Alice Liddell", "alice")
    assert (message.is_private, message.is_addressed, message.is_firsthand) == (True, True, True)
    assert (message.message_id, message.chat_name, message.sent_at) == ("", "Alice Liddell", None)
    assert message.native_key.startswith("777001:")
    assert message.native_key != run.inbox.messages[0].native_key


@pytest.mark.asyncio
async def test_it_does_not_take_a_press_in_a_group_for_private(server: FakeTelegram, run: Run) -> None:
    await server.say(BOB, "hello", group=GROUP)
    sent = await run.adapter.send(to(GROUP, CANCEL))
    await server.press(BOB, sent, "/cancel")
    message = await run.inbox.wait_for_text("/cancel")

    assert (message.is_private, message.is_addressed, message.address.chat_id) == (False, True, GROUP)
    assert message.chat_name == f"Group {GROUP}"


def test_it_trusts_a_private_chat_only_with_whoever_pressed() -> None:
    assert pressed().is_private
    assert not pressed(message=in_chat(id=1002, type="private", first_name="Bob")).is_private


def test_it_reads_a_press_under_a_message_that_telegram_no_longer_shows() -> None:
    message = pressed(message={"message_id": 5, "date": 0, "chat": {"id": 1001, "type": "private"}})

    assert (message.text, message.is_private) == ("/cancel", True)


def test_it_knows_a_press_under_what_came_by_another_bot() -> None:
    assert not pressed(message=in_chat(id=1001, type="private") | {"via_bot": {"id": 3}}).is_firsthand


@pytest.mark.parametrize(
    "ignored",
    [{"from": {"id": 3, "is_bot": True, "first_name": "Bot"}}, {"message": in_chat(id=-5, type="channel", title="N")}],
)
def test_it_ignores_what_nobody_pressed(ignored: JSON) -> None:
    assert parse_update(press(**ignored), ME) is None


@pytest.mark.asyncio
async def test_it_answers_a_press_only_when_it_is_stored(server: FakeTelegram) -> None:
    adapter, inbox = adapter_for(server), RecordingInbox()
    async with running(adapter, inbox) as run:
        sent = await shown(server, run, ALICE, CANCEL)
        inbox.fail_next = 1
        query = await server.press(ALICE, sent, "/cancel")
        with pytest.raises(StorageError):
            await run.ending()
    assert server.api.answered == []
    inbox.connected_event.clear()
    async with running(adapter, inbox):
        await inbox.wait_for_text("/cancel")
        await server.answered(query)

    assert server.api.answered == [query]


@pytest.mark.asyncio
async def test_it_goes_on_when_a_press_cannot_be_answered(
    server: FakeTelegram, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    sent = await shown(server, run, ALICE, CANCEL)
    server.faults.inject("answerCallbackQuery", status=400)
    await server.press(ALICE, sent, "/cancel")
    await server.press(ALICE, sent, "/cancel")
    await run.inbox.wait_for(3)
    await server._until(lambda: len(server.api.answered) == 1, 5)

    [warning] = [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]
    assert warning.startswith("telegram: a pressed button was not answered: BadRequest")


def hostile_presses(count: int) -> list[JSON]:
    """Each malformed in one way: a field missing, of the wrong type, too long, or no command of a button."""
    dice = random.Random(7)
    junk: list[object] = [None, ..., 5, True, "", [], ["x"], 1.5, 10**30, float("inf"), {"a": {}}]
    texts: list[object] = ["hello", "link", " /link", "!link", "/" * 65, "/link " + "é" * 40, "WDJB-MJHT", "482 913"]
    chats: list[JSON] = [{"id": 1001, "type": "cellar"}, {"id": "1001", "type": "private"}, {"type": "private"}, {}]
    people: list[object] = [{"id": 1001}, {"id": "x", "is_bot": False, "first_name": "A"}, {"is_bot": False}]
    wrong: dict[str, list[object]] = {
        "data": [*junk, *texts, "/\0" + "x" * 70, "\ud800"],
        "message": [*junk, *(in_chat(**chat) for chat in chats)],
        "from": [*junk, *people],
        "id": [junk[2], None, ..., [], True],
    }
    makers = [press(**{field: value}) for field, values in wrong.items() for value in values]
    queries: list[object] = ["x", [], 5, True, {}, {"data": "/cancel"}]
    whole = [{"update_id": 1, "callback_query": value} for value in queries]
    presses = makers + whole
    assert len(presses) >= count
    return dice.sample(presses, k=len(presses))


def is_malformed(raw: JSON) -> bool:
    try:
        parse_update(raw, ME)
    except MalformedEvent:
        return True
    return False


@pytest.mark.asyncio
async def test_it_survives_hostile_presses_and_logs_each_once(
    server: FakeTelegram, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    hostile = hostile_presses(60)
    assert len(hostile) >= 60
    assert all(is_malformed(raw) for raw in hostile)
    for raw in hostile:
        await server.push_raw({"callback_query": raw["callback_query"]})
    await server.acknowledged(await server.say(ALICE, "still there?"))
    await run.inbox.wait_for_text("still there?")

    lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len([line for line in lines if "is skipped: " in line]) == len(lines) == len(hostile)
    assert not [line for line in lines if "WDJB" in line or "913" in line.partition("skipped")[2] or len(line) > 200]
    assert [message.text for message in run.inbox.messages] == ["still there?"]


# -- commands, and where the bot is


@pytest.mark.asyncio
async def test_it_registers_its_commands(server: FakeTelegram, run: Run) -> None:
    await server._until(lambda: bool(server.api.commands), 5)

    assert [command["command"] for command in server.api.commands] == [one.name for one in command_registry.menu()]
    assert {"link", "accounts", "unlink", "cancel"} < {command["command"] for command in server.api.commands}
    [scope] = [json.loads(given["scope"]) for method, given in server.calls if method == "setMyCommands"]
    assert scope == {"type": "all_private_chats"}


@pytest.mark.asyncio
async def test_it_works_without_its_commands(server: FakeTelegram, caplog: pytest.LogCaptureFixture) -> None:
    server.faults.inject("setMyCommands", status=500, times=100)
    async with running(adapter_for(server)) as run:
        await server.say(ALICE, "hello")
        await run.inbox.wait_for_text("hello")
        run.stop.set()
        await run.ending()

    [warning] = [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]
    assert "its commands were not registered" in warning
    assert server.token not in warning


@pytest.mark.asyncio
async def test_it_polls_while_an_answer_to_its_commands_hangs(
    server: FakeTelegram, monkeypatch: pytest.MonkeyPatch
) -> None:
    release, carry_out = asyncio.Event(), server.api.call

    async def slow(method: str, given: JSON) -> object:
        if method == "setMyCommands":
            await release.wait()
        return await carry_out(method, given)

    monkeypatch.setattr(server.api, "call", slow)
    async with running(adapter_for(server)) as run:
        await server.say(ALICE, "hello")
        await run.inbox.wait_for_text("hello")
        release.set()


@pytest.mark.asyncio
async def test_it_says_where_the_bot_is_found(run: Run) -> None:
    assert run.inbox.found_at == ("@BotosPlaygroundBot", "https://t.me/BotosPlaygroundBot")


@pytest.mark.parametrize(
    ("error", "gone"),
    [
        (Forbidden("Forbidden: user is deactivated"), True),
        (Forbidden("Forbidden: bot was blocked by the user"), False),
        (BadRequest("Bad Request: chat not found"), False),
    ],
)
def test_it_knows_an_account_that_is_gone(error: Exception, gone: bool) -> None:
    judged = TelegramAdapter(token="1:a")._undelivered(error)

    assert (judged.gone, judged.permanent) == (gone, True)
