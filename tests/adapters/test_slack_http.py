"""The Slack adapter without a socket, with the real SDK against the local Slack server."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from aiohttp import web

from adapters import registry
from adapters.playground.server import Person
from adapters.protocols import NeedsConfiguration
from adapters.slack.http_adapter import SlackHttpAdapter
from adapters.telegram.adapter import TelegramAdapter
from sessions_app.messages import Address, OutgoingMessage
from sessions_app.receiving.watermarks import Mark
from tests.adapters.recording import RecordingInbox, running
from tests.fakes.slack import FakeSlack

ALICE = Person("U1ALICE", "Alice", "alice")
HTTP = {"BOTOS_SLACK_TRANSPORT": "http"}

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def server() -> AsyncIterator[FakeSlack]:
    server = FakeSlack(redeliver_after=0.1)
    await server.start()
    yield server
    await server.stop()


def adapter_for(server: FakeSlack) -> SlackHttpAdapter:
    made = registry.build("slack", server.environment() | HTTP | {"SLACK_APP_TOKEN": ""})
    assert isinstance(made, SlackHttpAdapter)
    return made


async def test_it_sends_without_a_socket(server: FakeSlack) -> None:
    chat = server.private_chat(ALICE)
    async with running(adapter_for(server)) as run:
        await run.adapter.send(OutgoingMessage(Address("slack", chat), "Good morning", nonce="n1"))

    assert [said.text for said in await server.wait_for(1, chat=chat)] == ["Good morning"]
    assert server.socket.connections == 0


async def test_it_reads_what_was_missed_in_chats_that_it_knows(server: FakeSlack) -> None:
    inbox = RecordingInbox()
    inbox.known = {server.private_chat(ALICE): Mark()}
    await server.say(ALICE, "while nobody served the pages")

    async with running(adapter_for(server), inbox):
        [message] = await inbox.wait_for(1)

    assert (message.text, message.is_from_history, message.sender.name) == (
        "while nobody served the pages",
        True,
        "Alice",
    )


async def test_it_needs_a_signing_secret_in_place_of_an_app_token(server: FakeSlack) -> None:
    given = server.environment() | HTTP | {"SLACK_SIGNING_SECRET": ""}
    with pytest.raises(NeedsConfiguration, match="set SLACK_SIGNING_SECRET"):
        registry.build("slack", given)


async def test_it_makes_telegram_poll_unless_a_webhook_is_chosen() -> None:
    given = {"TELEGRAM_BOT_TOKEN": "1:x", "BOTOS_PUBLIC_URL": "https://b", "TELEGRAM_WEBHOOK_SECRET": "s" * 32}
    for transport, secret in (("polling", ""), ("webhook", "s" * 32)):
        adapter = registry.build("telegram", given | {"BOTOS_TELEGRAM_TRANSPORT": transport})
        assert isinstance(adapter, TelegramAdapter)
        assert adapter._webhook is not None
        assert (adapter._webhook.address, adapter._webhook.secret) == ("https://b/hooks/telegram", secret)


async def test_the_local_slack_repeats_an_event_three_times_and_a_button_never(server: FakeSlack) -> None:
    told: list[str | None] = []

    async def refuse(request: web.Request) -> web.Response:
        told.append(request.headers.get("X-Slack-Retry-Num"))
        return web.Response(status=503)

    app = web.Application()
    app.router.add_post("/hooks/slack", refuse)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.http.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hooks/slack"
    try:
        await server.say(ALICE, "hello")
        await server.drained()
        await server.command(ALICE, "/help", "")
        await server.drained()
    finally:
        await runner.cleanup()

    assert told == [None, "1", "2", "3", None]
    assert [envelope.kind for envelope in server.http.given_up] == ["events_api", "slash_commands"]
