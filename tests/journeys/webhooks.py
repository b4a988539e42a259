"""What a journey by webhook needs besides: an address, a server of pages, and platforms that call."""

from __future__ import annotations

import socket
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from typing import Any

from tests.fakes.slack import FakeSlack
from tests.fakes.telegram import FakeTelegram
from tests.journeys.running import Bots, Platforms, environment, eventually

SECRET = "of-the-webhook-and-of-this-test-alone"


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        return int(free.getsockname()[1])


class Site:
    """Where the platforms call. Slack does from now on; Telegram, when the bot tells it to."""

    def __init__(self, platforms: Platforms) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        telegram, slack = platforms.servers["telegram"], platforms.servers["slack"]
        assert isinstance(telegram, FakeTelegram)
        assert isinstance(slack, FakeSlack)
        self.telegram, self.slack = telegram, slack
        self.slack.http.url = f"{self.url}/hooks/slack"

    def settings(self, **more: str) -> dict[str, str]:
        """What a process needs to receive, or to be the bot of, these webhooks."""
        return {
            "BOTOS_PUBLIC_URL": self.url,
            "BOTOS_TELEGRAM_TRANSPORT": "webhook",
            "TELEGRAM_WEBHOOK_SECRET": SECRET,
            "BOTOS_SLACK_TRANSPORT": "http",
        } | more


def answers(port: int) -> bool:
    """Whether somebody serves pages there."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


class Pages(Bots):
    """One uvicorn process, which serves the pages and runs no bots."""

    program = ("-m", "uvicorn")
    command = "botos_project.asgi:application"

    def __init__(self, port: int, **environment: str) -> None:
        how = ("--host", "127.0.0.1", "--port", str(port), "--lifespan", "off", "--no-access-log")
        bounds = ("--http", "adapters.runtime.http_connections:Connection", "--backlog", "128")
        super().__init__(*how, *bounds, up=(), **environment)
        eventually(partial(answers, port))


@contextmanager
def pages(platforms: Platforms, site: Site, **more: str) -> Iterator[Pages]:
    """A process of pages, gone at the end."""
    started = Pages(site.port, **environment(platforms) | site.settings(**more))
    try:
        yield started
    finally:
        if started.is_running():
            started.terminate()


def together(site: Site, **more: str) -> dict[str, Any]:
    """How `running` starts bots and pages in one process."""
    return {"up": "telegram slack web", **site.settings(**more)}
