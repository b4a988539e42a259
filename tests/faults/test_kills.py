"""R-01: processes are killed while people write and the platforms misbehave."""

from __future__ import annotations

import os

import pytest

from tests.faults.fault_cluster import FaultCluster
from tests.faults.load import moments

SETTLES = "0.3"  # as by default. The other runs answer at once, as most tests do, and measure no settling.
STORM = {"limited": 0.03, "broken": 0.01, "unanswered": 0.01}


def kill_while_people_write(
    place: FaultCluster, *, messages: int, lanes: int, kills: int, a_second: float = 0.0
) -> None:
    load = place.people(lanes, messages, linked=lanes // 5, a_second=a_second)
    fleet = place.start(BOTOS_SETTLE_SECONDS=SETTLES)
    place.population.storm(**STORM)
    talking = place.population.start(load.run())
    for moment in moments(place.dice, kills, messages):
        load.reached(moment)
        fleet.kill(fleet.any(place.dice))
    talking.result(timeout=messages)
    place.quiet()


@pytest.mark.journey
def test_it_loses_nothing_when_processes_are_killed(place: FaultCluster) -> None:
    kill_while_people_write(place, messages=250, lanes=20, kills=5)

    verdict = place.verdict("R-01 short")
    assert verdict.is_clean, verdict


@pytest.mark.faults
def test_it_loses_nothing_when_processes_are_killed_a_hundred_times(place: FaultCluster) -> None:
    size = {"messages": 10_000, "lanes": 200, "kills": 100}
    size |= {name: int(os.environ.get(f"FAULTS_{name.upper()}", given)) for name, given in size.items()}
    kill_while_people_write(
        place, **size, a_second=20.0
    )  # what one machine bears, so that it is the kills that are seen

    verdict = place.verdict("R-01")
    assert verdict.is_clean, verdict
