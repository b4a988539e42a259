"""The steps of the handshake, one row of the state table after the other."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import timedelta

import pytest
from django.db import IntegrityError, transaction
from django.db.models import Max

from identity import audit, labels, operators, wording
from identity.flows import linking, pair_in_chat
from identity.models import AccountLink, AuditEvent, GuessLimit, Pairing, PlatformAccount, UnifiedUser
from identity.notices import Template
from identity.pairing.requests import Outcome
from identity.pairing.secrets import lookup_hash
from identity.support import clock
from tests.identity import pairs
from tests.identity.pairs import Told, account, are_one, claimed, code, later, linked, number, offered, owner, state

pytestmark = pytest.mark.django_db

ENDS = ("linked", "expired", "cancelled", "denied", "locked", "burned", "refused")


@pytest.fixture(autouse=True)
def told() -> Iterator[Told]:
    with pairs.listening() as told:
        yield told


@pytest.fixture
def alice() -> PlatformAccount:
    return account("alice")


@pytest.fixture
def alice_discord() -> PlatformAccount:
    return account("alice", "discord")


@pytest.fixture
def mallory() -> PlatformAccount:
    return account("mallory", "slack")


def seconds_left(request: Pairing) -> float:
    return (request.expires_at - clock.read()).total_seconds()


def audited() -> list[str]:
    return list(AuditEvent.objects.order_by("pk").values_list("kind", flat=True))


# --- offer


def test_it_offers_a_code_for_ten_minutes(told: Told, alice: PlatformAccount) -> None:
    request = offered(alice)

    assert 595 < seconds_left(request) <= 600
    assert told.text(alice) == (
        "Link another app to this chat.\n"
        "1) Open me there: in your other app\n"
        f"2) Send me this code there: {code(request)[:4]}-{code(request)[4:]}\n\n"
        "It works once, for 10 minutes. Did someone ask you for a code? Then press Cancel."
    )
    assert audited() == ["pairing_offered"]


def test_it_ends_the_code_before_with_a_new_one(told: Told, alice: PlatformAccount, mallory: PlatformAccount) -> None:
    first = claimed(mallory, alice)
    later(31, Pairing.objects.all())
    told.to(mallory)

    second = offered(alice)

    assert state(first) == "cancelled"
    assert told.to(mallory) == [Template.CANCELLED]
    assert Pairing.objects.filter(ended_at=None).get() == second
    assert audited() == ["pairing_offered", "pairing_claimed", "pairing_cancelled", "pairing_offered"]


def test_it_expires_a_stale_code_before_it_offers_another(alice: PlatformAccount) -> None:
    stale = offered(alice)
    later(601, Pairing.objects.all())

    offered(alice)

    assert state(stale) == "expired"


def test_it_keeps_one_live_request_per_initiator(alice: PlatformAccount) -> None:
    request = offered(alice)

    with pytest.raises(IntegrityError), transaction.atomic():
        Pairing.objects.create(initiator=alice, expires_at=request.expires_at, last_at=request.last_at)


# --- claim


@pytest.mark.parametrize("what", ["code", "token"])
def test_it_shows_a_number_to_whoever_sends_the_code(
    told: Told, alice: PlatformAccount, alice_discord: PlatformAccount, what: str
) -> None:
    request = offered(alice)

    assert pair_in_chat.claim(account=alice_discord, secret=getattr(pairs, what)(request)) == Outcome.CLAIMED

    request.refresh_from_db()
    assert (request.state, request.responder) == ("claimed", alice_discord)
    assert 295 < seconds_left(request) <= 300
    assert (request.code_hash, request.token_hash) == (None, None)
    digits = number(request)
    assert told.text(alice_discord) == (
        'Telegram account "Alice" (@alice, ID ..gram) wants to share one conversation with this Discord account. If '
        f"both are yours, go back to that chat and type {digits[:3]} {digits[3:]} (5 minutes). Anyone who types it can "
        "read what you write here from now on. Never send it to anyone."
    )
    assert told.text(alice) == (
        'Discord account "Alice" (alice, ID ..cord) used your code. Yours? Type the 6-digit number it shows.'
    )


def test_it_says_on_slack_who_else_reads_there(told: Told, alice: PlatformAccount) -> None:
    slack = account("alice", "slack")

    claimed(slack, alice)

    assert told.text(slack).endswith(" Your workspace admins may be able to read this chat.")


def test_it_names_all_accounts_that_the_new_one_would_join(told: Told) -> None:
    telegram, discord, slack = (account("alice", one) for one in ("telegram", "discord", "slack"))
    linked(telegram, discord)
    later(31, Pairing.objects.all())

    claimed(slack, telegram)

    joins = 'It would share the conversation with these too: Discord account "Alice" (alice, ID ..cord).'
    assert joins in told.text(telegram)
    assert '"Alice" (@alice, ID ..gram), Discord account "Alice" (alice, ID ..cord) wants to' in told.text(slack)


def test_it_lets_the_whole_handshake_last_fifteen_minutes_at_most(
    alice: PlatformAccount, alice_discord: PlatformAccount
) -> None:
    request = offered(alice)
    Pairing.objects.update(last_at=clock.seconds_from_now(100))

    pair_in_chat.claim(account=alice_discord, secret=code(request))

    request.refresh_from_db()
    assert seconds_left(request) <= 100


def test_it_gives_a_handshake_fifteen_minutes(alice: PlatformAccount) -> None:
    request = offered(alice)

    assert timedelta(seconds=899) < request.last_at - request.created_at < timedelta(seconds=901)


def test_it_takes_a_code_once(told: Told, alice: PlatformAccount, alice_discord: PlatformAccount) -> None:
    request = claimed(alice_discord, alice)
    mallory = account("mallory", "slack")

    assert pair_in_chat.claim(account=mallory, secret=code(request)) == Outcome.WRONG
    assert pair_in_chat.claim(account=mallory, secret=pairs.token(request)) == Outcome.WRONG

    assert (state(request), told.to(mallory)) == ("claimed", [Template.WRONG_CODE] * 2)


@pytest.mark.parametrize("ended", ["expired", "used", "unknown", "cancelled", "burned"])
def test_it_answers_every_code_that_does_not_work_alike(
    told: Told, alice: PlatformAccount, mallory: PlatformAccount, ended: str
) -> None:
    request = offered(alice)
    secret = code(request)
    if ended == "expired":
        later(600, Pairing.objects.all())
    elif ended == "used":
        pair_in_chat.claim(account=account("alice", "discord"), secret=secret)
    elif ended == "unknown":
        secret = "BBBBBBBB" if secret != "BBBBBBBB" else "CCCCCCCC"
    elif ended == "cancelled":
        pair_in_chat.cancel(account=alice)
    elif ended == "burned":
        pair_in_chat.burn(secrets=[secret])

    assert pair_in_chat.claim(account=mallory, secret=secret) == Outcome.WRONG

    assert told.text(mallory) == (
        "That code doesn't work. Codes work once, for 10 minutes. Send /link in your other app for a new one."
        if mallory.platform != "slack"
        else "That code doesn't work. Codes work once, for 10 minutes. Send !link in your other app for a new one."
    )
    assert len(GuessLimit.objects.get(guesser=audit.actor(mallory)).times) == 1


def test_it_tells_who_sends_the_own_code_where_to_send_it(told: Told, alice: PlatformAccount) -> None:
    request = offered(alice)

    assert pair_in_chat.claim(account=alice, secret=code(request)) == Outcome.OWN_CODE

    assert told.text(alice) == "That code is from this chat: send it in your other app."
    assert (state(request), GuessLimit.objects.get().times) == ("offered", [])


def test_it_denies_an_earlier_claim_without_a_strike(
    told: Told, alice: PlatformAccount, alice_discord: PlatformAccount, mallory: PlatformAccount
) -> None:
    earlier = claimed(alice_discord, mallory)
    told.to(mallory)

    request = claimed(alice_discord, alice)

    earlier.refresh_from_db()
    assert (earlier.state, earlier.strike) == ("denied", None)
    assert told.to(mallory) == [Template.DENIED]
    assert state(request) == "claimed"
    assert audited().count("pairing_denied") == 1


def test_it_expires_a_stale_claim_and_denies_it_to_nobody(
    told: Told, alice: PlatformAccount, alice_discord: PlatformAccount, mallory: PlatformAccount
) -> None:
    stale = claimed(alice_discord, mallory)
    later(301, Pairing.objects.all())
    told.to(mallory)

    claimed(alice_discord, alice)

    assert (state(stale), told.to(mallory)) == ("expired", [])


# --- Policy


def test_it_refuses_to_join_two_people(told: Told, alice: PlatformAccount, alice_discord: PlatformAccount) -> None:
    bob, bob_slack = account("bob", "matrix"), account("bob", "slack")
    linked(alice, alice_discord)
    linked(bob, bob_slack)
    later(31, Pairing.objects.all())
    request = offered(alice)

    assert pair_in_chat.claim(account=bob, secret=code(request)) == Outcome.REFUSED

    assert state(request) == "refused"
    assert told.text(alice) == told.text(bob)
    assert told.text(bob) == (
        "Both accounts already share a conversation with other accounts. Use /unlink on one of them first."
    )
    assert audited()[-1] == "pairing_refused"
    assert not are_one(alice, bob)


def test_it_refuses_a_second_account_of_an_app(told: Told, alice: PlatformAccount) -> None:
    discord, other = account("alice", "discord"), account("alice2", "discord")
    linked(alice, discord)
    later(31, Pairing.objects.all())
    request = offered(alice)

    assert pair_in_chat.claim(account=other, secret=code(request)) == Outcome.REFUSED

    assert told.text(other) == (
        "This conversation already has an account on that app, and it can have only one on each app."
    )
    assert owner(other) is None


def test_it_refuses_two_accounts_of_one_app(alice: PlatformAccount) -> None:
    request = offered(alice)

    assert pair_in_chat.claim(account=account("mallory"), secret=code(request)) == Outcome.REFUSED
    assert state(request) == "refused"


def test_it_refuses_what_is_linked_already(told: Told, alice: PlatformAccount, alice_discord: PlatformAccount) -> None:
    linked(alice, alice_discord)
    later(31, Pairing.objects.all())
    request = offered(alice)

    assert pair_in_chat.claim(account=alice_discord, secret=code(request)) == Outcome.REFUSED

    assert told.text(alice) == "These two accounts already share one conversation."


def test_it_asks_policy_again_when_the_number_comes(
    told: Told, alice: PlatformAccount, alice_discord: PlatformAccount
) -> None:
    request = claimed(alice_discord, alice)
    pairs.person("alice", alice)
    pairs.person("bob", alice_discord)

    assert pair_in_chat.confirm(account=alice, number=number(request)) == Outcome.REFUSED

    assert (state(request), told.to(alice)[-1]) == ("refused", Template.REFUSED)
    assert not are_one(alice, alice_discord)


@pytest.mark.parametrize("side", ["initiator", "responder"])
def test_it_joins_nobody_who_came_after_the_two_were_shown_to_each_other(told: Told, side: str) -> None:
    ivan, victor = account("ivan"), account("victor", "discord")
    request = claimed(victor, ivan)
    zoe = account("zoe", "slack")
    pairs.person("zoe", zoe, ivan if side == "initiator" else victor)

    assert pair_in_chat.confirm(account=ivan, number=number(request)) == Outcome.REFUSED

    assert not are_one(ivan, victor)
    assert state(request) == "refused"
    for one in (ivan, victor):
        assert told.text(one) == (
            "The accounts on one side have changed since the code was used. Start again with /link."
        )


def test_it_joins_those_who_were_shown_though_some_have_left() -> None:
    telegram, discord, slack = (account("alice", one) for one in ("telegram", "discord", "slack"))
    pairs.person("alice", telegram, discord)
    request = claimed(slack, telegram)
    linking.leave(account=discord)

    assert pair_in_chat.confirm(account=telegram, number=number(request)) == Outcome.LINKED
    assert are_one(telegram, slack)


@pytest.mark.parametrize("linked_side", ["initiator", "responder"])
def test_it_adds_an_account_to_the_person_on_either_side(told: Told, linked_side: str) -> None:
    telegram, discord, slack = (account("alice", one) for one in ("telegram", "discord", "slack"))
    linked(telegram, discord)
    later(31, Pairing.objects.all())
    told.to(discord)
    request = linked(telegram, slack) if linked_side == "initiator" else linked(slack, telegram)

    assert are_one(telegram, discord, slack)
    assert UnifiedUser.objects.count() == 1
    assert AccountLink.objects.filter(pairing=request).get().account == slack
    assert told.text(discord) == (
        'Slack account "Alice" (alice, ID ..lack) now shares this conversation. If you didn\'t link it, say so.'
    )


# --- confirm


def test_it_links_exactly_the_two_parties(told: Told, alice: PlatformAccount, alice_discord: PlatformAccount) -> None:
    before = clock.read()
    request = claimed(alice_discord, alice)

    assert pair_in_chat.confirm(account=alice, number=number(request)) == Outcome.LINKED

    links = AccountLink.objects.live()
    assert {link.account for link in links} == {alice, alice_discord}
    assert len({link.since for link in links}) == len({link.user for link in links}) == 1
    assert all(before < link.since <= clock.read() and link.pairing == request for link in links)
    assert all((link.method, link.actor) == ("pairing", audit.actor(alice)) for link in links)
    assert state(request) == "linked"
    for one in (alice, alice_discord):
        assert told.text(one) == (
            "Linked. From now on these chats share one conversation. Earlier messages stay separate."
        )
    assert audited() == ["pairing_offered", "pairing_claimed", "linked", "linked"]


def test_it_makes_a_person_without_a_readable_id(alice: PlatformAccount, alice_discord: PlatformAccount) -> None:
    linked(alice, alice_discord)

    made = UnifiedUser.objects.get()
    assert made.unified_user_id.startswith("u-")
    assert made.display_name == "Alice"


def test_it_takes_the_number_from_the_initiator_alone(
    told: Told, alice: PlatformAccount, alice_discord: PlatformAccount, mallory: PlatformAccount
) -> None:
    request = claimed(alice_discord, alice)

    assert pair_in_chat.confirm(account=alice_discord, number=number(request)) == Outcome.OTHER_SIDE
    assert pair_in_chat.confirm(account=mallory, number=number(request)) == Outcome.NOTHING

    assert told.text(alice_discord) == "Type this in your other app, in the chat where you started."
    assert (state(request), owner(alice)) == ("claimed", None)
    assert Pairing.objects.get().tries == 0


def test_it_sends_a_number_that_comes_from_another_own_account_to_the_right_one(told: Told) -> None:
    telegram, discord, slack = (account("alice", one) for one in ("telegram", "discord", "slack"))
    linked(telegram, discord)
    request = claimed_later(slack, telegram)

    assert pair_in_chat.confirm(account=discord, number=number(request)) == Outcome.OTHER_SIDE
    assert told.to(discord)[-1] == Template.TYPE_IN_OTHER_APP
    assert state(request) == "claimed"


def claimed_later(by: PlatformAccount, of: PlatformAccount) -> Pairing:
    later(31, Pairing.objects.all())
    return claimed(by, of)


def test_it_counts_wrong_numbers_and_locks_at_the_third(
    told: Told, alice: PlatformAccount, alice_discord: PlatformAccount
) -> None:
    request = claimed(alice_discord, alice)
    texts = []

    for nth in (1, 2):
        assert pair_in_chat.confirm(account=alice, number=pairs.wrong(request, nth)) == Outcome.WRONG
        texts.append(told.text(alice))
    assert pair_in_chat.confirm(account=alice, number=pairs.wrong(request, 3)) == Outcome.LOCKED

    assert texts == ["That's not the right number. 2 tries left.", "That's not the right number. 1 try left."]
    request.refresh_from_db()
    assert (request.state, request.strike, request.tries) == ("locked", alice, 3)
    assert told.text(alice) == "Too many wrong numbers, so nothing was linked. You need a new code."
    assert told.to(alice_discord)[-1] == Template.LOCKED
    assert audited()[-1] == "pairing_locked"


def test_it_never_looks_at_a_fourth_number(alice: PlatformAccount, alice_discord: PlatformAccount) -> None:
    request = claimed(alice_discord, alice)
    for nth in (1, 2, 3):
        pair_in_chat.confirm(account=alice, number=pairs.wrong(request, nth))

    assert pair_in_chat.confirm(account=alice, number=number(request)) == Outcome.NOTHING
    assert owner(alice) is None


def test_it_does_not_evaluate_a_try_that_was_not_counted(
    alice: PlatformAccount, alice_discord: PlatformAccount
) -> None:
    request = claimed(alice_discord, alice)
    Pairing.objects.update(tries=3)  # as if three had been counted elsewhere, the row not yet locked

    assert pair_in_chat.confirm(account=alice, number=number(request)) == Outcome.ENDED
    assert owner(alice) is None


def test_it_takes_the_right_number_at_the_third_try(alice: PlatformAccount, alice_discord: PlatformAccount) -> None:
    request = claimed(alice_discord, alice)
    for nth in (1, 2):
        pair_in_chat.confirm(account=alice, number=pairs.wrong(request, nth))

    assert pair_in_chat.confirm(account=alice, number=number(request)) == Outcome.LINKED


def test_it_takes_no_number_after_five_minutes(alice: PlatformAccount, alice_discord: PlatformAccount) -> None:
    request = claimed(alice_discord, alice)
    later(300, Pairing.objects.all())

    assert pair_in_chat.confirm(account=alice, number=number(request)) == Outcome.NOTHING
    assert owner(alice) is None


def test_it_takes_no_number_before_the_code_was_used(alice: PlatformAccount) -> None:
    request = offered(alice)

    assert pair_in_chat.confirm(account=alice, number=number(request)) == Outcome.NOTHING


# --- deny, cancel, burn, expire


@pytest.mark.parametrize(("presses", "rejected"), [("discord", "telegram"), ("telegram", "discord")])
def test_it_denies_with_a_rejection_of_the_other_side(told: Told, presses: str, rejected: str) -> None:
    request = claimed(account("alice", "discord"), account("alice"))

    assert pair_in_chat.deny(account=account("alice", presses), pairing_id=request.pk) == Outcome.DENIED

    request.refresh_from_db()
    assert (request.state, request.strike) == ("denied", account("alice", rejected))
    for platform in ("telegram", "discord"):
        assert told.text(account("alice", platform)) == ('Nothing was linked: one of the two accounts said "Not me".')
    assert pair_in_chat.confirm(account=account("alice"), number=number(request)) == Outcome.NOTHING


def test_it_lets_nobody_else_deny_or_cancel(
    told: Told, alice: PlatformAccount, alice_discord: PlatformAccount, mallory: PlatformAccount
) -> None:
    request = claimed(alice_discord, alice)

    assert pair_in_chat.deny(account=mallory, pairing_id=request.pk) == Outcome.NOTHING
    assert pair_in_chat.deny(account=mallory, pairing_id=uuid.uuid4()) == Outcome.NOTHING
    assert pair_in_chat.cancel(account=mallory) == Outcome.NOTHING

    assert state(request) == "claimed"
    assert told.text(mallory) == "You have no pending request or link like that."


def test_it_denies_nothing_that_has_ended(alice: PlatformAccount, alice_discord: PlatformAccount) -> None:
    request = claimed(alice_discord, alice)
    pair_in_chat.cancel(account=alice)

    assert pair_in_chat.deny(account=alice_discord, pairing_id=request.pk) == Outcome.NOTHING
    assert state(request) == "cancelled"


def test_it_takes_back_what_is_denied_too_late(
    told: Told, alice: PlatformAccount, alice_discord: PlatformAccount
) -> None:
    request = linked(alice, alice_discord)

    assert pair_in_chat.deny(account=account("mallory", "slack"), pairing_id=request.pk) == Outcome.NOTHING
    assert AccountLink.objects.live().count() == 2
    assert pair_in_chat.deny(account=alice_discord, pairing_id=request.pk) == Outcome.DENIED

    assert not AccountLink.objects.live().exists()
    assert AccountLink.objects.filter(disowned=True).count() == 2
    assert told.to(alice)[-1] == told.to(alice_discord)[-1] == Template.UNLINKED


@pytest.mark.parametrize("who", ["telegram", "discord"])
def test_it_cancels_for_either_side_without_a_strike(told: Told, who: str) -> None:
    request = claimed(account("alice", "discord"), account("alice"))

    assert pair_in_chat.cancel(account=account("alice", who)) == Outcome.CANCELLED

    request.refresh_from_db()
    assert (request.state, request.strike) == ("cancelled", None)
    assert told.text(account("alice")) == "Cancelled. Nothing was linked."


def test_it_burns_what_was_posted_and_tells_the_owner_alone(told: Told, alice: PlatformAccount) -> None:
    request = offered(alice)
    told.to(alice)

    assert pair_in_chat.burn(secrets=["BBBBBBBB", code(request)])

    assert state(request) == "burned"
    assert [one for one, _, _ in told.said] == [alice]
    assert told.text(alice) == (
        "Your code was posted in a group, so it no longer works. Send /link for a new one, and keep it to yourself."
    )


def test_it_burns_neither_what_was_claimed_nor_what_has_run_out(
    told: Told, alice: PlatformAccount, alice_discord: PlatformAccount, mallory: PlatformAccount
) -> None:
    request, stale = claimed(alice_discord, alice), offered(mallory)
    later(601, Pairing.objects.filter(pk=stale.pk))

    assert not pair_in_chat.burn(secrets=[code(request), pairs.token(request), code(stale)])
    assert (state(request), state(stale)) == ("claimed", "offered")


def test_it_expires_by_the_clock_and_scrubs(alice: PlatformAccount, alice_discord: PlatformAccount) -> None:
    stale = [offered(alice), claimed(alice_discord, account("mallory", "slack"))]
    later(601, Pairing.objects.all())
    alive = offered(account("bob"))

    assert pair_in_chat.expire() == 2

    assert [state(one) for one in (*stale, alive)] == ["expired", "expired", "offered"]
    assert not Pairing.objects.exclude(pk=alive.pk).exclude(code_hash=None, token_hash=None).exists()


# --- What the database itself refuses


@pytest.mark.parametrize("end", ENDS)
def test_the_database_keeps_no_hash_of_an_ended_request(
    alice: PlatformAccount, alice_discord: PlatformAccount, end: str
) -> None:
    request = offered(alice)
    ended = {"state": end, "ended_at": clock.now(), "responder": alice_discord}

    with pytest.raises(IntegrityError, match="request_keeps_no_hash_after_its_end"), transaction.atomic():
        Pairing.objects.filter(pk=request.pk).update(**ended)
    Pairing.objects.filter(pk=request.pk).update(**ended, code_hash=None, token_hash=None)


def test_the_database_keeps_one_claimed_request_per_responder(alice_discord: PlatformAccount) -> None:
    claimed(alice_discord, account("alice"))
    other = offered(account("bob"))

    with pytest.raises(IntegrityError), transaction.atomic():
        Pairing.objects.filter(pk=other.pk).update(state="claimed", responder=alice_discord)


def test_the_database_keeps_a_responder_on_a_claimed_request(alice: PlatformAccount) -> None:
    request = offered(alice)

    with pytest.raises(IntegrityError, match="request_claimed_has_a_responder"), transaction.atomic():
        Pairing.objects.filter(pk=request.pk).update(state="claimed")


def test_the_database_keeps_one_initiating_side(alice: PlatformAccount) -> None:
    person, soon = pairs.person("alice"), clock.seconds_from_now(60)

    for sides in ({}, {"initiator": alice, "person": person, "operator": "root"}, {"person": person}):
        with pytest.raises(IntegrityError, match="request_has_one_initiating_side"), transaction.atomic():
            Pairing.objects.create(expires_at=soon, last_at=soon, **sides)


# --- Secrets


def test_it_keeps_no_secret_in_any_row(alice: PlatformAccount, alice_discord: PlatformAccount) -> None:
    requests = [offered(alice)]
    assert requests[0].code_hash == lookup_hash(code(requests[0]))
    requests.append(linked(account("bob"), account("bob", "discord")))
    pair_in_chat.claim(account=alice_discord, secret=code(requests[0]))

    rows = pairs.dump(Pairing, AuditEvent, GuessLimit, AccountLink, PlatformAccount, UnifiedUser)

    for request in requests:
        for secret in (code(request), pairs.token(request), number(request)):
            assert secret not in rows


def test_its_audit_rows_say_who_and_which_request_and_nothing_else(
    alice: PlatformAccount, alice_discord: PlatformAccount
) -> None:
    request = claimed(alice_discord, alice)

    first, second = AuditEvent.objects.order_by("pk")
    assert (first.actor, first.account_hash) == (audit.actor(alice), audit.account_hash(alice))
    assert (second.actor, second.account_hash) == (audit.actor(alice_discord), audit.account_hash(alice_discord))
    assert first.details == second.details == {"request": request.pk.hex}
    assert first.at <= second.at
    assert AuditEvent.objects.aggregate(last=Max("at"))["last"] <= clock.read()


# --- What has run out, whether or not somebody has noted it yet


@pytest.mark.parametrize("who", ["telegram", "discord"])
def test_it_denies_and_cancels_nothing_that_has_run_out(told: Told, who: str) -> None:
    request = claimed(account("alice", "discord"), account("alice"))
    later(301, Pairing.objects.all())
    told.said.clear()

    assert pair_in_chat.deny(account=account("alice", who), pairing_id=request.pk) == Outcome.NOTHING
    assert pair_in_chat.cancel(account=account("alice", who)) == Outcome.NOTHING

    request.refresh_from_db()
    assert (request.state, request.strike) == ("claimed", None)
    assert told.to(account("alice", who)) == [Template.NOTHING_THERE] * 2


def test_it_writes_down_what_was_burned(alice: PlatformAccount) -> None:
    request = offered(alice)

    pair_in_chat.burn(secrets=[code(request)])

    event = AuditEvent.objects.latest("pk")
    assert (event.kind, event.actor, event.account_hash) == ("pairing_burned", "system", audit.account_hash(alice))
    assert event.details == {"request": request.pk.hex}


# --- Words


def test_it_shows_the_number_to_the_responder_alone(alice: PlatformAccount, alice_discord: PlatformAccount) -> None:
    request = claimed(alice_discord, alice)

    for one in (alice, account("mallory", "slack")):
        notice = wording.render(Template.NUMBER, one, {"pairing": str(request.pk)})
        assert notice.text == "That request has ended. You need a new code."


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ('Al" (@alice, ID ..6789', "Al' (@alice, ID ..6789"),
        ("Al\u202eice\u200b\x07", "Alice"),
        ("Al\nice\u2028B.", "Al ice B."),
        ("x" * 33, "x" * 31 + "\u2026"),
    ],
)
def test_it_makes_names_and_user_names_harmless(alice: PlatformAccount, name: str, shown: str) -> None:
    alice.display_name = alice.username = name

    assert labels.described(alice) == f'Telegram account "{shown}" (@{shown}, ID ..gram)'


def test_it_writes_down_what_has_expired_and_each_wrong_number(
    alice: PlatformAccount, alice_discord: PlatformAccount
) -> None:
    request = claimed(alice_discord, alice)
    pair_in_chat.confirm(account=alice, number=pairs.wrong(request))
    later(301, Pairing.objects.all())

    assert (pair_in_chat.expire(), pair_in_chat.expire()) == (1, 0)

    wrong, expired = AuditEvent.objects.order_by("-pk")[:2][::-1]
    assert (wrong.kind, wrong.actor) == ("pairing_number_wrong", audit.actor(alice))
    assert wrong.details == {"request": request.pk.hex, "left": 2}
    assert (expired.kind, expired.actor, expired.details) == ("pairing_expired", "system", {"request": request.pk.hex})


# --- People who were left alone


def left_alone(who: str, platform: str, beside: str) -> PlatformAccount:
    """An account whose other one, on `beside`, has left the person that both were."""
    stays, leaves = account(who, platform), account(f"{who}-{platform}", beside)
    linked(stays, leaves)
    assert linking.leave(account=leaves)
    return stays


def test_it_links_two_accounts_that_were_each_left_alone(told: Told) -> None:
    telegram, slack = left_alone("alice", "telegram", "discord"), left_alone("alice", "slack", "discord")
    kept, left = owner(telegram), owner(slack)

    request = linked(telegram, slack)

    assert are_one(telegram, slack)
    assert owner(slack) == kept != left
    before = AccountLink.objects.get(user=left, account=slack)
    assert before.ended_at
    assert not before.disowned
    row = AuditEvent.objects.get(kind="unlinked", details__link=before.pk)
    assert (row.unified_user_id, row.details["method"]) == (left.unified_user_id if left else "", "joined")
    assert told.to(slack)[-1] == told.to(telegram)[-1] == Template.LINKED
    assert linking.undo(account=slack, pairing_id=request.pk)
    assert owner(slack) is None


@pytest.mark.parametrize("starts", ["alone", "together"])
def test_it_takes_who_was_left_alone_to_those_who_are_together(starts: str) -> None:
    slack = left_alone("alice", "slack", "discord")
    telegram, discord = account("alice"), account("alice", "discord")
    linked(telegram, discord)
    kept = owner(telegram)

    linked(*((slack, telegram) if starts == "alone" else (telegram, slack)))

    assert owner(slack) == owner(telegram) == owner(discord) == kept


@pytest.mark.parametrize("named", ["initiator", "responder"])
def test_it_keeps_the_person_that_an_operator_named(named: str) -> None:
    alone = account("alice", "telegram" if named == "initiator" else "slack")
    kept = pairs.person("alice", alone)
    other = left_alone("alice", "slack" if named == "initiator" else "telegram", "discord")

    linked(*((alone, other) if named == "initiator" else (other, alone)))

    assert owner(alone) == owner(other) == kept


def test_it_keeps_a_person_whose_name_an_operator_chose() -> None:
    telegram, slack = left_alone("alice", "telegram", "discord"), left_alone("alice", "slack", "discord")
    kept = owner(slack)
    assert kept
    operators.rename_person(person=kept, display_name="Alice of Accounts", operator="root")

    linked(telegram, slack)

    assert owner(telegram) == owner(slack) == kept


def test_it_gives_up_no_person_that_is_named(told: Told) -> None:
    """Neither of two, and not for others who are together: what people are called by does not go by itself."""
    telegram, slack = account("alice"), account("alice", "slack")
    people = [pairs.person("alice", telegram), pairs.person("alice.b", slack)]
    request = offered(telegram)

    assert pair_in_chat.claim(account=slack, secret=code(request)) == Outcome.REFUSED

    assert [owner(telegram), owner(slack)] == people
    assert told.text(slack) == (
        "An operator has named the owner of one of these accounts. Use !unlink on that account first."
    )


def test_it_keeps_the_person_who_is_invited() -> None:
    slack, invited = left_alone("alice", "slack", "discord"), pairs.person("alice")
    request = pair_in_chat.invite(person=invited, operator="root")
    assert pair_in_chat.claim(account=slack, secret=code(request)) == Outcome.CLAIMED

    assert pair_in_chat.confirm_as_operator(pairing=request, number=number(request), operator="root") == Outcome.LINKED

    assert owner(slack) == invited


def test_it_withdraws_the_invitations_of_a_person_who_is_left_behind() -> None:
    telegram, slack = left_alone("alice", "telegram", "discord"), left_alone("alice", "slack", "discord")
    left = owner(slack)
    assert left
    invitation = pair_in_chat.invite(person=left, operator="root")

    linked(telegram, slack)

    assert state(invitation) == "cancelled"


def test_it_closes_a_past_that_was_opened_to_others() -> None:
    """They have left; a newcomer is told that earlier messages stay separate."""
    telegram, discord = account("alice"), account("alice", "discord")
    linked(telegram, discord)
    assert linking.share_past(account=telegram, actor="test")
    assert linking.leave(account=discord)

    linked(telegram, account("alice", "slack"))

    assert not pairs.live_link(telegram).shares_past
