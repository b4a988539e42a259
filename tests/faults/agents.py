"""The agent of the processes under test. It says back what it was told, and does harm when it is asked to."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from time import time

from sessions_app import texts
from sessions_app.agents import PermanentFailure
from sessions_app.messages import Reply, Turn

THINKING = float(os.environ.get("FAULTS_THINKING", "0.05"))  # seconds
HARMFUL = "poison"
FAILS = "fails"  # it fails at a message with this word, however often it is asked
REFUSED = "refused"  # the provider of its model takes no request with this word, be it in the message or before it
STARTS = os.environ.get("FAULTS_STARTS", "")  # a file that is told when it was asked what
DOWN = os.environ.get("FAULTS_AGENT_DOWN", "")  # while this file exists, it fails


class Parrot:
    """Answers every message with its own words, so that a reply tells which messages it answers."""

    async def reply(self, turn: Turn) -> Reply:
        if DOWN and Path(DOWN).exists():  # noqa: ASYNC240 - a look at a local file
            raise ConnectionError("the model is down")
        if STARTS:
            await asyncio.to_thread(_note, turn.text)
        await asyncio.sleep(THINKING)
        if HARMFUL in turn.text:
            os._exit(1)
        if FAILS in turn.text:
            raise ConnectionError("the model is down, for this message only")
        if any(REFUSED in text for text in (turn.text, *(line.text for line in turn.history))):
            raise PermanentFailure("400: the content is refused", texts.DECLINED, is_refused=True)
        return Reply(turn.text)


def _note(text: str) -> None:
    """One write for each, so that those of several processes do not mix."""
    lines = "".join(f"{time()} {line}\n" for line in text.splitlines())
    with Path(STARTS).open("a", encoding="utf-8") as file:
        file.write(lines)
