"""From a resolver's file into the database and back."""

from __future__ import annotations

import json
import stat
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.db import connections, transaction

from identity.flows import linking
from identity.models import AccountLink, AuditEvent, PlatformAccount, UnifiedUser
from identity.resolvers import DatabaseIdentityResolver, FileIdentityResolver

pytestmark = pytest.mark.django_db

ALICE_AND_BOB = {"telegram::12345": "alice", "discord::snowflake-1": "alice", "slack::T1::U-B": "bob"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "identity.json"


def write(path: Path, links: object) -> Path:
    path.write_text(json.dumps({"links": links}))
    return path


def imported(path: Path, *options: str) -> str:
    output = StringIO()
    call_command("import_identity", str(path), *options, stdout=output)
    return output.getvalue().strip()


def exported() -> str:
    output = StringIO()
    call_command("export_identity", stdout=output)
    return output.getvalue()


def nothing_is_stored() -> bool:
    return not any(model.objects.exists() for model in (AccountLink, AuditEvent, PlatformAccount, UnifiedUser))


def test_it_imports_every_link_and_says_who_did(path: Path) -> None:
    assert imported(write(path, ALICE_AND_BOB)) == "3 linked, 0 unchanged, 0 moved."

    resolver = DatabaseIdentityResolver()
    assert [link.platform for link in resolver.links_for("alice")] == ["telegram", "discord"]
    assert resolver.resolve("slack", "T1::U-B") == "bob"
    assert set(AccountLink.objects.values_list("method", "actor")) == {("import", "import_identity")}
    assert AuditEvent.objects.filter(kind="linked", actor="import_identity").count() == 3


def test_it_counts_what_was_there_and_what_moved(path: Path) -> None:
    resolver = DatabaseIdentityResolver()
    resolver.link("telegram", "12345", "alice")
    resolver.link("discord", "snowflake-1", "mallory")

    assert imported(write(path, ALICE_AND_BOB)) == "1 linked, 1 unchanged, 1 moved."

    assert resolver.resolve("discord", "snowflake-1") == "alice"
    assert imported(path) == "0 linked, 3 unchanged, 0 moved."


def test_it_only_says_what_a_dry_run_would_do(path: Path) -> None:
    assert imported(write(path, ALICE_AND_BOB), "--dry-run") == "Would be: 3 linked, 0 unchanged, 0 moved."

    assert nothing_is_stored()


@pytest.mark.parametrize(
    ("key", "person"),
    [
        ("telegram:12345", "bob"),
        ("Telegram::12345", "bob"),
        ("telegram::" + "1" * 191, "bob"),
        ("telegram::12\x0034", "bob"),
        ("telegram::12345", "discord:1"),
        ("telegram::12345", "bot_bob"),
        ("telegram::12345", "bob b"),
        ("telegram::12345", 7),
    ],
)
def test_it_imports_nothing_of_a_bad_file_and_names_the_first_bad_entry(path: Path, key: str, person: object) -> None:
    write(path, {"discord::snowflake-1": "alice", key: person, "Discord::2": "a:b"})

    with pytest.raises(CommandError) as refused:
        imported(path)

    assert f"links[{key!r}]" in str(refused.value)
    assert nothing_is_stored()


def test_it_leaves_nothing_half_done(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = linking.link

    def fails_for_bob(**words: str) -> AccountLink:
        if words["unified_user_id"] == "bob":
            raise RuntimeError("the machine caught fire")
        return link(**words)

    monkeypatch.setattr(linking, "link", fails_for_bob)
    with pytest.raises(RuntimeError):
        imported(write(path, ALICE_AND_BOB))

    assert nothing_is_stored()


@pytest.mark.django_db(transaction=True)
def test_it_waits_in_no_circle_with_a_turn_that_starts(path: Path) -> None:
    DatabaseIdentityResolver().link("discord", "snowflake-1", "alice")
    held = threading.Event()

    def start_a_turn_slowly() -> None:
        try:
            with transaction.atomic():
                PlatformAccount.objects.select_for_update(no_key=True).get(platform="discord")
                held.set()
                time.sleep(0.3)
                UnifiedUser.objects.select_for_update(no_key=True).get(unified_user_id="alice")
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as pool:
        turn = pool.submit(start_a_turn_slowly)
        held.wait(10)
        done = imported(write(path, {"telegram::12345": "alice", "discord::snowflake-1": "bob"}))
        turn.result(10)

    assert done == "1 linked, 0 unchanged, 1 moved."


@pytest.mark.parametrize("content", ["", "[]", '{"links": 7}'])
def test_it_refuses_what_is_no_identity_file(path: Path, content: str) -> None:
    path.write_text(content)

    with pytest.raises(CommandError, match=r"identity\.json: "):
        imported(path)


def test_it_refuses_a_file_that_is_not_there(path: Path) -> None:
    with pytest.raises(CommandError, match="No such file"):
        imported(path)


def test_it_exports_only_live_links() -> None:
    resolver = DatabaseIdentityResolver()
    resolver.link("telegram", "12345", "mallory")
    resolver.link("telegram", "12345", "alice")
    resolver.link("slack", "U-B", "bob")
    resolver.unlink("slack", "U-B")

    assert json.loads(exported()) == {"links": {"telegram::12345": "alice"}}


def test_it_exports_what_it_imported(path: Path, tmp_path: Path) -> None:
    links = {**ALICE_AND_BOB, "slack:::odd \t\u202e\U0001f600": "b\u00f6b@example.org"}
    imported(write(path, links))
    copy = tmp_path / "copy.json"

    call_command("export_identity", str(copy), stderr=StringIO())

    assert json.loads(copy.read_text()) == {"links": links} == json.loads(exported())
    assert imported(copy) == "0 linked, 4 unchanged, 0 moved."


def test_it_exports_a_file_for_its_owner_and_for_the_resolver(path: Path) -> None:
    DatabaseIdentityResolver().link("telegram", "12345", "alice")
    path.write_text("whatever was here")
    path.chmod(0o644)

    call_command("export_identity", str(path), stderr=StringIO())

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert FileIdentityResolver(path).resolve("telegram", "12345") == "alice"


def test_it_says_where_it_cannot_export_to(path: Path) -> None:
    with pytest.raises(CommandError, match="cannot be written: No such file or directory"):
        call_command("export_identity", str(path / "nowhere"))
