"""The lists find what they are asked for, in a number of queries that does not grow, and show no secret."""

from __future__ import annotations

from typing import get_args

import pytest
from django.contrib.admin import ModelAdmin, site
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from pytest_django.asserts import assertHTMLEqual

from identity import audit
from identity.admin import base
from identity.flows import pair_in_browser, pair_in_chat
from identity.models import AuditEvent, Browser, Pairing, UnifiedUser
from identity.pairing import requests as pairing_requests
from identity.support import clock
from tests.identity.operator_pages import account, chief, claimed, invited, linked, person, spelled, url

pytestmark = pytest.mark.django_db

LISTS = ("unifieduser", "platformaccount", "accountlink", "pairing", "auditevent")


@pytest.fixture
def client() -> Client:
    return chief()


NEW_NAME = {
    "unified_user_id": "mallory",
    "display_name": "Alice B.",
    "links-TOTAL_FORMS": "0",  # as the page sends for the links, which are only shown
    "links-INITIAL_FORMS": "0",
}


def add_rows(start: int, count: int) -> None:
    for number in range(start, start + count):
        link = linked(f"person-{number}", "telegram", number)
        linked(f"person-{number}", "discord", number)
        linked(f"person-{number}", "slack", number)
        claimed(link.user, account("matrix", number))
        invited(person(f"nobody-{number}"))
        pair_in_chat.offer(account=account("discord", number + 10_000, display_name="Mallory"))


def listed(client: Client, model: str, **query: str) -> str:
    answer = client.get(url(f"{model}_changelist"), query)
    assert answer.status_code == 200
    return answer.content.decode()


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists have three rows at most."""
    monkeypatch.setattr(base, "MAX_LISTED", 3)


CUT = "There are more than 3 rows."


@pytest.mark.usefixtures("short")
def test_it_lists_the_newest_rows_and_says_that_there_are_more(client: Client) -> None:
    for number in range(1, 4):
        account("telegram", number, display_name=f"Name {number}")
    page = listed(client, "platformaccount")
    assert (page.count("field-platform_user_id"), CUT in page) == (3, False)

    account("discord", 4, display_name="Name 4")

    for query in ({}, {"o": "1"}, {"q": "name"}):
        page = listed(client, "platformaccount", **query)
        assert (page.count("field-platform_user_id"), CUT in page) == (3, True)
        assert "00001" not in page
    page = listed(client, "platformaccount", platform="telegram")
    assert (page.count("field-platform_user_id"), CUT in page) == (2, True)


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize(
    ("model", "words", "cell"),
    [
        ("platformaccount", "00001", "00001"),
        ("platformaccount", "alice", "00001"),
        ("accountlink", "alice", "alice"),
        ("accountlink", "00001", "alice"),
        ("unifieduser", "alice", "alice"),
        ("unifieduser", "00001", "alice"),
        ("auditevent", "alice", "alice"),
        ("pairing", "alice", "alice"),
        ("pairing", "00077", "alice"),
    ],
)
def test_it_finds_an_old_row_by_a_whole_id(client: Client, model: str, words: str, cell: str) -> None:
    alice = linked("alice", "telegram", 1).user
    claimed(alice, account("discord", 77))
    add_rows(1000, 4)
    assert cell not in listed(client, model).split("<tbody>")[1]

    page = listed(client, model, q=words)

    assert cell in page.split("<tbody>")[1]
    assert CUT not in page


@pytest.mark.usefixtures("short")
def test_it_finds_all_rows_of_a_choice_that_has_an_index(client: Client) -> None:
    waiting = invited(person("alice"))
    linked("alice", "telegram", 1)
    add_rows(1000, 4)
    Pairing.objects.exclude(pk=waiting.pk).update(
        state="expired", ended_at=clock.now(), code_hash=None, token_hash=None
    )

    assert "alice" in listed(client, "pairing", state="offered").split("<tbody>")[1]
    assert "alice" in listed(client, "auditevent", person="alice").split("<tbody>")[1]


@pytest.mark.parametrize("model", LISTS)
def test_it_lists_any_number_in_as_many_queries(client: Client, model: str) -> None:
    def count() -> int:
        with CaptureQueriesContext(connection) as queries:
            listed(client, model)
        return len(queries)

    add_rows(1, 2)
    few = count()
    add_rows(3, 8)

    assert count() == few


def test_it_shows_a_person_with_any_number_of_links_in_as_many_queries(client: Client) -> None:
    alice = linked("alice").user

    def count() -> int:
        with CaptureQueriesContext(connection) as queries:
            assert client.get(url("unifieduser_change", alice.pk)).status_code == 200
        return len(queries)

    linked("alice", "discord")
    count()  # what Django keeps in memory from then on
    few = count()
    for number in range(2, 12):
        linked("alice", "slack", number)

    assert count() == few


def test_it_finds_people_by_id_name_and_account(client: Client) -> None:
    linked("alice", "telegram", 12345)
    person("bob", display_name="Robert")

    for words in ("alic", "12345"):
        assert "alice" in listed(client, "unifieduser", q=words)
        assert "Robert" not in listed(client, "unifieduser", q=words)
    assert "Robert" in listed(client, "unifieduser", q="rober")


def test_it_shows_where_people_have_accounts(client: Client) -> None:
    linked("alice", "telegram")
    linked("alice", "discord")
    person("bob")

    page = listed(client, "unifieduser")
    assert page.count('class="platform ') == 2
    assert "bob" not in listed(client, "unifieduser", platform="discord")
    assert "alice" not in listed(client, "unifieduser", platform="-")
    assert "alice" not in listed(client, "unifieduser", platform="slack")


def test_it_tells_linked_accounts_from_others(client: Client) -> None:
    linked("alice", "telegram", 12345)
    account("telegram", 66666)

    assert "66666" not in listed(client, "platformaccount", linked="yes")
    assert "12345" not in listed(client, "platformaccount", linked="no")
    assert "66666" in listed(client, "platformaccount", platform="telegram", q="66666")
    assert "66666" not in listed(client, "platformaccount", platform="slack")


def test_it_tells_live_links_from_ended_ones(client: Client) -> None:
    linked("alice", "telegram")
    linked("bob", "telegram")

    assert "alice" not in listed(client, "accountlink", state="live")
    assert "bob" not in listed(client, "accountlink", state="ended")
    assert "bob" in listed(client, "accountlink", platform="telegram")


def test_it_filters_requests_by_the_clock(client: Client) -> None:
    request = invited(person("alice"))
    assert "alice" in listed(client, "pairing", state="offered")

    Pairing.objects.filter(pk=request.pk).update(expires_at=request.created_at)

    assert "alice" not in listed(client, "pairing", state="offered")
    assert "alice" in listed(client, "pairing", state="expired", by="operator")
    assert "alice" not in listed(client, "pairing", by="account")


def test_it_shows_no_secret_of_a_request(client: Client) -> None:
    pair_in_chat.offer(account=account("telegram", 1, display_name="Alice"))
    claimed(person("alice"), account("discord", 2, display_name="Alice"))
    invited(person("bob"))

    pages = listed(client, "pairing") + listed(client, "auditevent")
    for request in Pairing.objects.all():
        pages += client.get(url("pairing_change", request.pk)).content.decode()
    for request in Pairing.objects.all():
        hashes = [str(one) for one in (request.code_hash, request.token_hash) if one]
        assert not [secret for secret in spelled(request) + hashes if secret in pages]


def test_it_makes_names_harmless(client: Client) -> None:
    account("telegram", 1, display_name='<b>x</b>\u202egnp"', username="u\u200b")

    page = listed(client, "platformaccount")
    assert "<b>x" not in page
    assert "\u202e" not in page
    assert "\u200b" not in page


def test_it_finds_the_audit_rows_of_a_person_and_an_account(client: Client) -> None:
    alice = linked("alice", "telegram", 1)
    linked("bob", "telegram", 2)

    page = listed(client, "auditevent", person="alice")
    assert (page.count("field-kind"), "bob" in page) == (1, False)
    page = listed(client, "auditevent", account=audit.account_hash(alice.account))
    assert page.count("field-kind") == 1
    assert listed(client, "auditevent", about="links").count("field-kind") == 2
    assert listed(client, "auditevent", about="people").count("field-kind") == 0


def test_it_leads_from_a_person_to_what_may_be_done(client: Client) -> None:
    alice = linked("alice").user
    page = client.get(url("unifieduser_change", alice.pk)).content.decode()

    for name in ("pair", "suspend"):
        assert url(f"unifieduser_{name}", alice.pk) in page
    assert f"{url('auditevent_changelist')}?person=alice" in page


def test_it_adds_and_renames_people_and_keeps_their_ids(client: Client) -> None:
    client.post(url("unifieduser_add"), {"unified_user_id": "alice", "display_name": "Alice"})
    alice = UnifiedUser.objects.get()
    client.post(url("unifieduser_change", alice.pk), NEW_NAME)

    alice.refresh_from_db()
    assert (alice.unified_user_id, alice.display_name) == ("alice", "Alice B.")
    assert list(AuditEvent.objects.values_list("kind", "actor")) == [
        ("person_added", "chief"),
        ("person_renamed", "chief"),
    ]


@pytest.mark.parametrize("unified_user_id", ["", "a:b", "bot_x", "a b", "alice", "ali\u200bce"])
def test_it_adds_nobody_under_an_id_that_cannot_be(client: Client, unified_user_id: str) -> None:
    person("alice")

    answer = client.post(url("unifieduser_add"), {"unified_user_id": unified_user_id, "display_name": "Alice"})

    assert "errornote" in answer.content.decode()
    assert UnifiedUser.objects.count() == 1


def test_it_shows_browsers_as_those_who_asked_and_answered(client: Client) -> None:
    page = Browser.objects.create(name="Firefox on Linux", address="home")
    pair_in_browser.offer(browser=page)
    asked = Pairing.objects.get()
    pair_in_chat.offer(account=account("telegram", 1, display_name="Alice"))
    Pairing.objects.filter(initiator__isnull=False).update(
        responder_browser=page, state="claimed", claimed_at=clock.now()
    )

    assert listed(client, "pairing").count("A browser (Firefox on Linux)") == 2
    assert listed(client, "pairing", by="browser").count("field-shown_state") == 1
    assert "A browser (Firefox on Linux)" in client.get(url("pairing_change", asked.pk)).content.decode()


TOPICS = ("pairing", "links", "people", "data", "given_up", "sign_in")


@pytest.mark.parametrize("kind", get_args(audit.Kind))
def test_each_thing_that_was_done_is_about_one_topic(client: Client, kind: audit.Kind) -> None:
    audit.record(kind=kind, actor="system")

    assert sum(listed(client, "auditevent", about=topic).count("field-kind") for topic in TOPICS) == 1


def test_each_step_of_a_request_is_about_requests_alone(client: Client) -> None:
    alice = person("alice")
    invited(alice)
    pairing_requests.withdraw_all(alice, actor="system")

    steps = AuditEvent.objects.filter(kind__startswith="pairing_").count()
    assert steps == 2
    assert [listed(client, "auditevent", about=topic).count("field-kind") for topic in TOPICS] == [steps, 0, 0, 0, 0, 0]


def test_its_boxes_are_those_of_django() -> None:
    row = person("alice", display_name="<b>Alice</b>")
    people = site.get_model_admin(UnifiedUser)

    assertHTMLEqual(str(people.action_checkbox(row)), str(ModelAdmin.action_checkbox(people, row)))
