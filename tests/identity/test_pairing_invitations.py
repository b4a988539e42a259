"""An operator invites: one secret starts the handshake and finishes none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from identity import wording
from identity.flows import link_maintenance, linking, pair_in_chat
from identity.models import AccountLink, AuditEvent, GuessLimit, Pairing, PlatformAccount, UnifiedUser
from identity.notices import Template
from identity.pairing import codes, policy
from identity.pairing import requests as pairing_requests
from identity.pairing.requests import Outcome
from identity.support import clock
from tests.identity import pairs
from tests.identity.pairs import Told, account, are_one, code, later, live_link, number, owner, person, state

pytestmark = pytest.mark.django_db

HOUR = 3600


@pytest.fixture(autouse=True)
def told() -> Iterator[Told]:
    with pairs.listening() as told:
        yield told


@pytest.fixture
def telegram() -> PlatformAccount:
    return account("alice")


@pytest.fixture
def discord() -> PlatformAccount:
    return account("alice", "discord")


def invited(who: UnifiedUser, by: PlatformAccount | None = None, platform: str = "") -> Pairing:
    request = pair_in_chat.invite(person=who, operator="root", platform=platform)
    if by:
        assert pair_in_chat.claim(account=by, secret=code(request)) == Outcome.CLAIMED
    return Pairing.objects.get(pk=request.pk)


def seconds_left(request: Pairing) -> float:
    return (request.expires_at - clock.read()).total_seconds()


def test_it_lives_for_three_days_and_its_number_for_one(telegram: PlatformAccount) -> None:
    request = invited(person("alice"))
    assert 72 * HOUR - 5 < seconds_left(request) <= 72 * HOUR
    later(72 * HOUR - 10, Pairing.objects.all())

    pair_in_chat.claim(account=telegram, secret=code(request))

    request.refresh_from_db()
    assert 24 * HOUR - 5 < seconds_left(request) <= 24 * HOUR


def test_it_expires() -> None:
    request = invited(person("alice"))
    later(72 * HOUR, Pairing.objects.all())

    assert pair_in_chat.claim(account=account("alice"), secret=code(request)) == Outcome.WRONG
    assert len(GuessLimit.objects.get().times) == 1


def test_the_operator_types_the_number_of_a_person_without_accounts(told: Told, telegram: PlatformAccount) -> None:
    alice = person("alice")
    request = invited(alice, telegram)
    digits = number(request)
    assert told.text(telegram) == (
        "The operator of this bot wants to add this Telegram account. If you asked them to, read them this number, in "
        f"person or on a call that you started: {digits[:3]} {digits[3:]} (24 hours). Never send it to anyone else."
    )

    assert pair_in_chat.confirm_as_operator(pairing=request, number=digits, operator="ann") == Outcome.LINKED

    link = live_link(telegram)
    assert (link.user, link.method, link.actor, link.pairing) == (alice, "operator", "ann", request)
    event = AuditEvent.objects.latest("pk")
    assert (event.kind, event.actor, event.details["method"]) == ("linked", "ann", "operator")
    assert told.text(telegram) == "I now know that this chat is yours. Send /link to link another app."
    assert linking.undo(account=telegram, pairing_id=request.pk)


def test_whoever_intercepts_an_invitation_finishes_nothing(telegram: PlatformAccount) -> None:
    mallory = account("mallory")
    request = invited(person("alice"), mallory)

    assert pair_in_chat.confirm(account=mallory, number=number(request)) == Outcome.OTHER_SIDE
    assert owner(mallory) is None
    assert pair_in_chat.claim(account=telegram, secret=code(request)) == Outcome.WRONG


def test_the_operator_cannot_finish_for_a_person_with_accounts(
    told: Told, telegram: PlatformAccount, discord: PlatformAccount
) -> None:
    alice = person("alice", telegram)
    request = invited(alice, discord)
    assert "If all are yours, go to one of those chats and type" in told.text(discord)
    assert told.to(telegram) == [Template.CLAIMED]

    assert (
        pair_in_chat.confirm_as_operator(pairing=request, number=number(request), operator="root") == Outcome.OTHER_SIDE
    )
    assert owner(discord) is None
    assert Pairing.objects.get(pk=request.pk).tries == 0

    assert pair_in_chat.confirm(account=telegram, number=number(request)) == Outcome.LINKED
    assert are_one(telegram, discord)
    assert live_link(discord).method == "pairing"


def test_whoever_types_the_number_is_told_that_it_linked_and_may_undo_it(
    told: Told, telegram: PlatformAccount, discord: PlatformAccount
) -> None:
    slack = account("alice", "slack")
    request = invited(person("alice", telegram, slack), discord)
    told.said.clear()

    assert pair_in_chat.confirm(account=telegram, number=number(request)) == Outcome.LINKED

    assert told.to(telegram) == told.to(discord) == [Template.LINKED]
    assert told.to(slack) == [Template.ACCOUNT_ADDED]
    words = wording.render(Template.LINKED, telegram, {"pairing": request.pk})
    assert [button.command for button in words.buttons] == ["/share", f"/undo {request.pk}"]
    assert linking.undo(account=telegram, pairing_id=request.pk)
    assert owner(discord) is None


def test_the_operator_cannot_finish_once_the_person_has_an_account(
    telegram: PlatformAccount, discord: PlatformAccount
) -> None:
    alice = person("alice")
    request = invited(alice, telegram)
    person("alice", discord)

    assert pair_in_chat.confirm_as_operator(pairing=request, number=number(request), operator="root") == Outcome.NOTHING
    assert owner(telegram) is None


def test_an_account_that_came_after_the_claim_cannot_finish(told: Told, telegram: PlatformAccount) -> None:
    alice, operators = person("alice"), account("ann", "discord")
    shown, second = invited(alice, telegram), invited(alice, operators)
    assert pair_in_chat.confirm_as_operator(pairing=second, number=number(second), operator="ann") == Outcome.LINKED

    assert pair_in_chat.confirm(account=operators, number=number(shown)) == Outcome.NOTHING

    assert owner(telegram) is None
    assert told.to(telegram)[-1] == Template.REFUSED


def test_policy_compares_the_accounts_of_the_person_with_those_at_the_claim(
    telegram: PlatformAccount, discord: PlatformAccount
) -> None:
    alice = person("alice")
    request = invited(alice, telegram)
    assert policy.forbids(request, telegram) == ""

    # Links that other code makes end the request themselves: policy is the second guard.
    AccountLink.objects.create(account=discord, user=alice, method="operator", actor="root")

    assert policy.forbids(request, telegram) == "changed"


def test_the_number_of_one_request_is_no_wrong_one_of_another(
    telegram: PlatformAccount, discord: PlatformAccount
) -> None:
    alice = person("alice", telegram)
    first, second = invited(alice, discord), invited(alice, account("alice", "slack"))

    assert pair_in_chat.confirm(account=telegram, number=number(second)) == Outcome.LINKED

    first.refresh_from_db()
    assert (first.state, first.tries) == ("refused", 0)  # since Slack has come: whoever claimed it was not shown that


def test_a_number_that_fits_two_requests_finishes_one(
    monkeypatch: pytest.MonkeyPatch, told: Told, telegram: PlatformAccount, discord: PlatformAccount
) -> None:
    alice = person("alice", telegram)
    first, second = invited(alice, discord), invited(alice, account("alice", "slack"))
    told.said.clear()
    monkeypatch.setattr(codes, "is_same", lambda *_: True)

    assert pair_in_chat.confirm(account=telegram, number="000000") == Outcome.LINKED

    assert (state(first), state(second)) == ("linked", "refused")
    assert Template.NOTHING_THERE not in told.to(telegram)  # which a second try would say


def test_the_number_of_an_invitation_that_has_ended_is_spent_for_the_person(
    telegram: PlatformAccount, discord: PlatformAccount
) -> None:
    request = invited(person("alice", telegram), discord)
    assert not pair_in_chat.is_spent_number(telegram, [number(request)])

    assert pair_in_chat.withdraw(pairing=request, operator="root") == Outcome.CANCELLED

    assert pair_in_chat.is_spent_number(telegram, [number(request)])
    assert not pair_in_chat.is_spent_number(account("mallory", "slack"), [number(request)])


def test_a_number_concerns_the_accounts_of_its_person_and_nobody_else_who_is_linked(
    telegram: PlatformAccount, discord: PlatformAccount
) -> None:
    bob = account("bob")
    person("alice", telegram, discord)
    person("bob", bob, account("bob", "discord"))
    request = pairs.claimed(account("alice", "slack"), telegram)

    assert pair_in_chat.is_party_to_number(discord)
    assert not pair_in_chat.is_party_to_number(bob)

    pair_in_chat.cancel(account=telegram)
    assert pair_in_chat.is_spent_number(discord, [number(request)])
    assert not pair_in_chat.is_spent_number(bob, [number(request)])


def test_a_number_that_fits_none_is_a_wrong_one_of_all(telegram: PlatformAccount, discord: PlatformAccount) -> None:
    alice = person("alice", telegram)
    requests = [invited(alice, discord), invited(alice, account("alice", "slack"))]
    wrong = next(one for one in ("100000", "200000", "300000") if one not in map(number, requests))

    for _ in range(3):
        pair_in_chat.confirm(account=telegram, number=wrong)

    assert [state(one) for one in requests] == ["locked", "locked"]


@pytest.mark.parametrize("tries", [2, 3])
def test_a_number_is_compared_with_no_request_that_has_no_try_left(
    telegram: PlatformAccount, discord: PlatformAccount, monkeypatch: pytest.MonkeyPatch, tries: int
) -> None:
    request = invited(person("alice", telegram), discord)
    Pairing.objects.update(tries=tries)
    compared: list[str] = []
    really = codes.is_same

    def is_same(one: str, other: str) -> bool:
        compared.append(one)
        return really(one, other)

    monkeypatch.setattr(codes, "is_same", is_same)

    pair_in_chat.confirm(account=telegram, number=number(request))

    assert bool(compared) == (owner(discord) is not None) == (tries == 2)


def test_another_persons_account_cannot_finish(telegram: PlatformAccount, discord: PlatformAccount) -> None:
    request = invited(person("alice", telegram), discord)
    mallory = account("mallory", "slack")
    person("mallory", mallory)

    assert pair_in_chat.confirm(account=mallory, number=number(request)) == Outcome.NOTHING


def test_it_has_three_tries_for_the_operator_and_no_fourth(telegram: PlatformAccount) -> None:
    request = invited(person("alice"), telegram)

    tried = [
        pair_in_chat.confirm_as_operator(pairing=request, number=pairs.wrong(request, nth), operator="root")
        for nth in (1, 2, 3)
    ]

    assert tried == [Outcome.WRONG, Outcome.WRONG, Outcome.LOCKED]
    assert pair_in_chat.confirm_as_operator(pairing=request, number=number(request), operator="root") == Outcome.NOTHING
    assert owner(telegram) is None
    assert Pairing.objects.get().strike is None


def test_the_operator_confirms_no_persons_own_request(telegram: PlatformAccount, discord: PlatformAccount) -> None:
    request = pairs.claimed(discord, telegram)

    assert pair_in_chat.confirm_as_operator(pairing=request, number=number(request), operator="root") == Outcome.NOTHING
    assert state(request) == "claimed"


def test_it_has_no_start_limits() -> None:
    alice = person("alice")

    assert len({pair_in_chat.invite(person=alice, operator="root").pk for _ in range(30)}) == 30


def test_it_can_be_for_one_app_only(told: Told, telegram: PlatformAccount, discord: PlatformAccount) -> None:
    request = invited(person("alice"), platform="discord")

    assert pair_in_chat.claim(account=telegram, secret=code(request)) == Outcome.REFUSED
    assert told.text(telegram) == "That code is for another app."
    assert state(request) == "offered"
    assert pair_in_chat.claim(account=discord, secret=code(request)) == Outcome.CLAIMED


def test_it_takes_nobody_who_is_somebody(told: Told, telegram: PlatformAccount) -> None:
    person("bob", telegram)
    request = invited(person("alice"))

    assert pair_in_chat.claim(account=telegram, secret=code(request)) == Outcome.REFUSED
    assert owner(telegram) != request.person


def test_the_responder_or_an_own_account_may_deny(telegram: PlatformAccount, discord: PlatformAccount) -> None:
    alice = person("alice", telegram)
    mallory = account("mallory", "slack")
    first = invited(alice, mallory)

    assert pair_in_chat.deny(account=telegram, pairing_id=first.pk) == Outcome.DENIED
    assert Pairing.objects.get(pk=first.pk).strike == mallory

    second = invited(alice, discord)
    assert pair_in_chat.deny(account=discord, pairing_id=second.pk) == Outcome.DENIED
    assert Pairing.objects.get(pk=second.pk).strike is None


def test_it_is_burned_in_public_like_any_code() -> None:
    request = invited(person("alice"))

    assert pair_in_chat.burn(secrets=[pairs.token(request)])
    assert state(request) == "burned"


def test_operators_suspend_and_revoke(told: Told, telegram: PlatformAccount, discord: PlatformAccount) -> None:
    alice = person("alice", telegram, discord)

    assert link_maintenance.revoke(link=live_link(discord), operator="root")
    assert not link_maintenance.revoke(link=AccountLink.objects.get(account=discord), operator="root")
    person("alice", discord)
    assert link_maintenance.suspend(user=alice, operator="root") == 2

    assert not AccountLink.objects.live().exists()
    events = AuditEvent.objects.filter(kind="unlinked").order_by("pk")
    assert [event.details["method"] for event in events] == ["revoked", "suspended", "suspended"]
    assert {event.actor for event in events} == {"root"}
    assert set(told.to(telegram)) == {Template.UNLINKED}


def test_the_operator_cannot_finish_once_the_chat_that_was_asked_has_left(
    telegram: PlatformAccount, discord: PlatformAccount
) -> None:
    request = invited(person("alice", telegram), discord)
    linking.leave(account=telegram)

    assert pair_in_chat.confirm_as_operator(pairing=request, number=number(request), operator="root") == Outcome.NOTHING
    assert (owner(discord), state(request)) == (None, "cancelled")


def test_it_withdraws_nothing_that_has_run_out(telegram: PlatformAccount) -> None:
    request = invited(person("alice"), telegram)
    later(24 * HOUR, Pairing.objects.all())

    assert pair_in_chat.withdraw(pairing=request, operator="root") == Outcome.NOTHING
    assert state(request) == "claimed"
    assert not AuditEvent.objects.filter(kind="pairing_withdrawn").exists()


def test_it_tells_both_sides_of_a_withdrawal(told: Told, telegram: PlatformAccount, discord: PlatformAccount) -> None:
    request = invited(person("alice", telegram), discord)
    told.said.clear()

    assert pair_in_chat.withdraw(pairing=request, operator="root") == Outcome.CANCELLED

    assert told.to(telegram) == told.to(discord) == [Template.CANCELLED]


def test_it_tells_of_a_withdrawal_who_claimed_it_just_before(
    told: Told, telegram: PlatformAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    request, end = invited(person("alice")), pairing_requests.end

    def claimed_first(*args: Any, **options: Any) -> bool:
        monkeypatch.setattr(pairing_requests, "end", end)
        assert pair_in_chat.claim(account=telegram, secret=code(request)) == Outcome.CLAIMED
        return end(*args, **options)

    monkeypatch.setattr(pairing_requests, "end", claimed_first)
    assert pair_in_chat.withdraw(pairing=request, operator="root") == Outcome.CANCELLED

    assert told.to(telegram) == [Template.NUMBER, Template.CANCELLED]


def test_an_own_account_ends_no_invitation_that_nobody_has_claimed(telegram: PlatformAccount) -> None:
    request = invited(person("alice", telegram))

    assert pair_in_chat.cancel(account=telegram) == Outcome.NOTHING
    assert pair_in_chat.deny(account=telegram, pairing_id=request.pk) == Outcome.NOTHING
    assert state(request) == "offered"


def test_it_suspends_nobody_else(telegram: PlatformAccount, discord: PlatformAccount) -> None:
    alice, bob = person("alice", telegram), person("bob", discord)

    assert link_maintenance.suspend(user=alice, operator="root") == 1
    assert (owner(telegram), owner(discord)) == (None, bob)


def test_it_ends_what_else_was_claimed_when_the_person_gets_an_account(
    told: Told, telegram: PlatformAccount, discord: PlatformAccount
) -> None:
    """Both were shown a person without accounts: policy would refuse the second number, whoever types it."""
    alice = person("alice")
    first, second = invited(alice, telegram), invited(alice, discord)
    waiting = invited(alice)

    assert pair_in_chat.confirm_as_operator(pairing=first, number=number(first), operator="ann") == Outcome.LINKED

    assert [state(one) for one in (second, waiting)] == ["refused", "offered"]
    assert told.text(discord).startswith("The accounts on one side have changed since the code was used.")
    assert pair_in_chat.confirm(account=telegram, number=number(second)) == Outcome.NOTHING


def test_a_program_that_links_ends_what_was_shown_otherwise(
    telegram: PlatformAccount, discord: PlatformAccount
) -> None:
    request = invited(person("alice"), discord)

    person("alice", telegram)

    assert state(request) == "refused"


@pytest.mark.parametrize("leaves", ["/unlink", "gone", "resolver", "moved"])
def test_it_withdraws_invitations_with_the_last_account_however_that_leaves(
    told: Told, telegram: PlatformAccount, discord: PlatformAccount, leaves: str
) -> None:
    """They were to be finished in one of the person's chats."""
    alice = person("alice", telegram)
    claimed, waiting = invited(alice, discord), invited(alice)

    if leaves == "/unlink":
        linking.leave(account=telegram)
    elif leaves == "gone":
        link_maintenance.account_is_gone(account=telegram)
    elif leaves == "moved":
        person("bob", telegram)
    else:
        linking.unlink(platform="telegram", platform_user_id=telegram.platform_user_id, actor="program")

    assert [state(one) for one in (claimed, waiting)] == ["cancelled", "cancelled"]
    assert told.to(discord)[-1] == Template.CANCELLED
    outcome = pair_in_chat.confirm_as_operator(pairing=claimed, number=number(claimed), operator="ann")
    assert outcome == Outcome.NOTHING
