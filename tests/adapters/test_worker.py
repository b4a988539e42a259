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

from adapters import vitals
from adapters.worker import TurnWorker
from sessions_app import jobs
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
    monkeypatch.setattr(vitals, "is_migrated", lambda: False)
    with Redis.from_url(own_redis.url) as client, pytest.raises(ImproperlyConfigured, match="lacks tables"):
        TurnWorker([jobs.QUEUE], connection=client).work()


class SignalledInTheMiddle:
    """Where a log goes whose process is told to end while a line is written."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def write(self, line: str) -> None:
        self.lines.append(line)
        if "warm shut down" not in line:
            signal.raise_signal(signal.SIGTERM)

    def flush(self) -> None:
        pass


@pytest.mark.usefixtures("handlers")
def test_it_ends_when_it_is_told_to_while_it_writes_a_line(own_redis: RedisServer) -> None:
    """What a signal's handler raises there is lost: logging takes it for a failure of its own."""
    logger = logging.getLogger("rq.worker")
    stream = SignalledInTheMiddle()
    handler = logging.StreamHandler(stream)
    with Redis.from_url(own_redis.url) as client:
        worker = TurnWorker([jobs.QUEUE], connection=client)
        doorbell = jobs.Doorbell(own_redis.url)
        doorbell.ring_for(7)
        doorbell.close()
        logger.addHandler(handler)
        try:
            assert worker.work(logging_level="INFO")
        finally:
            logger.removeHandler(handler)
            connections.close_all()
            SyncToAsync.single_thread_executor.submit(connections.close_all).result(5)  # the pool's, in its thread

    assert stream.lines
