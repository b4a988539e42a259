"""R-03: a guard is taken away, and the same harness must see what comes of it."""

from __future__ import annotations

from functools import partial

import pytest

from tests.faults.agents import FAILS
from tests.faults.fault_cluster import FaultCluster, until
from tests.faults.hopeless import Hopeless
from tests.faults.processes import TOGETHER, Process

pytestmark = pytest.mark.faults

WAITING = "SELECT COUNT(*) FROM sessions_app_inboundevent WHERE done_at IS NULL"
ANSWERED = "SELECT COUNT(*) FROM sessions_app_inboundevent WHERE done_at IS NOT NULL"
TWICE = "SELECT COUNT(*) FROM sessions_app_historyentry GROUP BY event_id, role ORDER BY 1 DESC LIMIT 1"
KEY = {
    # SQLite cannot drop a key of a table; with every row's key made its own, it holds nothing back any more.
    "sqlite": """
        CREATE TRIGGER no_key AFTER INSERT ON sessions_app_inboundevent
        BEGIN UPDATE sessions_app_inboundevent SET native_key = native_key || ' ' || id WHERE id = NEW.id; END
    """,
    "postgresql": "ALTER TABLE sessions_app_inboundevent DROP CONSTRAINT event_is_received_once",
}


def test_it_reports_loss_when_messages_are_acknowledged_before_they_are_stored(place: FaultCluster) -> None:
    load = place.people(12, 120)
    fleet = place.start(FAULTS_WITHOUT="commit-before-ack")
    talking = place.population.start(load.run())
    for moment in (30, 60, 90):
        load.reached(moment)
        for number in range(len(fleet.processes)):
            fleet.kill(number)
    talking.result(timeout=120)
    place.quiet()

    assert place.verdict("R-03 ack before commit").lost


def test_it_reports_duplicates_without_the_unique_key(place: FaultCluster) -> None:
    place.database.execute(KEY[place.database.name])
    load = place.people(12, 60, again=0.5)
    place.start(TOGETHER)
    place.population.do(load.run(), 60)
    place.quiet()

    verdict = place.verdict("R-03 no unique key")
    assert verdict.twice_in_history
    assert verdict.twice_replied


def test_it_reports_who_waits_behind_a_message_that_does_not_step_aside(place: FaultCluster) -> None:
    place.people(1, 0)
    place.start(FAULTS_WITHOUT="stepping-aside", FAULTS_PAUSES="1 1 1")
    mallory = Hopeless(place)
    mallory.say(FAILS)
    mallory.say()
    place.quiet()

    assert mallory.passed() == []
    assert place.verdict("R-03 no stepping aside").given_up == mallory.numbers(FAILS)


GUARDS = ["", "fence", "end-check", "fence end-check", "fence end-check entry-key"]


@pytest.mark.parametrize("without", GUARDS)
def test_it_reports_a_turn_that_is_written_by_who_has_lost_its_lane(place: FaultCluster, without: str) -> None:
    """A process stalls when the agent has answered, and goes on when another has answered in its stead.

    Three guards keep its answer out: the lane's fence, that the event has ended, and that its entries are unique. Each
    makes up for the others, so that only without all three there is something to see.
    """
    if "entry-key" in without:
        place.database.execute("DROP INDEX event_has_one_entry_a_role")
    faults = {"FAULTS_WITHOUT": without.replace("entry-key", ""), "FAULTS_STALL": "after-agent:1"}
    place.people(1, 0)
    stalled = stall_one_that_answers(place, **faults)
    until(lambda: not place.database.count(WAITING), 30, "nobody takes the lane over")
    stalled.go_on()
    if without == GUARDS[-1]:
        until(lambda: place.database.count(TWICE) > 1, 30, "the second turn is not written")
    else:
        stalled.wait_for_line("the lease was lost|turn failed")
    place.quiet()

    verdict = place.verdict(f"R-03 no {without or 'guard missing'}")
    assert verdict.is_clean is (without != GUARDS[-1]), verdict


def stall_one_that_answers(place: FaultCluster, **faults: str) -> Process:
    """Restart one process so that it stalls, and write to it until it does. Others may be quicker to answer.

    One message at a time: it must not hold a lock for the next when it stalls.
    """
    fleet = place.start()
    fleet.processes[0].kill()
    stalling = fleet.replace(0, **faults)
    stalling.wait_until_up()
    for number in range(100):
        place.population.do(place.load.say(number))
        answered = partial(place.database.count, ANSWERED)
        until(lambda: stalling.is_stalled() or answered() > number, 30, "nobody answers")  # noqa: B023 - called here
        if stalling.is_stalled():
            return stalling
    raise AssertionError("it never answers")
