"""Many workers on one database, and R-07: Redis is killed or emptied in the middle of everything."""

from __future__ import annotations

from pathlib import Path
from time import sleep

import pytest

from tests.faults.fault_cluster import FaultCluster
from tests.faults.load import moments
from tests.faults.processes import Crew
from tests.journeys.redis_server import RedisServer

AWAY = 2.0  # seconds that Redis is gone


def write_all_at_once(place: FaultCluster, crew: Crew, *, lanes: int, messages: int) -> None:
    place.population.do(place.people(lanes, messages, linked=lanes // 5, waits=0.2).run(), 600)
    place.quiet()
    verdict = place.verdict(f"{len(crew.workers)} workers, {lanes} lanes")
    assert verdict.is_clean, verdict


@pytest.mark.journey
def test_it_keeps_one_persons_messages_in_order_whoever_answers(place: FaultCluster, crew: Crew) -> None:
    write_all_at_once(place, crew, lanes=1, messages=40)


@pytest.mark.faults
def test_it_loses_nothing_of_two_hundred_people(place: FaultCluster, crew: Crew) -> None:
    write_all_at_once(place, crew, lanes=200, messages=2000)


def lose_redis(
    place: FaultCluster, own_redis: RedisServer, *, messages: int, times: int, a_second: float, share: float = 0.99
) -> None:
    load = place.people(60, messages, waits=1.0, a_second=a_second)
    talking = place.population.start(load.run())
    for number, moment in enumerate(moments(place.dice, times, messages)):
        load.reached(moment)
        if number % 2:
            own_redis.flush()
        else:
            own_redis.kill()
            sleep(AWAY)
            own_redis.start()
    talking.result(timeout=600)
    place.quiet()
    late = start_delay(place, share)
    verdict = place.verdict(f"R-07 Redis lost {times} times, start p{share * 100:.0f} {late:.2f} s")
    assert verdict.is_clean, verdict


def start_delay(place: FaultCluster, share: float) -> float:
    """Seconds from the saying of a message until an agent is asked, which so large a share of them stays below."""
    lines = Path(place.folder / "starts").read_text(encoding="utf-8").splitlines()
    started: dict[int, float] = {}
    for moment, text in (line.split(" ", 1) for line in lines):
        started.setdefault(int(text.removeprefix("m")), float(moment))
    delays = sorted(started[said.number] - said.said_at for said in place.load.said if said.number in started)
    return delays[int(len(delays) * share)]


@pytest.mark.journey
def test_it_goes_on_when_redis_is_lost(place: FaultCluster, crew: Crew, own_redis: RedisServer) -> None:
    lose_redis(place, own_redis, messages=60, times=2, a_second=25, share=0.95)


@pytest.mark.faults
def test_it_goes_on_when_redis_is_lost_five_times(place: FaultCluster, crew: Crew, own_redis: RedisServer) -> None:
    lose_redis(place, own_redis, messages=5000, times=5, a_second=15)
