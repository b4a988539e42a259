"""The mutation run: what it makes, how it names it, and which tests it asks."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mutation.run import CONFIG, PROJECT, all_mutants, copy_project, is_too_many

SOURCE = "def claim(row):\n    if row.ended:\n        stop(row)\n    return row.filter(a=1, b=2)\n"
OPERATORS = {"botos/NeverTrue", "botos/RemoveArgument"}


def keys(folder: Path, name: str, source: str) -> list[str]:
    path = folder / name
    path.write_text(source, encoding="utf-8")
    return [one.key for one in all_mutants({path: "pairing"}, OPERATORS, folder)]


def test_it_names_each_mutant_differently(tmp_path: Path) -> None:
    found = keys(tmp_path, "old.py", SOURCE)

    assert len(found) == len(set(found)) == 3
    assert [key.split()[:2] for key in found] == [
        ["pairing.claim", "botos/NeverTrue"],
        ["pairing.claim", "botos/RemoveArgument"],
        ["pairing.claim", "botos/RemoveArgument"],
    ]


def test_it_keeps_the_name_of_a_mutant_when_the_module_moves_and_grows(tmp_path: Path) -> None:
    moved = SOURCE.replace("    return", "    log(row)\n    return")

    assert keys(tmp_path, "new.py", f"import log\n\n\n{moved}") == keys(tmp_path, "old.py", SOURCE)


def test_it_gives_a_new_name_when_the_line_changes(tmp_path: Path) -> None:
    changed = SOURCE.replace("row.ended", "row.is_over")

    assert keys(tmp_path, "new.py", changed)[0] != keys(tmp_path, "old.py", SOURCE)[0]


@pytest.mark.parametrize("path", [*CONFIG["modules"].values(), *CONFIG["tests"], *CONFIG["postgresql_tests"]])
def test_it_is_told_of_files_that_exist(path: str) -> None:
    assert (PROJECT / path.partition("::")[0]).is_file()


def test_it_copies_what_tests_need_and_no_secrets(tmp_path: Path) -> None:
    project = tmp_path / "project"
    (project / "identity").mkdir(parents=True)
    (project / "data").mkdir()
    for name in (".env", ".env.example", "identity/models.py"):
        (project / name).touch()

    copy = copy_project(tmp_path / "copy", project)

    assert {path.name for path in copy.rglob("*")} == {".env.example", "identity", "models.py"}


@pytest.mark.parametrize(("new", "expected"), [(0, False), (5, False), (6, True)])
def test_it_fails_when_more_survive_than_before(monkeypatch: pytest.MonkeyPatch, new: int, expected: bool) -> None:
    monkeypatch.setitem(CONFIG, "tolerated_share", 0.25)

    assert is_too_many(new, 20) is expected


def test_it_leaves_out_whether_a_value_is_frozen(tmp_path: Path) -> None:
    source = "@dataclass(frozen=True)\nclass How:\n    method: str\n"

    assert keys(tmp_path, "new.py", source) == []
