"""A platform of one's own, from the message to the answer. docs/howto/add-a-platform.md shows the same adapter."""

from __future__ import annotations

import asyncio
import inspect
from dataclasses import dataclass
from pathlib import Path

import pytest
from django.db import connections

from adapters import registry
from adapters.botos import BotOS
from adapters.protocols import DeliveryError, Inbox, PlatformAdapter
from adapters.registry import register_platform
from identity.resolvers import DatabaseIdentityResolver
from sessions_app import db
from sessions_app.agents import RecallAgent
from sessions_app.messages import Address, InboundMessage, OutgoingMessage, Sender
from sessions_app.models import HistoryEntry
from tests.adapters.recording import RecordingInbox, StorageError

TOLD = "My favourite colour is octarine."
ASKED = "What's my favourite colour?"
GUIDE = (Path(__file__).resolve().parents[2] / "docs" / "howto" / "add-a-platform.md").read_text(encoding="utf-8")


@dataclass(frozen=True)
class Note:
    """What one person wrote."""

    id: str
    author: str
    text: str


class Parlour:
    """The platform: a table where people leave notes, and where the bot leaves one answer for each nonce."""

    def __init__(self) -> None:
        self.notes: list[Note] = []
        self.answers: dict[str, tuple[str, str]] = {}

    async def oldest(self) -> Note | None:
        await asyncio.sleep(0.01)  # over a network: a long poll
        return self.notes[0] if self.notes else None


class ParlourAdapter:
    text_limit = 500  # of one message, in UTF-16 code units

    def __init__(self, parlour: Parlour, *, platform: str = "parlour") -> None:
        self.platform = platform
        self._parlour = parlour
        self._is_connected = False

    async def run(self, inbox: Inbox, stop: asyncio.Event) -> None:
        self._is_connected = True
        inbox.connected()
        try:
            while not stop.is_set():
                if (note := await self._parlour.oldest()) is not None:
                    await inbox.receive(self._message(note))
                    self._parlour.notes.remove(note)  # only now: it is on disk
        finally:
            self._is_connected = False

    async def send(self, message: OutgoingMessage) -> str:
        if not self._is_connected:
            raise DeliveryError(f"{self.platform} is not connected")
        # A second attempt at the same delivery has the same nonce, and changes nothing.
        self._parlour.answers.setdefault(message.nonce, (message.address.chat_id, message.text))
        return message.nonce

    def _message(self, note: Note) -> InboundMessage:
        return InboundMessage(
            native_key=note.id,
            address=Address(self.platform, chat_id=f"with-{note.author}"),
            sender=Sender(user_id=note.author, name=note.author.title()),
            text=note.text,
            message_id=note.id,
        )


def register(name: str, parlour: Parlour) -> None:
    register_platform(name, lambda config: ParlourAdapter(parlour, platform=name), text_limit=ParlourAdapter.text_limit)


@pytest.fixture
def rooms(monkeypatch: pytest.MonkeyPatch) -> dict[str, Parlour]:
    """Two such platforms, forgotten after the test."""
    monkeypatch.setattr(registry, "_platforms", dict(registry._platforms))
    rooms = {"parlour": Parlour(), "garden": Parlour()}
    for name, parlour in rooms.items():
        register(name, parlour)
    return rooms


async def talk(rooms: dict[str, Parlour], *said: tuple[str, str, str]) -> list[str]:
    """Run BotOS until everything that was said (where, by whom, what) is answered, one after the other."""
    botos = BotOS(agent=RecallAgent(), platforms=list(rooms), identity_resolver=DatabaseIdentityResolver())
    running = asyncio.create_task(botos.start())
    try:
        return [
            await answer(rooms[where], Note(f"note-{number}", author, text))
            for number, (where, author, text) in enumerate(said)
        ]
    finally:
        await botos.stop()
        await running
        await db.call(connections.close_all)  # the bridge's thread outlives the test


async def answer(parlour: Parlour, note: Note) -> str:
    """Leave a note, and wait for what the bot says to its author."""
    before = len(parlour.answers)
    parlour.notes.append(note)
    for _ in range(1000):  # ten seconds
        if len(parlour.answers) > before:
            chat, text = list(parlour.answers.values())[-1]
            assert chat == f"with-{note.author}"
            return text
        await asyncio.sleep(0.01)
    raise AssertionError("no answer came")


@pytest.mark.django_db(transaction=True)
def test_it_answers_on_a_platform_of_ones_own(rooms: dict[str, Parlour]) -> None:
    told, asked = asyncio.run(talk(rooms, ("parlour", "alice", TOLD), ("parlour", "alice", ASKED)))

    assert told.startswith("Got it!")
    assert asked == "Octarine."
    said = HistoryEntry.objects.order_by("id").values_list("role", "platform", "text")
    assert list(said) == [
        ("user", "parlour", TOLD),
        ("assistant", "parlour", told),
        ("user", "parlour", ASKED),
        ("assistant", "parlour", asked),
    ]


@pytest.mark.django_db(transaction=True)
def test_it_is_one_conversation_with_other_platforms(rooms: dict[str, Parlour]) -> None:
    for name in rooms:
        DatabaseIdentityResolver().link(name, "alice", "alice")

    _, alice, mallory = asyncio.run(
        talk(rooms, ("parlour", "alice", TOLD), ("garden", "alice", ASKED), ("garden", "mallory", ASKED))
    )

    assert alice == "Octarine."
    assert "octarine" not in mallory.lower()


@pytest.mark.asyncio
async def test_it_takes_no_note_away_that_was_not_stored() -> None:
    parlour, inbox = Parlour(), RecordingInbox()
    parlour.notes.append(Note("note-1", "alice", "hello"))
    inbox.fail_next = 1

    with pytest.raises(StorageError):
        await ParlourAdapter(parlour).run(inbox, asyncio.Event())

    assert [note.id for note in parlour.notes] == ["note-1"]


@pytest.mark.asyncio
async def test_it_answers_one_delivery_once() -> None:
    parlour, inbox, stop = Parlour(), RecordingInbox(), asyncio.Event()
    adapter, message = ParlourAdapter(parlour), OutgoingMessage(Address("parlour", "with-alice"), "Hello.", "nonce")
    with pytest.raises(DeliveryError, match="not connected"):
        await adapter.send(message)

    running = asyncio.create_task(adapter.run(inbox, stop))
    await inbox.connected_event.wait()
    assert {await adapter.send(message), await adapter.send(message)} == {"nonce"}
    stop.set()
    await running

    assert list(parlour.answers.values()) == [("with-alice", "Hello.")]


def test_it_is_an_adapter() -> None:
    assert isinstance(ParlourAdapter(Parlour()), PlatformAdapter)


def test_it_is_the_adapter_that_the_document_shows() -> None:
    for shown in (Note, Parlour, ParlourAdapter, register):
        assert inspect.getsource(shown) in GUIDE
