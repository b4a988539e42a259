"""R-09: three processes have one token. One of them receives, and when it is killed another does."""

from __future__ import annotations

import re
from time import monotonic

import pytest

from tests.faults.fault_cluster import FaultCluster, until
from tests.faults.processes import TOGETHER, Fleet
from tests.journeys.running import PLATFORMS


class Rivals(Fleet):
    """Processes that have the same tokens."""

    def holder(self, platform: str) -> int | None:
        """The place of the one that is connected, by its own words."""
        places = range(len(self.processes))
        return next((place for place in places if self._state(place, platform) == "up"), None)

    def wait_for_holder(self) -> int:
        """The one that is connected to Telegram."""
        until(lambda: self.holder("telegram") is not None, 60, "nobody connects")
        return self.holder("telegram") or 0

    def _state(self, place: int, platform: str) -> str:
        process = self.processes[place]
        found = re.findall(rf" {platform}: (up|standby|restarting)", "\n".join(process.lines))
        return found[-1] if found and process.is_running() else ""

    def wait_until_up(self) -> None:
        for platform in PLATFORMS:
            until(lambda: self.holder(platform) is not None, 60, f"nobody connects to {platform}")  # noqa: B023
            place = self.holder(platform)
            if platform != "telegram" and place is not None:
                self.processes[place].wait_for_line(rf"{platform}: what was missed in \d+ private chats is read")


def take_over(place: FaultCluster, *, kills: int, lease: float, messages: int, pace: float) -> float:
    """The longest time until another one was connected to all that the killed one was, in seconds."""
    load = place.people(9, messages, a_second=pace)
    rivals = place.fleet = Rivals(place.environment() | {"BOTOS_RECEIVER_LEASE_SECONDS": str(lease)}, TOGETHER * 3)
    rivals.wait_until_up()
    talking = place.population.start(load.run())
    longest = 0.0
    for number in range(kills):
        load.reached((number + 1) * messages // (kills + 1), within=messages / pace + 60)
        holder = rivals.wait_for_holder()
        rivals.kill(holder)
        began = monotonic()
        rivals.wait_until_up()
        longest = max(longest, monotonic() - began)
    talking.result(timeout=messages / pace + 60)
    place.quiet()
    return longest


def judge(place: FaultCluster, name: str, longest: float) -> None:
    verdict = place.verdict(f"{name}, takeover {longest:.1f} s")
    assert verdict.is_clean, verdict
    assert place.population.telegram.api.updates.conflicts == 0


@pytest.mark.journey
def test_another_one_receives_when_one_is_killed(place: FaultCluster) -> None:
    judge(place, "R-09 short", take_over(place, kills=1, lease=2.0, messages=20, pace=6.0))


@pytest.mark.faults
def test_another_one_receives_when_one_is_killed_ten_times(place: FaultCluster) -> None:
    longest = take_over(place, kills=10, lease=30.0, messages=700, pace=2.0)
    judge(place, "R-09", longest)
    assert longest <= 30.0 + 5


@pytest.mark.faults
def test_one_that_stood_still_does_not_disturb_its_successor(place: FaultCluster) -> None:
    load = place.people(9, 200, a_second=10.0)
    rivals = place.fleet = Rivals(place.environment() | {"BOTOS_RECEIVER_LEASE_SECONDS": "3"}, TOGETHER * 3)
    rivals.wait_until_up()
    talking = place.population.start(load.run())
    for number in range(3):
        load.reached((number + 1) * 40)
        holder = rivals.wait_for_holder()
        place.stall(holder, 6.0)
    talking.result(timeout=120)
    place.quiet()

    verdict = place.verdict("R-09 stood still")
    assert verdict.is_clean, verdict
    # Its last poll was under way when its successor's first ended it.
    assert place.population.telegram.api.updates.conflicts <= 3
