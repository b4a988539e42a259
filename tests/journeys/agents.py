"""Agents for processes under test, named by BOTOS_AGENT."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from pathlib import Path

from sessions_app.agents.recall import RecallAgent
from sessions_app.messages import Reply, Turn


class SlowEcho:
    """Says back what it was told, after a while in which its process can be killed."""

    async def reply(self, turn: Turn) -> Reply:
        await asyncio.sleep(0.3)
        return Reply(f"You said: {turn.text}")


class UntilStopped:
    """Says back what it was told, but for a question with a snail in it, which it thinks about until it is stopped."""

    async def reply(self, turn: Turn) -> Reply:
        if "snail" in turn.text:
            await asyncio.Event().wait()
        return Reply(f"You said: {turn.text}")


class Length:
    """Says how much it was told."""

    async def reply(self, turn: Turn) -> str:
        return f"{len(turn.text)} characters"


class Spelling:
    """Knows what `RecallAgent` knows. To whoever speaks of a snail it spells the beginning of its answer, slowly enough
    to be watched.
    """

    async def reply(self, turn: Turn) -> Reply | AsyncIterator[str]:
        reply = await RecallAgent().reply(turn)
        return self._spell(reply.text) if "snail" in turn.text else reply

    async def _spell(self, text: str) -> AsyncIterator[str]:
        for letter in text[:30]:
            await asyncio.sleep(0.15)
            yield letter
        yield text[30:]


class AllAtOnce:
    """Answers nobody before a hundred have asked."""

    def __init__(self) -> None:
        self._barrier = asyncio.Barrier(100)

    async def reply(self, turn: Turn) -> Reply:
        await self._barrier.wait()
        return Reply("You are one of 100.")


_threads = threading.Barrier(100, timeout=20)


class AllAtOnceInThreads:
    """The same, each blocking a thread."""

    def chat(self, prompt: str) -> str:
        _threads.wait()
        return "You are one of 100."


class UntilTold:
    """Answers a question with a snail in it once somebody has written into the pipe that SNAIL_GATE names, and all
    others at once.
    """

    async def reply(self, turn: Turn) -> Reply:
        if "snail" in turn.text:
            await asyncio.to_thread(Path(os.environ["SNAIL_GATE"]).read_text)
        return Reply(f"You said: {turn.text}")


class Speakers:
    """Says who speaks now and who spoke before, as a model reads it."""

    async def reply(self, turn: Turn) -> str:
        before = [line.author for line in turn.history if line.role == "user"]
        return f"{turn.speaker} after {', '.join(before) or 'nobody'}"
