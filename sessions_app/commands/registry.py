"""The commands that people can write, each described once.

The help, the menus of the platforms, Slack's manifest and the table in the README come from here. A command is written
as `/name argument` or `!name argument`. It is answered without the agent and is not part of the conversation.

A `!` may also stand before the first word of a sentence: with words that the command does not take, it is a message.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass

from django.utils.functional import Promise

from identity import labels
from identity.models import PlatformAccount
from sessions_app.models import Conversation, InboundEvent

_FORM = re.compile(r"([/!])([a-z]+)(?:@\w+)?(?:\s+(.*))?", re.DOTALL | re.IGNORECASE)
# As people type a command. One letter may be a mark of tone (`/s`), and capitals, digits and slashes are in paths.
_UNKNOWN = re.compile(r"([/!])([a-z][a-z_]{1,31})(\s.*)?", re.DOTALL)
_LIKENESS = 0.7  # from 0 to 1; `hlep` is 0.75 like `help`


@dataclass(frozen=True, slots=True)
class Invocation:
    """A command that is answered now: the message, its author, and its conversation.

    event: unsaved if the command is answered at receipt. person: returns the author's unified id. Raises
    IdentityUnavailable.
    """

    event: InboundEvent
    account: PlatformAccount
    conversation: Conversation
    person: Callable[[], str]

    @property
    def argument(self) -> str:
        """What follows the name."""
        return parse(self.event.text)[1]


# Runs in the transaction that receives the message, with the author and the argument.
ReceiptHandler = Callable[[PlatformAccount, str], None]
# Returns the text of the answer. It must be safe to run again, as it does after a crash.
AnswerHandler = Callable[[Invocation], str]


@dataclass(frozen=True, slots=True)
class Command:
    """One command. It has one of the three handlers.

    summary: a line for menus and the help; a command without one is hidden. argument_hint: what can follow the name.
    takes: a pattern of the words that can follow `!name`. drops: a pattern of words behind `/name` that are for nobody.
    private_only: a group is told to write in private. quotes_people: its answer quotes people, so command names in it
    are not rewritten for the platform.
    """

    name: str
    summary: Promise | str = ""
    argument_hint: str = ""
    at_receipt: ReceiptHandler | None = None
    at_once: AnswerHandler | None = None
    in_turn: AnswerHandler | None = None
    quotes_people: bool = False
    takes: str = ""
    drops: str = ""

    @property
    def usage(self) -> str:
        """How it is written, such as `/search words`."""
        return f"/{self.name} {self.argument_hint}".strip()

    @property
    def private_only(self) -> bool:
        return self.at_receipt is not None

    def asks(self, argument: str) -> bool:
        """Whether the words that follow `/name` are a message of their own, for the agent."""
        has_words = bool(argument) and not (self.private_only or self.argument_hint or self.takes)
        return has_words and not re.fullmatch(self.drops, argument)


_commands: dict[str, Command] = {}


def at_receipt(
    name: str, summary: Promise | str = "", *, hint: str = "", takes: str = ""
) -> Callable[[ReceiptHandler], ReceiptHandler]:
    """Register a command about linking or deletion, which runs when it is received and is not stored."""

    def register(handler: ReceiptHandler) -> ReceiptHandler:
        _commands[name] = Command(name, summary, hint, at_receipt=handler, takes=takes)
        return handler

    return register


def at_once(
    name: str,
    summary: Promise | str = "",
    *,
    hint: str = "",
    takes: str = "",
    drops: str = "",
    quotes_people: bool = False,
) -> Callable[[AnswerHandler], AnswerHandler]:
    """Register a command that is answered by the transaction that receives it, while turns may run.

    The command only reads, so nothing depends on its place among the messages, and the transaction needs no lock for
    it. It can still be answered in its turn, as it is if the answer fails at receipt. `/stop` is the exception: it
    changes rows, and locks them in the order in which a turn does when it ends.
    """

    def register(handler: AnswerHandler) -> AnswerHandler:
        _commands[name] = Command(
            name, summary, hint, at_once=handler, quotes_people=quotes_people, takes=takes, drops=drops
        )
        return handler

    return register


def in_turn(
    name: str, summary: Promise | str = "", *, hint: str = "", takes: str = "", quotes_people: bool = False
) -> Callable[[AnswerHandler], AnswerHandler]:
    """Register a command that is answered in its turn, after the messages before it.

    Its effect depends on that place, as with `/new`, or it locks the person's rows, as `/prefer` does: a transaction
    that receives from a browser holds other rows before those.
    """

    def register(handler: AnswerHandler) -> AnswerHandler:
        _commands[name] = Command(name, summary, hint, in_turn=handler, quotes_people=quotes_people, takes=takes)
        return handler

    return register


def menu() -> list[Command]:
    """The commands for menus and the help, those about linking and deletion first."""
    shown = [command for command in _commands.values() if command.summary]
    return sorted(shown, key=lambda command: not command.private_only)


def parse(text: str) -> tuple[Command | None, str]:
    """The command that `text` calls, and its argument; None if it calls none."""
    match = _FORM.fullmatch(text.strip())
    if match is None:
        return None, ""
    command, argument = _commands.get(match[2].lower()), (match[3] or "").strip()
    is_sentence = match[1] == "!" and argument and command and not re.fullmatch(command.takes, argument, re.DOTALL)
    return (None, "") if is_sentence else (command, argument)


@dataclass(frozen=True, slots=True)
class Unknown:
    """A name that is no command. like: the name of the command in the menu that looks most like it; "" without one."""

    name: str
    like: str


def unknown(text: str) -> Unknown | None:
    """The unknown command that `text` calls in a private chat; None for a message.

    `/name` calls one, alone or with words behind it. `!name` calls one if it stands alone and looks like a command, as
    a `!` may stand before any word.
    """
    match = _UNKNOWN.fullmatch(text.strip())
    if match is None or match[2] in _commands:
        return None
    like = "".join(difflib.get_close_matches(match[2], [command.name for command in menu()], 1, _LIKENESS))
    is_word = match[1] == "!" and (match[3] or not like)
    return None if is_word else Unknown(match[2], like)


def answer(invocation: Invocation) -> str:
    """The command's answer; the help if an edit has turned the command into something else."""
    command, _ = parse(invocation.event.text)
    if command is None or command.at_receipt:
        command = _commands["help"]
    handler = command.at_once or command.in_turn
    assert handler  # noqa: S101 - for the type checker
    text = handler(invocation)
    return text if command.quotes_people else labels.with_commands(text, on=invocation.event.platform)
