"""Rows of tables from samples, for the terminal and for the page."""

from __future__ import annotations

from collections.abc import Iterator

from tests.bench.cases import BEFORE, NOW, Case
from tests.bench.measuring import Results, Spread

Row = tuple[str, str, str, str]  # what, median, range, target
HEADS = ("", "median", "range", "target")
MIN_PART = 0.01  # of the whole, for a row of its own


def rows(case: Case, engine: str, results: Results) -> Iterator[Row]:
    """The rows of a case's table."""
    if not case.measures:
        yield from _parts(results)
    for measure, unit in case.measures.items():
        for program in results.samples:
            if spread := results.spread(program, measure):
                limit = case.limits.get(measure) if program == NOW else None
                yield f"{program}: {unit}", *_cells(spread), _number(limit)
    for ratio in case.ratios:
        if spread := results.ratio(ratio):
            yield ratio.title, *_cells(spread), _number(ratio.target_on(engine))
    for program, reason in results.missing.items():
        yield f"{program}: not measured, {reason}", "", "", ""


def _parts(results: Results) -> Iterator[Row]:
    """The largest part first. What is small is one row."""
    for program in (program for program in (NOW, BEFORE) if program in results.samples):
        samples = results.samples[program]
        whole = sum(map(sum, (sample.values() for sample in samples))) / len(samples)
        names = {name for sample in samples for name in sample}
        parts = {name: Spread.of(sample.get(name, 0.0) for sample in samples) for name in names}
        large = {name: spread for name, spread in parts.items() if spread.median >= MIN_PART * whole}
        for name, spread in sorted(large.items(), key=lambda part: -part[1].median):
            yield f"{program}: ms in {name}", *_cells(spread), ""
        rest = Spread.of(sum(sample.values()) - sum(sample.get(name, 0.0) for name in large) for sample in samples)
        yield f"{program}: ms in the rest", *_cells(rest), ""


def _cells(spread: Spread) -> tuple[str, str]:
    return f"{spread.median:.2f}", f"{spread.least:.2f} to {spread.most:.2f}"


def _number(target: float | None) -> str:
    return "" if target is None else f"{target:g}"
