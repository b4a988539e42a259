"""The story: what Alice does on three apps, step by step, through the real adapters, and what that shows."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import TypeVar

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from adapters.playground import watching
from adapters.playground.stage import PERSONAS, Playground
from sessions_app import db

T = TypeVar("T")

ALICE = PERSONAS[0]
PATIENCE = 15.0  # seconds until an answer that does not come counts as missing
SECRET = re.compile(r"\b(?:[A-Z]{4}-[A-Z]{4}|\d{3} \d{3})\b")  # a link code, or the number that travels back


class Stuck(Exception):
    """The bot has not answered the step before; the step can be tried again."""


@dataclass(frozen=True, slots=True)
class Step:
    """Alice writes `text` on `platform`, or what the bot showed her on `copies`, or presses the button that begins with
    `presses`.
    """

    platform: str
    caption: Promise | str
    text: str = ""
    copies: str = ""
    presses: str = ""

    @property
    def seconds(self) -> float:
        """How long a person needs to read the caption and to see what happens."""
        return round(2.5 + len(str(self.caption).split()) * 0.18, 1)


_TELL, _ASK = "My favourite colour is octarine.", "What's my favourite colour?"
STEPS = (
    Step("telegram", _("Alice tells the bot something on Telegram."), _TELL),
    Step("discord", _("On Discord the bot doesn't know that: nothing shows yet that both accounts are hers."), _ASK),
    Step("telegram", _("So she links them. On Telegram she asks for a code that works once."), "/link"),
    Step("discord", _("She sends it on Discord. There she sees who is asking, and a number."), copies="telegram"),
    Step("telegram", _("Typing that number on Telegram proves that she holds both accounts."), copies="discord"),
    Step("telegram", _("Earlier messages stay separate until she shares them herself."), presses="/share"),
    Step("discord", _("Now the bot knows on Discord what she said on Telegram."), _ASK),
    Step("slack", _("Slack can join too. She can start from any of her apps."), "!link"),
    Step("telegram", _("She sends Slack's code in an app that she has already linked."), copies="slack"),
    Step("slack", _("Then she types the number on Slack."), copies="telegram"),
    Step("slack", _("She never told Slack, and it still knows: three apps, one conversation."), _ASK),
)


def standing(playground: Playground) -> Step | None:
    """The step that is on show; None before the first."""
    return STEPS[playground.told - 1] if playground.told else None


def is_over(playground: Playground) -> bool:
    return playground.told == len(STEPS)


async def go_on(playground: Playground) -> None:
    """Play the next step, once the one before is answered. Raises Stuck."""
    async with playground.telling:
        if not is_over(playground):
            await _until_answered(playground)
            step = STEPS[playground.told]
            before = _answers(playground, step.platform)
            await _play(playground, step)
            playground.told, playground.answers = playground.told + 1, before


async def _play(playground: Playground, step: Step) -> None:
    if step.presses:
        message_id, command = await _found(lambda: _button(playground, step))
        await playground.press(ALICE, step.platform, message_id, command)
        return
    text = step.text or (await _found(lambda: _secret(playground, step.copies)))
    await playground.say(ALICE, step.platform, text)


def _secret(playground: Playground, platform: str) -> str | None:
    """What the bot showed last."""
    said = reversed(playground.chat(ALICE, platform))
    found = (SECRET.search(one.text) for one in said if one.author_id == "bot")
    return next((match[0] for match in found if match), None)


def _button(playground: Playground, step: Step) -> tuple[str, str] | None:
    said = reversed(playground.chat(ALICE, step.platform))
    shown = ((one.message_id, button.command) for one in said for button in one.buttons)
    return next((pair for pair in shown if pair[1].startswith(step.presses)), None)


async def _until_answered(playground: Playground) -> None:
    """Until the bot has said something where the last step was, and has nothing left to say: what was typed there may
    still be on its way.
    """
    deadline, step = monotonic() + PATIENCE, standing(playground)
    while step and _answers(playground, step.platform) == playground.answers:
        await _pause(deadline)
    while await db.call(watching.busy_platforms, ALICE):
        await _pause(deadline)


def _answers(playground: Playground, platform: str) -> int:
    return sum(said.author_id == "bot" for said in playground.chat(ALICE, platform))


async def _found(look: Callable[[], T | None]) -> T:
    """What is there as soon as it is."""
    deadline = monotonic() + PATIENCE
    while (found := look()) is None:
        await _pause(deadline)
    return found


async def _pause(deadline: float) -> None:
    if monotonic() > deadline:
        raise Stuck
    await asyncio.sleep(0.1)
