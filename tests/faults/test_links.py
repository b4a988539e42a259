"""R-15: accounts are linked and unlinked while people write and processes are killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.faults.fault_cluster import FaultCluster
from tests.faults.load import Load, moments
from tests.journeys.running import PROJECT
from tests.sessions_app.reference_model import Entry, Link, ReferenceModel

pytestmark = pytest.mark.faults

MESSAGES, KILLS, CHANGES, LANES = 10_000, 50, 200, 30
WINDOW = 100
ENTRIES = """
    SELECT a.platform, a.platform_user_id, h.text, h.said_at, h.written_at FROM sessions_app_historyentry h
    JOIN identity_platformaccount a ON a.id = h.author_id ORDER BY h.said_at, h.id
"""
LINKS = """
    SELECT a.platform, a.platform_user_id, u.unified_user_id, l.since, l.ended_at
    FROM identity_accountlink l JOIN identity_platformaccount a ON a.id = l.account_id
    JOIN identity_unifieduser u ON u.id = l.user_id ORDER BY l.id
"""


def test_it_shows_each_account_what_its_links_allow(place: FaultCluster) -> None:
    load = place.people(LANES, MESSAGES)
    fleet = place.start()
    talking = place.population.start(load.run())
    linking = subprocess.Popen(
        [sys.executable, "-m", "tests.faults.linker"],
        stdin=subprocess.PIPE,
        cwd=PROJECT,
        env=os.environ | place.environment(),
        text=True,
    )
    assert linking.stdin is not None
    kills = set(moments(place.dice, KILLS, MESSAGES))
    for moment in sorted({*kills, *range(1, MESSAGES, MESSAGES // CHANGES)}):
        load.reached(moment)
        print(change(place, load), file=linking.stdin, flush=True)
        if moment in kills:
            fleet.kill(fleet.any(place.dice))
    linking.stdin.close()
    assert linking.wait(60) == 0
    talking.result(timeout=MESSAGES)
    place.quiet()

    verdict = place.verdict(f"R-15 {CHANGES} links and unlinks")
    assert verdict.is_clean, verdict
    assert windows(place) == expected(place)


def change(place: FaultCluster, load: Load) -> str:
    """Some account becomes one of five people's, or nobody's."""
    one = place.dice.choice(load.accounts)
    if place.dice.random() < 0.6:
        return f"link {one.platform} {one.person.id} person-{place.dice.randrange(5)}"
    return f"unlink {one.platform} {one.person.id}"


def windows(place: FaultCluster) -> dict[str, list[str]]:
    """What an agent would be shown now, by account."""
    command = [sys.executable, "-m", "tests.faults.windows", str(WINDOW)]
    environment = os.environ | place.environment()
    answer = subprocess.run(command, cwd=PROJECT, env=environment, check=True, capture_output=True, timeout=120)
    found: dict[str, list[str]] = json.loads(answer.stdout)
    return found


def expected(place: FaultCluster) -> dict[str, list[str]]:
    """The same by the rule, from the rows."""
    reference = ReferenceModel(frozenset())
    for platform, user, text, said_at, written_at in place.database.rows(ENTRIES):
        reference.entries.append(Entry(f"{platform}:{user}", text, _moment(said_at), _moment(written_at)))
    for platform, user, person, since, ended in place.database.rows(LINKS):
        reference.links.append(Link(f"{platform}:{user}", person, _moment(since), ended and _moment(ended)))
    accounts = {entry.place for entry in reference.entries}
    return {one: reference.window(one, WINDOW) for one in accounts}


def _moment(stored: Any) -> datetime:
    return stored if isinstance(stored, datetime) else datetime.fromisoformat(stored).replace(tzinfo=UTC)
