from __future__ import annotations

import sqlite3
from contextlib import closing
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from adapters.management.commands import backup
from tests.botos_project.test_settings import python
from tests.sessions_app.talk import say

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    if connection.vendor != "sqlite":
        pytest.skip("about SQLite")
    return tmp_path / "backup.sqlite3"


def test_it_copies_what_was_said_for_nobody_else_to_read(file: Path) -> None:
    say("alice", "My favourite colour is octarine.")
    call_command("backup", file, stdout=StringIO())

    with closing(sqlite3.connect(file)) as copy:
        said = copy.execute("SELECT text FROM sessions_app_historyentry WHERE role = 'user'").fetchall()
    assert said == [("My favourite colour is octarine.",)]
    assert file.stat().st_mode & 0o777 == 0o600
    assert [one.name for one in file.parent.iterdir()] == [file.name]


def test_it_replaces_nothing(file: Path) -> None:
    file.write_text("precious", encoding="utf-8")

    with pytest.raises(CommandError, match="already exists"):
        call_command("backup", file)
    assert file.read_text(encoding="utf-8") == "precious"


@pytest.mark.parametrize("is_there", [False, True])
def test_it_takes_no_empty_database_for_ours(is_there: bool, file: Path, tmp_path: Path) -> None:
    """As `manage.py` does with another BOTOS_DATA_DIR."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    if is_there:
        sqlite3.connect(folder / "botos.sqlite3").close()
        (folder / "botos.sqlite3").touch()
    done = python("manage.py", "backup", str(file), folder=folder)

    assert done.returncode == 1
    assert f"{folder / 'botos.sqlite3'} is not a BotOS database. Hint: check BOTOS_DATA_DIR" in done.stderr
    assert [one.name for one in tmp_path.iterdir()] == [folder.name]
    assert (folder / "botos.sqlite3").exists() is is_there


def test_it_leaves_no_half_of_a_backup(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoil(part: Path) -> None:
        part.write_text("half", encoding="utf-8")
        raise sqlite3.DatabaseError("the copy is not whole")

    monkeypatch.setattr(backup, "_copy", spoil)
    with pytest.raises(CommandError, match="No backup was made"):
        call_command("backup", file)
    assert not list(file.parent.iterdir())


def test_it_says_that_postgresql_has_its_own_way() -> None:
    if connection.vendor == "sqlite":
        pytest.skip("about PostgreSQL")
    with pytest.raises(CommandError, match="pg_dump"):
        call_command("backup", "anywhere")
