"""Real bots on a local Telegram server: `python -P telegram.py STEP '{"option": value}'` prints a JSON object.

The server is that of the tree in PYTHONPATH, whichever bots talk to it. What counts is what the bots' process uses.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import django

django.setup()

from adapters.playground.server import Person  # noqa: E402
from tests.fakes.telegram import FakeTelegram  # noqa: E402

PATIENCE = 120.0  # seconds for everybody to be answered
SETTLED = 5.0  # seconds after which a process that just answered is idle
REPLY = "Certainly! Here is what I can say about that, in a few short sentences so that it stays readable on a phone."
WORDS = "the quick brown fox jumps over the lazy dog and wants to know more about it"
ECHO = f"""
import os
from telegram.ext import ApplicationBuilder, MessageHandler, filters

async def echo(update, context):
    await context.bot.send_message(update.effective_chat.id, {REPLY!r})

builder = ApplicationBuilder().token(os.environ["TELEGRAM_BOT_TOKEN"]).base_url(os.environ["TELEGRAM_API_URL"] + "/bot")
app = builder.concurrent_updates(256).connection_pool_size(256).pool_timeout(60).build()
app.add_handler(MessageHandler(filters.TEXT, echo))
app.run_polling(poll_interval=0.0)
"""
AGENT = f"class Agent:\n    async def reply(self, turn):\n        return {REPLY!r}\n"


class Chats:
    """People who write to the bots, and the process of the bots."""

    def __init__(self, server: FakeTelegram, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self._server = server

    async def ask(self, people: list[Person], patience: float = PATIENCE) -> None:
        """Have all write at once, and wait for all answers."""
        missing = {self._server.private_chat(person): self._count(person) + 1 for person in people}
        for person in people:
            await self._server.say(person, WORDS)
        async with asyncio.timeout(patience):
            for chat, count in missing.items():
                await self._server.wait_for(count, chat=chat, timeout=patience)

    def _count(self, person: Person) -> int:
        chat = self._server.private_chat(person)
        return sum(said.author_id == "bot" and said.chat_id == chat for said in self._server.said)

    def cpu(self) -> float:
        """Seconds of CPU that the bots used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(") ")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self) -> dict[str, float]:
        """Megabytes that the bots use: all, and without their part of what several processes share."""
        lines = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text().splitlines()[1:]
        sizes = {line.partition(":")[0].lower(): int(line.split()[1]) / 1024 for line in lines}
        return {name: sizes[name] for name in ("pss", "rss")}


def start(tree: str, url: str, folder: str, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start the bots of a tree on a database, or without a tree a bot that is no BotOS."""
    environment = os.environ | environment | {"PYTHONPATH": folder}
    command = ["-c", ECHO]
    if tree:
        Path(folder, "constant_agent.py").write_text(AGENT)
        environment |= {"DATABASE_URL": url, "BOTOS_DATA_DIR": folder, "BOTOS_AGENT": "constant_agent.Agent"}
        command = ["manage.py", "runbots", "--platforms", "telegram"]
    return subprocess.Popen(
        [sys.executable, *command], cwd=tree or folder, env=environment, stdout=subprocess.DEVNULL, stderr=sys.stderr
    )


@asynccontextmanager
async def bots(tree: str, url: str) -> AsyncIterator[Chats]:
    """Bots that run, once the first answer came."""
    server = FakeTelegram()
    await server.start()
    with tempfile.TemporaryDirectory() as folder:
        process = start(tree, url, folder, server.environment())
        try:
            chats = Chats(server, process)
            await chats.ask([Person("1000", "First", "first")])
            yield chats
        finally:
            process.terminate()
            process.wait(40)
            await server.stop()


async def end_to_end(*, tree: str, url: str, burst: int, alone: int) -> dict[str, float]:
    """CPU of a message in milliseconds, of many at once and of one at a time."""
    async with bots(tree, url) as chats:
        people = [Person(str(2000 + number), f"P{number}", f"p{number}") for number in range(burst)]
        await chats.ask(people)  # they become known
        began = chats.cpu()
        await chats.ask(people)
        together = chats.cpu() - began
        began = chats.cpu()
        for _ in range(alone):
            await chats.ask(people[:1])
        one_by_one = chats.cpu() - began
    return {"burst": 1000 * together / burst, "one": 1000 * one_by_one / alone}


async def memory(*, tree: str, url: str, burst: int, alone: int) -> dict[str, float]:
    """Megabytes of idle bots that answered one message."""
    async with bots(tree, url) as chats:
        await asyncio.sleep(SETTLED)
        return chats.memory()


STEPS: dict[str, Callable[..., Any]] = {"end_to_end": end_to_end, "memory": memory}

if __name__ == "__main__":
    print(json.dumps(asyncio.run(STEPS[sys.argv[1]](**json.loads(sys.argv[2])))))
