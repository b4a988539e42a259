"""One run: servers, processes and a load, from the first message until all is quiet, and the verdict."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from time import monotonic, sleep
from typing import Any

import pytest

from tests import zygote
from tests.faults.databases import Database, settings
from tests.faults.judge import Verdict, judge, numbers_in
from tests.faults.load import Load, crowd
from tests.faults.population import Population
from tests.faults.processes import APART, Fleet

ROW = "faults row"  # what pytest knows it by
LEASE = 2.0  # seconds, of a lane and of a delivery
IDLE = """
    SELECT (SELECT COUNT(*) FROM sessions_app_inboundevent WHERE done_at IS NULL)
         + (SELECT COUNT(*) FROM sessions_app_outbounddelivery WHERE settled_at IS NULL)
"""
DONE = """
    SELECT (SELECT COUNT(*) FROM sessions_app_inboundevent) + (SELECT COUNT(done_at) FROM sessions_app_inboundevent)
         + (SELECT COUNT(settled_at) FROM sessions_app_outbounddelivery)
"""
QUARANTINED = "SELECT text FROM sessions_app_inboundevent WHERE status = 'quarantined'"


@dataclass
class FaultCluster:
    """What a test works with. `row` is its line in the table at the end."""

    database: Database
    folder: Path
    seed: int
    population: Population
    row: dict[str, Any] = field(default_factory=dict)
    fleet: Fleet = field(init=False)
    load: Load = field(init=False)

    def __post_init__(self) -> None:
        self.dice = Random(self.seed)
        self.began = monotonic()
        self.aside: set[int] = set()
        self.hopeless: set[int] = set()  # messages that the agent fails at every time

    def start(
        self, parts: Sequence[Sequence[str]] = APART, *, arguments: Sequence[str] = (), **environment: str
    ) -> Fleet:
        """Start the processes, and wait until all platforms are connected."""
        self.begin(parts, arguments=arguments, **environment).wait_until_up()
        return self.fleet

    def begin(
        self, parts: Sequence[Sequence[str]] = APART, *, arguments: Sequence[str] = (), **environment: str
    ) -> Fleet:
        """Start the processes, and wait for nothing."""
        self.fleet = Fleet(self.environment() | environment, parts, arguments)
        return self.fleet

    def environment(self) -> dict[str, str]:
        return settings(self.database.url, self.folder) | {
            "BOTOS_AGENT": "tests.faults.agents.Parrot",
            "BOTOS_LEASE_SECONDS": str(LEASE),
            "BOTOS_SWEEP_SECONDS": "0.5",
            "BOTOS_SEND_SECONDS": str(LEASE),
            "BOTOS_RECEIVER_LEASE_SECONDS": str(2 * LEASE),
            **self.population.environment(),
        }

    def people(self, lanes: int, count: int, *, linked: int = 0, **how: Any) -> Load:
        """A load of `count` messages; the accounts of the first `linked` lanes are linked first."""
        accounts = crowd(self.population, lanes, linked=linked)
        self.load = Load(self.population, accounts, count, self.seed, **how)
        shared = [one for one in accounts if int(one.lane.removeprefix("lane-")) < linked]
        self.links([f"link {one.platform} {one.person.id} {one.lane}" for one in shared])
        return self.load

    def links(self, orders: Sequence[str]) -> None:
        """Have a process of its own link and unlink."""
        if orders:
            environment, told = os.environ | self.environment(), "\n".join(orders) + "\n"
            program = ["-m", "tests.faults.linker"]
            zygote.run(program, environment=environment, told=told, check=True, timeout=300)

    def manage(self, *words: str) -> zygote.Forked:
        """A command of an operator, begun."""
        return zygote.start(["manage.py", *words], environment=os.environ | self.environment())

    def stall(self, number: int, seconds: float) -> None:
        """Stop a process in its tracks for so long, and let it go on."""
        self.fleet.processes[number].stall()
        sleep(seconds)
        self.fleet.processes[number].go_on()

    def quiet(self, within: float = 90.0, *, bring_back: bool = True) -> None:
        """Wait until everything that was said is taken in, answered and sent, and nothing is under way.

        within: seconds in which at least something of it must get done.

        What was quarantined, since kills happened to meet it three times, is brought back as an operator would.
        """
        self.population.calm()
        self.fleet.wait_until_up()
        self._idle(within)
        self.population.do(self.load.farewell(), within)
        self._idle(within)
        quarantined = self.database.rows(QUARANTINED) if bring_back else []
        self.aside |= {number for (text,) in quarantined for number in numbers_in(text)}
        if quarantined:
            assert self.manage("events", "redrive", "--all").wait(60) == 0
            self._idle(within)

    def _idle(self, within: float) -> None:
        while not self._is_idle():
            done = self.database.count(DONE)
            until(lambda: self._is_idle() or self.database.count(DONE) > done, within, "it stands still")  # noqa: B023 - called here

    def _is_idle(self) -> bool:
        return self.population.is_told() and not self.database.count(IDLE)

    def note(self, test: pytest.Item) -> None:
        """Hand the row over, for the table."""
        if "id" in self.row:
            test.user_properties.append((ROW, self.row | {"seed": self.seed}))

    def verdict(self, name: str) -> Verdict:
        """Judge, and keep the row for the table."""
        replies, rows = self.population.replies(), self.database.rows
        found = judge(self.load.said, replies, rows, aside=self.aside, hopeless=self.hopeless)
        self.row |= {
            "id": name,
            "database": self.database.name,
            "messages": found.messages,
            "kills": self.fleet.kills,
            "lost": len(found.lost),
            "duplicated": len(found.duplicated),
            "disordered": len(found.disordered),
            "undelivered": len(found.undelivered),
            "repeats": found.repeats,
            "missed": len(found.missed),
            "seconds": round(monotonic() - self.began, 1),
        }
        return found


def until(holds: Callable[[], object], within: float, otherwise: str) -> None:
    """Look again and again: a database in another process's hands tells nobody."""
    deadline = monotonic() + within
    while not holds():
        assert monotonic() < deadline, otherwise
        sleep(0.05)


@contextmanager
def fault_cluster(database: Database, folder: Path, seed: int) -> Iterator[FaultCluster]:
    """Everything is gone at the end, also what was stalled."""
    population = Population(seed)
    place = FaultCluster(database, folder, seed, population)
    try:
        yield place
    finally:
        if hasattr(place, "fleet"):
            place.fleet.close()
        population.close()
