"""The local servers refuse what comes faster than the platforms allow, once they are told to count."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from adapters.playground.rate_limits import Limiter, RateLimit
from adapters.playground.server import Person
from adapters.protocols import DeliveryError
from adapters.slack.adapter import SlackAdapter
from sessions_app.messages import Address, OutgoingMessage
from tests.adapters.recording import running
from tests.fakes.discord import FakeDiscord
from tests.fakes.slack import FakeSlack
from tests.fakes.telegram import FakeTelegram

JSON = dict[str, Any]
GROUP = "-500"


class Clock:
    """Goes on by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest_asyncio.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def test_it_counts_by_key_and_forgets_what_is_long_ago(clock: Clock) -> None:
    limiter, twice = Limiter(clock), RateLimit(2, 10.0)
    assert [limiter.take({"a": twice}) for _ in range(3)] == [0, 0, 0]  # not switched on

    limiter.is_on = True
    assert [limiter.take({"a": twice}) for _ in range(3)] == [0, 0, 10]
    clock.now += 4
    assert (limiter.take({"a": twice}), limiter.take({"b": twice})) == (6, 0)
    clock.now += 6
    assert [limiter.take({"a": twice}) for _ in range(3)] == [0, 0, 10]


def test_it_counts_no_call_that_was_refused(clock: Clock) -> None:
    limiter, once, often = Limiter(clock), RateLimit(1, 10.0), RateLimit(2, 10.0)
    limiter.is_on = True

    assert [limiter.take({"chat": once, "bot": often}) for _ in range(5)] == [0, 10, 10, 10, 10]
    assert limiter.take({"other chat": once, "bot": often}) == 0


@pytest.mark.asyncio
async def test_telegram_limits_a_chat_a_group_and_the_bot(clock: Clock, session: aiohttp.ClientSession) -> None:
    server = FakeTelegram()
    server.api.limiter.clock = clock
    await server.start()

    async def send(chat: str) -> JSON:
        url = f"{server.url}/bot{server.token}/sendMessage"
        async with session.post(url, json={"chat_id": chat, "text": f"at {clock.now}"}) as answer:
            return {**await answer.json(), "status": answer.status}

    try:
        await server.say(Person("1001", "Alice"), "hi", group=GROUP)
        for number in range(40):
            await server.say(Person(str(2000 + number), "Somebody"), "hi")
        unlimited = [(await send("2000"))["ok"] for _ in range(3)]
        server.limit_rates()
        in_chat = [await send("2000") for _ in range(2)]
        clock.now += 1
        by_bot = [(await send(str(2000 + number)))["status"] for number in range(31)]
        in_group = []
        for _ in range(21):
            clock.now += 1
            in_group.append((await send(GROUP))["status"])
    finally:
        await server.stop()

    assert unlimited == [True] * 3
    assert [(one["status"], one.get("parameters")) for one in in_chat] == [(200, None), (429, {"retry_after": 1})]
    assert in_chat[1]["description"] == "Too Many Requests: retry after 1"
    assert by_bot == [200] * 30 + [429]
    assert in_group == [200] * 20 + [429]


@pytest.mark.asyncio
async def test_slack_limits_each_method_and_posts_by_channel(clock: Clock, session: aiohttp.ClientSession) -> None:
    server = FakeSlack()
    server.api.limiter.clock = clock
    await server.start()
    here, there = (server.private_chat(Person(user, user.title())) for user in ("U1", "U2"))

    async def call(method: str, **given: object) -> tuple[int, str | None, str | None]:
        headers = {"Authorization": f"Bearer {server.bot_token}"}
        url = server.environment()["SLACK_API_URL"] + method
        async with session.post(url, headers=headers, json=given) as answer:
            return answer.status, answer.headers.get("Retry-After"), (await answer.json()).get("error")

    try:
        server.limit_rates()
        posts = [await call("chat.postMessage", channel=chat, text="hi") for chat in (here, here, there)]
        looks = [await call("conversations.history", channel=here) for _ in range(51)]
        names = [await call("users.info", user="U1") for _ in range(101)]
    finally:
        await server.stop()

    assert posts == [(200, None, None), (429, "1", "ratelimited"), (200, None, None)]
    assert [looks.count((200, None, None)), looks[-1]] == [50, (429, "60", "ratelimited")]
    assert [names.count((200, None, None)), names[-1]] == [100, (429, "60", "ratelimited")]


@pytest.mark.asyncio
async def test_discord_limits_a_channel_and_the_bot(clock: Clock, session: aiohttp.ClientSession) -> None:
    server = FakeDiscord()
    server.rest.limiter.clock = clock
    await server.start()
    here, there = (server.private_chat(Person(f"30000000000000000{number}", "Somebody")) for number in (1, 2))

    async def call(method: str, path: str, **given: object) -> tuple[int, JSON]:
        headers = {"Authorization": f"Bot {server.token}"}
        url = server.environment()["DISCORD_API_URL"] + path
        async with session.request(method, url, headers=headers, json=given) as answer:
            return answer.status, await answer.json()

    try:
        server.limit_rates()
        posts = [await call("POST", f"/channels/{here}/messages", content="hi") for _ in range(6)]
        elsewhere, _ = await call("POST", f"/channels/{there}/messages", content="hi")
        clock.now += 1
        looks = [await call("GET", "/users/@me") for _ in range(51)]
    finally:
        await server.stop()

    assert [status for status, _ in posts] == [200] * 5 + [429]
    assert (posts[-1][1]["retry_after"], posts[-1][1]["global"], elsewhere) == (5.0, False, 200)
    assert ([status for status, _ in looks].count(200), looks[-1][1]["global"]) == (50, True)


@pytest.mark.asyncio
async def test_an_adapter_waits_as_long_as_a_limit_asks() -> None:
    server = FakeSlack()
    await server.start()
    env, chat = server.environment(), server.private_chat(Person("U1", "Alice"))
    adapter = SlackAdapter(
        bot_token=env["SLACK_BOT_TOKEN"], app_token=env["SLACK_APP_TOKEN"], api_url=env["SLACK_API_URL"]
    )
    try:
        async with running(adapter) as run:
            server.limit_rates()
            await run.adapter.send(OutgoingMessage(Address("slack", chat), "one", "n1"))
            with pytest.raises(DeliveryError) as refused:
                await run.adapter.send(OutgoingMessage(Address("slack", chat), "two", "n2"))
    finally:
        await server.stop()

    assert (refused.value.retry_after, refused.value.permanent, refused.value.ambiguous) == (1.0, False, False)
