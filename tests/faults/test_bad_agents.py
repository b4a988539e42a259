"""Twelve bad agents, each in a process with twenty people whom it must not hold up."""

from __future__ import annotations

from statistics import quantiles
from typing import Any

import pytest

from tests.faults.bad_agents import HARM
from tests.faults.fault_cluster import FaultCluster, until
from tests.faults.load import account
from tests.faults.processes import TOGETHER

pytestmark = pytest.mark.faults

SETTINGS = {
    "BOTOS_AGENT": "tests.faults.bad_agents.Bad",
    "BOTOS_TURN_SECONDS": "4",
    "BOTOS_LEASE_SECONDS": "4",
    "BOTOS_DRAIN_SECONDS": "1",
}
REMAINS = "SELECT what, platform, count FROM sessions_app_tally WHERE what IN ('left behind', 'interrupted')"
STATE = "SELECT status, starts, failures FROM sessions_app_inboundevent WHERE text = '{}'"


@pytest.mark.parametrize("harm", HARM)
def test_it_holds_up_nobody_else(place: FaultCluster, harm: str, capsys: pytest.CaptureFixture[str]) -> None:
    [process] = place.start(TOGETHER, **SETTINGS).processes
    load = place.people(20, 120, waits=1.0, a_second=15.0)
    mallory = account(place.population, "telegram", 9999)
    talking = place.population.start(load.run())
    load.reached(10)
    place.population.do(place.population.telegram.say(mallory.person, harm))

    def told() -> list[str]:
        return [said.text for said in list(place.population.telegram.said) if said.chat_id == mallory.chat][1:]

    talking.result(timeout=60)
    until(told, 30, "nobody told the person who asked for harm")
    until(lambda: len(load.answered) == 120, 30, "others were not answered")
    assert process.is_running()
    memory = process.memory() // 1024
    assert process.terminate() == 0
    [state] = place.database.rows(STATE.format(harm))
    row: dict[str, Any] = {
        "harm": harm,
        "p95": round(quantiles(load.answered.values(), n=20)[-1], 2),
        "slowest": round(max(load.answered.values()), 2),
        "told": told()[0][:40],
        "event": state,
        "remains": place.database.rows(REMAINS),
        "MB": memory,
    }
    place.row["id"] = f"bad agent: {harm}, p95 {row['p95']} s"
    place.row |= {"database": place.database.name, "messages": 120, "kills": place.fleet.kills}
    with capsys.disabled():
        print(f"\n{row}")
    assert all("I couldn't answer" in text or "x" * 100 in text or "and and" in text for text in told()[:1])
