"""The browser as a platform: written into the database, answered by whoever takes turns, read from there again."""

from __future__ import annotations

import asyncio

import pytest
from django.db import connections
from pytest_django import Settings

from adapters import registry
from adapters.botos import BotOS
from adapters.protocols import DeliveryError, PlatformAdapter
from adapters.web import TEXT_LIMIT, WebAdapter
from identity.models import Browser, PlatformAccount
from identity.resolvers import DatabaseIdentityResolver
from sessions_app import db
from sessions_app.agents import RecallAgent
from sessions_app.messages import Address, OutgoingMessage
from sessions_app.models import OutboundDelivery
from tests.sessions_app.browsing import account, browser_of, write

pytestmark = pytest.mark.django_db(transaction=True)

TOLD, ASKED = "My favourite colour is octarine.", "What's my favourite colour?"


def test_it_is_a_platform_that_needs_nothing() -> None:
    assert isinstance(registry.build("web", {}), PlatformAdapter)
    assert registry.get("web").text_limit == TEXT_LIMIT


def test_it_answers_in_the_browser_at_once(settings: Settings) -> None:
    """Nobody sweeps: the page notifies."""
    settings.BOTOS_SWEEP_SECONDS = 60.0
    alice = account("alice")
    page = browser_of(alice)

    answers = asyncio.run(converse(page, alice, TOLD, ASKED))

    assert answers[1] == "Octarine."
    assert set(OutboundDelivery.objects.filter(platform="web").values_list("status", flat=True)) == {"sent"}


async def converse(page: Browser, author: PlatformAccount, *texts: str) -> list[str]:
    botos = BotOS(agent=RecallAgent(), platforms=["web"], identity_resolver=DatabaseIdentityResolver())
    running = asyncio.create_task(botos.start())
    try:
        await asyncio.sleep(0.3)  # the first sweep is over
        return [await answer(page, author, text) for text in texts]
    finally:
        await botos.stop()
        await running
        await db.call(connections.close_all)


async def answer(page: Browser, author: PlatformAccount, text: str) -> str:
    before = await db.call(sent)
    await db.call(write, page, author, text)
    for _ in range(500):
        if len(now := await db.call(sent)) > len(before):
            return now[-1]
        await asyncio.sleep(0.02)
    raise AssertionError("no answer came")


def sent() -> list[str]:
    there = OutboundDelivery.objects.filter(platform="web", status="sent").order_by("id")
    return list(there.values_list("text", flat=True))


def test_it_gives_up_at_once_what_nobody_can_see() -> None:
    message = OutgoingMessage(Address("web", "6f9619ff-8b86-4011-b42d-00cf4fc964ff"), "hello", "nonce")

    async def send() -> None:
        try:
            await WebAdapter().send(message)
        finally:
            await db.call(connections.close_all)

    with pytest.raises(DeliveryError) as refused:
        asyncio.run(send())

    assert refused.value.permanent
