"""Reads and writes tables of people as CSV files of spreadsheet programs."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from django.utils.translation import gettext as _

from identity.operators import AT_ONCE, NewPerson, check_new_person

COLUMNS = ["unified_user_id", "display_name"]
INVITATIONS = [*COLUMNS, "code", "deep_link", "expires_at"]
MAX_BYTES = 500_000  # bytes; AT_ONCE people with the longest ids and names are fewer
# A spreadsheet program takes a cell that starts so for a formula, which may send the rest of the table elsewhere.
_STARTS_A_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem in a line of a file; line 0 means the whole file."""

    line: int
    text: str

    def __str__(self) -> str:
        return _("Line %(line)d: %(text)s") % {"line": self.line, "text": self.text} if self.line else self.text


@dataclass(frozen=True, slots=True)
class Table:
    """The people of a file, and its problems."""

    people: list[NewPerson]
    problems: list[Problem]


def read_people(data: bytes) -> Table:
    """Read a CSV file: UTF-8, the two columns named in its first line, separated by comma, semicolon or tab."""
    if len(data) > MAX_BYTES:
        return _unreadable(0, _("The file is too large: at most %(most)d people at a time.") % {"most": AT_ONCE})
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return _unreadable(0, _("The file is not UTF-8. Save it as “CSV UTF-8”."))
    separator = max(",;\t", key=text.partition("\n")[0].count)
    rows = _rows(text, separator)
    try:
        line, header = next(rows, (1, []))
        if [name.strip().lower() for name in header] not in (COLUMNS, COLUMNS[:1]):
            return _unreadable(line, _("The first line must be unified_user_id,display_name."))
        return _checked(list(rows), len(header))
    except csv.Error as error:
        return _unreadable(0, _("The file isn't valid CSV: %(error)s.") % {"error": error})


def _unreadable(line: int, text: str) -> Table:
    return Table([], [Problem(line, text)])


def _rows(text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows that are not empty, each with the number of the line where it starts."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    start = 1
    for row in reader:
        if any(cell.strip() for cell in row):
            yield start, row
        start = reader.line_num + 1


def _checked(rows: Sequence[tuple[int, list[str]]], columns: int) -> Table:
    people: dict[str, NewPerson] = {}
    problems = []
    if len(rows) > AT_ONCE:
        most = {"count": len(rows), "most": AT_ONCE}
        problems.append(Problem(0, _("%(count)d people are too many: at most %(most)d at a time.") % most))
    for line, row in rows[:AT_ONCE]:
        person = NewPerson(*(cell.strip() for cell in (*row, "")[:2]))
        if len(row) != columns:
            cells = _("%(found)d cells instead of %(wanted)d.") % {"found": len(row), "wanted": columns}
            problems.append(Problem(line, cells))
        elif person.unified_user_id in people:
            problems.append(Problem(line, _("%(id)r is in the file twice.") % {"id": person.unified_user_id}))
        else:
            try:
                check_new_person(person)
            except ValueError as error:
                problems.append(Problem(line, str(error)))
        people.setdefault(person.unified_user_id, person)
    if not rows:
        problems.append(Problem(0, _("The file contains no people.")))
    return Table(list(people.values()), problems)


def write(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a CSV file for spreadsheet programs. A cell that would be a formula gets an apostrophe before it."""
    file = io.StringIO(newline="")
    writer = csv.writer(file, quoting=csv.QUOTE_ALL)
    writer.writerow(header)
    for row in rows:
        formulas = [cell.lstrip(" \u00a0").startswith(_STARTS_A_FORMULA) for cell in row]
        writer.writerow([f"'{cell}" if is_formula else cell for cell, is_formula in zip(row, formulas, strict=True)])
    return "\ufeff" + file.getvalue()  # the mark by which these programs recognise UTF-8
