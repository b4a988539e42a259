"""A turn of another project's session layer: `python -P peer.py NAME '{"option": value}'` prints a JSON object.

It runs in an environment in which that project is installed. A turn is what the project itself does for a message
around its agent: find the session, load its history, ask, and store both sides. The agent answers at once. Nothing is
received from a platform, made durable, or delivered.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

QUESTION = "And how long will it take to get there by train if I leave on Thursday morning?"
ANSWER = "About four hours: leave at 7:12, change once, and you arrive a little after eleven. Shall I remind you?"
ASKED, ANSWERED = {"role": "user", "content": QUESTION}, {"role": "assistant", "content": ANSWER}

Ask = Callable[[int], Awaitable[object]]  # a turn of the person of that number


def praisonai() -> Ask:
    """As its bots do, with its default session store."""
    store = importlib.import_module("praisonaiagents.session").get_default_session_store()
    manager = importlib.import_module("praisonai_bot.bots._session").BotSessionManager(store=store, platform="telegram")

    class Agent:
        chat_history: list[dict[str, str]] = []

        def chat(self, prompt: str, **_: object) -> str:
            self.chat_history = [*self.chat_history, ASKED, ANSWERED]
            return ANSWER

    agent = Agent()
    return lambda person: manager.chat(agent, str(person), QUESTION, chat_id=str(person))


def nanobot() -> Ask:
    """As its agent loop does: stored when received, and when answered."""
    manager = importlib.import_module("nanobot.session.manager").SessionManager(Path.cwd() / "workspace")

    async def ask(person: int) -> None:
        session = manager.get_or_create(f"telegram:{person}")
        session.add_message(**ASKED)
        manager.save(session)
        session.get_history()
        session.add_message(**ANSWERED)
        manager.save(session)

    return ask


def hermes() -> Ask:
    """As its gateway does."""
    config, sessions = (importlib.import_module(f"gateway.{name}") for name in ("config", "session"))
    store = sessions.AsyncSessionStore(sessions.SessionStore(Path.cwd() / "sessions", config.GatewayConfig()))

    async def ask(person: int) -> None:
        source = sessions.SessionSource(config.Platform.TELEGRAM, f"chat-{person}", user_id=str(person))
        entry = await store.get_or_create_session(source)
        await store.load_transcript(entry.session_id)
        await store.append_to_transcript(entry.session_id, dict(ASKED))
        await store.append_to_transcript(entry.session_id, dict(ANSWERED))
        await store.update_session(entry.session_key)

    return ask


async def measured(ask: Ask, *, people: int, entries: int, turns: int, in_flight: int) -> dict[str, float]:
    """CPU and duration of a turn in milliseconds, with so many entries in each history."""

    async def ask_all(count: int) -> None:
        waiting, left = deque(range(people)), iter(range(count))

        async def one_after_another() -> None:
            for _ in left:
                person = waiting.popleft()
                await ask(person)
                waiting.append(person)

        await asyncio.gather(*(one_after_another() for _ in range(in_flight)))

    await ask_all(people * entries // 2)
    cpu, began = time.process_time(), time.perf_counter()
    await ask_all(turns)
    cpu, took = time.process_time() - cpu, time.perf_counter() - began
    return {"cpu": 1000 * cpu / turns, "elapsed": 1000 * took / turns}


PEERS: dict[str, Callable[[], Ask]] = {"praisonai": praisonai, "nanobot": nanobot, "hermes": hermes}

if __name__ == "__main__":
    result: dict[str, Any] = asyncio.run(measured(PEERS[sys.argv[1]](), **json.loads(sys.argv[2])))
    sys.stdout.write("\n" + json.dumps(result) + "\n")
