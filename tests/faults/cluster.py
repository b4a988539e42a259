"""A PostgreSQL server of the test's own, which may be stopped at any moment."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from tests.faults.databases import Database, migrate, postgresql_at

BINARIES = "/usr/lib/postgresql/*/bin"


def binaries() -> Path | None:
    """Where initdb and pg_ctl are, if they are here."""
    if found := shutil.which("pg_ctl"):
        return Path(found).resolve().parent
    return max(Path("/").glob(BINARIES.lstrip("/")), default=None)


class Cluster:
    """Listens on loopback, in a folder of its own. Root may not run it, so then the user `postgres` does."""

    def __init__(self, folder: Path, tools: Path) -> None:
        self._folder, self._tools = folder, tools
        with closing(socket.create_server(("127.0.0.1", 0))) as free:
            self.port = free.getsockname()[1]
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres")
        self._run("initdb", "--auth=trust", "--username=postgres", "--pgdata", str(folder / "data"))
        self.start()

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self._folder}"
        self._ctl("start", "--wait", "--options", options, "--log", str(self._folder / "log"))

    def stop(self) -> None:
        """At once: connections break, and the next start recovers, as after a power cut."""
        self._ctl("stop", "--wait", "--mode", "immediate")

    def _ctl(self, *arguments: str) -> None:
        self._run("pg_ctl", *arguments, "--pgdata", str(self._folder / "data"))

    def _run(self, program: str, *arguments: str) -> None:
        user = "postgres" if os.geteuid() == 0 else None
        command = [str(self._tools / program), *arguments]
        # Not captured: the server would keep the pipe open.
        subprocess.run(command, user=user, cwd="/", check=True, timeout=60, stdout=subprocess.DEVNULL)

    def database(self, data: Path) -> Database:
        url = f"postgres://postgres@127.0.0.1:{self.port}/postgres"
        migrate(url, data)
        return postgresql_at(url)


@contextmanager
def cluster(tools: Path) -> Iterator[Cluster]:
    """A running one, gone at the end. Under /tmp, since pytest's own folders are closed to other users."""
    with tempfile.TemporaryDirectory(prefix="botos-cluster-", ignore_cleanup_errors=True) as folder:
        made = Cluster(Path(folder), tools)
        try:
            yield made
        finally:
            made.stop()
