"""The typing sign, where other processes answer, and where others receive."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.journeys.redis_server import RedisServer, redis_server
from tests.journeys.running import Platforms, Worker, environment, eventually, person, running
from tests.journeys.webhooks import Site, pages

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.journey]


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture
def settings(own_redis: RedisServer, tmp_path: Path) -> dict[str, str]:
    """Only notifications bring something to another process, and the agent waits for a line in the pipe."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    told = {"REDIS_URL": own_redis.url, "BOTOS_SWEEP_SECONDS": "600"}
    agent = {"BOTOS_AGENT": "tests.journeys.agents.UntilTold", "SNAIL_GATE": str(gate)}
    return told | agent | {"BOTOS_PRIVACY_NOTICE": "off"}


@contextmanager
def workers(platforms: Platforms, count: int, settings: dict[str, str]) -> Iterator[None]:
    with ExitStack() as ending:
        for _ in range(count):
            worker = Worker(**environment(platforms) | settings)
            ending.callback(worker.terminate)
        yield


def asked(platforms: Platforms, platform: str, settings: dict[str, str]) -> None:
    """A person asks the agent that waits, and sees the sign until the answer is there."""
    server: Any = platforms.servers[platform]
    alice = person(platform, 1)
    chat = server.private_chat(alice)
    thread = platforms.say(platform, alice, "hello")
    place = {"thread": thread} if platform == "slack" else {}  # it has no sign elsewhere
    first = platforms.replies(platform, alice)
    server.typing.calls.clear()

    platforms.say(platform, alice, "Ask a snail.", **place)
    eventually(lambda: server.typing.is_on(chat))
    assert platforms.replies(platform, alice) == first
    Path(settings["SNAIL_GATE"]).write_text("now")
    assert platforms.replies(platform, alice, len(first) + 1)[-1] == "You said: Ask a snail."
    shown = len(server.typing.calls)
    platforms.say(platform, alice, "!help")
    platforms.replies(platform, alice, len(first) + 2)

    assert not server.typing.is_on(chat)
    assert len(server.typing.calls) == shown


@pytest.mark.parametrize("platform", ["telegram", "discord", "slack"])
def test_it_is_shown_while_a_worker_elsewhere_answers(
    platforms: Platforms, settings: dict[str, str], platform: str
) -> None:
    with running(platforms, "--workers", "0", **settings), workers(platforms, 2, settings):
        asked(platforms, platform, settings)


@pytest.mark.parametrize("platform", ["telegram", "slack"])
def test_it_is_shown_for_what_pages_elsewhere_received(
    platforms: Platforms, settings: dict[str, str], platform: str
) -> None:
    site = Site(platforms)
    arguments = ("--platforms", "telegram", "slack", "--workers", "0")
    with (
        pages(platforms, site, **settings),
        running(platforms, *arguments, up="telegram slack", **site.settings(**settings)),
        workers(platforms, 1, settings),
    ):
        asked(platforms, platform, settings)
