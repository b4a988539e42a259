"""Many open pages, and a process that announces: what each page hears, and how long after."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from time import monotonic, sleep, time

import websockets
from django.conf import settings
from django.contrib.sessions.backends.db import SessionStore

from identity.browsers import attachments
from identity.browsers import sessions as browser_sessions
from identity.models import Browser, Pairing, PlatformAccount
from identity.support import clock
from tests import zygote
from tests.journeys.running import PATIENCE, PROJECT, database_url

ANNOUNCER = """
import sys, time, botos_project.setup
from identity import live
topic, count, pause = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
live.announce(topic, "ready")
for number in range(count):
    print(time.time(), flush=True)
    live.announce(topic, str(number))
    time.sleep(pause)
live._notifier.shutdown()
"""


@dataclass(frozen=True, slots=True)
class Load:
    """What every page heard: the kinds in order, each with its time; and when each event was announced."""

    heard: list[list[tuple[str, float]]]
    announced: list[float]

    @property
    def kinds(self) -> list[list[str]]:
        return [[kind for kind, _at in page] for page in self.heard]

    def p95(self) -> float:
        """Seconds from just before an event is announced until a page has heard it, over all pages and events."""
        waits = sorted(at - self.announced[int(kind)] for page in self.heard for kind, at in page)
        return waits[int(len(waits) * 0.95)]

    def rate(self) -> float:
        """Events announced in a second."""
        return len(self.announced) / (self.announced[-1] - self.announced[0])


def load(*, pages: int, events: int, redis_url: str, pause: float = 0.0) -> Load:
    """Open so many pages on a web server's process, and have another process announce so many events to all, each so
    many seconds after the one before.
    """
    account = PlatformAccount.objects.create(platform="telegram", platform_user_id="1")
    cookies = [_cookie_of_page(account) for _ in range(pages)]
    environment = os.environ | {
        "DJANGO_SETTINGS_MODULE": "botos_project.settings",
        "DATABASE_URL": database_url(),
        "REDIS_URL": redis_url,
        "PYTHONWARNINGS": "ignore",
    }
    with _serving(environment) as port:
        announcing = partial(_announce, f"account:{account.pk}", events, pause, environment)
        return asyncio.run(_measure(port, cookies, events, announcing))


def _cookie_of_page(account: PlatformAccount) -> str:
    browser, now = Browser.objects.create(name="Firefox"), clock.read()
    times = {"expires_at": now, "last_at": now, "ended_at": now}
    pairing = Pairing.objects.create(initiator_browser=browser, responder=account, state="attached", **times)
    attachments.attach(browser=browser, account=account, pairing=pairing)
    session = SessionStore()
    session[browser_sessions.SESSION_KEY] = str(browser.pk)
    session.save()
    return f"{settings.SESSION_COOKIE_NAME}={session.session_key}"


@contextmanager
def _serving(environment: dict[str, str]) -> Iterator[int]:
    """A uvicorn of its own. It inherits the socket, so that no port has to be guessed."""
    with ExitStack() as stack:
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=200))
        command = [sys.executable, "-m", "uvicorn", "botos_project.asgi:application", "--lifespan", "off"]
        number = listening.fileno()
        server = subprocess.Popen([*command, "--fd", str(number)], cwd=PROJECT, env=environment, pass_fds=[number])
        stack.callback(server.wait, PATIENCE)
        stack.callback(server.terminate)
        yield listening.getsockname()[1]


async def _measure(port: int, cookies: list[str], events: int, announcing: Callable[[], list[float]]) -> Load:
    opened: asyncio.Queue[None] = asyncio.Queue()
    listeners = [asyncio.create_task(_listen(port, cookie, events, opened)) for cookie in cookies]
    for _ in listeners:
        await asyncio.wait_for(opened.get(), PATIENCE)
    announced = await asyncio.to_thread(announcing)
    return Load(await asyncio.gather(*listeners), announced)


async def _listen(port: int, cookie: str, events: int, opened: asyncio.Queue[None]) -> list[tuple[str, float]]:
    """Everything that comes until the last event has, and what still comes a moment later."""
    heard: list[tuple[str, float]] = []
    origin, headers = websockets.Origin(f"http://127.0.0.1:{port}"), {"Cookie": cookie}
    address = f"ws://127.0.0.1:{port}/live/"
    async with websockets.connect(address, origin=origin, additional_headers=headers, open_timeout=PATIENCE) as page:
        await page.send(json.dumps({"after": 0}))
        assert json.loads(await page.recv()) == {"ready": True}
        opened.put_nowait(None)
        deadline = monotonic() + 2 * PATIENCE
        while (left := deadline - monotonic()) > 0:
            try:
                told = json.loads(await asyncio.wait_for(page.recv(), left))["events"]
            except TimeoutError:
                break
            heard += [(event["kind"], time()) for event in told if event["kind"].isdecimal()]
            if len(heard) == events:
                deadline = min(deadline, monotonic() + 1.5)
    return heard


def _announce(topic: str, events: int, pause: float, environment: dict[str, str]) -> list[float]:
    sleep(0.5)
    done = zygote.run(["-c", ANNOUNCER, topic, events, pause], environment=environment, check=True)
    return [float(line) for line in done.stdout.split()]
