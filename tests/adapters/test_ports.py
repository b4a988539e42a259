"""Where `runbots --web` listens if a port is in use."""

from __future__ import annotations

import errno

import pytest
from django.core.exceptions import ImproperlyConfigured
from pytest_django import Settings

from adapters.management.commands import runbots
from adapters.runtime import webserver
from botos_project.env import Environment


class Server:
    """Takes no port: those below `free` are in use."""

    free = 8002

    def __init__(self, host: str, port: int) -> None:
        if port < self.free:
            raise OSError(errno.EADDRINUSE, "in use")
        self.port = port


@pytest.fixture(autouse=True)
def _server(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    monkeypatch.setattr(webserver, "WebServer", Server)
    settings.ENV = Environment({})


def test_it_takes_the_next_free_port_for_the_playground() -> None:
    assert runbots._web("", playground=True).port == 8002


def test_it_changes_no_port_that_somebody_chose(settings: Settings) -> None:
    with pytest.raises(ImproperlyConfigured, match=r"Port 8000 on 127\.0\.0\.1 is in use"):
        runbots._web("127.0.0.1:8000", playground=True)
    with pytest.raises(ImproperlyConfigured, match="in use"):
        runbots._web("", playground=False)
    settings.ENV = Environment({"BOTOS_WEB": "127.0.0.1:8000"})
    with pytest.raises(ImproperlyConfigured, match="in use"):
        runbots._web("", playground=True)
