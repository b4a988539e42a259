"""R-11 and R-13: a message that ends every process that answers it, and an agent that is down or always fails."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from statistics import quantiles

import pytest

from tests.faults.agents import FAILS, HARMFUL, REFUSED
from tests.faults.fault_cluster import FaultCluster, until
from tests.faults.hopeless import Hopeless
from tests.faults.load import Load, account
from tests.faults.processes import Crew, Fleet
from tests.journeys.running import PLATFORMS

QUARANTINED = "SELECT COUNT(*) FROM sessions_app_inboundevent WHERE status = 'quarantined' AND text LIKE '%poison%'"
INNOCENT = "SELECT text FROM sessions_app_inboundevent WHERE status = 'quarantined' AND text NOT LIKE '%poison%'"
FAILED = "SELECT COUNT(*) FROM sessions_app_inboundevent WHERE failures > 0"
WITHOUT_ANSWER = """
    SELECT COUNT(*), COUNT(NULLIF(reason, '')) FROM sessions_app_inboundevent
    WHERE status IN ('given up', 'quarantined')
"""
ALIKE = 4.0  # times as long


def p95(load: Load, since: int, until_: int, on: Collection[str] = PLATFORMS) -> float:
    """Seconds until an answer that 95 of 100 messages with these numbers did not exceed, on these platforms."""
    asked = {said.number for said in load.said if since <= said.number < until_ and said.platform in on}
    waits = [seconds for number, seconds in load.answered.items() if number in asked]
    return quantiles(waits, n=20)[-1]


@pytest.mark.faults
def test_it_puts_a_message_aside_that_ends_processes(place: FaultCluster) -> None:
    fleet = place.start()
    judge(place, fleet, "R-11 poison")
    assert fleet.kills == 3


@pytest.mark.faults
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
        is_quarantined = place.database.count(QUARANTINED) > 0
        those.replace_ended()  # afterwards, so that none that it has ended is left out
        return is_quarantined

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


@pytest.mark.faults
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


def fail_for_one_of_twenty(
    place: FaultCluster, *, messages: int, a_second: float, rounds: int, name: str, pauses: str = ""
) -> None:
    """One of twenty people writes what the agent fails at every time. It steps aside, and holds up nobody.

    A third of the messages comes before this person's, a third meanwhile, and a third while processes are killed too.
    Processes that have just started are slow, so the others' p95 before is that of the second half of the first third.
    Meanwhile those who share a process with this person are compared with the rest too: other work on the machine slows
    all of them.
    """
    third = messages // 3
    load = place.people(19, messages, waits=1.0, a_second=a_second)
    fleet = place.start(FAULTS_PAUSES=pauses)
    mallory = Hopeless(place)
    talking = place.population.start(load.run())
    load.reached(third)
    for nth in range(rounds):
        load.reached(third + nth * third // rounds)
        mallory.say_all()
    load.reached(2 * third)
    until(lambda: all(number in load.answered for number in range(2 * third)), 60, "others were not answered")
    for process in range(len(fleet.processes)):
        mallory.say_all(kills=process)
    talking.result(timeout=300)
    place.quiet(bring_back=False)

    failing, refused = mallory.numbers(FAILS), mallory.numbers(REFUSED)
    assert mallory.passed() == failing
    assert mallory.told("'m trying again") == mallory.told("I still couldn't answer that") == len(failing)
    assert mallory.told("doesn't allow it") == len(refused)
    assert mallory.reasons(FAILS) == ["given up: AgentFailure: ConnectionError"] * len(failing)
    at_once = "given up at once: PermanentFailure: 400: the content is refused"
    assert mallory.reasons(REFUSED) == [at_once] * len(refused)
    before, meanwhile = p95(load, third // 2, third), p95(load, third, 2 * third)
    beside = p95(load, third, 2 * third, [mallory.platform])
    elsewhere = p95(load, third, 2 * third, set(PLATFORMS) - {mallory.platform})
    own = max(load.answered[number] for number in mallory.numbers()[: 2 * rounds])
    times = f"p95 {before:.2f} -> {meanwhile:.2f} s, beside {beside:.2f}, elsewhere {elsewhere:.2f}, own {own:.2f}"
    verdict = place.verdict(f"{name}, {times}")
    assert verdict.given_up == sorted(failing + refused)
    assert place.database.rows(WITHOUT_ANSWER) == [(len(verdict.given_up), len(verdict.given_up))]
    assert verdict.is_clean, verdict
    assert beside < ALIKE * max(before, elsewhere)


@pytest.mark.journey
def test_it_holds_up_nobody_when_the_agent_always_fails_for_one(place: FaultCluster) -> None:
    fail_for_one_of_twenty(place, messages=180, a_second=15.0, rounds=2, name="R-13 short", pauses="1 2 5")


@pytest.mark.faults
def test_it_holds_up_nobody_when_the_agent_always_fails_for_one_for_long(place: FaultCluster) -> None:
    fail_for_one_of_twenty(place, messages=900, a_second=10.0, rounds=10, name="R-13 one of 20")
