"""The page about performance has the figures of the JSON beside it."""

from __future__ import annotations

import json

import pytest

from tests.bench import page
from tests.bench.cases import CASES

PLACE = "Before.\n\n<!-- check -->\n{}<!-- end -->\n\nAfter.\n"
SAMPLES = {"now": [{"cpu": 1.0}, {"cpu": 3.0}, {"cpu": 1.5}]}
FIGURES = {"check": {"sqlite": {"now": "1234567", "before": "", "is_small": True, "samples": SAMPLES, "missing": {}}}}


def test_the_page_has_the_figures_of_the_json() -> None:
    written = page.PAGE.read_text(encoding="utf-8")
    again = page.rendered(written, json.loads(page.FIGURES.read_text(encoding="utf-8")))
    assert written == again, "run `python -m tests.bench.page`"


def test_the_page_shows_every_case() -> None:
    written = page.PAGE.read_text(encoding="utf-8")
    assert [case.name for case in CASES if f"<!-- {case.name} -->" not in written] == []


def test_a_place_gets_a_table_in_place_of_what_stood_there() -> None:
    table = (
        "| | SQLite | range | target |\n| --- | --- | --- | --- |\n"
        "| now: seconds of CPU | 1.50 | 1.00 to 3.00 |  |\n\n(now is 1234567; fewer rows and turns)\n"
    )
    assert page.rendered(PLACE.format("| old |\n"), FIGURES) == PLACE.format(table)
    assert page.rendered(PLACE.format(table), FIGURES) == PLACE.format(table)


def test_a_place_without_figures_says_so() -> None:
    assert page.rendered(PLACE.format("| old |\n"), {}) == PLACE.format("Not measured yet.\n")


def test_a_place_that_no_case_fills_is_an_error() -> None:
    with pytest.raises(KeyError):
        page.rendered("<!-- nothing -->\n<!-- end -->", FIGURES)
