"""What people and operators see while something is down, in the words of the table in docs/reference/outages.md.

`told` holds each of them against both: what was seen, and the manual.
"""

from __future__ import annotations

import re
import resource
from collections.abc import Iterable, Iterator
from pathlib import Path
from time import sleep

import pytest

from tests.faults import databases
from tests.faults.cluster import Cluster, binaries, cluster
from tests.faults.fault_cluster import FaultCluster, fault_cluster, until
from tests.faults.outages import Sight
from tests.journeys.redis_server import RedisServer, redis_server
from tests.journeys.running import PROJECT

pytestmark = pytest.mark.faults

MANUAL = " ".join((PROJECT / "docs" / "reference" / "outages.md").read_text(encoding="utf-8").split())
UNLIMITED = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
PATIENCE = 30.0  # seconds
AWAY = "Back in a moment Our database isn't responding."


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture
def own_cluster() -> Iterator[Cluster]:
    if (tools := binaries()) is None:
        pytest.skip("there are no PostgreSQL programs here")
    with cluster(tools) as made:
        yield made


@pytest.fixture
def sight(own_cluster: Cluster, own_redis: RedisServer, tmp_path: Path, seed: int) -> Iterator[Sight]:
    """Bots, pages and a worker, on servers that may be stopped."""
    with fault_cluster(own_cluster.database(tmp_path), tmp_path, seed) as place:
        made = Sight(place, own_redis.url)
        yield made
        made.close()


@pytest.fixture
def file_place(migrated_file: Path, tmp_path: Path, seed: int) -> Iterator[FaultCluster]:
    with fault_cluster(databases.sqlite_copy(migrated_file, tmp_path), tmp_path, seed) as made:
        yield made


def told(text: str, seen: str | Iterable[str]) -> None:
    """The manual says it, and it was seen. `...` is whatever changes from one time to the next."""
    assert text in MANUAL, f"the manual does not say: {text}"
    pattern = ".*".join(re.escape(part) for part in text.split("..."))
    lines = [seen] if isinstance(seen, str) else list(seen)
    assert any(re.search(pattern, line) for line in lines), "\n".join([f"nobody sees: {text}", *lines])


def answered(sight: Sight, platform: str, text: str) -> None:
    sight.say(platform, text)
    until(lambda: text in sight.heard(platform), PATIENCE, f"{platform}: {text} is not answered")


def logged(sight: Sight, text: str) -> None:
    until(lambda: any(text in line for line in sight.lines()), PATIENCE, f"nobody logs: {text}")


def test_nothing_is_seen_where_nothing_is_down(sight: Sight) -> None:
    answered(sight, "telegram", "hello")

    assert sight.get("/readyz") == (200, '{"ready": true, "reasons": []}')
    assert sight.doctor("--online")[0] == "exit status 0"
    assert not [line for line in sight.lines() if not line.startswith("INFO")]


def test_a_platform_is_down(sight: Sight) -> None:
    answered(sight, "slack", "hello")
    population = sight.place.population
    population.slack.faults.outage = True
    population.do(population.slack.drop_connections())
    answered(sight, "telegram", "and the others?")
    logged(sight, "Failed to retrieve WSS URL")

    told("PROBLEM slack online: slack does not serve: service_unavailable", sight.doctor("--online"))
    until(lambda: sight.get("/readyz")[0] == 503, 120, "the probe stays green")
    told("slack: restarting", sight.get("/readyz")[1])
    told('botos_adapter_up{platform="slack"} 0', sight.numbers()[1])
    told("slack: restarting (ConnectionError: slack: ...), again in ... s", sight.lines())

    population.slack.faults.outage = False
    until(lambda: sight.get("/readyz")[0] == 200, 120, "it does not come back")
    answered(sight, "slack", "back again")


def test_a_token_is_refused(file_place: FaultCluster) -> None:
    sight = Sight(file_place, changed={"SLACK_BOT_TOKEN": "xoxb-1-wrong"})
    logged(sight, "slack: needs configuration")
    logged(sight, "telegram: up")
    answered(sight, "telegram", "hello")

    told(
        "slack: needs configuration (SLACK_BOT_TOKEN is refused by Slack (invalid_auth); set it to ...)", sight.lines()
    )
    told("slack: needs configuration", sight.get("/readyz")[1])
    told("PROBLEM slack online: rejects the credentials", sight.doctor("--online"))
    assert not [line for line in sight.lines() if "xoxb-1-wrong" in line]


def test_redis_is_down(sight: Sight, own_redis: RedisServer) -> None:
    own_redis.kill()
    answered(sight, "telegram", "hello")

    told("Redis cannot be reached (ConnectionError); sweeps find what waits", sight.lines())
    told("PROBLEM Redis: does not answer (ConnectionError)", sight.doctor())
    assert sight.get("/readyz")[0] == sight.get("/")[0] == 200
    own_redis.start()
    answered(sight, "telegram", "hello again")


def test_postgresql_is_down(sight: Sight, own_cluster: Cluster) -> None:
    answered(sight, "slack", "hello")
    own_cluster.stop()
    sight.say("slack", "are you there?")
    logged(sight, "slack: restarting")

    for path in ("/", "/pair/", "/chat/"):
        status, text = sight.get(path)
        assert status == 503
        told(AWAY, text)
    assert sight.get("/healthz")[0] == 200
    assert sight.numbers()[0] == 503
    told("the database does not answer: OperationalError", sight.get("/readyz")[1])
    told("PROBLEM database: does not answer (OperationalError)", sight.doctor())
    told("sweep failed: OperationalError; trying again in ... s", sight.lines())
    told("slack: restarting (Superseded: the lease on the token was not renewed in time...", sight.lines())
    assert not [line for line in sight.lines() if "standby" in line]  # as if another process had it
    assert not [line for line in sight.lines() if "Traceback" in line]
    assert "are you there?" not in sight.heard("slack")

    own_cluster.start()
    until(lambda: "are you there?" in sight.heard("slack"), PATIENCE, "it is not answered")
    assert sight.get("/pair/")[0] == 200


def test_the_disk_is_full(file_place: FaultCluster) -> None:
    sight = Sight(file_place)
    answered(sight, "telegram", "hello")
    resource.prlimit(sight.bots.pid, resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
    sight.say("telegram", "are you there?")
    logged(sight, "telegram: restarting")
    sleep(1)

    told("telegram: restarting", sight.get("/readyz")[1])
    assert sight.get("/")[0] == 200  # what is only read is there
    status, text = sight.post("/pair/start/", "/pair/")
    assert status == 503
    told(AWAY, text)
    told("OperationalError: disk I/O error", sight.lines())
    assert not [line for line in sight.lines() if "Traceback" in line]

    resource.prlimit(sight.bots.pid, resource.RLIMIT_FSIZE, UNLIMITED)
    until(lambda: "are you there?" in sight.heard("telegram"), PATIENCE, "it is not answered")


def test_all_workers_are_down(sight: Sight) -> None:
    assert sight.worker
    sight.worker.kill()
    sight.say("telegram", "hello")
    logged(sight, "received")
    sight.place.database.execute(
        "UPDATE sessions_app_inboundevent SET received_at = received_at - interval '75 s' WHERE done_at IS NULL"
    )

    told("messages wait for ... s", sight.get("/readyz")[1])
    told("PROBLEM messages: 1 conversations waiting, the longest for ... s", sight.doctor())
    told("botos_lanes_waiting 1", sight.numbers()[1])


def test_the_agent_is_down(file_place: FaultCluster) -> None:
    down = file_place.folder / "down"
    down.touch()
    sight = Sight(file_place, changed={"FAULTS_AGENT_DOWN": str(down)})
    sight.bots.wait_until_up()
    sight.say("telegram", "hello")
    until(lambda: sight.heard("telegram"), PATIENCE, "nobody is told")

    told("I couldn't answer that just now. I saved your message and I'm trying again.", sight.heard("telegram"))
    told("event ...: not answered: AgentFailure: ...", sight.lines())
    until(lambda: 'botos_failures_total{platform="telegram"}' in sight.numbers()[1], PATIENCE, "it is not counted")
    told('botos_failures_total{platform="telegram"} ...', sight.numbers()[1])
    down.unlink()
    until(lambda: "hello" in sight.heard("telegram"), PATIENCE, "it is not tried again")
