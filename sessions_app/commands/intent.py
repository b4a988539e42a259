"""What an incoming text asks for, decided once from the text alone."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum, auto
from functools import cached_property

from identity.pairing import codes
from sessions_app.commands import registry
from sessions_app.commands.registry import Command, Unknown

_DEEP_LINK = re.compile(rf"start=({codes.TOKEN_PREFIX}[A-Za-z0-9_-]{{22}})(?![A-Za-z0-9_-])")


class Kind(StrEnum):
    COMMAND = auto()  # a command about linking or deletion
    CODE = auto()  # nothing but a link code or a link token, or `/start` with a token
    NUMBER = auto()  # nothing but six digits
    CODE_IN_TEXT = auto()  # `XXXX-XXXX` or a deep link inside a longer text
    MESSAGE = auto()  # everything else, including a command that is answered with a text


@dataclass(frozen=True)
class Intent:
    """What a text asks for.

    shown_code: the first `XXXX-XXXX` in the text. command, argument: the command that the text calls, of either sort.
    secret: the code, token or number. Each look for possible secrets runs at most once.
    """

    text: str
    kind: Kind
    shown_code: str | None = None
    command: Command | None = None
    argument: str = ""
    secret: str = ""

    @cached_property
    def unknown(self) -> Unknown | None:
        """The unknown command that the text calls, if it stands in a private chat."""
        return None if self.command else registry.unknown(self.text)

    @cached_property
    def possible_codes(self) -> list[str]:
        """What may be a code or a token. In private each counts as a guess."""
        return codes.secrets_within(self.text)

    @cached_property
    def possible_numbers(self) -> list[str]:
        """What may be a number, in any spelling."""
        return codes.numbers_within(self.text)

    @property
    def question(self) -> str:
        """The words behind a command that are a message of their own; empty without any."""
        return self.argument if self.command and self.command.asks(self.argument) else ""

    @property
    def is_plain(self) -> bool:
        """Whether the text is for the agent alone: no command, and nothing that may be a code or number."""
        is_message = self.kind is Kind.MESSAGE and self.shown_code is None and not (self.command or self.unknown)
        return is_message and not self.possible_codes and not self.possible_numbers


def classify(text: str) -> Intent:
    """Decide what `text` asks for. Whether a code lives or a number is awaited is not known here."""
    alone = text.strip()
    shown_code = codes.hyphenated_code_within(text)
    command, argument = registry.parse(text)
    if secret := codes.read_code(alone) or codes.read_token(alone):
        return Intent(text, Kind.CODE, shown_code, secret=secret)
    if number := codes.read_number(alone):
        return Intent(text, Kind.NUMBER, shown_code, secret=number)
    if command and command.at_receipt:
        return Intent(text, Kind.COMMAND, shown_code, command, argument)
    if command and command.name == "start" and (secret := codes.read_token(argument)):
        return Intent(text, Kind.CODE, shown_code, command, argument, secret)
    link = _DEEP_LINK.search(text)
    if secret := shown_code or (link and link[1]):
        return Intent(text, Kind.CODE_IN_TEXT, shown_code, command, argument, secret)
    return Intent(text, Kind.MESSAGE, shown_code, command, argument)
