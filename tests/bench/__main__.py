"""Measures and prints. See the package."""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import django
import psycopg

from tests.bench import machine, page, peers, report, tables, trees
from tests.bench.cases import BEFORE, CASES, NOW, Case, Scene
from tests.bench.engines import ENGINES
from tests.bench.measuring import Results, Sample
from tests.bench.peers import NotInstalled


def main() -> None:
    options = _options()
    if options.workers:
        _show_workers(options.database or ENGINES)
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # not without removing what was made
    about: dict[str, Any] = {"machine": machine.description(), "now": trees.revision(), "before": ""}
    about["is_small"] = options.small
    with ExitStack() as opened:
        checkouts = {NOW: trees.PROJECT}
        if options.against:
            checkouts[BEFORE] = opened.enter_context(trees.worktree(options.against))
            about["before"] = trees.revision(checkouts[BEFORE])
        installed = opened.enter_context(peers.peers()) if options.peers else None
        print(about["machine"], page.versions(about), sep="\n")
        for engine in options.database or ENGINES:
            try:
                new = opened.enter_context(ENGINES[engine]())
            except psycopg.OperationalError as error:
                where = "TEST_DATABASE_URL or 127.0.0.1:5432"
                print(f"\n{engine}: skipped, no server answers at {where} ({type(error).__name__})")
                continue
            scene = Scene(engine, new, checkouts, options.small, installed)
            for case in CASES:
                if engine in case.engines and (not options.case or case.name in options.case):
                    results = _measured(case, scene, options.rounds)
                    tables.show(f"{case.title} ({engine})", report.HEADS, report.rows(case, engine, results))
                    if options.json:
                        _store(options.json, case, engine, about | results.plain(case.ratios))
                    if options.json == page.FIGURES:
                        page.write()


def _store(file: Path, case: Case, engine: str, result: Mapping[str, Any]) -> None:
    """Put a result in place of an earlier one of the same case and database; the others stay."""
    found = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    found.setdefault(case.name, {})[engine] = result
    file.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def _options() -> argparse.Namespace:
    names = [case.name for case in CASES]
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("case", nargs="*", help=f"what to measure, all unless given: {', '.join(names)}")
    parser.add_argument("--database", action="append", choices=ENGINES, help="both unless given")
    parser.add_argument("--against", metavar="REV", help="measure this commit too, in a temporary worktree")
    versions = ", ".join(one for several in peers.REQUIREMENTS.values() for one in several)
    parser.add_argument("--peers", action="store_true", help=f"install and measure {versions}")
    parser.add_argument("--rounds", type=int, help="samples of each program; 3 unless given, 1 with --small")
    parser.add_argument("--small", action="store_true", help="in less than two minutes, and less exactly")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all samples there too")
    parser.add_argument(
        "--publish", action="store_const", const=page.FIGURES, dest="json", help=f"write {page.PAGE.name}"
    )
    parser.add_argument("--workers", action="store_true", help="measure RQ workers, and nothing else")
    options = parser.parse_args()
    if unknown := set(options.case) - set(names):
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    options.rounds = options.rounds or (1 if options.small else 3)
    return options


def _measured(case: Case, scene: Scene, rounds: int) -> Results:
    """Samples of all programs in turns, in the other order in every second round."""
    results = Results()
    takes: dict[str, Callable[[], Sample]] = {name: partial(case.sample, scene, name) for name in scene.trees}
    takes |= {name: partial(take, scene) for name, take in case.rivals.items()}
    takes |= {name: partial(take, scene) for name, take in case.peers.items() if scene.peers}
    for number in range(rounds):
        for program in takes if number % 2 == 0 else reversed(takes):
            print(f"{scene.engine} {case.name}: round {number + 1} of {rounds}, {program}", file=sys.stderr)
            try:
                results.add(program, takes[program]())
            except NotInstalled as reason:
                results.missing[program] = str(reason)
    return results


def _show_workers(names: Iterable[str]) -> None:
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
    django.setup()
    logging.getLogger().setLevel("WARNING")  # a line for each message is not what is read here
    from tests.bench import workers  # needs Django, unlike the rest

    print(machine.description())
    for name in names:
        with ENGINES[name]() as new:
            workers.show(name, new)


if __name__ == "__main__":
    main()
