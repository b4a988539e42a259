"""Turns, timed step by step, in blocks that alternate between all that is compared, so that drift hits all alike."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import pairwise, product
from pathlib import Path
from statistics import median
from typing import Protocol

from django.db import connection
from django.test.utils import CaptureQueriesContext

from sessions_app.messages import InboundMessage
from tests.bench import engines
from tests.bench.ours import Ours
from tests.bench.raw import Raw
from tests.bench.raw_psycopg import PsycopgDriver
from tests.bench.raw_sqlite import SQLiteDriver
from tests.bench.stage import ALICE, BOB, Person, Stage, built, enter

WINDOWS = (100, 10)
PEOPLE = (BOB, ALICE)
TURNS_IN_A_BLOCK = 10


class Program(Protocol):
    def turn(self, message: InboundMessage, lap: Callable[[], None]) -> list[str]: ...
    def forget(self, statements: tuple[str, ...]) -> None: ...
    def show(self, lines: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Case:
    """What is timed. `by` is "BotOS" or "raw", `lines` the longest window, `entries` the length of the history."""

    by: str
    person: str
    lines: int
    entries: int


@dataclass(frozen=True, slots=True)
class Timed:
    """One turn in milliseconds: each step, and what this thread worked in all of them instead of waiting."""

    steps: tuple[float, ...]
    cpu: float

    @property
    def total(self) -> float:
        return sum(self.steps)


Block = tuple[Timed, ...]


class _Stopwatch:
    def __init__(self) -> None:
        self._began = time.thread_time()
        self._marks = [time.perf_counter()]

    def lap(self) -> None:
        self._marks.append(time.perf_counter())

    def read(self) -> Timed:
        steps = ((after - before) * 1000 for before, after in pairwise(self._marks))
        return Timed(tuple(steps), (time.thread_time() - self._began) * 1000)


Results = Mapping[Case, Sequence[Block]]  # one block a round


def stages(new: engines.NewDatabase, histories: Sequence[int]) -> list[Stage]:
    return [built(new(f"entries_{entries}"), entries) for entries in histories]


def measured(on: Sequence[Stage], *, rounds: int) -> Results:
    """`rounds` blocks of every case. The order of the stages changes from round to round."""
    results: dict[Case, list[Block]] = defaultdict(list)
    with ExitStack() as opened:
        programs = {stage: _programs(stage, opened) for stage in on}
        for number in range(rounds):
            first = number % len(on)
            for stage in (*on[first:], *on[:first]):
                enter(stage)
                for case, block in _blocks(stage, programs[stage]):
                    results[case].append(block)
    return results


def _programs(stage: Stage, opened: ExitStack) -> dict[str, Program]:
    driver: SQLiteDriver | PsycopgDriver
    if stage.url.startswith("sqlite"):
        driver = SQLiteDriver(Path(stage.url.removeprefix("sqlite:///")))
    else:
        driver = PsycopgDriver(stage.url)
    return {"BotOS": Ours(), "raw": Raw(opened.enter_context(closing(driver)))}


def _blocks(stage: Stage, programs: Mapping[str, Program]) -> Iterator[tuple[Case, Block]]:
    for person, lines in product(PEOPLE, WINDOWS):
        shown = set()
        for by, program in programs.items():
            program.show(lines)
            window, block = _block(stage, person, program)
            shown.add(tuple(window))
            yield Case(by, person.name, lines, stage.entries), block
        assert len(shown) == 1, "the two programs do not read the same"
        assert len(shown.pop()) == min(lines, stage.entries)


def _block(stage: Stage, person: Person, program: Program) -> tuple[list[str], Block]:
    """One turn to warm up, then the ones that count; each is forgotten, so that the history keeps its length."""
    window: list[str] = []
    turns = []
    for _ in range(1 + TURNS_IN_A_BLOCK):
        watch = _Stopwatch()
        window = program.turn(person.message(), watch.lap)
        turns.append(watch.read())
        program.forget(stage.forget)
    return window, tuple(turns[1:])


def counted(stage: Stage, person: Person) -> list[tuple[int, int]]:
    """Statements and transactions of each step when BotOS runs it. A statement outside a transaction is one itself."""
    enter(stage)
    program, marks = Ours(), [0]
    with CaptureQueriesContext(connection) as queries:
        program.turn(person.message(), lambda: marks.append(len(queries)))
    program.forget(stage.forget)
    said = [str(query["sql"]) for query in queries.captured_queries]
    return [_count(said[start:end]) for start, end in pairwise(marks)]


def _count(statements: Sequence[str]) -> tuple[int, int]:
    began = sum(statement.startswith("BEGIN") for statement in statements)
    ended = sum(statement == "COMMIT" for statement in statements)
    alone = len(statements) - began - ended
    return alone, began or alone


def typical(results: Results, case: Case, value: Callable[[Timed], float]) -> float:
    """The median of all turns."""
    return median(value(turn) for block in results[case] for turn in block)


def ratio(results: Results, case: Case, to: Case, value: Callable[[Timed], float]) -> float:
    """How many times as much: the median over the rounds, each compared within itself."""
    rounds = zip(results[case], results[to], strict=True)
    return median(median(map(value, one)) / median(map(value, other)) for one, other in rounds)


def total(turn: Timed) -> float:
    return turn.total


def cpu(turn: Timed) -> float:
    return turn.cpu


def step(number: int) -> Callable[[Timed], float]:
    return lambda turn: turn.steps[number]
