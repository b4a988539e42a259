"""Doorbells between processes: an RQ job says that something waits in a conversation, and carries nothing of it.

Losing one loses nothing: whoever works and whoever sends looks by itself every BOTOS_SWEEP_SECONDS.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import Any

from redis import Redis
from redis import asyncio as async_redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry
from rq import Queue
from rq.serializers import JSONSerializer

log = logging.getLogger(__name__)

QUEUE = "turns"
HEAR = f"{__name__}.hear"
OUTGOING = "botos.outgoing"  # the channel on which couriers are told that a delivery was queued
CONNECT_SECONDS = 0.2
ANSWER_SECONDS = 1.0
REST_SECONDS = 1.0  # after Redis was out of reach
UNHEARD_SECONDS = 60  # after which a bell that nobody heard is forgotten
MAX_RINGING = 10_000  # when so many are unheard there is no worker, and more of them only fill Redis


def hear(conversation_id: int) -> None:
    """What a job names. The workers of BotOS take its number and never call it."""
    raise RuntimeError("only `manage.py rqworker turns` hears this: RQ's own workers have no pool")


class Doorbell:
    """Rings from any thread and never waits: one thread talks to Redis, and rests while it is out of reach."""

    def __init__(self, url: str) -> None:
        self._redis = connect(url)
        self._queue = Queue(QUEUE, connection=self._redis, serializer=JSONSerializer)
        self._conversations: dict[int, None] = {}
        self._is_outgoing = False
        self._lock = threading.Lock()
        self._rung = threading.Event()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._work, name="doorbell", daemon=True)
        self._thread.start()

    def ring_for(self, conversation_id: int) -> None:
        """Something waits in this conversation. Call it when that is committed."""
        with self._lock:
            if len(self._conversations) < MAX_RINGING:
                self._conversations[conversation_id] = None
        self._rung.set()

    def ring_for_couriers(self) -> None:
        """A delivery was queued."""
        self._is_outgoing = True
        self._rung.set()

    def close(self) -> None:
        """Ring what is left to ring, if Redis is there."""
        self._closed.set()
        self._rung.set()
        self._thread.join(CONNECT_SECONDS + ANSWER_SECONDS)
        self._redis.close()

    def _work(self) -> None:
        while not self._closed.is_set():
            self._rung.wait()
            self._rung.clear()
            try:
                self._ring()
            except (RedisError, OSError) as error:
                log.warning("Redis cannot be reached (%s); sweeps find what waits", type(error).__name__)
                self._closed.wait(REST_SECONDS)

    def _ring(self) -> None:
        with self._lock:
            waiting, self._conversations = self._conversations, {}
        is_outgoing, self._is_outgoing = self._is_outgoing, False
        if is_outgoing:
            self._redis.publish(OUTGOING, "")
        if waiting and self._queue.count < MAX_RINGING:
            self._queue.enqueue_many([_bell(conversation_id) for conversation_id in waiting])


def _bell(conversation_id: int) -> Any:
    return Queue.prepare_data(HEAR, (conversation_id,), ttl=UNHEARD_SECONDS, description="bell")


def connect(url: str) -> Redis:
    """A connection that fails soon instead of trying again: what is late here is found by a sweep before."""
    limits = {"socket_connect_timeout": CONNECT_SECONDS, "socket_timeout": ANSWER_SECONDS}
    return Redis.from_url(url, **limits, retry=Retry(NoBackoff(), 0))


class Elsewhere:
    """Takes the place of a pool where other processes answer: it only tells them."""

    def __init__(self, doorbell: Doorbell) -> None:
        self._doorbell = doorbell

    def notify(self, conversation_id: int) -> None:
        """Something waits in this conversation."""
        self._doorbell.ring_for(conversation_id)

    async def run(self, stop: asyncio.Event) -> None:
        """Nothing is under way here that would have to end."""
        await stop.wait()


async def listen(url: str, wake: Callable[[], None]) -> None:
    """Call `wake` whenever another process queued a delivery. Until cancelled, whatever Redis does."""
    while True:
        try:
            await _listen(url, wake)
        except (RedisError, OSError) as error:
            log.debug("Redis cannot be reached: %s", type(error).__name__)
        await asyncio.sleep(REST_SECONDS)


async def _listen(url: str, wake: Callable[[], None]) -> None:
    retry = async_redis.retry.Retry(NoBackoff(), 0)
    client = async_redis.Redis.from_url(
        url, socket_connect_timeout=ANSWER_SECONDS, socket_timeout=None, socket_keepalive=True, retry=retry
    )
    async with client, client.pubsub(ignore_subscribe_messages=True) as channel:
        await channel.subscribe(OUTGOING)
        async for _ in channel.listen():
            wake()
