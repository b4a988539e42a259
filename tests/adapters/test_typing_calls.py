"""The calls with which the adapters show their platform's typing sign, and what the local servers make of them."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from discord.gateway import DiscordWebSocket
from discord.http import Route

from adapters.discord.adapter import MAX_TYPING_CALLS, DiscordAdapter
from adapters.discord.client import point_sdk_at
from adapters.playground.server import Person, Typing
from adapters.protocols import DeliveryError, HidesTyping, ShowsTyping
from adapters.slack.adapter import SlackAdapter
from adapters.telegram.adapter import TelegramAdapter
from sessions_app.messages import Address, OutgoingMessage
from tests.adapters.recording import Run, running
from tests.adapters.test_rate_limits import Clock
from tests.fakes.discord import FakeDiscord
from tests.fakes.slack import FakeSlack
from tests.fakes.telegram import FakeTelegram

ALICE = {
    "telegram": Person("1001", "Alice"),
    "discord": Person("300000000000000001", "Alice"),
    "slack": Person("U1ALICE", "Alice"),
}

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def telegram() -> AsyncIterator[tuple[FakeTelegram, Run]]:
    server = FakeTelegram()
    await server.start()
    async with running(TelegramAdapter(token=server.token, api_url=server.url)) as run:
        yield server, run
    await server.stop()


@pytest_asyncio.fixture
async def discord() -> AsyncIterator[tuple[FakeDiscord, Run]]:
    before = Route.BASE, str(DiscordWebSocket.DEFAULT_GATEWAY)  # they hold for the whole process
    server = FakeDiscord()
    await server.start()
    given = server.environment()
    adapter = DiscordAdapter(
        token=server.token, api_url=given["DISCORD_API_URL"], gateway_url=given["DISCORD_GATEWAY_URL"]
    )
    async with running(adapter) as run:
        yield server, run
    await server.stop()
    point_sdk_at(*before)


@pytest_asyncio.fixture
async def slack() -> AsyncIterator[tuple[FakeSlack, Run]]:
    server = FakeSlack(redeliver_after=60.0)
    await server.start()
    api_url = server.environment()["SLACK_API_URL"]
    async with running(SlackAdapter(bot_token=server.bot_token, app_token=server.app_token, api_url=api_url)) as run:
        yield server, run
    await server.stop()


async def show(run: Run, address: Address) -> None:
    assert isinstance(run.adapter, ShowsTyping)
    await run.adapter.show_typing(address)


async def refusal_of(run: Run, address: Address) -> DeliveryError:
    with pytest.raises(DeliveryError) as refused:
        await show(run, address)
    return refused.value


async def test_a_sign_is_seen_until_its_time_or_the_next_message() -> None:
    clock = Clock()
    typing = Typing(5.0, clock)
    typing.show("1")
    typing.show("2", "topic")
    typing.show("3")
    typing.end("2", "another topic")
    assert [typing.is_on(chat) for chat in ("1", "2", "3", "4")] == [True, True, True, False]

    typing.end("1")
    typing.hide("2", "topic")
    clock.now += 4.9
    assert [typing.is_on(chat) for chat in ("1", "2", "3")] == [False, False, True]
    clock.now += 0.1
    assert not typing.is_on("3")
    assert [(call.chat_id, call.is_on) for call in typing.calls] == [
        ("1", True),
        ("2", True),
        ("3", True),
        ("2", False),
    ]


async def test_telegram_shows_it_in_a_chat_or_topic_until_a_message(telegram: tuple[FakeTelegram, Run]) -> None:
    server, run = telegram
    await server.say(ALICE["telegram"], "hi")
    await server.say(ALICE["telegram"], "hi", group="-500", thread="7")
    await show(run, Address("telegram", "1001"))
    await show(run, Address("telegram", "-500", "7"))
    assert server.typing.is_on("1001")
    assert [(call.chat_id, call.thread_id) for call in server.typing.calls] == [("1001", ""), ("-500", "7")]

    await run.adapter.send(OutgoingMessage(Address("telegram", "1001"), "hello", "n1"))
    assert not server.typing.is_on("1001")
    assert server.typing.is_on("-500")


async def test_telegram_says_how_long_to_rest_and_what_is_useless(telegram: tuple[FakeTelegram, Run]) -> None:
    server, run = telegram
    await server.say(ALICE["telegram"], "hi")
    server.limit_rates()
    await show(run, Address("telegram", "1001"))
    too_soon = await refusal_of(run, Address("telegram", "1001"))
    assert (too_soon.retry_after, too_soon.permanent) == (1.0, False)
    await run.adapter.send(OutgoingMessage(Address("telegram", "1001"), "hello", "n1"))  # messages have their own limit
    server.api.limiter.is_on = False

    for nowhere in (Address("telegram", "4711"), Address("telegram", "1001", "9"), Address("telegram", "nobody")):
        assert (await refusal_of(run, nowhere)).permanent
    server.faults.inject("sendChatAction", status=500)
    assert not (await refusal_of(run, Address("telegram", "1001"))).permanent
    assert server.token.partition(":")[2] not in str(too_soon)


async def test_discord_shows_it_in_a_channel_until_a_message(discord: tuple[FakeDiscord, Run]) -> None:
    server, run = discord
    chat = server.private_chat(ALICE["discord"])
    await show(run, Address("discord", chat))
    assert server.typing.is_on(chat)

    await run.adapter.send(OutgoingMessage(Address("discord", chat), "hello", "n1"))
    assert not server.typing.is_on(chat)
    for nowhere in ("300000000000000099", "nobody"):
        assert (await refusal_of(run, Address("discord", nowhere))).permanent


async def test_discord_leaves_half_of_the_calls_to_messages(discord: tuple[FakeDiscord, Run]) -> None:
    server, run = discord
    server.limit_rates()
    chats = [server.private_chat(Person(f"3000000000000001{nth:02}", "P")) for nth in range(MAX_TYPING_CALLS + 1)]
    for chat in chats[:-1]:
        await show(run, Address("discord", chat))

    refused = await refusal_of(run, Address("discord", chats[-1]))

    assert refused.retry_after
    assert 0 < refused.retry_after <= 1
    assert len(server.typing.calls) == MAX_TYPING_CALLS
    await run.adapter.send(OutgoingMessage(Address("discord", chats[0]), "hello", "n1"))


async def test_discord_rests_where_the_whole_bot_must(discord: tuple[FakeDiscord, Run]) -> None:
    server, run = discord
    chat = Address("discord", server.private_chat(ALICE["discord"]))
    server.faults.inject("POST /channels/typing", status=429, retry_after=0.3)

    assert (await refusal_of(run, chat)).retry_after == pytest.approx(0.3)


async def test_slack_shows_it_in_threads_alone_until_a_message(slack: tuple[FakeSlack, Run]) -> None:
    server, run = slack
    assert isinstance(run.adapter, HidesTyping)
    chat = server.private_chat(ALICE["slack"])
    thread = await server.say(ALICE["slack"], "hi")
    await show(run, Address("slack", chat))
    assert not server.typing.calls

    place = Address("slack", chat, thread)
    await show(run, place)
    assert server.typing.is_on(chat)
    await run.adapter.send(OutgoingMessage(place, "hello", "n1"))
    assert not server.typing.is_on(chat)
    await show(run, place)
    await run.adapter.hide_typing(place)
    assert not server.typing.is_on(chat)

    assert (await refusal_of(run, Address("slack", chat, "1.000001"))).permanent
    assert (await refusal_of(run, Address("slack", "D404", thread))).permanent
    server.faults.inject("assistant.threads.setStatus", status=429, retry_after=7)
    assert (await refusal_of(run, place)).retry_after == 7


async def test_slack_asks_no_more_where_the_app_may_show_none(slack: tuple[FakeSlack, Run]) -> None:
    server, run = slack
    place = Address("slack", server.private_chat(ALICE["slack"]), await server.say(ALICE["slack"], "hi"))
    server.api.scopes.remove("chat:write")
    assert (await refusal_of(run, place)).permanent
    server.api.calls.clear()

    await show(run, place)

    assert "assistant.threads.setStatus" not in [name for name, _ in server.api.calls]
