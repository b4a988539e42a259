"""R-05 and R-08: processes that stand still for longer than their leases, and processes that are told to stop."""

from __future__ import annotations

from time import monotonic

import pytest

from tests.faults.fault_cluster import LEASE, FaultCluster
from tests.faults.load import moments

pytestmark = pytest.mark.faults

STALLS = 25
RESTARTS = 50
MAX_STOP = 30.0  # seconds


def test_it_loses_nothing_when_processes_stand_still_for_longer_than_a_lease(place: FaultCluster) -> None:
    load = place.people(30, 1000)
    fleet = place.start()
    talking = place.population.start(load.run())
    for moment in moments(place.dice, STALLS, 1000):
        load.reached(moment)
        place.stall(fleet.any(place.dice), LEASE * 1.5)
    talking.result(timeout=300)
    place.quiet()

    verdict = place.verdict(f"R-05 {STALLS} stalls")
    assert verdict.is_clean, verdict


def test_it_loses_nothing_when_processes_are_restarted_one_after_the_other(place: FaultCluster) -> None:
    load = place.people(30, 1500, linked=5)
    fleet = place.start()
    talking = place.population.start(load.run())
    longest = 0.0
    for number, moment in enumerate(moments(place.dice, RESTARTS, 1500)):
        load.reached(moment)
        fleet.processes[number % 3].wait_until_up()
        began = monotonic()
        assert fleet.processes[number % 3].terminate() == 0
        longest = max(longest, monotonic() - began)
        fleet.replace(number % 3)
    talking.result(timeout=300)
    place.quiet()

    verdict = place.verdict(f"R-08 {RESTARTS} restarts, stop {longest:.1f} s")
    assert verdict.is_clean, verdict
    assert longest <= MAX_STOP
