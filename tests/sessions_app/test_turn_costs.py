"""What one turn costs in statements, transactions and calls into the database's thread."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.db import connection
from django.test import override_settings
from django.test.utils import CaptureQueriesContext

from adapters.runtime.delivery_worker import DeliveryWorker
from sessions_app import db, inbox
from sessions_app.messages import Reply, Turn
from sessions_app.models import InboundEvent, OutboundDelivery
from sessions_app.outbox import queue as outbox_queue
from sessions_app.outbox.queue import Sender, Sent
from sessions_app.receiver import Receiver
from sessions_app.turns import lifecycle
from sessions_app.turns.lifecycle import Answer
from sessions_app.turns.pool import Service, TurnPool
from tests.adapters.test_delivery_worker import Platform
from tests.sessions_app.talk import DATABASE, message, say

pytestmark = pytest.mark.django_db(transaction=True)


def turn(*people: str) -> None:
    """One turn of each person, with the calls that receiver, pool and delivery worker make."""
    received = inbox.receive_together([message(who, "how are you?") for who in people], resolver=DATABASE)
    conversations = sorted({one for one in received if isinstance(one, int)})
    claimed, turns = lifecycle.start(conversations, owner="test", resolvers={"telegram": DATABASE})
    assert all(isinstance(begun, Turn) for begun in turns)
    answers = [Answer(claim, "fine", 2000, Reply("fine", "gpt-5-mini", 1200, 30)) for claim in claimed.claims]
    queued = lifecycle.finish_together(answers, sender=Sender("test", ("telegram",), 0.0))
    assert not outbox_queue.settle([Sent(delivery, "7") for delivery in queued.taken])


def cost(*people: str) -> tuple[int, int]:
    """Statements, and transactions that write."""
    with CaptureQueriesContext(connection) as queries:
        turn(*people)
    said = [str(query["sql"]) for query in queries.captured_queries]
    began, ended = sum(sql.startswith("BEGIN") for sql in said), sum(sql == "COMMIT" for sql in said)
    assert OutboundDelivery.objects.filter(settled_at=None).count() == 0
    return len(said) - began - ended, ended


def test_a_turn_takes_few_statements_and_four_transactions() -> None:
    say("alice", "hello")
    OutboundDelivery.objects.all().delete()

    statements, transactions = cost("alice")

    assert transactions == 4  # received, started, answered, sent: each must be on disk before the next step
    assert statements == (17 if connection.vendor == "postgresql" else 15)


def test_ten_turns_at_once_take_as_many_but_for_their_windows() -> None:
    people = [f"person-{number}" for number in range(10)]
    for who in people:
        say(who, "hello")
    OutboundDelivery.objects.all().delete()
    alone, _ = cost(people[0])

    statements, transactions = cost(*people)

    assert (statements, transactions) == (alone + 9, 4)


def test_a_turn_crosses_to_the_database_four_times(monkeypatch: pytest.MonkeyPatch) -> None:
    say("alice", "hello")
    OutboundDelivery.objects.all().delete()
    crossed: list[str] = []
    changed = asyncio.Event()
    really = db.call

    async def call(function: Any, *args: Any, **kwargs: Any) -> Any:
        result = await really(function, *args, **kwargs)
        crossed.append(function.__name__)
        changed.set()
        return result

    async def until(*names: str) -> None:
        async with asyncio.timeout(30):
            while not {*names} <= {*crossed}:
                changed.clear()
                await changed.wait()

    class Agent:
        async def reply(self, turn: Turn) -> Reply:
            return Reply("fine")

    async def scene() -> None:
        platform, stop = Platform("7"), asyncio.Event()
        worker = DeliveryWorker(lambda: {"telegram": platform})
        services = {"telegram": Service(Agent(), DATABASE)}
        pool = TurnPool(services, size=4, on_outgoing=worker.wake, sending=worker)
        receiver = Receiver(DATABASE, on_turn=pool.notify, on_outgoing=worker.wake)
        running = [asyncio.create_task(job) for job in (worker.run(stop), pool.run(stop))]
        await until("waiting", "seconds_until_next")  # both have looked for what waited before
        crossed.clear()
        await receiver.receive(message("alice", "how are you?"))
        await until("settle")
        stop.set()
        seen.extend(crossed)
        await asyncio.gather(*running)

    seen: list[str] = []
    monkeypatch.setattr("sessions_app.db.call", call)
    with override_settings(BOTOS_SWEEP_SECONDS=3600):
        async_to_sync(scene)()

    assert seen == ["receive_together", "start", "finish_together", "settle"]
    assert not InboundEvent.objects.filter(done_at=None).exists()
