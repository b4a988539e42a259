"""What can be seen of processes when something is down: pages, probes, numbers, the doctor, logs."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass, field
from html import unescape
from http.client import HTTPConnection

from tests.faults.fault_cluster import FaultCluster
from tests.faults.processes import TOGETHER, Process
from tests.journeys.running import PROJECT, Worker, person

METRICS = "only-for-fault-tests"


@dataclass
class Sight:
    """Bots with pages and, with Redis, a worker that answers; and what of them can be seen."""

    place: FaultCluster
    redis_url: str = ""
    changed: dict[str, str] = field(default_factory=dict)  # settings

    def __post_init__(self) -> None:
        with closing(socket.create_server(("127.0.0.1", 0))) as free:
            self.port = free.getsockname()[1]
        given = {
            "BOTOS_METRICS_TOKEN": METRICS,
            "REDIS_URL": self.redis_url,
            "BOTOS_SWEEP_SECONDS": "2",
            "BOTOS_RECEIVER_LEASE_SECONDS": "9",
        }
        self.environment = os.environ | self.place.environment() | given | self.changed
        arguments = ["--web", f"127.0.0.1:{self.port}", *(["--workers", "0"] if self.redis_url else [])]
        self.bots: Process = self.place.begin(TOGETHER, arguments=arguments, **given, **self.changed).processes[0]
        if not self.changed:
            self.bots.wait_until_up()
        self.worker = Worker(**self.environment) if self.redis_url else None

    def close(self) -> None:
        if self.worker and self.worker.is_running():
            self.worker.kill()

    def get(self, path: str, **headers: str) -> tuple[int, str]:
        """Status and text of an answer; of a page, what a person reads below the menu."""
        status, text, _ = self._ask("GET", path, "", headers)
        return status, _read(text)

    def post(self, path: str, form: str) -> tuple[int, str]:
        """The same for what a person sends with a form on the page `form`."""
        _, page, cookies = self._ask("GET", form, "", {})
        [token, *_] = re.findall(r'name="csrfmiddlewaretoken" value="([^"]+)"', page)
        headers = {"Cookie": cookies, "Content-Type": "application/x-www-form-urlencoded"}
        status, text, _ = self._ask("POST", path, f"csrfmiddlewaretoken={token}", headers)
        return status, _read(text)

    def _ask(self, method: str, path: str, body: str, headers: dict[str, str]) -> tuple[int, str, str]:
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
            connection.request(method, path, body, {"Host": "localhost", **headers})
            answer = connection.getresponse()
            cookies = "; ".join(one.partition(";")[0] for one in answer.headers.get_all("Set-Cookie", []))
            return answer.status, answer.read().decode(), cookies

    def numbers(self) -> tuple[int, str]:
        """/metrics, as Prometheus asks for it."""
        return self.get("/metrics", Authorization=f"Bearer {METRICS}")

    def doctor(self, *words: str) -> list[str]:
        """What an operator reads who asks the doctor now."""
        command = [sys.executable, "manage.py", "doctor", *words]
        done = subprocess.run(
            command, cwd=PROJECT, env=self.environment, capture_output=True, text=True, check=False, timeout=60
        )
        return [f"exit status {done.returncode}", *(done.stdout + done.stderr).splitlines()]

    def lines(self) -> list[str]:
        """What the bots and the worker logged, without the time."""
        logged = [*self.bots.lines, *(self.worker.lines if self.worker else [])]
        return [re.sub(r"^\d{4}-\S+ \S+ ", "", line) for line in logged]

    def say(self, platform: str, text: str) -> None:
        """Alice writes to the bot."""
        self.place.population.do(self.place.population.servers[platform].say(person(platform, 1), text))

    def heard(self, platform: str) -> list[str]:
        """What the bot said to Alice."""
        chat = self.place.population.servers[platform].private_chat(person(platform, 1))
        return self.place.population.replies().get((platform, chat), [])


def _read(text: str) -> str:
    main = re.search(r"<main.*</main>", text, re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", main[0])).split()) if main else text.strip()
