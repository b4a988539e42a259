"""What `manage.py rqworker turns` runs: RQ hears the doorbell, and the pool of `runbots` does the work.

The pool is there from start to end, so that it goes on looking for work while Redis is away.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
import time
from contextlib import suppress
from typing import Any
from uuid import uuid4

from django.conf import settings
from redis import Redis
from redis.exceptions import RedisError
from rq import Queue, SimpleWorker
from rq.exceptions import DeserializationError, StopRequested
from rq.job import Job
from rq.serializers import JSONSerializer

from adapters import vitals
from adapters.services import configured_services
from sessions_app import bridge, jobs, tally
from sessions_app.pool import TurnPool

log = logging.getLogger(__name__)

LONGEST_STOP = 28.0  # seconds; supervisors kill after 30


class Room:
    """A turn pool on an event loop in a thread of its own."""

    def __init__(self) -> None:
        self._doorbell = jobs.Doorbell(settings.REDIS_URL)
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._pool = TurnPool(
            configured_services(),
            size=settings.BOTOS_WORKERS,
            on_outgoing=self._doorbell.ring_for_couriers,
            is_shared=True,
        )
        self._thread = threading.Thread(target=self._work, name="pool", daemon=True)
        self._thread.start()

    def notify(self, conversation_id: int) -> None:
        """Something waits in this conversation."""
        self._loop.call_soon_threadsafe(self._pool.notify, conversation_id)

    def close(self) -> None:
        """Finish what is under way, within BOTOS_DRAIN_SECONDS, and give the rest back."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(LONGEST_STOP)
        if not self._thread.is_alive():
            self._loop.close()
        self._doorbell.close()

    def _work(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        except BaseException:
            log.exception("the pool ended; the process ends with it, to be started anew")
            os._exit(1)

    async def _serve(self) -> None:
        async with tally.kept():
            await self._pool.run(self._stop)
            await bridge.drain()


class TurnWorker(SimpleWorker):
    """Passes on whom a bell is for. Of all that a job can say, nothing else is listened to, and nothing is called."""

    max_connection_wait_time = 1  # seconds between tries to reach Redis

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options | {"serializer": JSONSerializer})  # the command's default is pickle
        self._room: Room | None = None

    def work(self, *arguments: Any, **options: Any) -> bool:
        """Work until SIGTERM. Without Redis too. Raises ImproperlyConfigured if the database is not ready for it."""
        vitals.check_database()
        self._room = Room()
        log.info("worker: up")
        try:
            while not self._listen(*arguments, **options):
                time.sleep(jobs.REST_SECONDS)
                self.name = uuid4().hex  # Redis may remember the old one as alive
        except StopRequested:
            pass
        finally:
            self._room.close()
        return True

    def _listen(self, *arguments: Any, **options: Any) -> bool:
        """Whether it ended because it was told to, and not because Redis did."""
        if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
            # RQ itself does so only when Redis has answered.
            self._install_signal_handlers()  # type: ignore[no-untyped-call]
        try:
            super().work(*arguments, **options)
        except (RedisError, OSError) as error:
            log.warning("Redis cannot be reached (%s); sweeps find what waits", type(error).__name__)
            return self._shutdown_requested_date is not None
        return self._shutdown_requested_date is not None or bool(options.get("burst"))

    def execute_job(self, job: Job, queue: Queue) -> None:
        """Whoever can write to Redis can name any function and its arguments: only a number is taken from a job."""
        with suppress(DeserializationError, TypeError, ValueError, AttributeError):
            [conversation_id] = job.args if job.func_name == jobs.HEAR else [None]
            if self._room and isinstance(conversation_id, int):
                self._room.notify(conversation_id)
        with self.connection.pipeline() as pipeline:
            pipeline.lrem(queue.intermediate_queue_key, 1, job.id)
            pipeline.delete(job.key)
            pipeline.execute()

    def _shutdown(self) -> None:
        """What a signal does. RQ raises an exception out of its handler, which whatever it strikes may swallow, as
        logging does: a worker that is told to end once would go on. So a flag is set, and looked at in safe places.
        """
        self._stop_requested = True

    def heartbeat(self, *arguments: Any, **options: Any) -> None:
        """Between any two things that it does: end here if that was asked for."""
        if self._stop_requested:
            raise StopRequested
        super().heartbeat(*arguments, **options)

    @property
    def dequeue_timeout(self) -> int:
        """Seconds to wait for a bell until the heart beats."""
        return 1

    def _set_ip_address(self, connection: Redis) -> None:
        """Not asked for: that would need Redis before there is anything to do without it."""
        self.ip_address = "unknown"
