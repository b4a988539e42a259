"""Pair an account: shown once, watched, finished by the number, and never by an operator for whoever has an account."""

from __future__ import annotations

import re

import pytest
from django.conf import settings as django_settings
from django.contrib.sessions.models import Session
from django.test import Client
from pytest_django import Settings

from identity import operators
from identity.flows import invitations, link_maintenance, linking, pair_in_chat
from identity.models import AccountLink, AuditEvent, BotProfile, Pairing, UnifiedUser
from identity.pairing import requests as pairing_requests
from identity.pairing.secrets import secrets_of
from identity.support import clock
from tests.identity.operator_pages import (
    account,
    another_number,
    chief,
    claimed,
    invited,
    linked,
    number_of,
    operator,
    person,
    spelled,
    url,
)

pytestmark = pytest.mark.django_db


@pytest.fixture
def carol() -> Client:
    return operator("pair_account", "view_unifieduser", "view_pairing", "withdraw_request")


@pytest.fixture
def alice() -> UnifiedUser:
    return person("alice", display_name="Alice B.")


@pytest.fixture
def door() -> None:
    BotProfile.objects.create(platform="telegram", name="OurBot", url="https://t.me/OurBot")


def issue(client: Client, whom: UnifiedUser, platform: str = "") -> tuple[Pairing, str]:
    """The request, and the page that follows."""
    answer = client.post(url("unifieduser_pair", whom.pk), {"platform": platform}, follow=True)
    assert answer.status_code == 200
    return Pairing.objects.latest("created_at"), answer.content.decode()


def live(client: Client, request: Pairing) -> str:
    return client.get(url("pairing_live", request.pk)).content.decode()


def type_number(client: Client, request: Pairing, number: str) -> str:
    answer = client.post(url("pairing_number", request.pk), {"number": number}, follow=True)
    return answer.content.decode()


# --- Issued


@pytest.mark.usefixtures("door")
def test_it_shows_code_link_and_invitation_once(carol: Client, alice: UnifiedUser) -> None:
    request, page = issue(carol, alice)
    secret = secrets_of(request)

    assert spelled(request)[1] in page
    assert f"https://t.me/OurBot?start={secret.token}" in page
    assert 'src="data:image/svg+xml' in page
    assert secret.number not in page
    again = live(carol, request)
    assert not [one for one in spelled(request) if one in again]
    assert "data:image" not in again
    assert "Waiting for the code" in again


@pytest.mark.usefixtures("door")
def test_it_keeps_no_secret_in_a_session_a_row_or_the_log(carol: Client, alice: UnifiedUser) -> None:
    carol.post(url("unifieduser_pair", alice.pk), {"platform": ""})
    request = Pairing.objects.get()

    sessions = [session.get_decoded() for session in Session.objects.all()]
    kept = str([*sessions, *AuditEvent.objects.values(), *Session.objects.values()])
    assert str(request.pk) in kept
    assert not [one for one in spelled(request)[:-1] if one in kept]
    live(carol, request)
    assert str(request.pk) not in str([session.get_decoded() for session in Session.objects.all()])


def test_it_shows_the_code_to_nobody_else(carol: Client, alice: UnifiedUser) -> None:
    carol.post(url("unifieduser_pair", alice.pk), {"platform": ""})
    request = Pairing.objects.get()
    other = chief()

    for page in (live(other, request), other.get(url("pairing_change", request.pk)).content.decode()):
        assert not [one for one in spelled(request) if one in page]


def test_it_shows_a_code_no_more_once_it_is_spent(carol: Client, alice: UnifiedUser) -> None:
    carol.post(url("unifieduser_pair", alice.pk), {"platform": ""})
    request = Pairing.objects.get()
    pair_in_chat.claim(account=account(), secret=secrets_of(request).code)

    page = live(carol, request)

    assert not [one for one in spelled(request) if one in page]
    assert "sent the code" in page


def test_it_tells_browsers_to_keep_no_copy(carol: Client, alice: UnifiedUser) -> None:
    answer = carol.post(url("unifieduser_pair", alice.pk), {"platform": ""}, follow=True)

    assert "no-store" in answer["Cache-Control"]


def test_it_issues_nothing_when_the_page_is_opened(carol: Client, alice: UnifiedUser) -> None:
    assert carol.get(url("unifieduser_pair", alice.pk)).status_code == 200

    assert not Pairing.objects.exists()


@pytest.mark.usefixtures("door")
@pytest.mark.parametrize(("platform", "has_link"), [("", True), ("telegram", True), ("discord", False)])
def test_it_has_a_telegram_link_only_where_that_is_a_way(
    carol: Client, alice: UnifiedUser, platform: str, has_link: bool
) -> None:
    request, page = issue(carol, alice, platform)

    assert request.platform == platform
    assert (f"?start={secrets_of(request).token}" in page) == has_link
    assert ("data:image/svg" in page) == has_link


def test_it_says_what_to_send_without_a_bot_that_has_connected(carol: Client, alice: UnifiedUser) -> None:
    page = issue(carol, alice, "slack")[1]

    assert "Open a private chat with the bot in Slack." in page
    assert "Read it to me, in person or on a call that you started." in page


def test_it_says_where_the_number_goes_for_whoever_has_an_account(carol: Client) -> None:
    page = issue(carol, linked("alice").user)[1]

    assert "Type it in one of the chats that you already have with the bot." in page


def test_it_offers_no_platform_twice(carol: Client) -> None:
    alice = linked("alice", "telegram").user

    assert 'value="telegram"' not in carol.get(url("unifieduser_pair", alice.pk)).content.decode()
    answer = carol.post(url("unifieduser_pair", alice.pk), {"platform": "telegram"})
    assert "errorlist" in answer.content.decode()
    assert not Pairing.objects.exists()
    with pytest.raises(ValueError, match="already"):
        operators.invite(person=alice, operator="carol", platform="telegram")
    with pytest.raises(ValueError, match="no platform"):
        operators.invite(person=alice, operator="carol", platform="telegarm")


def test_it_pairs_nobody_where_another_resolver_decides(carol: Client, alice: UnifiedUser, settings: Settings) -> None:
    settings.BOTOS_RESOLVER = "identity.resolvers.FileIdentityResolver"

    assert "BOTOS_RESOLVER" in carol.get(url("unifieduser_pair", alice.pk)).content.decode()
    assert "BOTOS_RESOLVER" in carol.post(url("unifieduser_pair", alice.pk), {"platform": ""}).content.decode()
    assert not Pairing.objects.exists()
    assert django_settings.BOTOS_RESOLVER.endswith("FileIdentityResolver")


# --- Watched


def test_it_tells_the_page_what_happens(carol: Client, alice: UnifiedUser) -> None:
    request = invited(alice)

    def look() -> dict[str, object]:
        answer = carol.get(url("pairing_status", request.pk))
        assert not [one for one in spelled(request) if one in answer.content.decode()]
        return dict(answer.json())

    before = look()
    pair_in_chat.claim(account=account(display_name="Alice", username="alice_b"), secret=secrets_of(request).code)
    after = look()

    assert (before["version"], after["version"]) == ("offered-chat", "claimed-operator")
    assert 'Telegram account "Alice" (@alice_b, ID ..0001) sent the code' in str(after["text"])
    assert after["live"] is True
    type_number(carol, request, number_of(request))
    assert look() == {
        "version": "linked-chat",
        "text": 'Done: Telegram account "Alice" (@alice_b, ID ..0001) is linked.',
        "live": False,
    }


def test_it_tells_by_the_clock_what_has_run_out(carol: Client, alice: UnifiedUser) -> None:
    request = claimed(alice, account())
    Pairing.objects.update(expires_at=clock.now())

    assert "Nobody finished it in time" in live(carol, request)
    assert type_number(carol, request, number_of(request)).count("has ended") == 1
    assert not AccountLink.objects.exists()


@pytest.mark.parametrize("state", sorted({*Pairing.State} - {*invitations.LIVE, Pairing.State.ATTACHED}))
def test_it_has_words_for_every_end(carol: Client, alice: UnifiedUser, state: str) -> None:
    request = claimed(alice, account())
    Pairing.objects.update(state=state, ended_at=clock.now())

    page = live(carol, request)
    assert f"status-{state}" in page
    assert "id_number" not in page
    assert url("pairing_withdraw", request.pk) not in page


def test_it_leaves_requests_of_chats_alone() -> None:
    client = chief()
    pair_in_chat.offer(account=account())
    request = Pairing.objects.get()

    for page in ("live", "status", "withdraw"):
        assert client.get(url(f"pairing_{page}", request.pk)).status_code == 404
    for page in ("number", "withdraw"):
        assert client.post(url(f"pairing_{page}", request.pk), {"number": number_of(request)}).status_code == 404
    assert not operators.withdraw(invitation=request, operator="carol")
    request.refresh_from_db()
    assert request.state == "offered"


# --- Finished


def test_it_links_the_first_account_by_the_number_that_was_read_out(carol: Client, alice: UnifiedUser) -> None:
    request = claimed(alice, account())
    assert "id_number" in live(carol, request)

    assert "Linked." in type_number(carol, request, number_of(request))

    link = AccountLink.objects.live().get()
    assert (link.user, link.method, link.actor) == (alice, "operator", "carol")
    assert AuditEvent.objects.filter(kind="linked", actor="carol", unified_user_id="alice").count() == 1


def test_it_counts_wrong_numbers_and_locks_at_the_third(carol: Client, alice: UnifiedUser) -> None:
    request = claimed(alice, account())
    wrong = another_number(request)

    assert "2 tries left." in type_number(carol, request, wrong)
    assert "1 try left." in type_number(carol, request, wrong)
    assert "Too many wrong numbers" in type_number(carol, request, wrong)

    assert "has ended" in type_number(carol, request, number_of(request))
    assert not AccountLink.objects.exists()
    kinds = list(AuditEvent.objects.filter(actor="carol").values_list("kind", flat=True))
    assert kinds == ["pairing_invited", "pairing_number_wrong", "pairing_number_wrong", "pairing_locked"]


@pytest.mark.parametrize("text", ["", "12345", "abcdef", "1234567", "x" * 5000])
def test_it_counts_no_try_for_what_is_no_number(carol: Client, alice: UnifiedUser, text: str) -> None:
    request = claimed(alice, account())

    assert "six digits" in type_number(carol, request, text)

    request.refresh_from_db()
    assert request.tries == 0


def test_it_lets_nobody_but_the_person_add_a_second_account(carol: Client) -> None:
    link = linked("alice", "telegram")
    request = claimed(link.user, account("discord", 2))

    page = live(carol, request)
    assert "id_number" not in page
    assert "The person must type it in one of these chats" in page
    assert "must type the number in one of their own chats" in type_number(carol, request, number_of(request))
    assert AccountLink.objects.live().count() == 1

    outcome = pair_in_chat.confirm(account=link.account, number=secrets_of(request).number)
    assert outcome == pairing_requests.Outcome.LINKED
    assert "Done" in live(carol, request)


# --- Ended


def test_it_withdraws_an_invitation(carol: Client, alice: UnifiedUser) -> None:
    request = invited(alice)
    code = secrets_of(request).code
    assert carol.get(url("pairing_withdraw", request.pk)).status_code == 200

    assert "Withdrawn" in carol.post(url("pairing_withdraw", request.pk), follow=True).content.decode()

    assert pair_in_chat.claim(account=account(), secret=code) == pairing_requests.Outcome.WRONG
    assert AuditEvent.objects.filter(kind="pairing_withdrawn", actor="carol", unified_user_id="alice").count() == 1
    assert "had already ended" in carol.post(url("pairing_withdraw", request.pk), follow=True).content.decode()
    assert AuditEvent.objects.filter(kind="pairing_withdrawn").count() == 1


def test_it_suspends_a_person_and_what_was_under_way() -> None:
    client = chief()
    alice = linked("alice", "telegram").user
    linked("alice", "discord")
    waiting, request = invited(alice), claimed(alice, account("slack", 3))

    page = client.get(url("unifieduser_suspend", alice.pk)).content.decode()
    assert "Telegram account" in page
    answer = client.post(url("unifieduser_suspend", alice.pk), follow=True)
    assert "2 links ended" in answer.content.decode()

    assert not AccountLink.objects.live().exists()
    assert set(Pairing.objects.values_list("state", flat=True)) == {"cancelled"}
    assert (
        pair_in_chat.confirm_as_operator(pairing=request, number=secrets_of(request).number, operator="carol")
        == "nothing"
    )
    assert pair_in_chat.claim(account=account("slack", 4), secret=secrets_of(waiting).code) == "wrong"
    suspended = AuditEvent.objects.get(kind="person_suspended")
    assert (suspended.actor, suspended.details) == ("chief", {"links": 2, "invitations": 2})


def test_it_revokes_a_link_once() -> None:
    client = chief()
    link = linked("alice", "telegram")

    assert "Revoked" in client.post(url("accountlink_revoke", link.pk), follow=True).content.decode()
    assert "had already ended" in client.post(url("accountlink_revoke", link.pk), follow=True).content.decode()

    assert not AccountLink.objects.live().exists()
    assert AuditEvent.objects.filter(kind="unlinked", actor="chief").count() == 1


def test_it_gives_operators_no_number_by_revoking_the_chat_that_was_asked(carol: Client) -> None:
    link = linked("alice", "telegram")
    request = claimed(link.user, account("discord", 2))

    link_maintenance.revoke(link=link, operator="carol")

    type_number(carol, request, number_of(request))
    assert not AccountLink.objects.live().exists()


def test_it_withdraws_what_nobody_has_claimed_with_the_last_account() -> None:
    link = linked("alice", "telegram")
    waiting = invited(link.user)

    link_maintenance.revoke(link=link, operator="carol")

    assert pair_in_chat.claim(account=account("discord", 2), secret=secrets_of(waiting).code) == "wrong"


def test_it_keeps_invitations_while_another_account_is_left() -> None:
    link = linked("alice", "telegram")
    linked("alice", "discord")
    request = claimed(link.user, account("slack", 3))

    link_maintenance.revoke(link=link, operator="carol")

    request.refresh_from_db()
    assert request.state == "claimed"
    assert [one.platform for one in linking.accounts_of(link.user)] == ["discord"]


def test_it_lists_what_waits_beside_the_next_code(carol: Client, alice: UnifiedUser) -> None:
    request = invited(alice)

    page = carol.get(url("unifieduser_pair", alice.pk)).content.decode()

    assert url("pairing_live", request.pk) in page
    assert not re.search(r"<(script|style)>", page)


def test_it_invites_nobody_together_where_another_resolver_decides(alice: UnifiedUser, settings: Settings) -> None:
    settings.BOTOS_RESOLVER = "identity.resolvers.FileIdentityResolver"

    with pytest.raises(ValueError, match="BOTOS_RESOLVER"):
        operators.invite_all(people=[alice], operator="carol")
    assert not Pairing.objects.exists()
