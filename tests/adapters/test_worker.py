"""Workers that are told to end in the worst moment. Whole processes of them run in tests/journeys."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator

import pytest
from asgiref.sync import SyncToAsync
from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from pytest_django import Settings
from redis import Redis
from rq import Queue
from rq.serializers import JSONSerializer

from adapters.runtime import health, worker
from adapters.runtime.worker import TurnWorker
from sessions_app.turns.pool import TurnPool
from sessions_app.wakeups import redis as redis_wakeups
from tests.journeys.redis_server import RedisServer, redis_server

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def own_redis(settings: Settings) -> Iterator[RedisServer]:
    with redis_server() as server:
        settings.REDIS_URL = server.url
        yield server


@pytest.fixture
def handlers() -> Iterator[None]:
    """A worker takes the signals of its process."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


def test_it_does_not_start_on_a_database_without_tables(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "is_migrated", lambda: False)
    with Redis.from_url(own_redis.url) as client, pytest.raises(ImproperlyConfigured, match="missing tables"):
        TurnWorker([redis_wakeups.QUEUE], connection=client).work()


class SignalledInTheMiddle(logging.Handler):
    """A log whose process is told to end while a line is written. What is raised there is lost in logging."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
        signal.raise_signal(signal.SIGTERM)


def close_connections() -> None:
    """Those of this thread, and those of the thread that the pool uses."""
    connections.close_all()
    SyncToAsync.single_thread_executor.submit(connections.close_all).result(5)


@pytest.mark.usefixtures("handlers")
def test_it_ends_when_it_is_told_to_while_it_writes_a_line(own_redis: RedisServer) -> None:
    handler = SignalledInTheMiddle()
    with Redis.from_url(own_redis.url) as client:
        worker.log.addHandler(handler)
        try:
            assert TurnWorker([redis_wakeups.QUEUE], connection=client).work()
        finally:
            worker.log.removeHandler(handler)
            close_connections()

    assert handler.lines == ["worker: up"]


@pytest.mark.usefixtures("handlers")
def test_it_takes_numbers_out_of_the_queue_and_leaves_nothing_there(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[int] = []
    monkeypatch.setattr(TurnPool, "notify", lambda _, conversation_id: told.append(conversation_id))
    with Redis.from_url(own_redis.url, decode_responses=True) as client, Redis.from_url(own_redis.url) as raw:
        queue = Queue(redis_wakeups.QUEUE, connection=raw, serializer=JSONSerializer)
        queue.enqueue_call("os.getcwd")
        queue.enqueue_call(redis_wakeups.JOB, ("words",))
        queue.enqueue_call("sessions_app.jobs.hear", (6,))  # from a process of an earlier version
        notifier = redis_wakeups.Notifier(own_redis.url)
        notifier.notify(7)
        notifier.notify(8)
        notifier.close()
        try:
            assert TurnWorker([redis_wakeups.QUEUE], connection=raw).work(burst=True)
        finally:
            close_connections()

        assert sorted(told) == [6, 7, 8]
        assert not client.keys("rq:job:*")
        assert not client.llen(queue.key)
        assert not client.llen(queue.intermediate_queue_key)
        assert not client.smembers("rq:workers")
