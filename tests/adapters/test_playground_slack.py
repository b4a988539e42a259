"""The local Slack refuses what the real one refuses, and tells the bot no more than the real one does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

import adapters.playground.slack.responses
from adapters.playground.server import Person
from adapters.playground.slack.workspace import TEAM
from tests.fakes.slack import FakeSlack

JSON = dict[str, Any]
ALICE = Person("U1ALICE", "Alice", "alice")
ROOM, TWO_PEOPLE = "C1ROOM", "D9TWOPEOPLE"

pytestmark = pytest.mark.asyncio


class Caller:
    """A bot without an SDK: calls methods, and reads what the socket tells and acknowledges it."""

    def __init__(self, server: FakeSlack, session: aiohttp.ClientSession) -> None:
        self.server, self.session = server, session

    async def __call__(self, method: str, token: str = "", **given: object) -> JSON:
        headers = {"Authorization": f"Bearer {token or self.server.bot_token}"}
        url = self.server.environment()["SLACK_API_URL"] + method
        async with self.session.post(url, headers=headers, json=given) as answer:
            return dict(await answer.json())

    async def post(self, address: str, **given: object) -> tuple[int, str]:
        """Status and text of what a response address answers."""
        async with self.session.post(address, json=given) as answer:
            return answer.status, await answer.text()

    async def connect(self) -> aiohttp.ClientWebSocketResponse:
        """A socket that has said hello."""
        address = (await self("apps.connections.open", self.server.app_token))["url"]
        socket = await self.session.ws_connect(address)
        assert (await socket.receive_json())["type"] == "hello"
        return socket

    async def heard(self, socket: aiohttp.ClientWebSocketResponse) -> JSON:
        """The payload of the next envelope, which is acknowledged."""
        envelope = await socket.receive_json()
        await socket.send_json({"envelope_id": envelope["envelope_id"]})
        return dict(envelope["payload"])


@pytest_asyncio.fixture
async def server() -> AsyncIterator[FakeSlack]:
    server = FakeSlack()
    await server.start()
    yield server
    await server.stop()


@pytest_asyncio.fixture
async def call(server: FakeSlack) -> AsyncIterator[Caller]:
    async with aiohttp.ClientSession() as session:
        yield Caller(server, session)


async def test_it_lets_the_bot_write_and_read_only_where_it_is(server: FakeSlack, call: Caller) -> None:
    """Of a public channel it still says that there is one."""
    server.workspace.channel(TWO_PEOPLE)
    for chat in (ROOM, "G1GROUP"):
        server.workspace.channel(chat).is_member = False
    answers = [
        (chat, (await call(method, channel=chat, text="me too", user=ALICE.id, ts="1.1")).get("error"))
        for chat in (TWO_PEOPLE, ROOM, "G1GROUP")
        for method in ("chat.postMessage", "chat.postEphemeral", "chat.update", "conversations.history")
    ]

    assert set(answers) == {
        (TWO_PEOPLE, "channel_not_found"),
        (ROOM, "not_in_channel"),
        ("G1GROUP", "channel_not_found"),
    }
    assert (await call("conversations.info", channel=ROOM))["channel"]["is_member"] is False
    assert server.said == []


async def test_it_tells_only_what_is_said_where_the_bot_is(server: FakeSlack, call: Caller) -> None:
    server.workspace.channel(ROOM).is_member = False
    socket = await call.connect()
    for chat in (ROOM, TWO_PEOPLE, ""):
        await server.say(ALICE, f"said in {chat}", group=chat, mention=True)

    assert "said in" in (event := (await call.heard(socket))["event"])["text"]
    assert event["channel"] == server.private_chat(ALICE)


async def test_it_takes_a_persons_id_for_a_chat_only_to_post(server: FakeSlack, call: Caller) -> None:
    chat = server.private_chat(ALICE)

    assert (await call("chat.postMessage", channel=ALICE.id, text="hello"))["channel"] == chat
    assert (await call("conversations.history", channel=ALICE.id))["error"] == "channel_not_found"


# Response addresses


async def test_it_lets_the_bot_answer_where_it_may_not_post(server: FakeSlack, call: Caller) -> None:
    socket = await call.connect()
    await server.command(ALICE, "/help", "", group=TWO_PEOPLE)
    address = (await call.heard(socket))["response_url"]
    await call.post(address, text="to you alone")
    await call.post(address, text="to both", response_type="in_channel")

    assert [(said.chat_id, said.text) for said in server.said] == [(TWO_PEOPLE, "to both")]
    assert [body["text"] for body in server.responses.taken] == ["to you alone", "to both"]


async def test_it_takes_five_responses(server: FakeSlack, call: Caller) -> None:
    socket = await call.connect()
    await server.command(ALICE, "/help", "")
    address = (await call.heard(socket))["response_url"]
    answers = [await call.post(address, text="yes") for _ in range(6)]

    assert answers[:5] == [(200, "ok")] * 5
    assert answers[5] == (404, '{"ok": false, "error": "used_url"}')


async def test_it_takes_responses_for_half_an_hour(
    server: FakeSlack, call: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    socket = await call.connect()
    await server.command(ALICE, "/help", "")
    address = (await call.heard(socket))["response_url"]
    monkeypatch.setattr(adapters.playground.slack.responses, "MAX_AGE", 0.0)

    assert await call.post(address, text="late") == (404, '{"ok": false, "error": "expired_url"}')
    assert (await call.post(f"{address}0", text="guessed"))[0] == 404


@pytest.mark.parametrize(
    ("given", "code"),
    [({}, "no_text"), ({"text": " "}, "no_text"), ({"text": "x", "response_type": "all"}, "invalid_payload")],
    ids=str,
)
async def test_it_refuses_a_response_that_says_nothing(server: FakeSlack, call: Caller, given: JSON, code: str) -> None:
    socket = await call.connect()
    await server.command(ALICE, "/help", "")
    address = (await call.heard(socket))["response_url"]

    assert await call.post(address, **given) == (400, f'{{"ok": false, "error": "{code}"}}')
    assert server.responses.taken == []


async def test_it_lets_the_bot_change_the_message_with_the_button(server: FakeSlack, call: Caller) -> None:
    button = {"type": "button", "text": {"type": "plain_text", "text": "Yes"}, "value": "yes"}
    rows = [{"type": "actions", "elements": [button]}]
    sent = await call("chat.postMessage", channel=server.private_chat(ALICE), text="Well?", blocks=rows)
    socket = await call.connect()
    await call.heard(socket)  # its own message
    await server.press(ALICE, sent["ts"], "yes")
    address = (await call.heard(socket))["response_url"]
    await call.post(address, text="Done", replace_original=True)
    replaced = list(server.said)
    await call.post(address, delete_original=True)

    assert [(said.text, said.buttons) for said in replaced] == [("Done", ())]
    assert server.said == []


# Organisations


async def test_it_says_who_an_org_wide_token_belongs_to(server: FakeSlack, call: Caller) -> None:
    def named(answer: JSON) -> list[object]:
        return [answer.get(key) for key in ("team_id", "enterprise_id", "is_enterprise_install")]

    alone = await call("auth.test")
    server.workspace.enterprise = "E0ORG"
    of_workspace = await call("auth.test")
    server.workspace.is_org_wide = True
    of_organisation = await call("auth.test")

    assert [named(one) for one in (alone, of_workspace, of_organisation)] == [
        [TEAM, None, False],
        [TEAM, "E0ORG", False],
        ["E0ORG", "E0ORG", True],
    ]


async def test_it_says_that_it_tells_an_organisation(server: FakeSlack, call: Caller) -> None:
    """Also then, each event, press and command names the workspace where it happened."""
    server.workspace.enterprise, server.workspace.is_org_wide = "E0ORG", True
    socket = await call.connect()
    await server.say(ALICE, "hello")
    event = await call.heard(socket)
    await server.command(ALICE, "/help", "")
    command = await call.heard(socket)

    assert (event["team_id"], event["enterprise_id"], event["event"]["team"]) == (TEAM, "E0ORG", TEAM)
    assert [(one["team_id"], one["is_enterprise_install"]) for one in event["authorizations"]] == [(None, True)]
    assert (command["team_id"], command["enterprise_id"], command["is_enterprise_install"]) == (TEAM, "E0ORG", "true")
