"""Real `rqworker` processes: a hundred people at once through one, and how many turns a second several write.
`Slow` takes a second, as a model does; `Quick` none, so that only BotOS and the machine's cores are measured.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterator
from contextlib import contextmanager

from django.core.management import call_command
from django.db import connections
from django.db.utils import ConnectionHandler

from botos_project import databases
from identity.resolvers import DatabaseIdentityResolver
from identity.support import clock
from sessions_app import inbox
from sessions_app.messages import Address, InboundMessage, Reply, Sender, Turn
from sessions_app.models import InboundEvent, Lane, OutboundDelivery
from sessions_app.wakeups import redis as redis_wakeups
from tests.bench import engines, tables
from tests.faults.databases import SECRET
from tests.journeys.redis_server import redis_server
from tests.journeys.running import Worker

PEOPLE = 100
CROWD = 1000  # with one message each: a second one of the same person would join the turn of the first
FEW = 200
SLOTS = 16  # turns at once of each worker, few enough to be what limits it
COUNTS = (1, 2, 4)
ANSWER = "About four hours: leave at 7:12, change once, and you arrive a little after eleven. Shall I remind you?"
RESOLVER = DatabaseIdentityResolver()
_keys = itertools.count(1)


class Slow:
    """Blocks a thread, as most agents with `chat` do."""

    def chat(self, prompt: str) -> str:
        time.sleep(1.0)
        return ANSWER


class Usual:
    """Takes a while, and lets others work meanwhile."""

    async def reply(self, turn: Turn) -> Reply:
        await asyncio.sleep(0.5)
        return Reply(ANSWER)


class Quick:
    async def reply(self, turn: Turn) -> Reply:
        return Reply(ANSWER)


def show(name: str, new: engines.NewDatabase, *, counts: tuple[int, ...] = COUNTS) -> None:
    """Measure and print. SQLite has one writer at a time, so that more workers promise nothing there."""
    url = new("workers")
    connections.settings["default"] = ConnectionHandler({"default": databases.parse(url)}).settings["default"]
    connections["default"] = ConnectionHandler({"default": databases.parse(url)})["default"]
    call_command("migrate", verbosity=0)
    with redis_server() as redis:
        environment = {
            "DJANGO_SETTINGS_MODULE": "botos_project.settings",
            "BOTOS_ENV_FILE": "",
            "SECRET_KEY": SECRET,
            "DATABASE_URL": url,
            "REDIS_URL": redis.url,
        }
        rows: list[tuple[object, ...]] = [(f"{PEOPLE} people, agent of 1 s, 1 worker", _at_once(environment), "")]
        for count in counts:
            seconds = _crowd(environment | {"BOTOS_WORKERS": str(SLOTS)}, count, "Usual", FEW)
            rows.append((f"{FEW} people, agent of 0.5 s, {count} workers of {SLOTS}", seconds, FEW / seconds))
        for count in counts:
            seconds = _crowd(environment, count, "Quick", CROWD)
            rows.append((f"{CROWD} people, agent of 0 s, {count} workers", seconds, CROWD / seconds))
    tables.show(f"{name}: turns by RQ workers", ("", "seconds", "turns a second"), rows)


@contextmanager
def _workers(environment: dict[str, str], count: int, agent: str) -> Iterator[None]:
    given = environment | {"BOTOS_AGENT": f"tests.bench.workers.{agent}"}
    started = [Worker(**given) for _ in range(count)]
    try:
        yield
    finally:
        for worker in started:
            worker.terminate()


def _at_once(environment: dict[str, str]) -> float:
    with _workers(environment, 1, "Slow"):
        _answered(environment, [f"warm-{number}" for number in range(5)])
        return _answered(environment, [f"person-{number}" for number in range(PEOPLE)])


def _crowd(environment: dict[str, str], count: int, agent: str, people: int) -> float:
    with _workers(environment, count, agent):
        _answered(environment, [f"warm-{count}-{number}" for number in range(20)])
        return _answered(environment, [f"{agent}-{count}-{number}" for number in range(people)])


def _answered(environment: dict[str, str], people: list[str]) -> float:
    """Seconds from the first notification until every turn is written and its delivery queued. All is stored before."""
    waiting = _stored([_message(who) for who in people])
    notifier = redis_wakeups.Notifier(environment["REDIS_URL"])
    began = time.perf_counter()
    for conversation in waiting:
        notifier.notify(conversation)
    while InboundEvent.objects.filter(done_at=None).exists():
        time.sleep(0.02)
    ended = time.perf_counter()
    notifier.close()
    assert OutboundDelivery.objects.exists()
    return ended - began


def _message(who: str) -> InboundMessage:
    key = f"m-{next(_keys)}"
    return InboundMessage(key, Address("telegram", f"chat-{who}"), Sender(who, who.title()), "How far is it?", key)


def _stored(messages: list[InboundMessage]) -> list[int]:
    """Out of the workers' sight, whose sweeps would begin early: with every lane leased for the while."""
    waiting = []
    for message in messages:
        conversation = inbox.receive(message, resolver=RESOLVER)
        assert conversation is not None
        Lane.objects.filter(pk=conversation).update(not_before=clock.seconds_from_now(600))
        waiting.append(conversation)
    Lane.objects.update(not_before=clock.EPOCH)
    return waiting
