"""The local Telegram refuses what the real one refuses, in its words, and keeps its promises about offsets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from adapters.playground.server import Person
from identity.support.buttons import Button
from tests.fakes.telegram import FakeTelegram

ALICE = Person("1001", "Alice Liddell", "alice")
JSON = dict[str, Any]


def keyboard(**button: object) -> JSON:
    return {"inline_keyboard": [[{"text": "Yes", **button}]]}


class Caller:
    """A bot without an SDK: posts forms and reads answers."""

    def __init__(self, server: FakeTelegram, client: httpx.AsyncClient) -> None:
        self.server, self.client = server, client

    async def __call__(self, method: str, **given: object) -> JSON:
        answer = await self.client.post(f"{self.server.url}/bot{self.server.token}/{method}", json=given)
        body: JSON = answer.json()
        assert body.get("error_code", 200) == answer.status_code
        return body

    async def ids(self, **given: object) -> list[int]:
        return [update["update_id"] for update in (await self("getUpdates", **given))["result"]]


@pytest_asyncio.fixture
async def server() -> AsyncIterator[FakeTelegram]:
    server = FakeTelegram()
    await server.start()
    yield server
    await server.stop()


@pytest_asyncio.fixture
async def call(server: FakeTelegram) -> AsyncIterator[Caller]:
    async with httpx.AsyncClient() as client:
        yield Caller(server, client)


@pytest.mark.asyncio
async def test_it_knows_its_token_and_its_methods(server: FakeTelegram, call: Caller) -> None:
    refused = await call.client.get(f"{server.url}/bot777001:wrong/getMe")

    assert (refused.status_code, refused.json()) == (
        401,
        {"ok": False, "error_code": 401, "description": "Unauthorized"},
    )
    assert server.environment() == {
        "TELEGRAM_BOT_TOKEN": server.token,
        "TELEGRAM_API_URL": server.url,
        "BOTOS_TELEGRAM_TRANSPORT": "polling",
    }
    assert (await call("getme"))["result"]["username"] == "BotosPlaygroundBot"
    assert (await call("getNothing"))["error_code"] == 404


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("method", "given", "description"),
    [
        ("sendMessage", {"chat_id": 1001, "text": " "}, "message text is empty"),
        ("sendMessage", {"chat_id": 1001, "text": "😀" * 2049}, "message is too long"),
        ("sendMessage", {"chat_id": 1001, "text": "x", "parse_mode": "BBCode"}, "unsupported parse_mode"),
        ("sendMessage", {"chat_id": 1001, "text": "x", "reply_markup": "[]"}, "can't parse reply_markup"),
        ("sendMessage", {"chat_id": 1001, "text": "x", "message_thread_id": 9}, "message thread not found"),
        ("sendMessage", {"chat_id": 4, "text": "x"}, "chat not found"),
        ("sendMessage", {"chat_id": [], "text": "x"}, "chat_id is empty"),
        ("sendMessage", {"chat_id": {"a": 1}, "text": "x"}, "invalid chat_id"),
        ("editMessageText", {"chat_id": 1001, "message_id": 99, "text": "x"}, "message to edit not found"),
        ("deleteMessage", {"chat_id": 1001, "message_id": 99}, "message to delete not found"),
        ("sendChatAction", {"chat_id": 1001, "action": "sleeping"}, "wrong parameter action"),
        ("answerCallbackQuery", {"callback_query_id": "x"}, "query is too old"),
        ("setMyCommands", {"commands": [{"command": "Link", "description": "x"}]}, "BOT_COMMAND_INVALID"),
        ("setMyCommands", {"commands": "nonsense"}, "can't parse commands"),
        ("sendMessage", {"chat_id": 1001, "text": "x", "reply_markup": keyboard(callback_data="")}, "BUTTON_DATA"),
        (
            "sendMessage",
            {"chat_id": 1001, "text": "x", "reply_markup": keyboard(callback_data="é" * 33)},
            "BUTTON_DATA",
        ),
        ("sendMessage", {"chat_id": 1001, "text": "x", "reply_markup": keyboard(text=" ")}, "can't parse inline"),
        ("sendMessage", {"chat_id": 1001, "text": "x", "reply_markup": keyboard(copy_text={})}, "BUTTON_COPY_TEXT"),
        ("getUpdates", {"timeout": "soon"}, "invalid timeout"),
    ],
)
async def test_it_refuses_bad_calls(
    server: FakeTelegram, call: Caller, method: str, given: JSON, description: str
) -> None:
    await server.say(ALICE, "hello")

    answer = await call(method, **given)

    assert (answer["ok"], answer["error_code"]) == (False, 400)
    assert answer["description"].startswith(f"Bad Request: {description}")
    assert len(server.said) == 1


@pytest.mark.asyncio
async def test_it_lets_the_bot_edit_its_own_messages_only(server: FakeTelegram, call: Caller) -> None:
    message_id = await server.say(ALICE, "hello")

    answer = await call("editMessageText", chat_id=1001, message_id=int(message_id), text="x")

    assert answer["description"].startswith("Bad Request: message can't be changed")


@pytest.mark.asyncio
async def test_it_keeps_what_the_bot_wrote_edited_and_deleted(server: FakeTelegram, call: Caller) -> None:
    await server.say(ALICE, "hello")
    markup = {"inline_keyboard": [[{"text": "Yes", "callback_data": "y"}]]}
    first = (await call("sendMessage", chat_id=1001, text="Sure?", reply_markup=markup))["result"]
    second = (await call("sendMessage", chat_id=1001, text="Oops"))["result"]
    await call("editMessageText", chat_id=1001, message_id=first["message_id"], text="Done")
    await call("deleteMessage", chat_id=1001, message_id=second["message_id"])

    again = await call("editMessageText", chat_id=1001, message_id=second["message_id"], text="Back")
    assert again["description"] == "Bad Request: message to edit not found"
    assert server.api.sends[0]["reply_markup"] == markup
    assert [(said.author_id, said.text) for said in server.said] == [("1001", "hello"), ("bot", "Done")]
    assert [said.text for said in await server.wait_for(1, chat="1001")] == ["Done"]


@pytest.mark.asyncio
async def test_it_tells_of_a_pressed_button(server: FakeTelegram, call: Caller) -> None:
    await server.say(ALICE, "hello")
    markup = {"inline_keyboard": [[{"text": "Yes", "callback_data": "y"}]]}
    sent = (await call("sendMessage", chat_id=1001, text="Sure?", reply_markup=markup))["result"]
    assert server.said[-1].buttons == (Button("Yes", "y"),)
    with pytest.raises(ValueError, match="no such button"):
        await server.press(ALICE, str(sent["message_id"]), "n")
    query_id = await server.press(ALICE, str(sent["message_id"]), "y")

    query = (await call("getUpdates"))["result"][1]["callback_query"]

    assert (query["id"], query["data"], query["message"]["text"]) == (query_id, "y", "Sure?")
    assert (await call("answerCallbackQuery", callback_query_id=query_id))["result"] is True


@pytest.mark.asyncio
async def test_it_drops_what_an_offset_confirms_and_nothing_else(server: FakeTelegram, call: Caller) -> None:
    for text in "abc":
        await server.say(ALICE, text)
    first, second, third = await call.ids()

    assert await call.ids(limit=1) == [first]
    assert await call.ids(offset=second) == [second, third]
    assert await call.ids(offset=-1) == [third]
    assert await call.ids(offset=third + 1) == []


@pytest.mark.asyncio
async def test_it_redelivers_even_what_is_confirmed(server: FakeTelegram, call: Caller) -> None:
    message_id = await server.say(ALICE, "a")
    [first] = await call.ids()
    await call.ids(offset=first + 1)
    await server.redeliver(message_id)

    assert await call.ids(offset=first + 1) == [first]
    assert await call.ids(offset=first + 1) == []


@pytest.mark.asyncio
async def test_it_queues_only_what_the_bot_asked_for(server: FakeTelegram, call: Caller) -> None:
    await call("getUpdates", allowed_updates=["message"])
    message_id = await server.say(ALICE, "a")
    await server.edit(ALICE, message_id, "b")

    assert len(await call.ids()) == 1


@pytest.mark.asyncio
async def test_it_ends_the_older_of_two_polls(server: FakeTelegram, call: Caller) -> None:
    older = asyncio.create_task(call("getUpdates", timeout=30))
    await server._until(lambda: server.api.updates._pollers == 1, 5)
    await call("getUpdates")

    assert (await older)["error_code"] == 409


@pytest.mark.asyncio
async def test_it_refuses_to_be_polled_beside_a_webhook(call: Caller) -> None:
    await call("setWebhook", url="https://example.org/hook")
    assert (await call("getUpdates"))["error_code"] == 409
    assert (await call("getWebhookInfo"))["result"]["url"] == "https://example.org/hook"

    await call("deleteWebhook")
    assert await call.ids() == []


@pytest.mark.asyncio
async def test_it_shows_planned_faults(server: FakeTelegram, call: Caller) -> None:
    await server.say(ALICE, "hello")
    server.faults.inject("send*", status=429, retry_after=3)
    assert (await call("sendMessage", chat_id=1001, text="x"))["parameters"] == {"retry_after": 3}

    server.faults.inject("sendMessage", lose_response=True)
    with pytest.raises(httpx.RemoteProtocolError):
        await call("sendMessage", chat_id=1001, text="lost")
    assert server.said[-1].text == "lost"

    server.faults.outage = True
    assert (await call("getMe"))["error_code"] == 503


@pytest.mark.asyncio
async def test_it_hands_nothing_out_when_an_outage_begins_during_a_poll(server: FakeTelegram, call: Caller) -> None:
    poll = asyncio.create_task(call("getUpdates", timeout=30))
    await server._until(lambda: server.api.updates._pollers == 1, 5)
    server.faults.outage = True
    await server.say(ALICE, "hello")

    assert (await poll)["error_code"] == 503


@pytest.mark.asyncio
async def test_it_redelivers_in_the_order_of_ids(server: FakeTelegram, call: Caller) -> None:
    await server.say(ALICE, "one")
    await server.redeliver(await server.say(ALICE, "two"))

    ids = await call.ids()

    assert ids == sorted(ids)
    assert len(ids) == 3


@pytest.mark.asyncio
async def test_it_fails_by_chance_as_often_as_it_is_told(server: FakeTelegram, call: Caller) -> None:
    server.faults.expect("getMe", rate=0.5, status=500)
    server.faults.dice.seed(1)

    failed = [not (await call("getMe"))["ok"] for _ in range(40)]

    assert 10 < sum(failed) < 30


@pytest.mark.asyncio
async def test_it_lets_the_bot_answer_a_message_of_the_same_chat(server: FakeTelegram, call: Caller) -> None:
    said, elsewhere = await server.say(ALICE, "hello"), await server.say(Person("1002", "Bob"), "hello")
    answer = await call("sendMessage", chat_id=1001, text="hi", reply_parameters={"message_id": int(said)})
    unknown = {"message_id": int(elsewhere)}
    refused = await call("sendMessage", chat_id=1001, text="hi", reply_parameters=unknown)
    lenient = unknown | {"allow_sending_without_reply": True}
    plain = await call("sendMessage", chat_id=1001, text="hi", reply_parameters=lenient)

    assert answer["result"]["reply_to_message"]["message_id"] == int(said)
    assert refused["description"] == "Bad Request: message to be replied not found"
    assert "reply_to_message" not in plain["result"]
