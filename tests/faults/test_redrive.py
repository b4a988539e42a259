"""R-14: dead letters are sent after all, by two operators at once."""

from __future__ import annotations

import pytest

from tests.faults.fault_cluster import FaultCluster, until

pytestmark = pytest.mark.faults

LETTERS = 100
DEAD = "SELECT COUNT(*) FROM sessions_app_outbounddelivery WHERE status = 'dead'"


def test_it_delivers_once_what_two_operators_redrive_at_once(place: FaultCluster) -> None:
    load = place.people(LETTERS, LETTERS, again=0.0, waits=0.0)
    place.start()
    for platform, method in (("telegram", "sendMessage"), ("discord", "POST /channels/messages")):
        place.population.servers[platform].faults.expect(method, rate=1.0, status=403)
    place.population.slack.api.refusals = {one.chat: "is_archived" for one in load.accounts if one.platform == "slack"}
    place.population.do(load.run(), 60)
    until(lambda: place.database.count(DEAD) == LETTERS, 60, "not all are dead")
    place.population.slack.api.refusals = {}
    place.population.calm()
    operators = [place.manage("deliveries", "redrive", "--all") for _ in range(2)]
    assert [operator.wait(60) for operator in operators] == [0, 0]
    place.quiet()

    verdict = place.verdict(f"R-14 {LETTERS} letters")
    assert verdict.is_clean, verdict
