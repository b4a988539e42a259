"""The arithmetic of the benchmark's tables."""

from __future__ import annotations

import json

from tests.bench import report
from tests.bench.cases import BEFORE, NOW, Case
from tests.bench.measuring import Ratio, Results, Sample, Spread


def _unused(_scene: object, _program: str) -> Sample:
    raise AssertionError("nothing is measured here")


RATIO = Ratio("now : before", (NOW, "cpu"), (BEFORE, "cpu"), {"sqlite": 0.3})
CASE = Case("turn", "A turn", {"cpu": "ms"}, _unused, ratios=(RATIO,), limits={"cpu": 4})


def _results() -> Results:
    results = Results()
    for now, before in ((1.0, 10.0), (8.0, 20.0), (3.0, 10.0)):
        results.add(NOW, {"cpu": now})
        results.add(BEFORE, {"cpu": before})
    return results


def test_a_spread_is_the_median_and_the_range() -> None:
    assert _results().spread(NOW, "cpu") == Spread(3.0, 1.0, 8.0)


def test_a_missing_program_or_measure_has_no_spread() -> None:
    assert _results().spread("another", "cpu") is None
    assert _results().spread(NOW, "another") is None
    assert _results().ratio(Ratio("", (NOW, "cpu"), ("another", "cpu"))) is None


def test_a_ratio_compares_each_round_within_itself() -> None:
    assert _results().ratio(RATIO) == Spread(0.3, 0.1, 0.4)  # the ratio of the medians is the same, that of ranges not


def test_a_table_has_measures_with_limits_then_ratios_with_targets_then_what_is_missing() -> None:
    results = _results()
    results.missing["peer"] = "no such version"
    assert list(report.rows(CASE, "sqlite", results)) == [
        ("now: ms", "3.00", "1.00 to 8.00", "4"),
        ("before: ms", "10.00", "10.00 to 20.00", ""),
        ("now : before", "0.30", "0.10 to 0.40", "0.3"),
        ("peer: not measured, no such version", "", "", ""),
    ]
    assert list(report.rows(CASE, "postgres", results))[2] == ("now : before", "0.30", "0.10 to 0.40", "")


def test_parts_are_sorted_by_size_and_small_ones_are_one_row() -> None:
    results = Results()
    results.add(BEFORE, {"receive": 2.0})
    results.add(NOW, {"receive": 1.0, "finish": 3.0, "first": 0.01, "second": 0.02})
    assert list(report.rows(Case("parts", "", {}, _unused), "sqlite", results)) == [
        ("now: ms in finish", "3.00", "3.00 to 3.00", ""),
        ("now: ms in receive", "1.00", "1.00 to 1.00", ""),
        ("now: ms in the rest", "0.03", "0.03 to 0.03", ""),
        ("before: ms in receive", "2.00", "2.00 to 2.00", ""),
        ("before: ms in the rest", "0.00", "0.00 to 0.00", ""),
    ]


def test_json_has_the_samples_and_what_follows_from_them() -> None:
    plain = json.loads(json.dumps(_results().plain([RATIO])))
    assert plain["medians"][NOW] == {"cpu": {"median": 3.0, "least": 1.0, "most": 8.0}}
    assert plain["ratios"] == {"now : before": {"median": 0.3, "least": 0.1, "most": 0.4}}
    assert Results.read(plain).spread(BEFORE, "cpu") == Spread(10.0, 10.0, 20.0)
