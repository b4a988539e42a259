"""R-10: clocks of processes are ten minutes off, in both directions. On PostgreSQL, whose clock is one for all.

On SQLite there is one machine, and its clock is the database's: nothing could be off.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults import databases
from tests.faults.fault_cluster import LEASE, FaultCluster, fault_cluster, until
from tests.faults.load import account
from tests.faults.processes import Fleet
from tests.journeys.chats import code_in, number_in

pytestmark = pytest.mark.faults

OFF = 600  # seconds
CLOCKS = (OFF, -OFF, 0)
THINKING = LEASE * 1.5  # so that a lease is renewed in each turn
LATE = "UPDATE identity_pairing SET expires_at = clock_timestamp() - interval '1 s' WHERE ended_at IS NULL"


@pytest.fixture
def pg_place(
    request: pytest.FixtureRequest, postgresql_template: str, tmp_path: Path, seed: int
) -> Iterator[FaultCluster]:
    with (
        databases.new_postgresql(template=postgresql_template) as database,
        fault_cluster(database, tmp_path, seed) as made,
    ):
        yield made
        made.note(request.node)


def start(place: FaultCluster, **faults: str) -> Fleet:
    """Three processes, each with a platform and a clock of its own."""
    fleet = place.begin(parts=(), FAULTS_THINKING=str(THINKING), **faults)
    for platform, off in zip(("telegram", "slack", "discord"), CLOCKS, strict=True):
        fleet.add((platform,), FAULTS_CLOCK=str(off)).wait_until_up()
    return fleet


@pytest.mark.parametrize("without", ["", "database-clock"])
def test_no_lease_ends_early_or_late(pg_place: FaultCluster, without: str) -> None:
    """Without the database's clock the same harness sees leases that end early."""
    place = pg_place
    load = place.people(12, 60, linked=4)
    fleet = start(place, FAULTS_WITHOUT=without)
    talking = place.population.start(load.run())
    load.reached(20)
    fleet.processes[0].kill()  # what it holds must be taken over when its lease ends, and not ten minutes later
    fleet.kills += 1
    fleet.replace(0, FAULTS_CLOCK=str(OFF))
    if without:
        until(lambda: fleet.log("the lease was lost"), 60, "no lease ends early without the database's clock")
        talking.cancel()
        return
    talking.result(timeout=300)
    place.quiet()

    verdict = place.verdict("R-10 clocks 10 minutes off")
    assert verdict.is_clean, verdict
    assert not fleet.log("the lease was lost")


def test_a_request_to_link_ends_neither_early_nor_late(pg_place: FaultCluster) -> None:
    """Asked for where it is ten minutes later, claimed where it is ten minutes earlier."""
    place = pg_place
    start(place)
    number = number_in(asks(place, "slack", code_in(asks(place, "telegram", "/link"))))
    until(lambda: "used your code" in heard(place, "telegram")[-1], 30, "nobody says that the code was used")
    assert "Linked." in asks(place, "telegram", number)

    for asked, claimed in (("telegram", "slack"), ("slack", "telegram")):
        code = code_in(asks(place, asked, "/link", number=2))
        assert place.database.execute(LATE)
        assert not re.search(r"\d{3} \d{3}", asks(place, claimed, code, number=3))


def heard(place: FaultCluster, platform: str, number: int = 1) -> list[str]:
    """What the bot said in the private chat of this person."""
    return place.population.replies().get((platform, account(place.population, platform, number).chat), [])


def asks(place: FaultCluster, platform: str, text: str, *, number: int = 1) -> str:
    """Type it in a private chat, and what is said there next."""
    before = len(heard(place, platform, number))
    words = text.replace("/", "!") if platform == "slack" else text
    place.population.do(
        place.population.servers[platform].say(account(place.population, platform, number).person, words)
    )
    until(lambda: len(heard(place, platform, number)) > before, 30, f"{platform}: no answer")
    return heard(place, platform, number)[before]
