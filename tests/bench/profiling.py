"""Where the time of a turn goes."""

from __future__ import annotations

import cProfile
import pstats
from pathlib import Path

from tests.bench import tables
from tests.bench.ours import Ours
from tests.bench.stage import Person, Stage, enter

_PROJECT = Path(__file__).resolve().parents[2]
_OWN = tuple(str(_PROJECT / app) for app in ("identity", "sessions_app"))
_MAX_FUNCTIONS = 25
_TURNS = 200


def show(stage: Stage, person: Person) -> None:
    """Print what costs most: the project's own functions with all they call, then any functions by themselves."""
    enter(stage)
    profile, program = cProfile.Profile(), Ours()
    for _ in range(_TURNS):
        profile.enable()
        program.turn(person.message(), lambda: None)
        profile.disable()
        program.forget(stage.forget)
    _table(profile, f"{person.name}: own functions, with what they call", column=3, own=True)
    _table(profile, f"{person.name}: functions by themselves", column=2, own=False)


def _table(profile: cProfile.Profile, title: str, *, column: int, own: bool) -> None:
    stats = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    found = [(where, *times) for where, times in stats.items() if not own or where[0].startswith(_OWN)]
    found.sort(key=lambda row: row[1 + column], reverse=True)
    rows = [
        (_name(row[0]), row[2] / _TURNS, row[3] / _TURNS * 1000, row[4] / _TURNS * 1000)
        for row in found[:_MAX_FUNCTIONS]
    ]
    tables.show(f"{title}: per turn, under the profiler", ("function", "calls", "own ms", "all ms"), rows)


def _name(where: tuple[str, int, str]) -> str:
    file, line, function = where
    path = Path(file)
    if path.is_relative_to(_PROJECT):
        return f"{path.relative_to(_PROJECT)}:{line} {function}"
    return f"{'/'.join(path.parts[-3:])}:{line} {function}" if line else function
