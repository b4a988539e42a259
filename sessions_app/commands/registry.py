"""The commands that people can write, each described once.

The help, the menus of the platforms, Slack's manifest and the table in the README come from here. A command is written
as `/name argument` or `!name argument`. It is answered without the agent and is not part of the conversation.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from django.utils.functional import Promise

from identity import labels
from identity.models import PlatformAccount
from sessions_app.context import SessionContext
from sessions_app.models import Conversation, InboundEvent

_FORM = re.compile(r"[/!]([a-z]+)(?:@\w+)?(?:\s+(.*))?", re.DOTALL | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Invocation:
    """A command that its turn has come to: the message, who wrote it, and where."""

    event: InboundEvent
    account: PlatformAccount
    conversation: Conversation
    context: SessionContext

    @property
    def argument(self) -> str:
        """What follows the name."""
        return (parse(self.event.text) or ("", ""))[1]


# Decides in the transaction that receives the message, given the author and the text. False if it was no such thing.
ReceiptHandler = Callable[[PlatformAccount, str], bool]
# Gives the text of the answer. It runs again after a crash, so each must bear that.
TurnHandler = Callable[[Invocation], str]


@dataclass(frozen=True, slots=True)
class Command:
    """One command. It has one of the two handlers.

    summary: a line for menus and the help; a command without one is shown nowhere. argument_hint: what can follow the
    name. private_only: a group is told to write in private. quotes_people: its answer has other people's words, so
    that nothing in it is rewritten for the platform.
    """

    name: str
    summary: Promise | str = ""
    argument_hint: str = ""
    at_receipt: ReceiptHandler | None = None
    in_turn: TurnHandler | None = None
    quotes_people: bool = False

    @property
    def usage(self) -> str:
        """How it is written, such as `/search words`."""
        return f"/{self.name} {self.argument_hint}".strip()

    @property
    def private_only(self) -> bool:
        return self.at_receipt is not None


_commands: dict[str, Command] = {}


def at_receipt(name: str, summary: Promise | str = "", *, hint: str = "") -> Callable[[ReceiptHandler], ReceiptHandler]:
    """Register a command about linking or deletion, which is decided when it is received and stored nowhere."""

    def register(handler: ReceiptHandler) -> ReceiptHandler:
        _commands[name] = Command(name, summary, hint, at_receipt=handler)
        return handler

    return register


def in_turn(
    name: str, summary: Promise | str = "", *, hint: str = "", quotes_people: bool = False
) -> Callable[[TurnHandler], TurnHandler]:
    """Register a command that is answered in its turn, after the messages before it."""

    def register(handler: TurnHandler) -> TurnHandler:
        _commands[name] = Command(name, summary, hint, in_turn=handler, quotes_people=quotes_people)
        return handler

    return register


def menu() -> list[Command]:
    """The commands that people are shown, those about linking and deletion first."""
    shown = [command for command in _commands.values() if command.summary]
    return sorted(shown, key=lambda command: not command.private_only)


def parse(text: str) -> tuple[str, str] | None:
    """Name, in lower case, and argument of `/name argument` or `!name argument`; None for any other text."""
    found = _FORM.fullmatch(text.strip())
    return (found[1].lower(), (found[2] or "").strip()) if found else None


def find(text: str) -> Command | None:
    """The command that `text` calls; None for any other text."""
    return _commands.get((parse(text) or ("",))[0])


def is_in_turn(text: str) -> bool:
    """Whether `text` is a command that is answered in its turn."""
    command = find(text)
    return command is not None and command.in_turn is not None


def answer(invocation: Invocation) -> str:
    """What the command answers. An edit may have made it into something else: then the help."""
    command = find(invocation.event.text)
    if command is None or command.in_turn is None:
        command = _commands["help"]
    assert command.in_turn  # noqa: S101 - for the type checker
    text = command.in_turn(invocation)
    return text if command.quotes_people else labels.with_commands(text, on=invocation.event.platform)
