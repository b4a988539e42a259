"""Measures how long it takes until people read each row of docs/reference/model.md, and writes the column "time".

    python -m tests.sessions_app.model_times

A `runbots` process talks to the local Telegram and to the local model, which answers at once.
"""

from __future__ import annotations

import asyncio
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from time import monotonic
from typing import Any

ROUNDS = 3


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update(
            BOTOS_ENV_FILE="",
            BOTOS_DATA_DIR=folder,
            DATABASE_URL=f"sqlite:///{folder}/botos.sqlite3",
            SECRET_KEY="only-to-measure-and-therefore-not-a-secret-at-all-but-long",
            BOTOS_PRIVACY_NOTICE="off",
            BOTOS_MODEL="openai:tiny",
            BOTOS_AGENT=f"{__package__}.model_times.agent",
            DJANGO_SETTINGS_MODULE="botos_project.settings",
            PYTHONWARNINGS="ignore",
        )
        subprocess.run([sys.executable, "manage.py", "migrate", "--verbosity", "0"], check=True)
        import django

        django.setup()
        write(measured())


def agent() -> Any:
    """The built-in agent with the tools of the rows."""
    from sessions_app.agents import Agent
    from tests.sessions_app.test_model_agent import broken, whoami

    return Agent(tools=[broken, whoami])


def measured() -> dict[str, float]:
    """The seconds of each row: the median of some rounds, each of a person who has not written before."""
    from tests.journeys.running import TO_BE_KILLED, Bots, Platforms, person
    from tests.sessions_app.model_server import KEY, ModelServer, says
    from tests.sessions_app.test_model_agent import BEHAVIOURS, SERVERS

    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
    started, ended = threading.Event(), asyncio.Event()
    server, loop = ModelServer(key=KEY), asyncio.new_event_loop()

    async def serve() -> None:
        async with server.running():
            started.set()
            await ended.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    started.wait()
    platforms = Platforms()
    settings = {"OPENAI_BASE_URL": server.base_url, "OPENAI_API_KEY": KEY, **TO_BE_KILLED, **platforms.environment()}
    usual = vars(server) | {}
    seconds: dict[str, float] = {}
    number = 0
    bots: Bots | None = None
    try:
        for row, answers in BEHAVIOURS.items():
            bots = bots or Bots("--platforms", "telegram", up=("telegram",), **settings)
            taken = []
            for _ in range(ROUNDS + 1):
                number += 1
                who = person("telegram", number)
                vars(server).update(usual | {"answer": lambda body: says("Hello.")})
                platforms.say("telegram", who, "My favourite colour is octarine.")
                platforms.replies("telegram", who)
                if "room for" in row or "longer than" in row:
                    remember(who.id)
                vars(server).update(usual | SERVERS.get(row, {}) | {"answer": answers[0]})
                began = monotonic()
                platforms.say("telegram", who, "What is my favourite colour?")
                platforms.replies("telegram", who, 2)
                taken.append(monotonic() - began)
            seconds[row] = statistics.median(taken[1:])  # the first turn of a process imports what it needs
            print(f"{seconds[row]:.2f} s  {row}", flush=True)
            if "fields" in SERVERS.get(row, {}):  # this process remembers what the server does not know
                bots.kill()
                bots = None
    finally:
        if bots:
            bots.kill()
        platforms.close()
        loop.call_soon_threadsafe(ended.set)
        thread.join()
    return seconds


def remember(chat: str) -> None:
    """Give the person 50 lines of history."""
    from sessions_app.models import Conversation, HistoryEntry
    from tests.sessions_app.test_model_agent import pages

    conversation = Conversation.objects.get(platform="telegram", chat_id=chat)
    place = {"platform": "telegram", "chat_id": chat, "author": conversation.account, "conversation": conversation}
    HistoryEntry.objects.bulk_create(HistoryEntry(role=one.role, text=one.text, **place) for one in pages(50))


def write(seconds: dict[str, float]) -> None:
    from tests.sessions_app.test_model_agent import DOCUMENT

    lines = DOCUMENT.read_text(encoding="utf-8").splitlines()
    for place, line in enumerate(lines):
        row, last = line.removeprefix("| ").partition(" |")[0], line.rfind(" | ")
        if row in seconds:
            lines[place] = f"{line[:last]} | {seconds[row]:.1f} s |"
    Path(DOCUMENT).write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
