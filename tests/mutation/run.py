"""Change the pairing code in one place at a time and see whether a test notices: `python -m tests.mutation`.

cosmic-ray makes the mutants, applies each in a copy of the project and runs the tests there, as many at a time as there
are cores. FAULTS_MUTANTS is how many are taken at random, or `all`; FAULTS_SEED takes the same ones again. Arguments
restrict the run to mutants whose key contains one of them.

The run prints each mutant that survives and that survivors.toml does not list. It fails when they are more than the
share in config.toml.
"""

from __future__ import annotations

import hashlib
import os
import random
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

import cosmic_ray.plugins
from attrs import evolve
from cosmic_ray.commands.init import init
from cosmic_ray.mutating import mutate_and_test
from cosmic_ray.work_db import use_db
from cosmic_ray.work_item import MutationSpec, WorkResult

from tests.mutation.operators import Provider

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parents[1]
CONFIG: dict[str, Any] = tomllib.loads((HERE / "config.toml").read_text(encoding="utf-8"))
SURVIVORS: dict[str, str] = tomllib.loads((HERE / "survivors.toml").read_text(encoding="utf-8"))
COPIED = {
    *(path.name for path in PROJECT.iterdir() if (path / "__init__.py").exists()),
    "docs",
    "deploy",
    "static",
    "templates",
}
IS_POSTGRESQL = os.environ.get("TEST_DATABASE_URL", "").startswith("postgres")

cosmic_ray.plugins.OPERATOR_PROVIDERS["botos"] = Provider()


@dataclass(frozen=True)
class Mutant:
    """One change. `key` stays the same when the module moves or lines come before it."""

    key: str
    spec: MutationSpec

    def __str__(self) -> str:
        return f"{self.spec.module_path}:{self.spec.start_pos[0]}: {self.spec.operator_name}"


def all_mutants(names: dict[Path, str], operators: set[str], folder: Path) -> list[Mutant]:
    """Every mutant that these operators make of the modules (path to name), in the order of the source.

    `folder` holds the session of cosmic-ray.
    """
    with use_db(str(folder / "session.sqlite3")) as session:
        init(names, session, {})
        specs = [spec for item in session.work_items for spec in item.mutations if spec.operator_name in operators]
    lines = {path: path.read_text(encoding="utf-8").splitlines() for path in names}
    counted: Counter[str] = Counter()
    mutants = []
    for spec in sorted(specs, key=lambda one: (one.module_path, one.start_pos, one.operator_name, one.occurrence)):
        name = names[spec.module_path]
        changed = lines[spec.module_path][spec.start_pos[0] - 1 : spec.end_pos[0]]
        if changed[0].startswith("@dataclass"):
            continue  # whether a value is frozen or has slots is no rule
        text = hashlib.sha256(" ".join(" ".join(changed).split()).encode()).hexdigest()[:10]
        key = f"{name}.{spec.definition_name or 'module'} {spec.operator_name} {text}"
        counted[key] += 1
        mutants.append(Mutant(f"{key} {counted[key]}", spec))
    return mutants


def copy_project(target: Path, source: Path = PROJECT) -> Path:
    """The files that tests need, so that no mutant is ever in the working tree."""
    target.mkdir()
    for path in source.iterdir():
        if path.is_file() and path.name != ".env":
            shutil.copy2(path, target)
        elif path.name in COPIED:
            shutil.copytree(path, target / path.name, symlinks=True)
    return target


def pytest_command(*arguments: str) -> list[str]:
    tests = [*CONFIG["tests"], *(CONFIG["postgresql_tests"] if IS_POSTGRESQL else ())]
    reuse = () if IS_POSTGRESQL else ("--reuse-db",)
    plugins = ("-p", "no:cacheprovider", "-p", "tests.mutation.plugin")
    return [sys.executable, "-m", "pytest", "-x", "-q", *plugins, *reuse, *arguments, *tests]


def migrate(folder: Path, copy: Path) -> None:
    """Make the SQLite file that each run of the tests starts with."""
    file = folder / "migrated.sqlite3"
    os.environ |= {"MUTATION_DATABASE": str(file), "TMPDIR": str(folder), "CI": "true"}  # CI: no examples at random
    own = {"DATABASE_URL": f"sqlite:///{file}", "BOTOS_DATA_DIR": str(folder), "SECRET_KEY": "x" * 60}
    environment = {**os.environ, **own, "BOTOS_ENV_FILE": "", "DJANGO_SETTINGS_MODULE": "botos_project.settings"}
    command = [sys.executable, "manage.py", "migrate", "--verbosity", "0"]
    subprocess.run(command, cwd=copy, env=environment, check=True)


def seconds_without_a_mutant(copy: Path, calls: Path) -> float:
    """How long the tests take when nothing is wrong. They have to pass. `calls` gets what each of them calls."""
    begun = time.monotonic()
    command = pytest_command("--record-calls", str(calls))
    subprocess.run(command, cwd=copy, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - begun


def _take_a_copy(copies: Queue[str]) -> None:
    os.chdir(copies.get())


def _run(mutant: Mutant, calls: Path, timeout: float) -> WorkResult:
    function = f"{mutant.spec.module_path}:{mutant.spec.definition_name}"
    command = pytest_command("--calls", str(calls), "--reaching", function)
    return mutate_and_test([mutant.spec], shlex.join(command), timeout)


def run(mutants: list[Mutant], copies: list[Path], calls: Path, timeout: float) -> list[Mutant]:
    """Run each mutant in one of the copies and print what comes of it. Returns those that survived."""
    context = get_context("spawn")
    free = context.Queue()
    for copy in copies:
        free.put(str(copy))
    survived = []
    with ProcessPoolExecutor(len(copies), context, _take_a_copy, (free,)) as pool:
        control = Mutant("control", evolve(mutants[0].spec, operator_name="core/NoOp", occurrence=0))
        if (result := pool.submit(_run, control, calls, timeout).result()).is_killed:
            raise RuntimeError(f"the tests fail where nothing is changed: {result.output}")
        running = {pool.submit(_run, mutant, calls, timeout): mutant for mutant in mutants}
        for nth, done in enumerate(as_completed(running), 1):
            mutant, result = running[done], done.result()
            if result.test_outcome is None or result.test_outcome == "incompetent":
                raise RuntimeError(f"{mutant}: {result.output}")
            outcome = "killed" if result.is_killed else "survived, as reviewed"
            if not result.is_killed:
                survived.append(mutant)
                if mutant.key not in SURVIVORS:
                    outcome = f"SURVIVED\n  key: {mutant.key}\n{result.diff}"
            elif result.output == "timeout":
                outcome = "killed by the time limit"
            print(f"[{nth}/{len(mutants)}] {mutant}: {outcome}", flush=True)
    return survived


def main(words: list[str]) -> int:
    os.chdir(PROJECT)
    begun = time.monotonic()
    seed = os.environ.get("FAULTS_SEED") or str(random.randrange(10**6))
    wanted = os.environ.get("FAULTS_MUTANTS", str(CONFIG["sample"]))
    with tempfile.TemporaryDirectory(prefix="botos-mutants-") as name:
        folder = Path(name)
        operators = {*CONFIG["operators"], *(CONFIG["postgresql_operators"] if IS_POSTGRESQL else ())}
        every = all_mutants({Path(path): name for name, path in CONFIG["modules"].items()}, operators, folder)
        mutants = [one for one in every if not words or any(word in one.key for word in words)]
        if not mutants:
            print("no key of a mutant contains", *words)
            return 2
        if stale := [] if IS_POSTGRESQL else sorted(SURVIVORS.keys() - {one.key for one in every}):
            print("survivors.toml lists mutants that no longer exist:", *stale, sep="\n  ")
        if wanted != "all":
            mutants = random.Random(seed).sample(mutants, min(int(wanted), len(mutants)))
        print(f"{len(mutants)} of {len(every)} mutants, FAULTS_SEED={seed}", flush=True)
        copies = [copy_project(folder / f"copy-{nth}") for nth in range(os.cpu_count() or 1)]
        migrate(folder, copies[0])
        calls = folder / "calls.json"
        whole = seconds_without_a_mutant(copies[0], calls)
        survived = run(mutants, copies, calls, max(CONFIG["least_seconds"], 3 * whole))
    new = [one for one in survived if one.key not in SURVIVORS]
    killed, minutes = len(mutants) - len(survived), (time.monotonic() - begun) / 60
    print(f"{killed} killed, {len(survived)} survived, {len(new)} of them new, {minutes:.0f} minutes")
    return 1 if stale or is_too_many(len(new), len(mutants)) else 0


def is_too_many(new: int, of: int) -> bool:
    """Whether more mutants survived than config.toml takes for granted, of those that nobody has looked at."""
    return new > float(CONFIG["tolerated_share"]) * of
