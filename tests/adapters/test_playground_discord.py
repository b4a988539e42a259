"""The local Discord gives clients what the real one gives them, and refuses what it refuses."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

import adapters.playground.discord.gateway
from adapters.playground.discord.gateway import (
    DIRECT_MESSAGES,
    GUILD_MESSAGES,
    GUILDS,
    HEARTBEAT,
    HEARTBEAT_ACK,
    IDENTIFY,
)
from adapters.playground.discord.rest import API
from adapters.playground.server import Person
from tests.fakes.discord import FakeDiscord

JSON = dict[str, Any]
ALICE = Person("300000000000000001", "Alice", "alice")
BOB = Person("300000000000000002", "Bob", "bob")
ROWS = [{"type": 1, "components": [{"type": 2, "style": 1, "label": "Yes", "custom_id": "yes"}]}]
INTENTS = GUILDS | GUILD_MESSAGES | DIRECT_MESSAGES

pytestmark = pytest.mark.asyncio


class Caller:
    """A bot without an SDK."""

    def __init__(self, server: FakeDiscord, session: aiohttp.ClientSession) -> None:
        self.server, self.session = server, session
        self.address = server.environment()["DISCORD_API_URL"].removesuffix(API)

    async def __call__(self, method: str, path: str, *, token: str | None = None, **given: object) -> JSON:
        """The body of an answer, with its status under `status`."""
        headers = {"Authorization": f"Bot {self.server.token if token is None else token}"}
        async with self.session.request(method, self.address + API + path, headers=headers, json=given) as answer:
            return {**await answer.json(), "status": answer.status}

    async def connect(self) -> aiohttp.ClientWebSocketResponse:
        """A socket that was told everything a session begins with."""
        socket = await self.session.ws_connect(self.server.environment()["DISCORD_GATEWAY_URL"])
        await socket.send_json(self.identify())
        while (await socket.receive_json())["t"] != "GUILD_CREATE":
            pass
        return socket

    async def heard(self, socket: aiohttp.ClientWebSocketResponse, event: str) -> JSON:
        """The data of the next event of this kind."""
        while (frame := await socket.receive_json())["t"] != event:
            pass
        return dict(frame["d"])

    def identify(self) -> JSON:
        properties = {"os": "linux", "browser": "test", "device": "test"}
        return {"op": IDENTIFY, "d": {"token": self.server.token, "intents": INTENTS, "properties": properties}}


@pytest_asyncio.fixture
async def server() -> AsyncIterator[FakeDiscord]:
    server = FakeDiscord()
    await server.start()
    yield server
    await server.stop()


@pytest_asyncio.fixture
async def call(server: FakeDiscord) -> AsyncIterator[Caller]:
    async with aiohttp.ClientSession() as session:
        yield Caller(server, session)


# The gateway


async def test_it_says_where_the_gateway_is(server: FakeDiscord, call: Caller) -> None:
    address = server.environment()["DISCORD_GATEWAY_URL"]
    for_all, for_bots = await call("GET", "/gateway", token=""), await call("GET", "/gateway/bot")

    assert (for_all["url"], for_bots["url"], for_bots["shards"]) == (address, address, 1)
    assert for_bots["session_start_limit"]["max_concurrency"] == 1
    assert (await call("GET", "/gateway/bot", token=""))["status"] == 401


async def test_it_gives_every_frame_all_four_fields(server: FakeDiscord, call: Caller) -> None:
    async with call.session.ws_connect(server.environment()["DISCORD_GATEWAY_URL"]) as socket:
        hello = await socket.receive_json()
        await socket.send_json(call.identify())
        ready = await socket.receive_json()

    assert (hello["s"], hello["t"]) == (None, None)
    assert (sorted(ready), ready["s"], ready["t"]) == (["d", "op", "s", "t"], 1, "READY")


async def test_it_reads_binary_frames(server: FakeDiscord, call: Caller) -> None:
    async with call.session.ws_connect(server.environment()["DISCORD_GATEWAY_URL"]) as socket:
        await socket.receive_json()
        await socket.send_bytes(json.dumps(call.identify()).encode())
        ready = await socket.receive_json()
        await socket.send_bytes(b"\x83t\x00")  # another encoding than was asked for
        while (end := await socket.receive()).type is aiohttp.WSMsgType.TEXT:
            pass

    assert (ready["t"], end.data) == ("READY", 4002)


async def test_it_acknowledges_a_heartbeat_as_late_as_a_network(
    server: FakeDiscord, call: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else an SDK believes that the acknowledgement belongs to the heartbeat before."""
    monkeypatch.setattr(adapters.playground.discord.gateway, "ROUND_TRIP", 0.5)
    async with call.session.ws_connect(server.environment()["DISCORD_GATEWAY_URL"]) as socket:
        await socket.receive_json()
        await socket.send_json({"op": HEARTBEAT, "d": None})
        await call("GET", "/gateway/bot")  # meanwhile the server has read the heartbeat
        await socket.send_json(call.identify())
        told = [await socket.receive_json() for _ in range(3)]

    assert [frame["t"] or frame["op"] for frame in told] == ["READY", "GUILD_CREATE", HEARTBEAT_ACK]


# Interactions


@pytest.mark.parametrize("group", ["", "general"])
async def test_it_tells_all_that_clients_need_to_know_of_an_interaction(
    server: FakeDiscord, call: Caller, group: str
) -> None:
    socket = await call.connect()
    chat = server.group_chat(group) if group else server.private_chat(ALICE)
    sent = await call("POST", f"/channels/{chat}/messages", content="Well?", components=ROWS)
    await server.press(ALICE, sent["id"], "yes")
    told = await call.heard(socket, "INTERACTION_CREATE")
    of_guild = {"guild_id", "guild", "guild_locale", "member"}

    assert (told["attachment_size_limit"], told["entitlements"], told["locale"]) == (10 * 1024 * 1024, [], "en-US")
    assert {"app_permissions", "authorizing_integration_owners"} <= set(told)
    assert of_guild & set(told) == (of_guild if group else set())
    assert told.get("user", told.get("member", {}).get("user"))["id"] == ALICE.id


# The guild


async def test_it_reads_mentions_in_the_text(server: FakeDiscord, call: Caller) -> None:
    socket = await call.connect()
    await server.say(BOB, "hello", group="general")
    role, bot = server.world.bot_role, server.world.bot["id"]
    await server.say(ALICE, f"<@{BOB.id}> <@!{bot}> <@&{role}> <@1> <@&2>", group="general")
    await call.heard(socket, "MESSAGE_CREATE")
    told = await call.heard(socket, "MESSAGE_CREATE")

    assert [user["id"] for user in told["mentions"]] == [BOB.id, bot]
    assert told["mention_roles"] == [role]


async def test_it_shows_no_words_that_mention_only_the_role(server: FakeDiscord, call: Caller) -> None:
    socket = await call.connect()
    await server.say(ALICE, f"<@&{server.world.bot_role}> hello", group="general")
    told = await call.heard(socket, "MESSAGE_CREATE")

    assert (told["content"], told["mention_roles"]) == ("", [server.world.bot_role])


async def test_it_gives_the_bot_a_role_of_its_own(server: FakeDiscord, call: Caller) -> None:
    socket = await call.session.ws_connect(server.environment()["DISCORD_GATEWAY_URL"])
    await socket.send_json(call.identify())
    guild = await call.heard(socket, "GUILD_CREATE")
    everyone, own = guild["roles"]
    [member] = guild["members"]

    assert (everyone["id"], own["id"], own["managed"]) == (guild["id"], server.world.bot_role, True)
    assert (member["user"]["id"], member["roles"]) == (server.world.bot["id"], [own["id"]])


async def test_it_opens_a_thread_at_a_message(server: FakeDiscord, call: Caller) -> None:
    socket = await call.connect()
    beginning = await server.say(ALICE, "hello", group="general")
    await server.say(ALICE, "in the thread", group="general", thread=beginning)
    opened = await call.heard(socket, "THREAD_CREATE")
    told = await call.heard(socket, "MESSAGE_CREATE")
    later = await call.session.ws_connect(server.environment()["DISCORD_GATEWAY_URL"])
    await later.send_json(call.identify())
    guild = await call.heard(later, "GUILD_CREATE")

    assert (opened["id"], opened["type"], opened["parent_id"]) == (beginning, 11, server.group_chat("general"))
    assert (told["channel_id"], told["channel_type"], told["guild_id"]) == (beginning, 11, guild["id"])
    assert [thread["id"] for thread in guild["threads"]] == [beginning]
    assert beginning not in [channel["id"] for channel in guild["channels"]]
    assert (await call("POST", f"/channels/{beginning}/messages", content="I too"))["channel_id"] == beginning


async def test_it_describes_the_bot_and_its_guild_in_full(server: FakeDiscord, call: Caller) -> None:
    """Each of these is read by a client that ends without it."""
    socket = await call.session.ws_connect(server.environment()["DISCORD_GATEWAY_URL"])
    await socket.send_json(call.identify())
    ready, guild = await call.heard(socket, "READY"), await call.heard(socket, "GUILD_CREATE")

    assert {"mfa_enabled", "flags", "avatar"} <= set(ready["user"])
    assert {"afk_channel_id", "verification_level", "preferred_locale", "system_channel_flags", "icon"} <= set(guild)


# Answers to interactions


async def interaction(server: FakeDiscord, call: Caller) -> JSON:
    """A press of a button under a message of the bot, as the bot is told of it."""
    socket = await call.connect()
    sent = await call("POST", f"/channels/{server.private_chat(ALICE)}/messages", content="Well?", components=ROWS)
    await server.press(ALICE, sent["id"], "yes")
    return await call.heard(socket, "INTERACTION_CREATE")


def callback(told: JSON) -> str:
    return f"/interactions/{told['id']}/{told['token']}/callback?with_response=true"


async def test_it_numbers_the_components_of_a_message(server: FakeDiscord, call: Caller) -> None:
    [row] = (await interaction(server, call))["message"]["components"]

    assert [row["id"], row["components"][0]["id"]] == [1, 2]


async def test_it_shows_the_answer_to_an_interaction(server: FakeDiscord, call: Caller) -> None:
    told = await interaction(server, call)
    answer = await call("POST", callback(told), type=4, data={"content": "Thanks"})
    [_, said] = await server.wait_for(2, chat=server.private_chat(ALICE))

    assert (said.text, answer["resource"]["message"]["content"]) == ("Thanks", "Thanks")
    assert answer["interaction"]["response_message_id"] == said.message_id


async def test_it_shows_nobody_an_answer_for_one(server: FakeDiscord, call: Caller) -> None:
    told = await interaction(server, call)
    answer = await call("POST", callback(told), type=4, data={"content": "Thanks", "flags": 64})

    assert answer["interaction"]["response_message_ephemeral"] is True
    assert [said.text for said in server.said] == ["Well?"]


async def test_it_changes_the_message_with_the_button(server: FakeDiscord, call: Caller) -> None:
    told = await interaction(server, call)
    await call("POST", callback(told), type=7, data={"content": "Done", "components": []})

    assert [(said.text, said.buttons) for said in server.said] == [("Done", ())]


@pytest.mark.parametrize("data", [{}, {"content": " "}, {"content": "x" * 2001}], ids=["nothing", "blank", "too long"])
async def test_it_refuses_an_answer_that_no_message_can_be(server: FakeDiscord, call: Caller, data: JSON) -> None:
    told = await interaction(server, call)
    refused = await call("POST", callback(told), type=4, data=data)
    taken = await call("POST", callback(told), type=4, data={"content": "Thanks"})

    assert (refused["status"], taken["status"]) == (400, 200)


async def test_it_lists_the_registered_commands(server: FakeDiscord, call: Caller) -> None:
    path = f"/applications/{server.world.bot['id']}/commands"
    headers = {"Authorization": f"Bot {server.token}"}
    async with call.session.put(
        call.address + API + path, headers=headers, json=[{"name": "help", "description": "Help"}]
    ) as answer:
        registered = await answer.json()
    async with call.session.get(call.address + API + path, headers=headers) as answer:
        assert await answer.json() == registered


# Replies


async def test_it_lets_the_bot_answer_a_message_of_the_same_chat(server: FakeDiscord, call: Caller) -> None:
    chat = server.private_chat(ALICE)
    said, elsewhere = await server.say(ALICE, "hello"), await server.say(BOB, "hello")
    path = f"/channels/{chat}/messages"
    answer = await call("POST", path, content="hi", message_reference={"message_id": said})
    refused = await call("POST", path, content="hi", message_reference={"message_id": elsewhere})
    lenient = {"message_id": elsewhere, "fail_if_not_exists": False}
    plain = await call("POST", path, content="hi", message_reference=lenient)

    assert (answer["type"], answer["referenced_message"]["id"]) == (19, said)
    assert (refused["status"], refused["code"]) == (400, 50035)
    assert (plain["type"], "referenced_message" in plain) == (0, False)
    assert [said.chat_id for said in server.said if said.author_id == "bot"] == [chat, chat]
