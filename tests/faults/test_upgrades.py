"""R-16 and upgrades: a backup during load, and a migration under processes that do not know of it."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from tests import zygote
from tests.faults.databases import Database, new_postgresql, settings, sqlite_file
from tests.faults.fault_cluster import FaultCluster

ADDED = "ALTER TABLE sessions_app_inboundevent ADD COLUMN added varchar(40) DEFAULT '' NOT NULL"
BROKEN = {
    "answers that are not one": """
        SELECT COUNT(*) FROM sessions_app_inboundevent e WHERE e.status = 'done' AND e.kind = 'message'
        AND NOT EXISTS (SELECT 1 FROM sessions_app_historyentry h WHERE h.event_id = e.id AND h.role = 'user')
    """,
    "entries that answer nothing": """
        SELECT COUNT(*) FROM sessions_app_historyentry h WHERE h.role = 'assistant'
        AND NOT EXISTS (SELECT 1 FROM sessions_app_inboundevent e WHERE e.id = h.event_id)
    """,
    "answers without a delivery": """
        SELECT COUNT(*) FROM sessions_app_historyentry h WHERE h.role = 'assistant'
        AND NOT EXISTS (SELECT 1 FROM sessions_app_outbounddelivery d WHERE d.entry_id = h.id)
    """,
}


def dump(place: FaultCluster, file: Path) -> None:
    if place.database.name == "sqlite":
        environment = os.environ | settings(place.database.url, place.folder)
        zygote.run(["manage.py", "backup", file], environment=environment, check=True)
        return
    if not shutil.which("pg_dump"):
        pytest.skip("there is no pg_dump here")
    subprocess.run(["pg_dump", "--format=custom", f"--file={file}", place.database.url], check=True, timeout=60)


def check(restored: Database) -> None:
    """What must hold between tables at any moment: a turn is in all of them or in none."""
    assert restored.count("SELECT COUNT(*) FROM sessions_app_historyentry")
    assert {about: restored.count(query) for about, query in BROKEN.items()} == dict.fromkeys(BROKEN, 0)


@pytest.mark.journey
def test_it_restores_a_backup_that_was_made_during_load(place: FaultCluster) -> None:
    """The restored one goes on where the backup was made, and the people with it."""
    load = place.people(10, 60)
    fleet = place.start()
    talking = place.population.start(load.run())
    load.reached(30)
    file = place.folder / "backup"
    dump(place, file)
    talking.result(timeout=120)
    place.quiet()
    fleet.close()

    if place.database.name == "sqlite":
        check(sqlite_file(file))
        _goes_on(place, sqlite_file(file))
        return
    with new_postgresql() as restored:
        subprocess.run(["pg_restore", "--no-owner", f"--dbname={restored.url}", str(file)], check=True, timeout=60)
        check(restored)
        _goes_on(place, restored)


def _goes_on(place: FaultCluster, restored: Database) -> None:
    """What waited in the backup is answered now, and new messages are."""
    place.database = replace(restored)
    place.start()
    assert place.population.do(place.load.farewell(round_=1), 60)
    check(restored)


@pytest.mark.journey
def test_it_goes_on_under_a_migration_that_adds_a_column(place: FaultCluster) -> None:
    """Old processes neither read nor write the new column; its default is the database's."""
    load = place.people(10, 60)
    place.start()
    talking = place.population.start(load.run())
    load.reached(30)
    place.database.execute(ADDED)
    talking.result(timeout=120)
    place.quiet()

    verdict = place.verdict("column added")
    assert verdict.is_clean, verdict
