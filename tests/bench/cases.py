"""What is measured: the cases, the programs that are compared in each, and the ratios that are worth a row."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tests.bench.engines import NewDatabase
from tests.bench.measuring import Ratio, Sample
from tests.bench.trees import PROJECT

HERE = Path(__file__).resolve().parent
NOW, BEFORE, BY_HAND = "now", "before", "by hand"  # programs: this tree, that of --against, and raw.py
PEOPLE = {"people": 100, "entries": 100}


@dataclass(frozen=True)
class Scene:
    """Where samples are taken: a database engine, the trees by program, and how big everything is."""

    engine: str
    new: NewDatabase
    trees: Mapping[str, Path]
    is_small: bool
    _filled: dict[str, str] = field(default_factory=dict)

    def size(self, full: int, small: int) -> int:
        return small if self.is_small else full

    def drive(self, program: str, step: str, url: str, **options: object) -> Sample:
        """Run a step of driver.py in the tree of a program."""
        tree = self.trees[program]
        environment = clean_environment() | {"PYTHONPATH": str(tree), "DATABASE_URL": url}
        return run([str(HERE / "driver.py"), step, json.dumps(options)], tree, environment)

    def filled(self, program: str, **filling: object) -> str:
        """The address of a database of the program's version, filled as driver.py's `fill` says."""
        name = re.sub(r"\W+", "_", f"{program} {' '.join(map(str, filling.values()))}")
        if name not in self._filled:
            url = self.new(name)
            self.drive(program, "fill", url, **filling)
            self._filled[name] = url
        return self._filled[name]


def clean_environment(**more: str) -> dict[str, str]:
    """Production's settings and nothing of this machine's, besides a notice that would stand before each answer."""
    ours = re.findall(r"^#? ?([A-Z][A-Z_]+)=", (PROJECT / ".env.example").read_text(encoding="utf-8"), re.MULTILINE)
    kept = {name: value for name, value in os.environ.items() if name not in ours}
    return kept | {
        "DJANGO_SETTINGS_MODULE": "botos_project.settings",
        "BOTOS_ENV_FILE": "",
        "BOTOS_NOTICE": "off",
        "SECRET_KEY": "only-for-a-benchmark-and-therefore-not-a-secret-but-long-enough",
        "PYTHONWARNINGS": "ignore",
        **more,
    }


def run(command: list[str], folder: Path, environment: Mapping[str, str]) -> Sample:
    """Run a Python program that prints a sample. Raises RuntimeError with the end of its log."""
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.run(
            [sys.executable, "-P", *command],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=log,
            check=False,
        )
        if process.returncode:
            log.seek(0)
            raise RuntimeError(f"{' '.join(command)} failed in {folder}:\n{log.read()[-3000:]}")
    sample: dict[str, float] = json.loads(process.stdout)
    return sample


@dataclass(frozen=True)
class Case:
    """One thing that is measured.

    sample: measures a tree by the name of its program. rivals: measure what is no tree, by name. measures: their units,
    the ones of the table first. engines: where it makes a difference. ratios: rows of the table.
    """

    name: str
    title: str
    measures: Mapping[str, str]
    sample: Callable[[Scene, str], Sample]
    rivals: Mapping[str, Callable[[Scene], Sample]] = field(default_factory=dict)
    ratios: tuple[Ratio, ...] = ()
    engines: tuple[str, ...] = ("sqlite", "postgres")


def turns(scene: Scene, program: str, *, in_flight: int) -> Sample:
    """Turns of 100 people with 100 entries each, so many of whom wait for an answer at the same time."""
    several = in_flight > 1
    number, warm_up = (scene.size(800, 200), 200) if several else (scene.size(200, 50), 20)
    url = scene.filled(program, **PEOPLE)
    return scene.drive(program, "turns", url, people=100, turns=number, in_flight=in_flight, warm_up=warm_up)


def by_hand(scene: Scene) -> Sample:
    options: dict[str, Any] = {"people": 100, "turns": scene.size(200, 50), "warm_up": 20}
    url = scene.filled(NOW, **PEOPLE)
    return run([str(HERE / "raw.py"), json.dumps(options | {"url": url})], PROJECT, os.environ)


CPU = {"cpu": "ms of CPU a turn", "elapsed": "ms a turn", "server": "ms of the server's CPU a turn"}
CASES = (
    Case(
        "turn-64",
        "A turn with 64 people in flight",
        CPU,
        partial(turns, in_flight=64),
        ratios=(Ratio("now : before", (NOW, "cpu"), (BEFORE, "cpu"), 0.3),),
    ),
    Case(
        "turn-1",
        "A turn, one at a time",
        CPU,
        partial(turns, in_flight=1),
        {BY_HAND: by_hand},
        ratios=(
            Ratio("now : the same rows by hand", (NOW, "cpu"), (BY_HAND, "cpu"), 1.5),
            Ratio("now : before", (NOW, "cpu"), (BEFORE, "cpu")),
        ),
    ),
)
