"""R-18: twenty messages a second under random faults, for as long as FAULTS_SOAK_SECONDS says."""

from __future__ import annotations

import os

import pytest

from tests.faults.fault_cluster import FaultCluster
from tests.faults.processes import TOGETHER

pytestmark = pytest.mark.faults

SECONDS = int(os.environ.get("FAULTS_SOAK_SECONDS", "60"))
A_SECOND = 20
MAX_GROWTH = 0.1


def test_it_goes_on_and_on(place: FaultCluster) -> None:
    count = SECONDS * A_SECOND
    load = place.people(60, count, linked=10, a_second=A_SECOND)
    [process] = place.start(TOGETHER).processes
    place.population.storm(limited=0.03, broken=0.01, unanswered=0.01)
    talking = place.population.start(load.run())
    load.reached(count // 3, within=SECONDS)
    warm = process.memory()
    talking.result(timeout=SECONDS + 300)
    grown = process.memory() / warm - 1
    place.quiet()

    verdict = place.verdict(f"R-18 {SECONDS} s, memory {grown:+.1%}")
    assert verdict.is_clean, verdict
    assert not verdict.missed
    assert grown < MAX_GROWTH
