from __future__ import annotations

import asyncio

import pytest
from asgiref.sync import async_to_sync

from adapters import registry
from adapters.botos import Bot, BotOS
from adapters.registry import register_platform
from identity.resolvers import DatabaseIdentityResolver, InMemoryIdentityResolver
from sessions_app.agents import RecallAgent
from sessions_app.models import OutboundDelivery
from tests.adapters.recording import RecordingAdapter

OURS, OWN = DatabaseIdentityResolver(), InMemoryIdentityResolver()


@pytest.fixture
def parlour(monkeypatch: pytest.MonkeyPatch) -> RecordingAdapter:
    """A platform that keeps what it is given."""
    monkeypatch.setattr(registry, "_platforms", dict(registry._platforms))
    adapter = RecordingAdapter("parlour")
    register_platform("parlour", lambda config: adapter, text_limit=100)
    return adapter


def test_its_resolver_reaches_every_bot_that_has_none_of_its_own() -> None:
    plain, own = Bot("telegram"), Bot("discord", identity_resolver=OWN)

    BotOS(identity_resolver=OURS, bots=[plain, own])

    assert (plain.identity_resolver, plain._session.identity_resolver) == (OURS, OURS)
    assert (own.identity_resolver, own._session.identity_resolver) == (OWN, OWN)


def test_its_agent_answers_where_a_bot_has_none_of_its_own() -> None:
    ours, own = RecallAgent(), RecallAgent()
    plain, special = Bot("telegram"), Bot("discord", agent=own)

    BotOS(agent=ours, bots=[plain, special])

    assert plain.service().agent is ours
    assert special.service().agent is own


def test_it_takes_one_bot_a_platform() -> None:
    botos = BotOS(platforms=["telegram"])

    with pytest.raises(ValueError, match="telegram"):
        botos.add_bot(Bot("telegram"))


@pytest.mark.django_db(transaction=True)
def test_it_stops_although_it_has_only_just_been_told_to_start(parlour: RecordingAdapter) -> None:
    async def scene() -> None:
        botos = BotOS(agent=RecallAgent(), platforms=["parlour"], identity_resolver=OURS)
        running = asyncio.create_task(botos.start())
        await botos.stop()
        await asyncio.wait_for(running, 10)

    async_to_sync(scene)()


@pytest.mark.django_db(transaction=True)
def test_it_sends_when_it_is_up_what_was_put_in_line_before(parlour: RecordingAdapter) -> None:
    async def scene() -> None:
        bot = Bot("parlour", agent=RecallAgent(), identity_resolver=OURS)
        await bot.send_message("table-1", "Dinner is served.")
        running = asyncio.create_task(bot.start())
        await asyncio.wait_for(parlour.sent_something.wait(), 10)
        await bot.stop()
        await running

    async_to_sync(scene)()

    [message] = parlour.sent
    assert (message.address.chat_id, message.text) == ("table-1", "Dinner is served.")
    assert OutboundDelivery.objects.get().status == OutboundDelivery.Status.SENT
