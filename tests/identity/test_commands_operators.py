"""`manage.py people|accounts|links|requests`: the admin's actions without a browser."""

from __future__ import annotations

import io
import json
import os
import pwd
import sys
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from identity.flows import pair_in_chat
from identity.models import AccountLink, AuditEvent, BotProfile, Pairing, UnifiedUser
from identity.pairing.secrets import secrets_of
from tests import zygote
from tests.identity.operator_pages import account, another_number, claimed, invited, linked, number_of, person, spelled

pytestmark = pytest.mark.django_db

NOBODYS = "00000000-0000-4000-8000-000000000000"
ME = f"manage.py:{pwd.getpwuid(os.getuid()).pw_name}"


def run(*words: object) -> str:
    output = io.StringIO()
    call_command(*map(str, words), stdout=output, stderr=io.StringIO())
    return output.getvalue().strip()


def run_json(*words: object) -> Any:
    return json.loads(run(*words, "--json"))


# --- people


def test_it_adds_lists_and_shows_people() -> None:
    assert run("people", "add", "alice", "--name", "Alice B.") == "Added alice."
    linked("alice", "telegram", 12345)
    person("bob")

    assert [(one["unified_user_id"], one["accounts"]) for one in run_json("people", "list")] == [
        ("bob", []),
        ("alice", ["telegram"]),
    ]
    for words in (("--search", "12345"), ("--search", "lice b"), ("--platform", "telegram"), ("--search", "ALICE")):
        assert [one["unified_user_id"] for one in run_json("people", "list", *words)] == ["alice"]
    assert len(run_json("people", "list", "--limit", "1")) == 1
    assert run_json("people", "show", "alice")["accounts"] == ["telegram:12345"]
    assert "telegram:12345" in run("people", "show", "alice")
    assert AuditEvent.objects.get(kind="person_added").actor == ME


def test_it_shows_a_table() -> None:
    person("alice", display_name="Alice\x1b[31m")

    header, line = run("people", "list").splitlines()
    assert header.split() == ["unified", "user", "id", "display", "name", "created", "at", "accounts"]
    assert line.startswith("alice            Alice[31m")
    assert "\x1b" not in line


def test_it_invites_and_shows_the_code_once() -> None:
    BotProfile.objects.create(platform="telegram", url="https://t.me/OurBot")
    person("alice")

    [given] = run_json("people", "invite", "alice", "--platform", "telegram")

    request = Pairing.objects.get()
    assert (request.operator, request.platform) == (ME, "telegram")
    assert given["request"] == str(request.pk)
    assert given["code"] == spelled(request)[1]
    assert given["deep_link"] == f"https://t.me/OurBot?start={secrets_of(request).token}"
    assert given["code"] in given["invitation"]
    later = run("people", "show", "alice") + run("requests", "list") + run("requests", "show", request.pk)
    assert not [one for one in spelled(request) if one in later]
    assert spelled(request)[1] not in run("people", "invite", "alice")
    assert AuditEvent.objects.filter(kind="pairing_invited", actor=ME).count() == 2


def test_it_invites_several_people_each_once() -> None:
    for name in ("alice", "bob", "carol"):
        person(name)

    text = run("people", "invite", "bob", "alice", "bob")

    requests = Pairing.objects.order_by("person__unified_user_id").select_related("person")
    assert [one.person and one.person.unified_user_id for one in requests] == ["alice", "bob"]
    assert [text.count(spelled(one)[1]) for one in requests] == [1, 1]
    assert text.index("For alice:") < text.index(spelled(requests[0])[1]) < text.index("For bob:")
    rows = run_json("people", "invite", "alice", "carol", "--platform", "discord")
    assert [(row["person"], Pairing.objects.get(pk=row["request"]).platform) for row in rows] == [
        ("alice", "discord"),
        ("carol", "discord"),
    ]


@pytest.mark.parametrize("words", ["bob nobody", "bob alice --platform telegram"])
def test_it_invites_all_or_nobody(words: str) -> None:
    linked("alice", "telegram")
    person("bob")

    with pytest.raises(CommandError):
        run("people", "invite", *words.split())

    assert not Pairing.objects.exists()


def test_it_suspends_a_person() -> None:
    linked("alice", "telegram")
    linked("alice", "discord")

    assert run("people", "suspend", "alice") == "Suspended alice: 2 links ended."

    assert not AccountLink.objects.live().exists()
    assert AuditEvent.objects.get(kind="person_suspended").actor == ME


def test_it_imports_all_of_a_file_or_nothing(tmp_path: Path) -> None:
    file = tmp_path / "people.csv"
    person("bob")
    file.write_text("unified_user_id,display_name\nalice,Alice\nb:c,Bad\n")
    with pytest.raises(CommandError, match=r"Nothing was imported\.\nLine 3: 'b:c' is no unified user id"):
        run("people", "import", file)
    assert UnifiedUser.objects.count() == 1

    file.write_text("unified_user_id,display_name\nalice,Alice\nbob,Bob\n")
    assert run("people", "import", file) == "1 added, 1 already there."
    assert run_json("people", "import", file) == {"added": 0, "known": 2}


# --- accounts and links


def test_it_lists_and_shows_accounts() -> None:
    linked("alice", "telegram", 12345)
    account("discord", 66666, display_name="Mallory", username="mal")

    assert [one["account"] for one in run_json("accounts", "list")] == ["discord:66666", "telegram:12345"]
    for words in (("--linked", "no"), ("--platform", "discord"), ("--search", "mal")):
        assert [one["account"] for one in run_json("accounts", "list", *words)] == ["discord:66666"]
    assert [one["person"] for one in run_json("accounts", "list", "--linked", "yes")] == ["alice"]
    assert run_json("accounts", "show", "telegram:12345")["person"] == "alice"


def test_it_lists_and_revokes_links() -> None:
    link = linked("alice", "telegram")
    assert [one["id"] for one in run_json("links", "list", "--search", "alice")] == [link.pk]
    shown = run_json("links", "show", link.pk)
    assert (shown["account"], shown["person"], shown["ended_at"]) == ("telegram:00001", "alice", None)
    assert "telegram:00001" in run("links", "show", link.pk)

    assert run("links", "revoke", link.pk) == "Revoked: telegram:00001 is no longer linked."

    assert run_json("links", "list") == []
    assert [one["id"] for one in run_json("links", "list", "--all")] == [link.pk]
    assert run_json("links", "show", link.pk)["ended_at"] is not None
    assert AuditEvent.objects.filter(kind="unlinked", actor=ME).count() == 1


# --- requests


def test_it_lists_and_shows_requests() -> None:
    request = claimed(person("alice"), account(display_name="Alice"))
    pair_in_chat.offer(account=account("discord", 2))
    ended = invited(person("bob"))
    run("requests", "withdraw", ended.pk)

    assert len(run_json("requests", "list")) == 3
    assert len(run_json("requests", "list", "--live")) == 2
    [row] = run_json("requests", "list", "--search", "alice")
    assert (row["id"], row["state"], row["started_by"]) == (str(request.pk), "claimed", "carol")
    assert row["answered_by"] == 'Telegram account "Alice" (ID ..0001)'
    assert "sent the code" in run_json("requests", "show", request.pk)["status"]
    assert AuditEvent.objects.filter(kind="pairing_withdrawn", actor=ME).count() == 1


def confirm(monkeypatch: pytest.MonkeyPatch, request: Pairing, number: str) -> str:
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{number}\n"))
    return run("requests", "confirm", request.pk)


def test_it_asks_for_the_number(monkeypatch: pytest.MonkeyPatch) -> None:
    request = claimed(person("alice"), account())

    with pytest.raises(CommandError, match="2 tries left"):
        confirm(monkeypatch, request, another_number(request))
    with pytest.raises(CommandError, match="six digits"):
        confirm(monkeypatch, request, "")
    assert confirm(monkeypatch, request, number_of(request)).startswith("Linked.")

    link = AccountLink.objects.live().get()
    assert (link.method, link.actor) == ("operator", ME)


def test_it_finishes_nothing_for_whoever_has_an_account(monkeypatch: pytest.MonkeyPatch) -> None:
    request = claimed(linked("alice").user, account("discord", 2))

    with pytest.raises(CommandError, match="must type the number in one of their own chats"):
        confirm(monkeypatch, request, number_of(request))

    assert AccountLink.objects.live().count() == 1


def test_it_finishes_nothing_that_people_started(monkeypatch: pytest.MonkeyPatch) -> None:
    pair_in_chat.offer(account=account())
    request = Pairing.objects.get()
    pair_in_chat.claim(account=account("discord", 2), secret=secrets_of(request).code)

    with pytest.raises(CommandError, match="Only the person can complete"):
        confirm(monkeypatch, request, number_of(request))
    with pytest.raises(CommandError, match="not an invitation"):
        run("requests", "withdraw", request.pk)

    assert not AccountLink.objects.exists()


# --- errors


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("people show nobody", "no person with the ID 'nobody'"),
        ("people invite nobody", "no person"),
        ("people suspend nobody", "no person"),
        ("people add a:b", "no unified user id"),
        ("people add alice", "already"),
        ("people invite alice --platform telegram", "already"),
        ("people invite alice --platform telegarm", "no platform"),
        ("people import /nowhere/people.csv", "cannot be read"),
        ("accounts show telegram", "platform:id"),
        ("links revoke 4711", "no live link"),
        ("links show 4711", "no link 4711"),
        (f"requests show {NOBODYS}", "no request"),
        (f"requests confirm {NOBODYS}", "no request"),
        ("requests show 12", "invalid UUID"),
        ("people", "required: STEP"),
    ],
)
def test_it_says_what_cannot_be_done(words: str, text: str) -> None:
    linked("alice", "telegram")

    with pytest.raises(CommandError, match=text):
        run(*words.split())


@pytest.mark.parametrize(("words", "status"), [("links revoke 1", 1), ("links revoke x", 2), ("links", 2)])
def test_it_ends_with_a_status(words: str, status: int, migrated_file: Path) -> None:
    environment = os.environ | {"DATABASE_URL": f"sqlite:///{migrated_file}"}
    environment |= {"DJANGO_SETTINGS_MODULE": "botos_project.settings", "PYTHONWARNINGS": "ignore"}
    done = zygote.run(["manage.py", *words.split()], environment=environment)
    assert (done.returncode, done.stdout) == (status, "")
    assert "Traceback" not in done.stderr
