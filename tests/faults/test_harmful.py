"""R-11 and R-13: a message that ends every process that answers it, and an agent that is down."""

from __future__ import annotations

from pathlib import Path
from statistics import quantiles

import pytest

from tests.faults.agents import HARMFUL
from tests.faults.fault_cluster import FaultCluster, until
from tests.faults.load import Load, account
from tests.faults.processes import Crew, Fleet

pytestmark = pytest.mark.faults

QUARANTINED = "SELECT COUNT(*) FROM sessions_app_inboundevent WHERE status = 'quarantined' AND text LIKE '%poison%'"
INNOCENT = "SELECT text FROM sessions_app_inboundevent WHERE status = 'quarantined' AND text NOT LIKE '%poison%'"
FAILED = "SELECT COUNT(*) FROM sessions_app_inboundevent WHERE failures > 0"


def p95(load: Load, since: int, until_: int) -> float:
    """Seconds until an answer that 95 of 100 messages with these numbers did not exceed."""
    waits = [seconds for number, seconds in load.answered.items() if since <= number < until_]
    return quantiles(waits, n=20)[-1]


def test_it_puts_a_message_aside_that_ends_processes(place: FaultCluster) -> None:
    fleet = place.start()
    judge(place, fleet, "R-11 poison")
    assert fleet.kills == 3


def test_it_puts_a_message_aside_that_ends_workers(place: FaultCluster, crew: Crew) -> None:
    judge(place, crew, "R-11 poison, 4 workers")
    assert (crew.kills, place.fleet.kills) == (3, 0)


def judge(place: FaultCluster, those: Fleet | Crew, name: str) -> None:
    """One of many people writes what ends each process that answers it. It is quarantined, and nothing else is lost."""
    load = place.people(200, 1200, waits=1.0, a_second=8.0)
    talking = place.population.start(load.run())
    load.reached(600)
    mallory = account(place.population, "telegram", 9999)
    place.population.do(place.population.telegram.say(mallory.person, HARMFUL))

    def is_over() -> bool:
        those.replace_ended()
        return place.database.count(QUARANTINED) > 0

    until(is_over, 300, "the message was not quarantined")
    healed = len(load.said)
    talking.result(timeout=300)
    place.quiet(bring_back=False)

    words = [said.text for said in place.population.telegram.said if said.chat_id == mallory.chat]
    assert words[0] == HARMFUL
    assert "set it aside" in words[-1]
    before, during = p95(load, 0, 600), p95(load, 600, healed)
    verdict = place.verdict(f"{name}, p95 {before:.2f} -> {during:.2f} s")
    assert place.database.rows(INNOCENT) == []
    assert verdict.is_clean, verdict


def test_it_keeps_and_answers_what_is_said_while_the_agent_is_down(place: FaultCluster, tmp_path: Path) -> None:
    down = tmp_path / "down"
    load = place.people(15, 300)
    place.start(FAULTS_AGENT_DOWN=str(down))
    talking = place.population.start(load.run())
    load.reached(100)
    down.touch()
    load.reached(130)
    until(lambda: place.database.count(FAILED) >= 5, 60, "the agent did not fail")
    down.unlink()
    talking.result(timeout=300)
    place.quiet()

    told = [text for texts in place.population.replies().values() for text in texts if "'m trying again" in text]
    assert len(told) >= 5
    verdict = place.verdict("R-13 agent down")
    assert verdict.is_clean, verdict
