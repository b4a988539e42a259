"""Samples, and the arithmetic of the table: medians, ranges and ratios."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

Sample = Mapping[str, float]  # what one process measured, by measure


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of some values, the least and the greatest of them."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        values = sorted(values)
        return cls(median(values), values[0], values[-1])


@dataclass(frozen=True, slots=True)
class Ratio:
    """A comparison in a case. Each side is a program and a measure.

    target: the greatest ratio that is good enough, by database where it differs. title: the row of the table.
    """

    title: str
    over: tuple[str, str]
    under: tuple[str, str]
    target: float | Mapping[str, float] | None = field(default=None, hash=False)

    def target_on(self, database: str) -> float | None:
        return self.target.get(database) if isinstance(self.target, Mapping) else self.target


@dataclass(slots=True)
class Results:
    """The samples of one case on one database: by program, one for each round. missing: why there are none of some."""

    samples: dict[str, list[Sample]] = field(default_factory=lambda: defaultdict(list))
    missing: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, plain: Mapping[str, Any]) -> Results:
        """What `plain` made."""
        return cls(plain["samples"], plain["missing"])

    def plain(self, ratios: Iterable[Ratio]) -> dict[str, Any]:
        """For JSON: the samples, and what follows from them."""
        return {
            "samples": dict(self.samples),
            "missing": self.missing,
            "medians": {
                program: {
                    measure: asdict(spread) for measure in samples[0] if (spread := self.spread(program, measure))
                }
                for program, samples in self.samples.items()
            },
            "ratios": {ratio.title: asdict(found) for ratio in ratios if (found := self.ratio(ratio))},
        }

    def add(self, program: str, sample: Sample) -> None:
        self.samples[program].append(sample)

    def spread(self, program: str, measure: str) -> Spread | None:
        """None where the program or the measure is missing."""
        values = [sample[measure] for sample in self.samples.get(program, ()) if measure in sample]
        return Spread.of(values) if values else None

    def ratio(self, ratio: Ratio) -> Spread | None:
        """Each round is compared within itself, as its samples are neighbours in time."""
        sides: list[Sequence[float]] = [
            [sample[measure] for sample in self.samples.get(program, ()) if measure in sample]
            for program, measure in (ratio.over, ratio.under)
        ]
        rounds = list(zip(*sides, strict=False))
        return Spread.of(one / other for one, other in rounds) if rounds else None
