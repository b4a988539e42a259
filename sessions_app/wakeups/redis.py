"""Notifications between processes: an RQ job says that something waits in a conversation, without its content.

A notification may be lost: workers and delivery workers look for themselves every BOTOS_SWEEP_SECONDS, and turn pools
for stopped turns every second.
"""

from __future__ import annotations

import asyncio
import logging
import re
import threading
from collections.abc import Callable, Mapping
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
JOB = f"{__name__}.handle"
# The others come from processes of earlier versions.
JOBS = frozenset({JOB, "sessions_app.jobs.hear", "sessions_app.wakeups.redis.hear"})
OUTGOING = "botos.outgoing"  # the channel that notifies delivery workers
STOPPED = "botos.stopped"  # the channel that notifies turn pools of stopped turns
RECEIVED = "botos.received"  # the channel for the typing sign: ids of conversations where a page received a message
CONNECT_SECONDS = 0.2
ANSWER_SECONDS = 1.0
REST_SECONDS = 1.0  # before the next attempt, after Redis was out of reach
UNTAKEN_SECONDS = 60  # after which a job that no worker took is dropped
MAX_WAITING = 10_000  # with so many untaken jobs there is no worker, and more of them only fill Redis


def handle(conversation_id: int) -> None:
    """The function that a job names. The workers of BotOS take the number from the job and never call this."""
    raise RuntimeError("only `manage.py rqworker turns` takes these jobs: RQ's own workers have no pool")


class Notifier:
    """Sends notifications from any thread without waiting. One thread talks to Redis, and pauses while it is away.

    is_page: the process has no connections to platforms, so those that have are told what it receives.
    """

    def __init__(self, url: str, *, is_page: bool = False) -> None:
        self._is_page = is_page
        self._redis = connect(url)
        self._queue = Queue(QUEUE, connection=self._redis, serializer=JSONSerializer)
        self._conversations: dict[int, None] = {}
        self._channels: set[str] = set()  # to notify
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._work, name="notifier", daemon=True)
        self._thread.start()

    def notify(self, conversation_id: int) -> None:
        """Notify workers that something waits in this conversation. Call it after the commit."""
        with self._lock:
            if len(self._conversations) < MAX_WAITING:
                self._conversations[conversation_id] = None
        self._wake.set()

    def notify_delivery_workers(self) -> None:
        """Notify delivery workers that a delivery was queued."""
        self._publish(OUTGOING)

    def notify_of_stop(self) -> None:
        """Notify turn pools that a person has stopped a turn. Call it after the commit."""
        self._publish(STOPPED)

    def _publish(self, channel: str) -> None:
        with self._lock:
            self._channels.add(channel)
        self._wake.set()

    def close(self) -> None:
        """Send what is left, if Redis is there."""
        self._closed.set()
        self._wake.set()
        self._thread.join(CONNECT_SECONDS + ANSWER_SECONDS)
        self._redis.close()

    def _work(self) -> None:
        while not self._closed.is_set():
            self._wake.wait()
            self._wake.clear()
            with self._lock:
                waiting, self._conversations = self._conversations, {}
                channels, self._channels = self._channels, set()
            try:
                for channel in channels:
                    self._redis.publish(channel, "")
                if waiting and self._is_page:
                    self._redis.publish(RECEIVED, " ".join(map(str, waiting)))
                if waiting and self._queue.count < MAX_WAITING:
                    self._queue.enqueue_many([_job_of(conversation_id) for conversation_id in waiting])
            except (RedisError, OSError) as error:
                log.warning("Redis cannot be reached (%s); sweeps find what waits", type(error).__name__)
                self._closed.wait(REST_SECONDS)


def _job_of(conversation_id: int) -> Any:
    return Queue.prepare_data(JOB, (conversation_id,), ttl=UNTAKEN_SECONDS, description="wake-up")


def connect(url: str) -> Redis:
    """A connection that fails soon instead of trying again: a sweep finds events earlier than a late notification."""
    limits = {"socket_connect_timeout": CONNECT_SECONDS, "socket_timeout": ANSWER_SECONDS}
    return Redis.from_url(url, **limits, retry=Retry(NoBackoff(), 0))


class Elsewhere:
    """Takes the place of a pool where other processes answer: it only notifies them."""

    def __init__(self, notifier: Notifier) -> None:
        self._notifier = notifier

    def notify(self, conversation_id: int) -> None:
        """Notify the workers that something waits in this conversation."""
        self._notifier.notify(conversation_id)

    def look_for_stops(self) -> None:
        """Do nothing: no turn runs here."""

    async def run(self, stop: asyncio.Event) -> None:
        """Wait for `stop`: no turn runs here."""
        await stop.wait()


async def listen(
    url: str, wakes: Mapping[str, Callable[[], None]], on_received: Callable[[int], None] | None = None
) -> None:
    """Call the function of a channel for each notification there, until cancelled. It outlives outages of Redis.

    on_received: called with the id of each conversation in which a page of another process received a message.
    """
    retry = async_redis.retry.Retry(NoBackoff(), 0)
    while True:
        client = async_redis.Redis.from_url(
            url, socket_connect_timeout=ANSWER_SECONDS, socket_timeout=None, socket_keepalive=True, retry=retry
        )
        try:
            async with client, client.pubsub(ignore_subscribe_messages=True) as channel:
                await channel.subscribe(*wakes, *([RECEIVED] if on_received else []))
                async for notification in channel.listen():
                    if wake := wakes.get(notification["channel"].decode()):
                        wake()
                    elif on_received:
                        for conversation_id in re.findall(rb"\b[0-9]{1,18}\b", notification["data"]):
                            on_received(int(conversation_id))
        except (RedisError, OSError) as error:
            log.debug("listen to Redis failed: %s; trying again in %g s", type(error).__name__, REST_SECONDS)
        await asyncio.sleep(REST_SECONDS)
