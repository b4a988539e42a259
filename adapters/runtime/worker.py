"""The worker of `manage.py rqworker turns`: the turn pool of `runbots`, notified by jobs of RQ.

A job says that something waits in a conversation. It answers nothing, as RQ runs one job at a time, and the pool many
turns. The pool does not depend on Redis: while Redis is away, it looks for work itself.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any
from uuid import uuid4

from django.conf import settings
from redis.exceptions import RedisError
from rq import Queue, SimpleWorker
from rq.exceptions import DequeueTimeout, DeserializationError
from rq.job import Job
from rq.serializers import JSONSerializer

from adapters.aio import in_background
from adapters.runtime import health
from adapters.runtime.services import configured_services
from sessions_app import counters, db
from sessions_app.turns.pool import TurnPool
from sessions_app.wakeups import redis as redis_wakeups

log = logging.getLogger(__name__)

DEQUEUE_SECONDS = 1  # how long one look at the queue waits for a job
GOODBYE_SECONDS = 2.0  # for the last look to end


class TurnWorker(SimpleWorker):
    """A worker of RQ that runs the turn pool. It takes a number from each job, and never calls the job's function."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        # RQ would ask Redis for its address, and the command's default serializer is pickle.
        super().__init__(*arguments, **options | {"serializer": JSONSerializer, "prepare_for_work": False})
        self.hostname, self.pid = socket.gethostname(), os.getpid()

    def work(self, burst: bool = False, *arguments: Any, **options: Any) -> bool:
        """Work until SIGTERM or SIGINT, with and without Redis. `burst`: until the queue is empty.

        Raises ImproperlyConfigured if the database is not ready.
        """
        health.check_database()
        asyncio.run(self._run(burst))
        return True

    async def _run(self, burst: bool) -> None:
        loop, stop, is_over = asyncio.get_running_loop(), asyncio.Event(), threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        notifier = redis_wakeups.Notifier(settings.REDIS_URL)
        services, size = configured_services(), settings.BOTOS_WORKERS
        pool = TurnPool(services, size=size, on_outgoing=notifier.notify_delivery_workers, is_shared=True)
        end = partial(loop.call_soon_threadsafe, stop.set)

        def notify(conversation_id: int) -> None:
            loop.call_soon_threadsafe(pool.notify, conversation_id)

        listener = threading.Thread(target=self._listen, args=(notify, end, is_over, burst), name="queue", daemon=True)
        listener.start()
        log.info("worker: up")
        stops = redis_wakeups.listen(settings.REDIS_URL, {redis_wakeups.STOPPED: pool.look_for_stops})
        try:
            async with counters.kept(), in_background(stops):
                await pool.run(stop)
                await db.drain()
        finally:
            is_over.set()
            await asyncio.to_thread(listener.join, GOODBYE_SECONDS)
            await asyncio.to_thread(notifier.close)

    def _listen(
        self, notify: Callable[[int], object], end: Callable[[], object], is_over: threading.Event, burst: bool
    ) -> None:
        """Notify the pool of jobs, in a thread of its own."""
        while not is_over.is_set():
            try:
                self._take_jobs(notify, is_over, burst)
            except (RedisError, OSError) as error:
                log.warning("Redis cannot be reached (%s); sweeps find what waits", type(error).__name__)
                self.name = uuid4().hex  # Redis may remember the old one as alive
                is_over.wait(redis_wakeups.REST_SECONDS)
            except Exception as error:  # noqa: BLE001 - jobs of other programs may be in the queue
                log.warning("read a job failed: %s; trying again", type(error).__name__)
                is_over.wait(redis_wakeups.REST_SECONDS)
            else:
                break
        with suppress(RuntimeError):  # the loop is closed after an earlier stop
            end()

    def _take_jobs(self, notify: Callable[[int], object], is_over: threading.Event, burst: bool) -> None:
        """Take jobs until the worker ends; with `burst`, until the queue is empty."""
        self.register_birth()  # type: ignore[no-untyped-call]
        try:
            while not is_over.is_set():
                self.heartbeat()
                if self.should_run_maintenance_tasks:
                    self.run_maintenance_tasks()  # type: ignore[no-untyped-call]
                timeout = None if burst else DEQUEUE_SECONDS
                with suppress(DequeueTimeout):
                    taken = Queue.dequeue_any(self.queues, timeout, self.connection, serializer=self.serializer)
                    if taken is not None:
                        self._handle(*taken, notify)
                    elif burst:
                        break
        finally:
            self.register_death()  # type: ignore[no-untyped-call]

    def _handle(self, job: Job, queue: Queue, notify: Callable[[int], object]) -> None:
        """Notify the pool of a job's conversation, and delete the job.

        Only a number is taken from it, as anyone who can write to Redis can name any function.
        """
        with suppress(DeserializationError, TypeError, ValueError, AttributeError):
            [conversation_id] = job.args if job.func_name in redis_wakeups.JOBS else [None]
            if isinstance(conversation_id, int):
                notify(conversation_id)
        with self.connection.pipeline() as pipeline:
            pipeline.lrem(queue.intermediate_queue_key, 1, job.id)
            pipeline.delete(job.key)
            pipeline.execute()
