"""The real thing: `manage.py runbots` in processes of its own, the real SDKs, and local servers for the platforms."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import Any, TypeVar

from django.db import connection

from adapters.playground.server import Person, Said
from tests import zygote
from tests.fakes.discord import FakeDiscord
from tests.fakes.server import FakeServer
from tests.fakes.slack import FakeSlack
from tests.fakes.telegram import FakeTelegram

T = TypeVar("T")
PROJECT = Path(__file__).resolve().parent.parent.parent
PLATFORMS = ("telegram", "discord", "slack")
PATIENCE = 120.0  # seconds until something that must happen counts as never, on a machine that does much else
TO_BE_KILLED = {"BOTOS_RECEIVER_LEASE_SECONDS": "3"}  # who comes after a killed process waits for the end of its lease


class Platforms:
    """The three local servers, on an event loop in a thread of their own, so that tests read from top to bottom."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        servers: tuple[FakeServer, ...] = (FakeTelegram(), FakeDiscord(), FakeSlack())
        self.servers = {server.platform: server for server in servers}
        for server in servers:
            self.do(server.start())

    def close(self) -> None:
        for server in self.servers.values():
            self.do(server.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def do(self, work: Awaitable[T]) -> T:
        """Have the servers' loop do something, and wait for it."""

        async def wait() -> T:
            return await work

        return asyncio.run_coroutine_threadsafe(wait(), self._loop).result(PATIENCE)

    def environment(self) -> dict[str, str]:
        return {name: value for server in self.servers.values() for name, value in server.environment().items()}

    def say(self, platform: str, person: Person, text: str, **place: Any) -> str:
        return self.do(self.servers[platform].say(person, text, **place))

    def replies(self, platform: str, person: Person, count: int = 1) -> list[str]:
        """What the bot said in the private chat of `person`, once it is at least `count` messages."""
        return self.replies_in(platform, self.servers[platform].private_chat(person), count)

    def replies_in(self, platform: str, chat: str, count: int = 1) -> list[str]:
        """The same for any chat."""
        said: list[Said] = self.do(self.servers[platform].wait_for(count, chat=chat, timeout=PATIENCE))
        return [one.text for one in said]


def person(platform: str, number: int, name: str = "Alice") -> Person:
    """Somebody's account. The ids have the form that the platform's have."""
    ids = {"telegram": f"{1000 + number}", "discord": f"3000000000{number:08d}", "slack": f"U0{name.upper()}{number}"}
    return Person(ids[platform], name, f"{name.lower()}{number}")


class Bots:
    """One `runbots` process. `program` is what Python is given to start it."""

    program: tuple[str, ...] = ("manage.py",)
    command = "runbots"

    def __init__(self, *arguments: str, up: tuple[str, ...] = PLATFORMS, **environment: str) -> None:
        self.lines: list[str] = []
        self._is_read = False  # to its end: the process says no more
        self._changed = threading.Condition()
        self._process = zygote.start(
            [*self.program, self.command, *arguments],
            environment=os.environ | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            for platform in up:
                self.wait_for_line(rf"{platform}: up")
        except BaseException:
            self.kill()
            raise

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._changed:
                self.lines.append(line.rstrip())
                self._changed.notify_all()
        with self._changed:
            self._is_read = True
            self._changed.notify_all()

    def wait_for_line(self, pattern: str) -> str:
        """The first line of the log that matches. Fails at once when the process has ended without it."""
        find = re.compile(pattern).search
        with self._changed:
            self._changed.wait_for(lambda: self._is_read or any(map(find, self.lines)), PATIENCE)
            if found := next(filter(find, self.lines), None):
                return found
            raise AssertionError(f"no line like {pattern!r} in:\n" + "\n".join(self.lines))

    def kill(self) -> None:
        """As a power cut does."""
        self._process.kill()
        self._end()

    def terminate(self) -> int:
        """As an operator does. The exit status."""
        self._process.send_signal(signal.SIGTERM)
        return self._end()

    def wait(self) -> int:
        """For a process that ends by itself. The exit status."""
        return self._end()

    def _end(self) -> int:
        status = self._process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        if self._process.stdout:
            self._process.stdout.close()
        return status

    def is_running(self) -> bool:
        return self._process.poll() is None


@contextmanager
def running(platforms: Platforms, *arguments: str, **settings: str) -> Iterator[Bots]:
    """A `runbots` process connected to the local servers and to the test's database, gone at the end. Its log is shown
    if the test fails.
    """
    up = settings.pop("up", " ".join(PLATFORMS)).split()
    bots = Bots(*arguments, up=tuple(up), **environment(platforms) | settings)
    try:
        yield bots
    except BaseException:
        print(*bots.lines, sep="\n")
        raise
    finally:
        if bots.is_running():
            bots.terminate()


def environment(platforms: Platforms) -> dict[str, str]:
    """What a process needs to work on the test's database and the local servers."""
    return {
        "DJANGO_SETTINGS_MODULE": "botos_project.settings",
        "DATABASE_URL": database_url(),
        "BOTOS_LEASE_SECONDS": "3",
        "BOTOS_SWEEP_SECONDS": "0.3",
        "PYTHONWARNINGS": "ignore",
    } | platforms.environment()


def database_url() -> str:
    """The test's own database, as another process names it."""
    given = connection.settings_dict
    if connection.vendor == "sqlite":
        return f"sqlite:///{given['NAME']}"
    return f"postgres://{given['USER']}:{given['PASSWORD']}@{given['HOST']}:{given['PORT']}/{given['NAME']}"


def eventually(holds: Callable[[], T], otherwise: Callable[[], str] = lambda: "it never happened") -> T:
    """Wait until another process has changed something in the database, which tells nobody."""
    deadline = monotonic() + PATIENCE
    while not (result := holds()):
        assert monotonic() < deadline, otherwise()
        sleep(0.02)
    return result


class Worker(Bots):
    """One `rqworker` process."""

    command = "rqworker"

    def __init__(self, **environment: str) -> None:
        super().__init__("turns", up=("worker",), **environment)
