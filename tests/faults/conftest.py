"""The databases, the seed, and the table at the end."""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings

from tests.faults import databases
from tests.faults.databases import Database
from tests.faults.fault_cluster import ROW, FaultCluster, fault_cluster
from tests.faults.processes import Crew
from tests.journeys.redis_server import RedisServer, redis_server

COLUMNS = (
    "id database messages kills lost duplicated disordered undelivered repeats missed seconds seed".split()  # noqa: SIM905
)


@pytest.fixture(scope="session")
def postgresql_template(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The name of a database with all tables and no rows."""
    if not databases.answers(databases.server()):
        pytest.skip("no PostgreSQL server answers at TEST_DATABASE_URL or 127.0.0.1:5432")
    with databases.new_postgresql() as template:
        databases.migrate(template.url, tmp_path_factory.mktemp("data"))
        yield template.url.rpartition("/")[2]


@pytest.fixture
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """For the files of a run. Those of a short test are in memory, where no commit waits for a disk."""
    is_short = not request.node.get_closest_marker("faults")
    return Path(tempfile.mkdtemp(dir=settings.BOTOS_DATA_DIR)) if is_short else tmp_path


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, folder: Path) -> Iterator[Database]:
    """A database of the test's own, on each engine; for a short test, on that of the run."""
    is_short = not request.node.get_closest_marker("faults")
    if is_short and request.param not in settings.DATABASES["default"]["ENGINE"]:
        pytest.skip(f"the short form runs on the database of the run, which is not {request.param}")
    if request.param == "sqlite":
        yield databases.sqlite_copy(request.getfixturevalue("migrated_file"), folder)
        return
    with databases.new_postgresql(template=request.getfixturevalue("postgresql_template")) as made:
        yield made


@pytest.fixture
def seed() -> int:
    """FAULTS_SEED, so that a red run can be run again; else a new one. It is in the table and in every report."""
    found = int(os.environ.get("FAULTS_SEED", "") or random.SystemRandom().randrange(10**6))
    print(f"FAULTS_SEED={found}")
    return found


@pytest.fixture
def place(request: pytest.FixtureRequest, database: Database, folder: Path, seed: int) -> Iterator[FaultCluster]:
    """Servers and a database, ready for processes and people."""
    with fault_cluster(database, folder, seed) as made:
        yield made
        made.note(request.node)


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture
def crew(request: pytest.FixtureRequest, place: FaultCluster, own_redis: RedisServer) -> Iterator[Crew]:
    """Four workers, two for a short test, and bots that leave the answers to them."""
    shared = {"REDIS_URL": own_redis.url, "BOTOS_SWEEP_SECONDS": "2", "FAULTS_STARTS": str(place.folder / "starts")}
    place.start(arguments=("--workers", "0"), **shared)
    started = Crew(4 if request.node.get_closest_marker("faults") else 2, place.environment() | shared)
    yield started
    started.end()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """One line for every run, also for those of other workers."""
    reports = [report for found in terminalreporter.stats.values() for report in found]
    properties = [pair for report in reports for pair in getattr(report, "user_properties", ())]
    rows = [row for name, row in properties if name == ROW]
    lines = [COLUMNS, *([str(row.get(column, "")) for column in COLUMNS] for row in rows)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(COLUMNS))]
    if rows:
        terminalreporter.section("faults")
    for line in lines if rows else ():
        terminalreporter.write_line("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)))
