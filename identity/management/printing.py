"""The base of operators' commands: steps with arguments, and answers as a table or, with --json, as JSON."""

from __future__ import annotations

import json
import os
import pwd
from argparse import ArgumentParser
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from inspect import signature
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from identity.flows import invitations
from identity.models import UnifiedUser
from identity.support.sanitize import harmless

Row = Mapping[str, Any]
MAX_ROWS = 100  # rows, unless asked for more


class OperatorCommand(BaseCommand):
    """A command with steps, as in `manage.py people add alice`.

    Its `add_arguments` calls this one, then `step` for each step: a method that takes its arguments by keyword.
    The exit status is 0 if the step succeeds, 1 if it fails, and 2 for wrong arguments.
    """

    as_json = False

    def add_arguments(self, parser: ArgumentParser) -> None:
        self._steps = parser.add_subparsers(dest="step", required=True, metavar="STEP")

    def step(self, name: str, does: Callable[..., None], text: str) -> ArgumentParser:
        """Add a step, and return its parser for further arguments."""
        parser = self._steps.add_parser(name, help=text, description=text)
        parser.add_argument("--json", action="store_true", dest="as_json", help="answer as JSON")
        parser.set_defaults(does=does)
        return parser

    def list_step(self, does: Callable[..., None], text: str) -> ArgumentParser:
        """Add the step `list`, with a search and a limit."""
        parser = self.step("list", does, text)
        parser.add_argument("--search", default="", metavar="TEXT", help="as in the admin list")
        parser.add_argument(
            "--limit", type=int, default=MAX_ROWS, metavar="N", help=f"newest first (default {MAX_ROWS})"
        )
        return parser

    def handle(self, *, does: Callable[..., None], as_json: bool, step: str, **options: Any) -> None:
        self.as_json = as_json
        try:
            does(**{name: options[name] for name in signature(does).parameters})
        except ValueError as error:
            raise CommandError(str(error)) from error

    def show(self, row: Row, text: str = "") -> None:
        """Print one row: `text`, or else a line for each column, or JSON."""
        if self.as_json:
            self._write_json(row)
            return
        width = max((len(name) for name in row), default=0)
        lines = [f"{name.replace('_', ' '):<{width}}  {_in_a_cell(value)}" for name, value in row.items()]
        self.stdout.write(text or "\n".join(lines))

    def show_each(self, rows: Sequence[Row], text: str) -> None:
        """Print several rows as `text` or JSON."""
        if self.as_json:
            self._write_json(rows)
        else:
            self.stdout.write(text)

    def show_all(self, rows: Sequence[Row]) -> None:
        """Print a table, or JSON."""
        if self.as_json:
            self._write_json(rows)
            return
        if not rows:
            self.stderr.write("Nothing found.")
            return
        cells = [[name.replace("_", " ") for name in rows[0]], *([_in_a_cell(v) for v in row.values()] for row in rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        for line in cells:
            self.stdout.write("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())

    def _write_json(self, value: Row | Sequence[Row]) -> None:
        def default(value: Any) -> str:
            return value.isoformat() if isinstance(value, datetime) else str(value)

        self.stdout.write(json.dumps(value, indent=2, default=default))


def _in_a_cell(value: Any) -> str:
    """Return a value as text for a terminal, without control sequences, which a name may contain."""
    if isinstance(value, datetime):
        return invitations.moment(value)
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_in_a_cell, value)) or "-"
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "".join(letter if letter.isprintable() else " " for letter in str(value))


def operator() -> str:
    """Return who runs the command, for the audit log: by the system, since environment variables may be wrong."""
    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # in a container, a user without a name
        name = str(os.getuid())
    return f"manage.py:{name}"[:150]


def person_named(unified_user_id: str) -> UnifiedUser:
    """Return the person with this id. Raises ValueError if there is none."""
    person = UnifiedUser.objects.filter(unified_user_id=unified_user_id).first()
    if person is None:
        raise ValueError(f"There is no person with the ID {unified_user_id!r}.")
    return person


def named(person: UnifiedUser) -> str:
    """Return a person's name, made harmless."""
    return harmless(person.display_name)
