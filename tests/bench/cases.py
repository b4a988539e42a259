"""What is measured: the cases, the programs that are compared in each, and the ratios that are worth a row."""

from __future__ import annotations

import json
import os
import re
import resource
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
from tests.bench.peers import REQUIREMENTS, Peers
from tests.bench.trees import PROJECT

HERE = Path(__file__).resolve().parent
NOW, BEFORE = "now", "before"  # programs: this tree, and that of --against
BY_HAND, BARE = "by hand", "bare echo"  # raw.py, and telegram.py's bot without BotOS
PEOPLE = {"people": 100, "entries": 100}


@dataclass(frozen=True)
class Scene:
    """Where samples are taken: a database engine, the trees by program, and how big everything is."""

    engine: str
    new: NewDatabase
    trees: Mapping[str, Path]
    is_small: bool
    peers: Peers | None = None
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
    """Production's settings and nothing of this machine's, without a notice before each answer and without settling."""
    ours = re.findall(r"^#? ?([A-Z][A-Z_]+)=", (PROJECT / ".env.example").read_text(encoding="utf-8"), re.MULTILINE)
    kept = {name: value for name, value in os.environ.items() if name not in ours}
    return kept | {
        "DJANGO_SETTINGS_MODULE": "botos_project.settings",
        "BOTOS_ENV_FILE": "",
        "BOTOS_NOTICE": "off",
        "BOTOS_SETTLE_SECONDS": "0",
        "SECRET_KEY": "only-for-a-benchmark-and-therefore-not-a-secret-but-long-enough",
        "BOTOS_METRICS_TOKEN": "only-for-a-benchmark-and-therefore-no-secret",
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

    sample: measures a tree by the name of its program. rivals: measure what is no tree, by name. peers: the same for
    other projects. measures: their units; without any, a sample is the parts of a whole in milliseconds. limits: the
    greatest that is good enough. ratios: rows of the table. engines: where it makes a difference.
    """

    name: str
    title: str
    measures: Mapping[str, str]
    sample: Callable[[Scene, str], Sample]
    rivals: Mapping[str, Callable[[Scene], Sample]] = field(default_factory=dict)
    peers: Mapping[str, Callable[[Scene], Sample]] = field(default_factory=dict)
    ratios: tuple[Ratio, ...] = ()
    limits: Mapping[str, float] = field(default_factory=dict)
    engines: tuple[str, ...] = ("sqlite", "postgres")


def turns(scene: Scene, program: str, *, in_flight: int) -> Sample:
    """Turns of 100 people with 100 entries each. So many people wait for an answer at the same time."""
    several = in_flight > 1
    number, warm_up = (scene.size(800, 128), scene.size(200, 64)) if several else (scene.size(200, 30), 10)
    url = scene.filled(program, **PEOPLE)
    return scene.drive(program, "turns", url, people=100, turns=number, in_flight=in_flight, warm_up=warm_up)


def parts(scene: Scene, program: str) -> Sample:
    options = {"people": 100, "turns": scene.size(800, 128), "in_flight": 64, "warm_up": scene.size(200, 64)}
    return scene.drive(program, "parts", scene.filled(program, **PEOPLE), **options)


def peer(scene: Scene, name: str) -> Sample:
    assert scene.peers
    return scene.peers.sample(name, PEOPLE | {"turns": scene.size(800, 128), "in_flight": 64})


def by_hand(scene: Scene) -> Sample:
    options: dict[str, Any] = {"people": 100, "turns": scene.size(200, 30), "warm_up": 10}
    url = scene.filled(NOW, **PEOPLE)
    return run([str(HERE / "raw.py"), json.dumps(options | {"url": url})], PROJECT, os.environ)


def kept(scene: Scene, rows: int, entries: int) -> dict[str, int]:
    """Filling for one person with so many entries, beside others: a message is a row, two entries and a delivery."""
    messages = scene.size(rows, max(rows // 20, 1000)) // 4
    return {"people": 1, "entries": entries, "kept": messages, "others": messages // 10}


def grown(scene: Scene) -> dict[str, int]:
    return kept(scene, 500_000, scene.size(100_000, 5_000))


def growth(scene: Scene, program: str) -> Sample:
    sizes = {"much": grown(scene), "little": kept(scene, 1_000, 100)}
    options = {"people": 1, "turns": scene.size(200, 30), "in_flight": 1, "warm_up": 10}
    urls = {name: scene.filled(program, **filling) for name, filling in sizes.items()}
    samples = {name: scene.drive(program, "turns", url, **options) for name, url in urls.items()}
    return {name: sum(sample.get(of, 0.0) for of in ("cpu", "server")) for name, sample in samples.items()}


def counts(scene: Scene, program: str) -> Sample:
    url = scene.filled(program, **PEOPLE)
    return scene.drive(program, "counts", url, people=10, turns=scene.size(200, 30))


def pages(scene: Scene, program: str) -> Sample:
    url = scene.filled(program, **kept(scene, 1_000_000, 100))
    return scene.drive(program, "pages", url, calls=scene.size(20, 8))


def my_page(scene: Scene, program: str) -> Sample:
    few = {"people": 1, "entries": 1_000, "kept": 1_000, "others": 25}
    urls = {"many": scene.filled(program, **grown(scene)), "few": scene.filled(program, **few)}
    return {name: scene.drive(program, "me", url, calls=scene.size(40, 10))["me"] for name, url in urls.items()}


def check(scene: Scene, program: str) -> Sample:
    """CPU of `manage.py check`, the second time, when Python has compiled everything."""
    tree = scene.trees[program]
    environment = clean_environment(PYTHONPATH=str(tree), DATABASE_URL=scene.filled(program, **PEOPLE))
    command = [sys.executable, "manage.py", "check"]
    usage = [resource.getrusage(resource.RUSAGE_CHILDREN)]
    for _ in range(2):
        subprocess.run(command, cwd=tree, env=environment, check=True, capture_output=True)
        usage.append(resource.getrusage(resource.RUSAGE_CHILDREN))
    before, after = (each.ru_utime + each.ru_stime for each in usage[-2:])
    return {"cpu": after - before}


def telegram(scene: Scene, program: str, *, step: str) -> Sample:
    """A step of telegram.py with the bots of a tree, or those of a program that is no tree."""
    tree = scene.trees.get(program)
    url = scene.filled(program, **PEOPLE) if tree else ""
    options = {"tree": str(tree or ""), "url": url, "burst": scene.size(150, 30), "alone": scene.size(30, 10)}
    return run(
        [str(HERE / "telegram.py"), step, json.dumps(options)], PROJECT, clean_environment(PYTHONPATH=str(PROJECT))
    )


def typing(scene: Scene, program: str) -> Sample:
    """How soon people who write at the same moment see the typing sign, by how the processes are arranged."""
    options = {"tree": str(scene.trees[program]), "url": scene.filled(program, people=1, entries=2), "people": 50}
    return run([str(HERE / "typing_sign.py"), json.dumps(options)], PROJECT, clean_environment(PYTHONPATH=str(PROJECT)))


CPU = {"cpu": "ms of CPU a turn", "elapsed": "ms a turn", "server": "ms of the server's CPU a turn"}
CASES = (
    Case(
        "turn-64",
        "A turn with 64 people in flight",
        CPU,
        partial(turns, in_flight=64),
        peers={name: partial(peer, name=name) for name in REQUIREMENTS},
        ratios=(
            Ratio("now : before", (NOW, "cpu"), (BEFORE, "cpu"), 0.3),
            Ratio("now : praisonai", (NOW, "cpu"), ("praisonai", "cpu"), {"sqlite": 0.9, "postgres": 1.1}),
            Ratio("now : nanobot", (NOW, "cpu"), ("nanobot", "cpu")),
            Ratio("now : hermes", (NOW, "cpu"), ("hermes", "cpu")),
        ),
    ),
    Case("parts", "Where the CPU of a turn with 64 people in flight goes", {}, parts),
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
    Case(
        "growth",
        "A turn at 500,000 kept rows and 100,000 entries, and at 1,000 and 100, with the server's CPU",
        {"much": "ms of CPU a turn at much", "little": "ms of CPU a turn at little"},
        growth,
        ratios=(
            Ratio("now, much : little", (NOW, "much"), (NOW, "little"), 1.1),
            Ratio("before, much : little", (BEFORE, "much"), (BEFORE, "little")),
        ),
    ),
    Case(
        "counts",
        "What a turn takes, one at a time",
        {"statements": "statements", "transactions": "transactions", "hops": "thread hops"},
        counts,
        limits={"statements": 18, "transactions": 4, "hops": 4},
    ),
    Case(
        "check",
        "manage.py check",
        {"cpu": "seconds of CPU"},
        check,
        ratios=(Ratio("now : before", (NOW, "cpu"), (BEFORE, "cpu"), 0.85),),
        engines=("sqlite",),
    ),
    Case(
        "memory",
        "Idle memory of runbots on Telegram",
        {"pss": "MB of its own (PSS)", "rss": "MB (RSS)"},
        partial(telegram, step="memory"),
        ratios=(Ratio("now : before", (NOW, "pss"), (BEFORE, "pss"), 0.9),),
        engines=("sqlite",),
    ),
    Case(
        "pages",
        "Pages at 1,000,000 rows, the quickest of some calls",
        {
            "metrics": "ms of /metrics",
            "messages": "ms of the list of messages",
            "deliveries": "ms of that of deliveries",
        },
        pages,
        limits={"metrics": 10, "messages": 40, "deliveries": 40},
    ),
    Case(
        "me",
        "/me/ of a person with 100,000 entries, and with 1,000",
        {"many": "ms at 100,000", "few": "ms at 1,000"},
        my_page,
        ratios=(
            Ratio("now, many : few", (NOW, "many"), (NOW, "few"), 1.2),
            Ratio("before, many : few", (BEFORE, "many"), (BEFORE, "few")),
        ),
    ),
    Case(
        "typing",
        "From the acceptance of a message to its typing sign, 95 of 100, when 50 people write at once",
        {
            "together": "ms on Telegram, in one process",
            "apart": "ms on Telegram, with two workers and the pages apart",
            "called": "ms on Telegram, where the pages apart receive, too",
            "discord": "ms on Discord, which has half of its calls for signs",
        },
        typing,
        limits={"together": 300, "apart": 300, "called": 300},
    ),
    Case(
        "end-to-end",
        "From Telegram's event to the answer that Telegram took, in a burst and one at a time",
        {"burst": "ms of CPU a message in a burst", "one": "ms of CPU a message alone"},
        partial(telegram, step="end_to_end"),
        {BARE: lambda scene: telegram(scene, BARE, step="end_to_end")},
        ratios=(
            Ratio("burst, now : a bare echo", (NOW, "burst"), (BARE, "burst"), 3),
            Ratio("burst, before : a bare echo", (BEFORE, "burst"), (BARE, "burst")),
            Ratio("burst, now : before", (NOW, "burst"), (BEFORE, "burst"), 0.35),
        ),
    ),
)
