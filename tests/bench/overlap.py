"""A hundred people at once, each to be answered by an agent that takes a second.

Each run is a process of its own, as `runbots` is: `python -m tests.bench.overlap ADDRESS sync|async` prints what it saw
as JSON. The database at ADDRESS must have its tables.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import Collection
from dataclasses import asdict, dataclass, field

from django.conf import settings

from adapters.protocols import Inbox
from adapters.runtime.delivery_worker import DeliveryWorker
from sessions_app import agents, inbox
from sessions_app.messages import Agent, OutgoingMessage, Turn
from sessions_app.models import OutboundDelivery
from sessions_app.turns.pool import Service, TurnPool
from tests.bench import engines, stage
from tests.bench.ours import ANSWER, RESOLVER

PEOPLE = 100
SECONDS = 1.0
_WARM_UP = 10


@dataclass(frozen=True, slots=True)
class Seen:
    """Seconds from just before the first claim to the last start of an agent and to the last delivery settled."""

    overlapping: int
    last_start: float
    total: float


@dataclass
class Gauge:
    """Counts how many are at work at the same time, from any thread."""

    now: int = 0
    most: int = 0
    last_start: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self) -> None:
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
            self.last_start = time.perf_counter()

    def end(self) -> None:
        with self.lock:
            self.now -= 1


class BlockingAgent:
    """Blocks its thread while it thinks, as most agents with `chat` do."""

    def __init__(self, gauge: Gauge, seconds: float) -> None:
        self._gauge, self._seconds = gauge, seconds

    def chat(self, prompt: str) -> str:
        self._gauge.start()
        time.sleep(self._seconds)
        self._gauge.end()
        return ANSWER


class WaitingAgent:
    """Lets others work while it thinks."""

    def __init__(self, gauge: Gauge, seconds: float) -> None:
        self._gauge, self._seconds = gauge, seconds

    async def reply(self, turn: Turn) -> str:
        self._gauge.start()
        await asyncio.sleep(self._seconds)
        self._gauge.end()
        return ANSWER


class InstantAdapter:
    """A platform that takes every message at once."""

    platform = "telegram"
    text_limit = 4096

    def __init__(self, expected: int) -> None:
        self._missing = expected
        self.done = asyncio.Event()

    async def run(self, inbox: Inbox, stop: asyncio.Event) -> None:
        await stop.wait()

    async def send(self, message: OutgoingMessage) -> str:
        self._missing -= 1
        if not self._missing:
            self.done.set()
        return f"sent-{self._missing}"


def measured(url: str, kind: str) -> Seen:
    """One run, in a process of its own."""
    command = [sys.executable, "-m", "tests.bench.overlap", url, kind]
    return Seen(**json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=60).stdout))


def main(url: str, kind: str) -> None:
    engines.use_everywhere(url)
    _served(kind, "warm", _WARM_UP, 0.0)
    print(json.dumps(asdict(_served(kind, "person", PEOPLE, SECONDS))))


def _served(kind: str, name: str, people: int, seconds: float) -> Seen:
    before = _sent()
    waiting = list(filter(None, (inbox.receive(message, resolver=RESOLVER) for message in stage.crowd(name, people))))
    gauge = Gauge()
    agent = _agent(kind, gauge, seconds)
    began = time.perf_counter()
    ended = asyncio.run(_serve(agent, waiting))
    assert _sent() - before == len(waiting) == people
    return Seen(gauge.most, gauge.last_start - began, ended - began)


def _sent() -> int:
    return OutboundDelivery.objects.filter(status=OutboundDelivery.Status.SENT).count()


def _agent(kind: str, gauge: Gauge, seconds: float) -> Agent:
    if kind == "sync":
        return agents.as_agent(lambda: BlockingAgent(gauge, seconds))
    return WaitingAgent(gauge, seconds)


async def _serve(agent: Agent, waiting: Collection[int]) -> float:
    """Answer what waits, as `runbots` does. When the last delivery was settled, by `time.perf_counter`."""
    adapter, stop = InstantAdapter(len(waiting)), asyncio.Event()
    worker = DeliveryWorker(lambda: {adapter.platform: adapter})
    service = Service(agent, RESOLVER, adapter.text_limit)
    pool = TurnPool({adapter.platform: service}, size=settings.BOTOS_WORKERS, on_outgoing=worker.wake)
    for conversation in waiting:
        pool.notify(conversation)
    jobs = asyncio.gather(pool.run(stop), worker.run(stop))
    await adapter.done.wait()
    await worker._outcomes.join()
    ended = time.perf_counter()
    await asyncio.sleep(0.1)  # all is quiet
    stop.set()
    await jobs
    return ended


if __name__ == "__main__":
    main(*sys.argv[1:])
