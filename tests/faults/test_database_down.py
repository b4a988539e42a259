"""R-06: the database stops in the middle of everything, has no room, or is held by somebody else."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from time import sleep

import pytest

from tests.faults import databases
from tests.faults.cluster import Cluster, binaries, cluster
from tests.faults.fault_cluster import FaultCluster, fault_cluster
from tests.faults.load import moments
from tests.faults.processes import TOGETHER

pytestmark = pytest.mark.faults

MESSAGES = 5000
DOWN = 5.0  # seconds
HELD = 10.0  # seconds
UNLIMITED = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)


@pytest.fixture
def own_cluster() -> Iterator[Cluster]:
    if (tools := binaries()) is None:
        pytest.skip("there are no PostgreSQL programs here")
    with cluster(tools) as made:
        yield made


@pytest.fixture
def own_place(
    request: pytest.FixtureRequest, own_cluster: Cluster, tmp_path: Path, seed: int
) -> Iterator[FaultCluster]:
    with fault_cluster(own_cluster.database(tmp_path), tmp_path, seed) as made:
        yield made
        made.note(request.node)


@pytest.fixture
def file_place(
    request: pytest.FixtureRequest, migrated_file: Path, tmp_path: Path, seed: int
) -> Iterator[FaultCluster]:
    with fault_cluster(databases.sqlite_copy(migrated_file, tmp_path), tmp_path, seed) as made:
        yield made
        made.note(request.node)


def acknowledged(place: FaultCluster) -> set[str]:
    """Ids of the messages that Slack was told to be received."""
    return set(place.population.slack.socket.acks)


def test_it_loses_nothing_when_postgresql_stops_at_once(own_place: FaultCluster, own_cluster: Cluster) -> None:
    place = own_place
    load = place.people(30, MESSAGES)
    place.start()
    talking = place.population.start(load.run())
    for moment in moments(place.dice, 3, MESSAGES):
        load.reached(moment)
        own_cluster.stop()
        before = acknowledged(place)
        sleep(DOWN)
        after = acknowledged(place)
        own_cluster.start()
        assert not lacking(place, after - before)
    talking.result(timeout=600)
    place.quiet(180)

    verdict = place.verdict("R-06 PostgreSQL stopped 3 times")
    assert verdict.is_clean, verdict


def lacking(place: FaultCluster, message_ids: set[str]) -> list[str]:
    """Those of Slack's messages that were acknowledged, and are not stored."""
    own = {message.id for message in place.load.said if message.platform == "slack"}
    rows = place.database.rows("SELECT message_id FROM sessions_app_inboundevent WHERE platform = 'slack'")
    return sorted((message_ids & own) - {row[0] for row in rows})


def test_it_loses_nothing_while_somebody_else_holds_the_file(file_place: FaultCluster) -> None:
    place = file_place
    load = place.people(30, MESSAGES)
    place.start()
    talking = place.population.start(load.run())
    load.reached(MESSAGES // 3)
    with closing(place.database.connect()) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        sleep(HELD)
        holder.execute("ROLLBACK")
    talking.result(timeout=300)
    place.quiet()

    verdict = place.verdict(f"R-06 file held {HELD:g} s")
    assert verdict.is_clean, verdict


def test_it_loses_nothing_when_the_disk_is_full(file_place: FaultCluster) -> None:
    """No file may grow: to SQLite that is a disk without room."""
    place = file_place
    load = place.people(30, MESSAGES)
    [process] = place.start(TOGETHER).processes
    talking = place.population.start(load.run())
    load.reached(MESSAGES // 3)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
    process.wait_for_line("OperationalError|disk I/O error|database or disk is full")
    before = acknowledged(place)
    sleep(DOWN)
    after = acknowledged(place)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, UNLIMITED)
    assert not lacking(place, after - before)
    talking.result(timeout=300)
    place.quiet()

    verdict = place.verdict("R-06 disk full")
    assert verdict.is_clean, verdict
    with closing(place.database.connect()) as file:
        assert file.execute("PRAGMA integrity_check").fetchone() == ("ok",)
