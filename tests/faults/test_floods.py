"""Nothing that strangers send to the pages silences the bots beside them or takes their database away."""

from __future__ import annotations

import asyncio
import resource
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import closing, contextmanager
from pathlib import Path
from statistics import quantiles
from time import monotonic, sleep
from typing import Any

import pytest

from tests.faults import flood
from tests.faults.fault_cluster import FaultCluster, until
from tests.faults.processes import TOGETHER, Process

pytestmark = pytest.mark.faults

HANDLES = 1024
BODY = 300 * 1024 * 1024
IN_USE = "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


class Site:
    """Bots with pages in one process with few file handles, and people who write to them. Slack calls."""

    def __init__(self, place: FaultCluster, temporary: Path) -> None:
        with closing(socket.create_server(("127.0.0.1", 0))) as free:
            self.port: int = free.getsockname()[1]
        self.place = place
        http = place.population.slack.http
        http.url = f"http://127.0.0.1:{self.port}/hooks/slack"
        http._repeat_after = (0.1, 1, 2, 4, 8, 16, 32)  # Slack itself repeats for six minutes
        given = {
            "BOTOS_PUBLIC_URL": f"http://127.0.0.1:{self.port}",
            "BOTOS_SLACK_TRANSPORT": "http",
            "BOTOS_RECEIVER_LEASE_SECONDS": "9",
            "TMPDIR": str(temporary),
        }
        fleet = place.begin(TOGETHER, arguments=("--web", f"127.0.0.1:{self.port}"), **given)
        self.bots: Process = fleet.processes[0]
        resource.prlimit(self.bots.pid, resource.RLIMIT_NOFILE, (HANDLES, HANDLES))
        for part in ("telegram", "discord", "slack", "web"):
            self.bots.wait_for_line(rf"{part}: up")

    def people(self, count: int, a_second: float) -> Future[Any]:
        """So many messages to all three platforms, begun."""
        load = self.place.people(30, count, waits=0.0, a_second=a_second)
        return self.place.population.start(load.run())

    def connections(self) -> int:
        """Of PostgreSQL, which the process holds; of SQLite, its handles of the file."""
        if self.place.database.name == "postgresql":
            return self.place.database.count(IN_USE)
        handles = Path(f"/proc/{self.bots.pid}/fd")
        return sum(_leads_to(one, ".sqlite3") for one in handles.iterdir())

    @contextmanager
    def watched(self) -> Iterator[list[int]]:
        """How many connections there were, again and again."""
        found, over = [self.connections()], threading.Event()

        def watch() -> None:
            while not over.wait(0.2):
                found.append(self.connections())

        watcher = threading.Thread(target=watch)
        watcher.start()
        yield found
        over.set()
        watcher.join()

    def p95(self) -> float:
        return quantiles(self.place.load.answered.values(), n=20)[-1]


def _leads_to(handle: Path, ending: str) -> bool:
    try:
        return str(handle.readlink()).endswith(ending)
    except OSError:  # closed meanwhile
        return False


@pytest.fixture
def site(place: FaultCluster, tmp_path: Path) -> Iterator[Site]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(8192, before[1]), before[1]))
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    try:
        yield Site(place, temporary)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_it_goes_on_while_strangers_load_pages(site: Site) -> None:
    talking = site.people(150, a_second=6.0)
    with site.watched() as connections:
        began = monotonic()
        statuses = asyncio.run(flood.loads(site.port, count=1000, at_once=150))
        took, ended = monotonic() - began, monotonic()
        until(lambda: asyncio.run(flood.status(site.port)) == 200, 60, "no page is shown any more")
        again = monotonic() - ended
    talking.result(timeout=120)
    site.place.quiet()
    is_sqlite = site.place.database.name == "sqlite"  # of which each thread of the bots keeps its own connection
    until(lambda: is_sqlite or site.connections() <= 10, 60, "connections stay open")

    refused = sum(one != 200 for one in site.place.population.slack.http.statuses)
    verdict = site.place.verdict(
        f"1,000 pages in {took:.0f} s {dict(statuses)}, 200 after {again:.1f} s, p95 {site.p95():.2f} s,"
        f" connections {max(connections)} then {site.connections()}, webhooks refused {refused}"
    )
    assert set(statuses) <= {200, 503}
    assert max(connections) <= (HANDLES // 2 if is_sqlite else 30)
    assert verdict.is_clean, verdict


def test_it_goes_on_while_strangers_hold_idle_connections(site: Site) -> None:
    before = len(site.bots.lines)
    talking = site.people(720, a_second=6.0)
    asyncio.run(flood.idle(site.port, count=1100, seconds=120))
    talking.result(timeout=300)
    lines = sum(" INFO " not in line for line in site.bots.lines[before:])  # which tell of people's messages
    site.place.quiet()

    verdict = site.place.verdict(f"1,100 idle connections, p95 {site.p95():.2f} s, {lines} log lines about them")
    assert lines < 200  # in two minutes
    assert verdict.is_clean, verdict


@pytest.mark.parametrize("announced", [True, False], ids=["announced", "not announced"])
def test_it_writes_no_huge_body_anywhere(site: Site, tmp_path: Path, announced: bool) -> None:
    paths = (
        *("/", "/pair/", "/pair/start/", "/me/", "/chat/", "/admin/login/", "/no/such/page"),
        *("/hooks/telegram", "/hooks/slack", "/healthz"),
    )

    async def all_at_once() -> list[tuple[int, int]]:
        return await asyncio.gather(*(flood.send(site.port, path, BODY, announced=announced) for path in paths))

    left: list[Path] = []
    sending = threading.Event()

    def look() -> None:
        while not sending.is_set():
            left.extend((tmp_path / "temporary").iterdir())
            sleep(0.01)

    looking = threading.Thread(target=look)
    looking.start()
    try:
        answers = asyncio.run(all_at_once())
    finally:
        sending.set()
        looking.join()
    print(answers)
    assert {status for status, _ in answers} == {413}
    assert max(sent for _, sent in answers) < BODY // 10
    assert left == []
