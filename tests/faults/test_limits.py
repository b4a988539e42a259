"""R-12: a platform answers 429 and names a pause, again and again."""

from __future__ import annotations

from itertools import pairwise
from time import monotonic

import pytest

from tests.fakes.faults import Fault, FaultPlan
from tests.faults.fault_cluster import FaultCluster

pytestmark = pytest.mark.faults

PAUSE = 30.0  # seconds
CALM_AFTER = 60.0
TOLERANCE = 0.5  # seconds


class Limited(FaultPlan):
    """429 for every message to any chat until it is lifted. `calls`: when each was made."""

    __slots__ = ("calls", "lifts_at")

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[float] = []
        self.lifts_at = monotonic() + CALM_AFTER

    def take(self, method: str) -> Fault | None:
        if method != "sendMessage":
            return None
        self.calls.append(monotonic())
        return Fault(method, status=429, retry_after=PAUSE) if monotonic() < self.lifts_at else None


def test_it_asks_once_in_a_pause_that_the_platform_named(place: FaultCluster) -> None:
    load = place.people(1, 0)
    place.start()
    limited = place.population.telegram.faults = Limited()
    for number in range(10):
        place.population.do(load.say(number))
    place.population.do(load.answer_to(9, 120), 130)
    while_limited = [at for at in limited.calls if at < limited.lifts_at]
    place.population.telegram.faults = FaultPlan()
    place.quiet()

    assert all(later - earlier > PAUSE - TOLERANCE for earlier, later in pairwise(while_limited))
    verdict = place.verdict(f"R-12 429, {len(while_limited)} calls")
    assert verdict.is_clean, verdict
