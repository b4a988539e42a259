"""A Redis server of the test's own, which may be killed at any moment."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from time import monotonic, sleep

import pytest
from redis import Redis
from redis.exceptions import RedisError


class RedisServer:
    """Listens on loopback, and writes nothing down."""

    def __init__(self, password: str = "") -> None:
        with closing(socket.create_server(("127.0.0.1", 0))) as free:
            self.port = free.getsockname()[1]
        self.url = f"redis://:{password}@127.0.0.1:{self.port}/0" if password else f"redis://127.0.0.1:{self.port}/0"
        self._password = password
        self._client = Redis.from_url(self.url)
        self.start()

    def start(self) -> None:
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        command += ["--requirepass", self._password] if self._password else []
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        deadline = monotonic() + 10
        while not self._answers():
            assert monotonic() < deadline, "Redis does not start"
            sleep(0.02)

    def _answers(self) -> bool:
        try:
            return bool(self._client.ping())
        except RedisError:
            return False

    def flush(self) -> None:
        """Everything in it is gone."""
        self._client.flushall()

    def kill(self) -> None:
        """As a power cut does."""
        self._process.kill()
        self._process.wait()

    def dump(self) -> str:
        """All keys with what they hold."""
        return repr([(key, self._client.dump(key)) for key in self._client.scan_iter("*")])

    def keys(self, pattern: str = "*") -> list[str]:
        return sorted(map(str, self._client.scan_iter(pattern)))


@contextmanager
def redis_server(password: str = "") -> Iterator[RedisServer]:
    """A running one, gone at the end."""
    if not shutil.which("redis-server"):
        pytest.skip("there is no redis-server here")
    server = RedisServer(password)
    try:
        yield server
    finally:
        server._client.close()
        server.kill()
