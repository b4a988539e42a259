"""Our own adapters keep the contract that adapters of others are tested by."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

import adapters.slack.adapter
import adapters.telegram.adapter
from adapters.discord import PLATFORM as DISCORD
from adapters.discord import connection
from adapters.discord.client import point_sdk_at
from adapters.platform import Platform
from adapters.playground.server import Person
from adapters.slack import PLATFORM as SLACK
from adapters.telegram import PLATFORM as TELEGRAM
from adapters.testing import AdapterContract, TestedPlatform
from tests.fakes.discord import CLOSED_CHAT, FakeDiscord
from tests.fakes.server import FakeServer
from tests.fakes.slack import FakeSlack
from tests.fakes.telegram import FakeTelegram


class Local:
    """One of our local servers, driven as the contract asks."""

    def __init__(
        self, description: Platform, server: FakeServer, alice: Person, refuse: Callable[[str], Any], busy: str
    ) -> None:
        self.description = description
        self._server = server
        self._alice = alice
        self._refuse = refuse
        self._busy = busy
        self.user_id = alice.id

    @property
    def chat_id(self) -> str:
        return self._server.private_chat(self._alice)

    def settings(self) -> Mapping[str, str]:
        return self._server.environment()

    def refused_settings(self) -> Mapping[str, str]:
        token = self.description.needs[0]
        return self.settings() | {token: self._server.environment()[token] + "x"}

    async def say(self, text: str) -> str:
        return await self._server.say(self._alice, text)

    async def tell_again(self, message_id: str) -> None:
        await self._server.redeliver(message_id)

    async def answers(self, count: int) -> list[str]:
        return [said.text for said in await self._server.wait_for(count, chat=self.chat_id)]

    def refuse_next(self, *, permanent: bool) -> None:
        if permanent:
            self._refuse(self.chat_id)
        else:
            self._server.faults.inject(self._busy, status=429, retry_after=0.01)


@asynccontextmanager
async def started(server: FakeServer, local: Local) -> AsyncIterator[TestedPlatform]:
    await server.start()
    try:
        yield local
    finally:
        await server.stop()


@pytest.mark.asyncio
class TestTelegram(AdapterContract):
    @pytest.fixture(autouse=True)
    def _no_long_pauses(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(adapters.telegram.adapter, "FIRST_PAUSE", 0.01)

    @asynccontextmanager
    async def platform(self) -> AsyncIterator[TestedPlatform]:
        server = FakeTelegram()

        def block(chat: str) -> None:
            server.faults.inject("sendMessage", status=403)

        local = Local(TELEGRAM, server, Person("1001", "Alice", "alice"), block, "sendMessage")
        async with started(server, local) as platform:
            yield platform


@pytest.mark.asyncio
class TestDiscord(AdapterContract):
    @pytest.fixture(autouse=True)
    def _no_long_pauses(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(connection, "FIRST_RETRY", 0.01)
        monkeypatch.setattr(connection, "MAX_RETRY", 0.02)

    @asynccontextmanager
    async def platform(self) -> AsyncIterator[TestedPlatform]:
        from discord.gateway import DiscordWebSocket
        from discord.http import Route

        before = Route.BASE, str(DiscordWebSocket.DEFAULT_GATEWAY)  # they hold for the whole process
        server = FakeDiscord()

        def close(chat: str) -> None:
            server.rest.refusals[chat] = CLOSED_CHAT

        local = Local(DISCORD, server, Person("300000000000000001", "Alice", "alice"), close, "POST /channels/messages")
        async with started(server, local) as platform:
            yield platform
        point_sdk_at(*before)


@pytest.mark.asyncio
class TestSlack(AdapterContract):
    @pytest.fixture(autouse=True)
    def _quick(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(adapters.slack.adapter, "PING_SECONDS", 0.2)

    @asynccontextmanager
    async def platform(self) -> AsyncIterator[TestedPlatform]:
        server = FakeSlack(redeliver_after=1.0)

        def archive(chat: str) -> None:
            server.api.refusals[chat] = "is_archived"

        local = Local(SLACK, server, Person("U1ALICE", "Alice", "alice"), archive, "chat.postMessage")
        async with started(server, local) as platform:
            yield platform
