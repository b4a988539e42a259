"""Measures and prints. See the package."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from itertools import product
from statistics import median

import psycopg
from django.conf import settings

from tests.bench import engines, machine, measuring, overlap, profiling, stage, tables, workers
from tests.bench.measuring import PEOPLE, WINDOWS, Case, Results
from tests.bench.ours import STEPS
from tests.bench.stage import ALICE, BOB

HISTORIES = (10, 1_000, 100_000)
SHORTEST, LONGEST = HISTORIES[0], HISTORIES[-1]
COUNTS = ("statements", "transactions")
WHO = {BOB.name: "one account", ALICE.name: "four linked accounts"}


def main() -> None:
    options = _options()
    logging.getLogger().setLevel("WARNING")  # a line for each message is not what is read here
    print(machine.description())
    for name, engine in (("SQLite", engines.sqlite), ("PostgreSQL", engines.postgresql)):
        try:
            with engine() as new:
                _engine(name, new, options)
        except psycopg.OperationalError as error:
            print(
                f"\n{name}: skipped, no server answers at TEST_DATABASE_URL or 127.0.0.1:5432 ({type(error).__name__})"
            )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="in less than a minute, and less exactly")
    parser.add_argument("--workers", action="store_true", help="measure RQ workers, and nothing else")
    parser.add_argument("--profile", action="store_true", help="show where the time of a turn goes, and nothing else")
    return parser.parse_args()


def _engine(name: str, new: engines.NewDatabase, options: argparse.Namespace) -> None:
    if options.workers:
        workers.show(name, new)
        return
    if options.profile:
        print(f"\n{name}")
        [short] = measuring.stages(new, [SHORTEST])
        for person in PEOPLE:
            profiling.show(short, person)
        short.connection.close()
        return
    _turns(name, new, rounds=3 if options.quick else 20)
    _overlap(name, new, runs=1 if options.quick else 5)
    workers.show(name, new)


def _turns(name: str, new: engines.NewDatabase, *, rounds: int) -> None:
    stages = measuring.stages(new, HISTORIES)
    counts = {person.name: measuring.counted(stages[0], person) for person in PEOPLE}
    results = measuring.measured(stages, rounds=rounds)
    _show_turns(name, results, counts, turns=rounds * measuring.TURNS_IN_A_BLOCK)
    _show_raw(name, results)
    for person in PEOPLE:
        _show_steps(name, person.name, results, counts[person.name])
    for each in stages:
        each.connection.close()


def _show_turns(name: str, results: Results, counts: dict[str, list[tuple[int, int]]], *, turns: int) -> None:
    rows = []
    for person, lines in product(WHO, WINDOWS):
        cases = [Case("BotOS", person, lines, entries) for entries in HISTORIES]
        times = [measuring.typical(results, case, measuring.total) for case in cases]
        work = [measuring.typical(results, case, measuring.cpu) for case in (cases[0], cases[-1])]
        grow = [measuring.ratio(results, cases[-1], cases[0], value) for value in (measuring.total, measuring.cpu)]
        statements, transactions = map(sum, zip(*counts[person], strict=True))
        rows.append((f"{WHO[person]}, window {lines}", *times, grow[0], *work, grow[1], statements, transactions))
    sizes = [f"{entries:,}" for entries in HISTORIES]
    heads = ("", *sizes, "last : first", *(f"CPU {size}" for size in (sizes[0], sizes[-1])), "last : first", *COUNTS)
    tables.show(f"{name}: a whole turn in ms by history entries, median of {turns} turns", heads, rows)


def _show_raw(name: str, results: Results) -> None:
    rows = []
    for person, lines in product(WHO, WINDOWS):
        raw = [Case("raw", person, lines, entries) for entries in HISTORIES]
        ours = [Case("BotOS", person, lines, entries) for entries in HISTORIES]
        times = [measuring.typical(results, case, measuring.total) for case in raw]
        ratios = [measuring.ratio(results, *pair, measuring.total) for pair in zip(ours, raw, strict=True)]
        rows.append((f"{WHO[person]}, window {lines}", *times, *ratios))
    heads = ("", *(f"{entries:,}" for entries in HISTORIES), *(f"BotOS : raw, {entries:,}" for entries in HISTORIES))
    tables.show(f"{name}: the same by hand, without Django", heads, rows)


def _show_steps(name: str, person: str, results: Results, counts: Sequence[tuple[int, int]]) -> None:
    rows = []
    for number, step in enumerate(STEPS):
        times = [
            measuring.typical(results, Case(by, person, WINDOWS[0], entries), measuring.step(number))
            for by, entries in product(("BotOS", "raw"), (SHORTEST, LONGEST))
        ]
        rows.append((step, *times, *counts[number]))
    sizes = [f"{by} {entries:,}" for by, entries in product(("BotOS", "raw"), (SHORTEST, LONGEST))]
    title = f"{name}: the steps of a turn in ms, {WHO[person]}, window {WINDOWS[0]}"
    tables.show(title, ("", *sizes, *COUNTS), rows)


def _overlap(name: str, new: engines.NewDatabase, *, runs: int) -> None:
    url = new("overlap")
    stage.migrated(url).close()
    rows = []
    for kind in ("sync", "async"):
        seen = [overlap.measured(url, kind) for _ in range(runs)]
        rows.append(
            (
                f"{kind} agent",
                min(each.overlapping for each in seen),
                median(each.last_start for each in seen),
                median(each.total for each in seen),
                max(each.total for each in seen),
            )
        )
    title = (
        f"{name}: {overlap.PEOPLE} people at once, an agent of {overlap.SECONDS:g} s, {settings.BOTOS_WORKERS} workers"
    )
    tables.show(title, ("", "overlapping", "last start s", "all settled s", f"slowest of {runs} s"), rows)


if __name__ == "__main__":
    main()
