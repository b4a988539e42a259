"""The processes under test: started, stopped, stalled and killed from outside."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from random import Random

from tests.journeys.running import PLATFORMS, Bots, Worker

APART = tuple((platform,) for platform in PLATFORMS)
TOGETHER = (PLATFORMS,)


class Process(Bots):
    """`runbots`, through the wrapper that can spoil it."""

    program = ("-m", "tests.faults.corrupted_inputs")

    def __init__(self, platforms: Sequence[str], environment: Mapping[str, str], arguments: Sequence[str] = ()) -> None:
        self.platforms = tuple(platforms)
        super().__init__("--platforms", *platforms, *arguments, up=(), **environment)

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_until_up(self) -> None:
        for platform in self.platforms:
            self.wait_for_line(rf"{platform}: up")
            if platform != "telegram":  # which tells of everything again by itself
                self.wait_for_line(rf"{platform}: what was missed in \d+ private chats is read")

    def stall(self) -> None:
        """Stop it in its tracks, as a suspended machine does."""
        self._process.send_signal(signal.SIGSTOP)

    def is_stalled(self) -> bool:
        status = Path(f"/proc/{self.pid}/stat").read_text(encoding="utf-8")
        return status.rpartition(")")[2].split()[0] == "T"

    def memory(self) -> int:
        """Kilobytes in use."""
        status = Path(f"/proc/{self.pid}/status").read_text(encoding="utf-8")
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))

    def go_on(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def ended(self, within: float) -> int:
        """Wait for the end that it finds by itself. The exit status."""
        self._process.wait(within)
        return self._end()


class Fleet:
    """All processes that serve one database, by place. A place keeps its platforms and gets new processes."""

    def __init__(
        self,
        environment: Mapping[str, str],
        parts: Sequence[Sequence[str]] = APART,
        arguments: Sequence[str] = (),
    ) -> None:
        self.arguments = tuple(arguments)
        self.environment = dict(environment)
        self.kills = 0
        self.statuses: list[int] = []
        self._all: list[Process] = []
        self.processes = [self._start(platforms) for platforms in parts]

    def _start(self, platforms: Sequence[str], **faults: str) -> Process:
        process = Process(platforms, self.environment | faults, self.arguments)
        self._all.append(process)
        return process

    def add(self, platforms: Sequence[str], **faults: str) -> Process:
        """One more, with these variables besides."""
        self.processes.append(self._start(platforms, **faults))
        return self.processes[-1]

    def wait_until_up(self) -> None:
        for process in self.processes:
            process.wait_until_up()

    def any(self, dice: Random) -> int:
        """The place of one of them."""
        return dice.randrange(len(self.processes))

    def kill(self, place: int) -> None:
        """End one as a power cut does, and start another in its place, without waiting for it to be up."""
        self.processes[place].kill()
        self.kills += 1
        self.replace(place)

    def replace_ended(self) -> None:
        """As systemd does."""
        for place, process in enumerate(self.processes):
            if not process.is_running():
                self.replace(place)
                self.kills += 1

    def replace(self, place: int, **faults: str) -> Process:
        """A new process in the place of one that has ended, with these variables besides."""
        self.processes[place] = self._start(self.processes[place].platforms, **faults)
        return self.processes[place]

    def close(self) -> None:
        """End everything that was started, whatever state it is in."""
        for process in self._all:
            with suppress(Exception):
                process.kill() if process.is_running() else process.wait()

    def log(self, pattern: str = "") -> list[str]:
        """The lines of all processes, in the order of their starts."""
        return [line for process in self._all for line in process.lines if pattern in line]


class Crew:
    """`rqworker` processes, which answer what the bots take in."""

    def __init__(self, count: int, environment: Mapping[str, str]) -> None:
        self.environment = dict(environment)
        self.kills = 0
        self.workers = [Worker(**self.environment) for _ in range(count)]

    def replace_ended(self) -> None:
        """As systemd does."""
        for place, worker in enumerate(self.workers):
            if not worker.is_running():
                worker.wait()
                self.workers[place] = Worker(**self.environment)
                self.kills += 1

    def end(self) -> None:
        for worker in self.workers:
            worker.kill() if worker.is_running() else worker.wait()
