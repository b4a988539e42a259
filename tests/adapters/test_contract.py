"""Our own adapters keep the contract that adapters of others are tested by."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

import adapters.slack.adapter
import adapters.telegram.adapter
from adapters import testing
from adapters.discord import PLATFORM as DISCORD
from adapters.discord import connection
from adapters.discord.client import point_sdk_at
from adapters.platform import Config, Platform
from adapters.playground.server import Person, PlatformServer
from adapters.protocols import DeliveryError, Inbox, NeedsConfiguration
from adapters.slack import PLATFORM as SLACK
from adapters.telegram import PLATFORM as TELEGRAM
from adapters.testing import AdapterContract, PlatformUnderTest, RecordingInbox
from sessions_app.messages import Address, InboundMessage, OutgoingMessage, Sender
from tests.botos_project.test_settings import PROJECT
from tests.example_platform import PLATFORM as NOTES
from tests.example_platform.adapter import NotesAdapter
from tests.fakes.discord import CLOSED_CHAT, FakeDiscord
from tests.fakes.notes import NotesServer, NotesUnderTest
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

    def settings(self) -> dict[str, str]:
        return self._server.environment()

    def refused_settings(self) -> dict[str, str]:
        settings, token = self.settings(), self.description.needs[0]
        return settings | {token: settings[token] + "x"}

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
async def started(server: FakeServer, local: Local) -> AsyncIterator[PlatformUnderTest]:
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
    async def platform(self) -> AsyncIterator[PlatformUnderTest]:
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
    async def platform(self) -> AsyncIterator[PlatformUnderTest]:
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
    async def platform(self) -> AsyncIterator[PlatformUnderTest]:
        server = FakeSlack(redeliver_after=1.0)

        def archive(chat: str) -> None:
            server.api.refusals[chat] = "is_archived"

        local = Local(SLACK, server, Person("U1ALICE", "Alice", "alice"), archive, "chat.postMessage")
        async with started(server, local) as platform:
            yield platform


@pytest.mark.asyncio
class TestNotes(AdapterContract):
    """The example platform, which is written from the documents alone."""

    @asynccontextmanager
    async def platform(self) -> AsyncIterator[PlatformUnderTest]:
        platform = NotesUnderTest()
        await platform.start()
        try:
            yield platform
        finally:
            await platform.stop()


# --- adapters that break one rule each


class Renamed(NotesAdapter):
    platform = "notice"


class Forgetful(NotesAdapter):
    """Acknowledges before it is stored."""

    async def _take_note(self, client: httpx.AsyncClient, inbox: Inbox, stop: asyncio.Event) -> None:
        class Careless(RecordingInbox):
            async def receive(self, message: InboundMessage) -> None:
                await client.delete(f"/notes/{message.message_id}")
                await inbox.receive(message)

        await super()._take_note(client, Careless(), stop)


class Counting(NotesAdapter):
    """Gives each delivery a key of its own."""

    heard = 0

    def _message(self, note: dict[str, str]) -> InboundMessage:
        self.heard += 1
        return replace(super()._message(note), native_key=f"{note['id']}-{self.heard}")


class Keyless(NotesAdapter):
    def _message(self, note: dict[str, str]) -> InboundMessage:
        return replace(super()._message(note), native_key="note")


class NamesForIds(NotesAdapter):
    def _message(self, note: dict[str, str]) -> InboundMessage:
        return replace(super()._message(note), sender=Sender(note["name"]))


class OneId(NotesAdapter):
    async def send(self, message: OutgoingMessage) -> str:
        await super().send(message)
        return "sent"


class Cutting(NotesAdapter):
    async def send(self, message: OutgoingMessage) -> str:
        return await super().send(replace(message, text=message.text[:500]))


class Attached(NotesAdapter):
    """Answers nothing but a message that is there."""

    async def send(self, message: OutgoingMessage) -> str:
        if len(message.reply_to) > len("note-0"):
            raise DeliveryError("there is no such note", permanent=True)
        return await super().send(message)


class Hopeless(NotesAdapter):
    """Takes every refusal for good."""

    async def send(self, message: OutgoingMessage) -> str:
        try:
            return await super().send(message)
        except DeliveryError as error:
            raise DeliveryError(str(error), permanent=True) from None


class Hopeful(NotesAdapter):
    """Takes no refusal for good."""

    async def send(self, message: OutgoingMessage) -> str:
        try:
            return await super().send(message)
        except DeliveryError as error:
            raise DeliveryError(str(error)) from None


class Chatty(NotesAdapter):
    """Says that it types."""

    typing_seconds = 5.0

    async def show_typing(self, address: Address) -> None:
        await self.send(OutgoingMessage(address, "...", nonce="typing"))


class Silent(NotesAdapter):
    """Ends without a word where its credentials are refused."""

    async def run(self, inbox: Inbox, stop: asyncio.Event) -> None:
        with suppress(NeedsConfiguration):
            await super().run(inbox, stop)


class Deaf(NotesAdapter):
    """Does not hear that it is to stop."""

    async def run(self, inbox: Inbox, stop: asyncio.Event) -> None:
        await super().run(inbox, asyncio.Event())


BROKEN: list[tuple[type[NotesAdapter], str]] = [
    (Renamed, "is_what_its_description_says"),
    (NamesForIds, "hands_in_what_a_person_writes"),
    (Counting, "gives_each_message_one_key_however_often_it_is_told"),
    (Keyless, "gives_each_message_one_key_however_often_it_is_told"),
    (Forgetful, "acknowledges_only_what_is_stored"),
    (OneId, "sends_and_says_under_which_id"),
    (Cutting, "sends_a_text_as_long_as_its_limit_in_one"),
    (Attached, "sends_an_answer_whether_the_question_is_still_there_or_not"),
    (Hopeless, "says_of_a_refused_message_whether_another_attempt_can_help"),
    (Hopeful, "says_of_a_refused_message_whether_another_attempt_can_help"),
    (Chatty, "shows_a_typing_sign_that_says_nothing"),
    (Silent, "needs_configuration_where_the_credentials_are_refused"),
    (Deaf, "ends_when_it_is_stopped_and_can_run_again"),
]


@pytest.mark.asyncio
@pytest.mark.parametrize(("adapter", "rule"), BROKEN)
async def test_the_contract_finds_an_adapter_that_breaks_a_rule(
    adapter: type[NotesAdapter], rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(testing, "PATIENCE", 0.5)

    class Contract(AdapterContract):
        @asynccontextmanager
        async def platform(self) -> AsyncIterator[PlatformUnderTest]:
            def build(config: Config) -> NotesAdapter:
                return adapter(token=config["NOTES_TOKEN"], url=config["NOTES_URL"])

            platform = NotesUnderTest(replace(NOTES, build=build))
            await platform.start()
            try:
                yield platform
            finally:
                await platform.stop()

    with pytest.raises((AssertionError, TimeoutError)):
        await getattr(Contract(), f"test_it_{rule}")()


def test_every_rule_of_the_contract_is_broken_by_an_adapter() -> None:
    rules = {name.removeprefix("test_it_") for name in vars(AdapterContract) if name.startswith("test_it_")}

    assert {rule for _, rule in BROKEN} == rules


def test_the_document_shows_the_example() -> None:
    guide = (PROJECT / "docs" / "howto" / "add-a-platform.md").read_text(encoding="utf-8")
    description = Path(inspect.getfile(NotesAdapter)).with_name("__init__.py").read_text(encoding="utf-8")

    assert description[description.index("def _build") :].strip() in guide
    assert inspect.getsource(TestNotes) in guide


def test_the_example_is_small() -> None:
    files = Path(inspect.getfile(NotesAdapter)).parent.glob("*.py")

    assert sum(len(file.read_text(encoding="utf-8").splitlines()) for file in files) <= 120


@pytest.mark.asyncio
async def test_the_local_server_of_the_example_refuses_what_the_platform_lacks() -> None:
    server: PlatformServer = NotesServer()
    alice = Person("alice", "Alice")

    with pytest.raises(ValueError, match="no groups"):
        await server.say(alice, "hello", group="table")
    with pytest.raises(ValueError, match="stays as it is"):
        await server.edit(alice, await server.say(alice, "hello"), "goodbye")
    with pytest.raises(ValueError, match="no buttons"):
        await server.press(alice, "note-0", "/cancel")
    assert [said.text for said in server.said] == ["hello"]
