"""How soon people see the typing sign: `python -P typing_sign.py '{"option": value}'` prints a JSON object.

Real processes and local servers of Telegram and Discord, on a database of their own. Everybody writes at the same
moment, and the agent takes two seconds.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import django

django.setup()

from adapters.playground.server import Person, Typing  # noqa: E402
from tests.fakes.discord import FakeDiscord  # noqa: E402
from tests.fakes.server import FakeServer  # noqa: E402
from tests.fakes.telegram import FakeTelegram  # noqa: E402
from tests.journeys.redis_server import redis_server  # noqa: E402
from tests.journeys.webhooks import SECRET, free_port  # noqa: E402

PATIENCE = 120.0  # seconds for everybody to be answered
READING = 2.0  # seconds in which people read an answer
AGENT = """
import asyncio

class Agent:
    async def reply(self, turn):
        await asyncio.sleep(2)
        return "Certainly!"
"""
SHARE = 0.95
ARRANGEMENTS = ("together", "apart", "called")


class Processes:
    """The processes of one arrangement. Each is given the same environment."""

    def __init__(self, ending: ExitStack, tree: str, environment: Mapping[str, str]) -> None:
        self._ending, self._tree, self._environment = ending, tree, environment

    def start(self, *command: str) -> None:
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=self._tree,
            env=dict(self._environment),
            stdout=subprocess.DEVNULL,
            stderr=sys.stderr,
        )
        self._ending.callback(process.wait, 40)
        self._ending.callback(process.terminate)

    def arrange(self, how: str, platforms: tuple[str, ...], port: int) -> None:
        """together: one process. apart: two workers and the pages besides. called: the pages receive, too."""
        bots = ("manage.py", "runbots", "--platforms", *platforms)
        if how == "together":
            self.start(*bots)
            return
        pages = ("-m", "uvicorn", "botos_project.asgi:application", "--host", "127.0.0.1", "--port", str(port))
        self.start(*pages, "--lifespan", "off", "--no-access-log")
        self.start(*bots, "--workers", "0")
        for _ in range(2):
            self.start("manage.py", "rqworker", "turns")


@asynccontextmanager
async def arranged(how: str, tree: str, url: str, redis: str) -> AsyncIterator[list[FakeServer]]:
    """The servers that the processes talk to."""
    servers: list[FakeServer] = [FakeTelegram(), *([FakeDiscord()] if how == "together" else [])]
    for server in servers:
        await server.start()
    port = free_port()
    environment = os.environ | {"DATABASE_URL": url, "BOTOS_AGENT": "slow_agent.Agent"}
    for server in servers:
        environment |= server.environment()
    environment |= {} if how == "together" else {"REDIS_URL": redis}
    if how == "called":
        environment |= {"BOTOS_PUBLIC_URL": f"http://127.0.0.1:{port}", "BOTOS_TELEGRAM_TRANSPORT": "webhook"}
        environment |= {"TELEGRAM_WEBHOOK_SECRET": SECRET}
    with ExitStack() as ending:
        folder = ending.enter_context(tempfile.TemporaryDirectory())
        await asyncio.to_thread(Path(folder, "slow_agent.py").write_text, AGENT)
        environment |= {"PYTHONPATH": f"{environment['PYTHONPATH']}{os.pathsep}{folder}", "BOTOS_DATA_DIR": folder}
        processes = Processes(ending, tree, environment)
        await asyncio.to_thread(processes.arrange, how, tuple(server.platform for server in servers), port)
        yield servers
    for server in servers:
        await server.stop()


async def all_write(server: FakeServer, people: list[Person]) -> list[float]:
    """Seconds until each person sees the sign, from when the bot accepted the message. Returns when all are answered.

    Who is answered without a sign counts as if it came with the answer.
    """
    typing: Typing = server.typing  # type: ignore[attr-defined]
    before, chats = len(typing.calls), [server.private_chat(person) for person in people]
    accepted_at: dict[str, float] = {}
    seen_at: dict[str, float] = {}

    async def follow(person: Person, chat: str) -> None:
        answers = sum(one.author_id == "bot" and one.chat_id == chat for one in server.said) + 1
        message_id = await server.say(person, "How far is it?")
        await server.acknowledged(message_id, PATIENCE)
        accepted_at[chat] = monotonic()
        await server.wait_for(answers, chat=chat, timeout=PATIENCE)
        seen_at[chat] = monotonic()

    await asyncio.gather(*map(follow, people, chats))
    seen_at |= {call.chat_id: call.at for call in reversed(typing.calls[before:])}  # the first of each chat
    return [max(0.0, seen_at[chat] - accepted_at[chat]) for chat in chats]


async def measure(*, tree: str, url: str, people: int) -> dict[str, float]:
    """Milliseconds within which 95 of 100 people see the sign, by arrangement."""
    found = {}
    with redis_server() as redis:
        for how in ARRANGEMENTS:
            async with arranged(how, tree, url, redis.url) as servers:
                for server in servers:
                    first = 1000 if server.platform == "telegram" else 300000000000000000
                    crowd = [Person(str(first + nth), f"P{nth}", f"p{nth}") for nth in range(people)]
                    await all_write(server, crowd)  # they become known
                    await asyncio.sleep(READING)
                    waits = sorted(await all_write(server, crowd))
                    name = how if server.platform == "telegram" else server.platform
                    found[name] = 1000 * waits[round(SHARE * (people - 1))]
    return found


if __name__ == "__main__":
    options: dict[str, Any] = json.loads(sys.argv[1])
    print(json.dumps(asyncio.run(measure(**options))))
