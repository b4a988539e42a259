"""Agents for processes under test, named by BOTOS_AGENT."""

from __future__ import annotations

import asyncio

from sessions_app.messages import Reply, Turn


class SlowEcho:
    """Says back what it was told, after a while in which its process can be killed."""

    async def reply(self, turn: Turn) -> Reply:
        await asyncio.sleep(0.3)
        return Reply(f"You said: {turn.text}")
