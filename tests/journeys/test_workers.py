"""`runbots --workers 0` receives and sends, and `rqworker turns` answers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from rq import Callback, Queue
from rq.serializers import JSONSerializer

from adapters.monitoring import metrics
from sessions_app.models import InboundEvent, OutboundDelivery
from sessions_app.wakeups import redis as redis_wakeups
from tests.journeys.redis_server import RedisServer, redis_server
from tests.journeys.running import Bots, Platforms, Worker, environment, eventually, person, running
from tests.sessions_app.talk import receive

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.journey]

PEOPLE = 100


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@contextmanager
def apart(platforms: Platforms, own_redis: RedisServer, *, workers: int = 1, **settings: str) -> Iterator[list[Worker]]:
    """Bots that answer nobody, and workers that do."""
    given = {"REDIS_URL": own_redis.url} | settings
    with ExitStack() as ending, running(platforms, "--workers", "0", **given):
        started = [Worker(**environment(platforms) | given) for _ in range(workers)]
        for worker in started:
            ending.callback(_end, worker)
        yield started


def _end(worker: Worker) -> None:
    if worker.is_running():
        worker.terminate()


def test_it_answers_in_a_worker_when_it_is_notified(platforms: Platforms, own_redis: RedisServer) -> None:
    """With sweeps so far apart, only notifications can have brought the message there, and the answer back."""
    alice = person("telegram", 1)
    with apart(platforms, own_redis, BOTOS_SWEEP_SECONDS="600"):
        for number in range(3):
            platforms.say("telegram", alice, "hello")
            platforms.replies("telegram", alice, number + 1)

    assert not own_redis.keys("rq:job:*")


def test_it_answers_a_long_paste_once(platforms: Platforms, own_redis: RedisServer) -> None:
    """The process that receives has nothing to do with turns: only the rows say what belongs together."""
    alice = person("telegram", 1)
    paste = " ".join(f"w{number}" for number in range(2000))
    settling = {"BOTOS_SETTLE_SECONDS": "0.3", "BOTOS_AGENT": "tests.journeys.agents.Length"}
    with apart(platforms, own_redis, workers=2, BOTOS_SWEEP_SECONDS="600", **settling):
        for received, start in enumerate(range(0, len(paste), 4096), start=1):
            platforms.say("telegram", alice, paste[start : start + 4096])
            eventually(lambda received=received: InboundEvent.objects.count() == received)  # type: ignore[misc]

        assert platforms.replies("telegram", alice) == [f"{len(paste)} characters"]


def test_it_answers_what_came_meanwhile_in_the_worker_that_has_the_lane(
    platforms: Platforms, own_redis: RedisServer
) -> None:
    alice = person("telegram", 1)
    slow = {"BOTOS_SWEEP_SECONDS": "600", "BOTOS_AGENT": "tests.journeys.agents.SlowEcho"}
    with apart(platforms, own_redis, workers=2, **slow):
        for number in range(4):
            platforms.say("telegram", alice, f"hello {number}")
        eventually(lambda: "hello 3" in platforms.replies("telegram", alice)[-1])


@pytest.mark.parametrize("has_redis", [True, False])
def test_it_stops_a_turn_in_a_worker(platforms: Platforms, own_redis: RedisServer, has_redis: bool) -> None:
    alice, snail = person("telegram", 1), InboundEvent.objects.filter(text="a snail", starts=1)
    with apart(platforms, own_redis, BOTOS_AGENT="tests.journeys.agents.UntilStopped"):
        platforms.say("telegram", alice, "a snail")
        eventually(snail.exists)
        if not has_redis:
            own_redis.kill()
        platforms.say("telegram", alice, "/stop")
        platforms.say("telegram", alice, "hello")  # waits until the worker has ended the turn
        eventually(lambda: platforms.replies("telegram", alice)[-2:] == ["OK, I've stopped.", "You said: hello"])
    if not has_redis:
        own_redis.start()


def test_it_shows_in_the_bots_numbers_what_a_worker_did(platforms: Platforms, own_redis: RedisServer) -> None:
    """Both while the worker lives, and of its last moments."""
    alice = person("telegram", 1)
    with apart(platforms, own_redis) as [worker]:
        before = turns_in_the_numbers()
        platforms.say("telegram", alice, "hello")
        eventually(lambda: turns_in_the_numbers() == before + 1)
        platforms.say("telegram", alice, "hello again")
        platforms.replies("telegram", alice, 2)
        worker.terminate()
        assert turns_in_the_numbers() == before + 2


def turns_in_the_numbers() -> int:
    """What /metrics says in a process that answers nobody."""
    found = re.search(r'^botos_turns_total{platform="telegram"} (\d+)$', metrics.exposition(), re.MULTILINE)
    return int(found[1]) if found else 0


def test_it_answers_without_redis(platforms: Platforms, own_redis: RedisServer) -> None:
    alice = person("telegram", 1)
    with apart(platforms, own_redis) as [worker]:
        own_redis.kill()
        platforms.say("telegram", alice, "hello")
        assert platforms.replies("telegram", alice)

        own_redis.start()
        platforms.say("telegram", alice, "hello again")
        assert platforms.replies("telegram", alice, 2)
        assert worker.terminate() == 0


def test_it_starts_without_redis(platforms: Platforms, own_redis: RedisServer) -> None:
    own_redis.kill()
    with apart(platforms, own_redis):
        platforms.say("telegram", person("telegram", 1), "hello")
        assert platforms.replies("telegram", person("telegram", 1))
    own_redis.start()


def test_it_calls_nothing_that_a_job_names(platforms: Platforms, own_redis: RedisServer) -> None:
    """Whoever can write to Redis must not be able to run code here."""
    queue = Queue(redis_wakeups.QUEUE, connection=own_redis._client, serializer=JSONSerializer)
    with apart(platforms, own_redis) as [worker]:
        queue.enqueue("os._exit", 3)
        queue.enqueue(redis_wakeups.JOB, "none", on_success=Callback("os.abort"))
        eventually(lambda: not queue.count and not own_redis._client.llen(queue.intermediate_queue_key))
        platforms.say("telegram", person("telegram", 1), "hello")
        assert platforms.replies("telegram", person("telegram", 1))
        assert worker.is_running()


@pytest.mark.parametrize("agent", ["AllAtOnce", "AllAtOnceInThreads"])
def test_it_answers_a_hundred_people_at_once_in_one_worker(
    platforms: Platforms, own_redis: RedisServer, agent: str
) -> None:
    """The agent answers nobody before everybody has asked."""
    waiting = [receive(f"person-{number}", "hello") for number in range(PEOPLE)]
    given = {"REDIS_URL": own_redis.url, "BOTOS_AGENT": f"tests.journeys.agents.{agent}"}
    worker = Worker(**environment(platforms) | given)
    notifier = redis_wakeups.Notifier(own_redis.url)
    for conversation_id in waiting:
        assert conversation_id
        notifier.notify(conversation_id)
    try:
        eventually(lambda: OutboundDelivery.objects.filter(text="You are one of 100.").count() == PEOPLE)
    finally:
        notifier.close()
        worker.terminate()


def test_it_says_that_workers_need_redis(platforms: Platforms) -> None:
    bots = Bots("--workers", "0", up=(), **environment(platforms) | {"REDIS_URL": ""})

    assert bots.wait() == 2
    assert "Hint: set REDIS_URL" in bots.lines[-1]
