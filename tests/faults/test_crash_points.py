"""R-02: a process ends, as a power cut does, at each point between hearing a message and knowing it answered."""

from __future__ import annotations

import pytest

from tests.faults.corrupted_inputs import CRASHED, POINTS
from tests.faults.fault_cluster import FaultCluster
from tests.faults.processes import TOGETHER

pytestmark = pytest.mark.faults

HITS = 10
MESSAGES = 300  # more than are said while the processes come and go


@pytest.mark.parametrize("point", POINTS)
def test_it_loses_nothing_when_a_process_ends_at_the_point(place: FaultCluster, point: str) -> None:
    load = place.people(9, MESSAGES)
    fleet = place.start(TOGETHER)
    fleet.processes[0].kill()
    talking = place.population.start(load.run())
    for _ in range(HITS):
        crashing = fleet.replace(0, FAULTS_CRASH=f"{point}:{place.dice.randint(1, 5)}")
        assert crashing.ended(within=60) == CRASHED
        fleet.kills += 1
    fleet.replace(0)
    talking.result(timeout=300)
    place.quiet()

    verdict = place.verdict(f"R-02 {point}")
    assert verdict.is_clean, verdict
