"""What an adapter knows about the account at the other end reaches the links of that account."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest
from django.db import DatabaseError, connections

from adapters import registry
from adapters.botos import BotOS
from adapters.protocols import DeliveryError, Inbox
from adapters.registry import register_platform
from identity.flows import linking
from identity.links import lookup
from identity.models import AccountLink, AuditEvent, BotProfile, PlatformAccount
from sessions_app import db
from sessions_app.agents import RecallAgent
from sessions_app.history import conversations
from sessions_app.messages import Address, OutgoingMessage
from sessions_app.models import OutboundDelivery
from sessions_app.outbox import queue as outbox_queue
from tests.sessions_app.talk import DATABASE

NAME, URL = "@parlour_bot", "https://parlour.example/bot"


@dataclass
class Parlour:
    """An adapter to which every send fails in the same way."""

    failure: DeliveryError | None = None
    name: str = NAME
    url: str = URL
    platform: str = "parlour"
    text_limit: int = 500
    ran: asyncio.Event = field(default_factory=asyncio.Event)
    asked: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, inbox: Inbox, stop: asyncio.Event) -> None:
        inbox.connected(name=self.name, url=self.url)
        self.ran.set()
        await stop.wait()

    async def send(self, message: OutgoingMessage) -> str:
        self.asked.set()
        if self.failure is not None:
            raise self.failure
        return message.nonce


@pytest.fixture(autouse=True)
def _registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_platforms", dict(registry._platforms))


async def serve(adapter: Parlour, *, sends: bool) -> None:
    """Run BotOS with this adapter until it is connected and, if asked for, a delivery has been tried."""
    register_platform("parlour", lambda config: adapter)
    botos = BotOS(agent=RecallAgent(), platforms=["parlour"])
    running = asyncio.create_task(botos.start())
    try:
        async with asyncio.timeout(10):
            await (adapter.asked if sends else adapter.ran).wait()
    finally:
        await botos.stop()
        await running
        await db.call(connections.close_all)  # the bridge's thread outlives the test


def linked_in_parlour() -> PlatformAccount:
    """Alice, linked on the parlour and on Telegram, with a chat in the parlour in which something is to be said."""
    accounts = [lookup.account_for(platform=name, platform_user_id="alice") for name in ("parlour", "telegram")]
    for account in accounts:
        place = Address(account.platform, f"chat-{account.platform}")
        conversations.direct(account, place, DATABASE)
        linking.link(
            platform=account.platform,
            platform_user_id="alice",
            unified_user_id="alice",
            method="resolver",
            actor="test",
        )
    outbox_queue.queue(Address("parlour", "chat-parlour"), "hello")
    return accounts[0]


@pytest.mark.django_db(transaction=True)
def test_it_ends_the_link_of_an_account_that_is_gone() -> None:
    alice = linked_in_parlour()

    asyncio.run(serve(Parlour(DeliveryError("deactivated", gone=True)), sends=True))

    assert not AccountLink.objects.live().filter(account=alice).exists()
    assert AccountLink.objects.live().count() == 1
    assert AuditEvent.objects.filter(kind="unlinked", details__method="gone").count() == 1
    assert OutboundDelivery.objects.get(text="hello").status == "dead"
    told = OutboundDelivery.objects.exclude(template="").values_list("platform", "template")
    assert ("telegram", "unlinked") in set(told)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("failure", [DeliveryError("blocked", permanent=True), DeliveryError("away", ambiguous=True)])
def test_it_keeps_the_link_of_an_account_that_only_cannot_be_reached(failure: DeliveryError) -> None:
    linked_in_parlour()

    asyncio.run(serve(Parlour(failure), sends=True))

    assert AccountLink.objects.live().count() == 2


@pytest.mark.django_db(transaction=True)
def test_it_ends_no_link_for_a_chat_that_is_no_private_one() -> None:
    linked_in_parlour()
    OutboundDelivery.objects.update(chat_id="a-group")

    asyncio.run(serve(Parlour(DeliveryError("deactivated", gone=True)), sends=True))

    assert AccountLink.objects.live().count() == 2


def test_it_takes_what_is_gone_for_permanent() -> None:
    assert DeliveryError("deactivated", gone=True).permanent
    assert not DeliveryError("blocked", permanent=True).gone


# -- where the bot is found


@pytest.mark.django_db(transaction=True)
def test_it_notes_where_the_bot_is_found() -> None:
    for name in ("@old_name", NAME):
        asyncio.run(serve(Parlour(name=name), sends=False))

    assert list(BotProfile.objects.values_list("platform", "name", "url")) == [("parlour", NAME, URL)]


@pytest.mark.django_db(transaction=True)
def test_it_keeps_what_it_knew_when_an_adapter_does_not_say() -> None:
    BotProfile.objects.create(platform="parlour", name=NAME, url=URL)

    asyncio.run(serve(Parlour(name="", url=""), sends=False))

    assert BotProfile.objects.get().name == NAME


@pytest.mark.django_db(transaction=True)
def test_it_serves_when_that_cannot_be_noted(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def fail(**_anything: Any) -> None:
        raise DatabaseError("the disk is full")

    monkeypatch.setattr(BotProfile.objects, "update_or_create", fail)
    asyncio.run(serve(Parlour(), sends=False))

    lines = [record.getMessage() for record in caplog.records if "found" in record.getMessage()]
    assert lines == ["parlour: where the bot is found was not noted: DatabaseError"]
