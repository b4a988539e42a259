"""Writes the figures of docs/explanation/performance.json into the page beside it: `python -m tests.bench.page`.

A figure's place in the page is between `<!-- CASE -->` and `<!-- end -->`; what stands there is replaced by a table.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from tests.bench import report
from tests.bench.cases import CASES
from tests.bench.measuring import Results
from tests.bench.trees import PROJECT

PAGE = PROJECT / "docs" / "explanation" / "performance.md"
FIGURES = PAGE.with_suffix(".json")
ENGINES = {"sqlite": "SQLite", "postgres": "PostgreSQL"}
_PLACE = re.compile(r"<!-- ([a-z0-9-]+) -->\n.*?<!-- end -->", re.DOTALL)


def rendered(page: str, figures: Mapping[str, Any]) -> str:
    """The page with its tables from the figures. Raises KeyError for a place that no case fills."""
    cases = {case.name: case for case in CASES}

    def table(place: re.Match[str]) -> str:
        case = cases[place[1]]
        found = figures.get(case.name, {})
        results = {engine: Results.read(found[engine]) for engine in ENGINES if engine in found}
        cells = {engine: {row[0]: row[1:] for row in report.rows(case, engine, results[engine])} for engine in results}
        titles = dict.fromkeys(title for rows in cells.values() for title in rows)
        heads = [f"{ENGINES[engine]} | range | target" for engine in results]
        if not found:
            return f"<!-- {case.name} -->\nNot measured yet.\n<!-- end -->"
        lines = [f"| | {' | '.join(heads)} |", f"| --- |{' --- | --- | --- |' * len(results)}"]
        for title in titles:
            columns = [" | ".join(rows.get(title, ("", "", ""))) for rows in cells.values()]
            lines.append(f"| {title} | {' | '.join(columns)} |")
        lines += ["", *sorted({f"({versions(each)})" for each in found.values()})]
        return f"<!-- {case.name} -->\n" + "\n".join(lines) + "\n<!-- end -->"

    return _PLACE.sub(table, page)


def versions(about: Mapping[str, Any]) -> str:
    """Which commits a result is of, and whether it is one of `--small`."""
    before = f", before is {about['before']}" if about["before"] else ""
    return f"now is {about['now']}{before}{'; fewer rows and turns' if about['is_small'] else ''}"


def write() -> None:
    """Bring the page up to date."""
    figures = json.loads(FIGURES.read_text(encoding="utf-8"))
    PAGE.write_text(rendered(PAGE.read_text(encoding="utf-8"), figures), encoding="utf-8")


if __name__ == "__main__":
    write()
