"""How often somebody may guess and start, and that nobody can take that from somebody else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import override_settings
from django.test.utils import CaptureQueriesContext

from identity import audit, checks
from identity.flows import pair_in_chat
from identity.models import AuditEvent, GuessLimit, Pairing, PlatformAccount
from identity.notices import Template
from identity.pairing import rate_limits
from identity.pairing import requests as pairing_requests
from identity.pairing.requests import Outcome
from identity.pairing.settings import Limits, limits
from identity.support import clock
from tests.identity import pairs
from tests.identity.pairs import Told, account, claimed, code, everything_later, later, number, offered, state

pytestmark = pytest.mark.django_db

HOUR, DAY = 3600, 86_400


@pytest.fixture(autouse=True)
def told() -> Iterator[Told]:
    with pairs.listening() as told:
        yield told


@pytest.fixture
def mallory() -> PlatformAccount:
    return account("mallory", "slack")


def guess(by: PlatformAccount, times: int = 1) -> list[Outcome]:
    """Wrong codes, another one each time."""
    wrong = ["".join("BCDFGHJKLM"[int(digit)] for digit in f"{nth:08d}") for nth in range(times)]
    return [pair_in_chat.claim(account=by, secret=one) for one in wrong]


def shapes(queries: CaptureQueriesContext) -> list[str]:
    """What was asked of the database, whatever the values."""
    return [re.sub(r"'[^']*'|\"s[0-9]+_x[0-9]+\"|\b[0-9]+\b", "?", query["sql"]) for query in queries.captured_queries]


def seconds_locked(of: PlatformAccount) -> float:
    return (GuessLimit.objects.get(guesser=audit.actor(of)).locked_until - clock.read()).total_seconds()


# --- Guesses


@pytest.mark.parametrize("beside", ["own", "another app's"])
def test_it_counts_wrong_codes_beside_one_that_lives(mallory: PlatformAccount, beside: str) -> None:
    """A live code that stays alive must not make guesses free."""
    invitation = pair_in_chat.invite(person=pairs.person("zoe"), operator="carol", platform="telegram")
    lives = code(offered(mallory) if beside == "own" else invitation)
    target = code(offered(account("alice")))

    outcomes = [
        pair_in_chat.try_codes(account=mallory, secrets=[lives, wrong])
        for wrong in ("BBBBBBBB", "CCCCCCCC", "DDDDDDDD")
    ]
    outcomes += [
        pair_in_chat.try_codes(account=mallory, secrets=[lives, wrong, "FFFFFFFF"]) for wrong in ("GGGGGGGG", target)
    ]

    kept = Outcome.OWN_CODE if beside == "own" else Outcome.REFUSED
    assert outcomes == [kept] * 3 + [Outcome.REFUSED] * 2
    assert len(GuessLimit.objects.get().times) == 3
    assert Pairing.objects.filter(state="claimed").count() == 0


def test_it_writes_each_wrong_code_down_and_not_the_code(mallory: PlatformAccount) -> None:
    guess(mallory, 2)

    rows = AuditEvent.objects.filter(kind="pairing_code_wrong")
    assert [row.actor for row in rows] == [audit.actor(mallory)] * 2
    assert "BBBBBBBB" not in pairs.dump(AuditEvent)


def test_it_locks_an_attempt_key_after_five_wrong_codes(told: Told, mallory: PlatformAccount) -> None:
    assert guess(mallory, 6) == [Outcome.WRONG] * 5 + [Outcome.WAIT]

    assert 895 < seconds_locked(mallory) <= 900
    assert told.text(mallory) == "Too many wrong codes. Wait 15 minutes."
    event = AuditEvent.objects.get(kind="pairing_guesser_locked")
    assert event.details == {"seconds": 900}


def test_it_locks_for_an_hour_the_next_time(mallory: PlatformAccount) -> None:
    guess(mallory, 5)
    everything_later(901)

    assert guess(mallory, 6) == [Outcome.WRONG] * 5 + [Outcome.WAIT]
    assert 3595 < seconds_locked(mallory) <= 3600


def test_it_forgets_a_lock_after_a_day(mallory: PlatformAccount) -> None:
    guess(mallory, 5)
    everything_later(900 + DAY + 1)

    guess(mallory, 5)
    assert 895 < seconds_locked(mallory) <= 900


def test_it_counts_wrong_codes_of_fifteen_minutes(mallory: PlatformAccount) -> None:
    guess(mallory, 4)
    everything_later(901)

    assert guess(mallory, 4) == [Outcome.WRONG] * 4
    assert seconds_locked(mallory) < 0


def test_it_counts_wrong_codes_of_any_fifteen_minutes(mallory: PlatformAccount) -> None:
    guess(mallory)
    everything_later(899)
    guess(mallory, 3)
    everything_later(2)

    assert guess(mallory, 4) == [Outcome.WRONG] * 2 + [Outcome.WAIT] * 2


@override_settings(BOTOS_PAIRING={"lock_seconds": "60"})
def test_it_counts_them_over_a_lock_that_is_shorter(mallory: PlatformAccount) -> None:
    guess(mallory, 5)
    everything_later(899)
    assert guess(mallory) == [Outcome.WAIT]

    everything_later(2)
    assert guess(mallory) == [Outcome.WRONG]


def test_it_answers_a_locked_attempt_key_before_it_looks(told: Told, mallory: PlatformAccount) -> None:
    request = offered(account("alice"))
    guess(mallory, 5)
    told.to(mallory)
    seen = []
    for secret in (code(request), pairs.token(request), "BBBBBBBB"):
        with CaptureQueriesContext(connection) as queries:
            assert pair_in_chat.claim(account=mallory, secret=secret) == Outcome.WAIT
        seen.append(shapes(queries))

    assert seen[0] == seen[1] == seen[2]
    assert not any("identity_pairing" in sql for sql in seen[0])
    assert told.to(mallory) == [Template.WAIT_TO_GUESS] * 3
    assert state(request) == "offered"


def test_it_looks_for_wrong_and_unknown_and_expired_codes_in_the_same_way(mallory: PlatformAccount) -> None:
    expired, cancelled = offered(account("alice")), offered(account("bob"))
    later(601, Pairing.objects.filter(pk=expired.pk))
    pair_in_chat.cancel(account=account("bob"))
    guess(mallory)
    seen = []
    for secret in ("BBBBBBBB", code(expired), code(cancelled)):
        with CaptureQueriesContext(connection) as queries:
            pair_in_chat.claim(account=mallory, secret=secret)
        seen.append(shapes(queries))

    assert seen[0] == seen[1] == seen[2]


def test_it_resets_no_guesses_with_a_new_code(mallory: PlatformAccount) -> None:
    guess(mallory, 3)
    offered(mallory)
    guess(mallory, 2)
    offer_again(mallory)

    assert guess(mallory) == [Outcome.WAIT]


def offer_again(by: PlatformAccount) -> None:
    later(31, Pairing.objects.all())
    offered(by)


def test_it_resets_no_guesses_with_a_right_code(mallory: PlatformAccount) -> None:
    guess(mallory, 4)
    claimed(mallory, account("alice"))

    guess(mallory)

    assert guess(mallory) == [Outcome.WAIT]


def test_it_locks_out_nobody_else(mallory: PlatformAccount) -> None:
    guess(mallory, 6)
    guess(account("mallory", "discord"), 6)

    claimed(account("alice", "slack"), account("alice"))


def test_it_lets_a_locked_attempt_key_still_start_and_finish(mallory: PlatformAccount) -> None:
    guess(mallory, 5)

    request = claimed(account("mallory", "discord"), mallory)
    assert pair_in_chat.confirm(account=mallory, number=number(request)) == Outcome.LINKED


# --- Starts


def test_it_starts_every_thirty_seconds(told: Told) -> None:
    alice = account("alice")
    first = offered(alice)

    assert pair_in_chat.offer(account=alice) == Outcome.WAIT
    assert told.text(alice) == "Wait 30 seconds, then send /link."
    assert state(first) == "offered"

    later(30, Pairing.objects.all())
    assert pair_in_chat.offer(account=alice) == Outcome.OFFERED


@pytest.mark.parametrize(("most", "pause", "span"), [(5, 31, HOUR), (20, 721, DAY)], ids=["hour", "day"])
def test_it_starts_so_often_and_no_more(told: Told, most: int, pause: int, span: int) -> None:
    alice = account("alice")
    for _ in range(most):
        offered(alice)
        later(pause, Pairing.objects.all())

    assert pair_in_chat.offer(account=alice) == Outcome.WAIT
    assert told.text(alice).startswith("You've asked for a lot of codes. Send /link again in ")

    later(span - most * pause + 1, Pairing.objects.all())
    assert pair_in_chat.offer(account=alice) == Outcome.OFFERED


def test_it_counts_starts_per_account(mallory: PlatformAccount) -> None:
    for _ in range(5):
        offered(mallory)
        later(31, Pairing.objects.all())

    assert pair_in_chat.offer(account=mallory) == Outcome.WAIT
    offered(account("alice"))


def hostile_starts(count: int) -> None:
    """Many strangers have each started, and none has finished."""
    ids = [f"stranger-{number}" for number in range(count)]
    made = PlatformAccount.objects.bulk_create(
        [PlatformAccount(platform="telegram", platform_user_id=one) for one in ids], batch_size=1000
    )
    soon = clock.read() + timedelta(seconds=600)
    Pairing.objects.bulk_create(
        [
            Pairing(
                initiator=one,
                initiator_hash=audit.account_hash(one),
                expires_at=soon,
                last_at=soon,
                code_hash=f"c{nth}",
                token_hash=f"t{nth}",
            )
            for nth, one in enumerate(made)
        ],
        batch_size=500,
    )


def queries_of_a_handshake(who: str) -> list[int]:
    alice, discord = account(who), account(who, "discord")
    counts = []

    def count(step: Any) -> None:
        with CaptureQueriesContext(connection) as queries:
            step()
        counts.append(len(queries))

    count(lambda: pair_in_chat.offer(account=alice))
    request = Pairing.objects.get(initiator=alice)
    count(lambda: pair_in_chat.claim(account=discord, secret=code(request)))
    count(lambda: pair_in_chat.confirm(account=alice, number=number(request)))
    assert state(request) == "linked"
    return counts


def test_it_asks_no_more_of_the_database_when_many_others_have_started() -> None:
    before = queries_of_a_handshake("alice")
    hostile_starts(300)

    assert queries_of_a_handshake("bob") == before


def test_it_finds_starts_and_codes_by_index() -> None:
    hostile_starts(300)
    alice = account("alice")
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE identity_pairing")
    starts = rate_limits._begun_by(alice).order_by("-created_at").values_list("created_at")[:20]

    for asked in (starts, pairing_requests.offered("BBBBBBBB")):
        plan = asked.explain()
        assert "Seq Scan on identity_pairing" not in plan, plan
        assert "SCAN identity_pairing" not in plan, plan


# --- Strikes


def reject(against: PlatformAccount, by: PlatformAccount) -> None:
    request = Pairing.objects.filter(initiator=against, ended_at=None).first() or offered(against)
    assert pair_in_chat.claim(account=by, secret=code(request)) == Outcome.CLAIMED
    pair_in_chat.deny(account=by, pairing_id=request.pk)
    later(31, Pairing.objects.all())


def test_it_slows_down_whoever_is_denied_by_three(told: Told, mallory: PlatformAccount) -> None:
    for who in ("alice", "bob", "charlie"):
        assert not AuditEvent.objects.filter(kind="pairing_strikes").exists()
        reject(mallory, account(who))

    assert AuditEvent.objects.filter(kind="pairing_strikes").count() == 1
    assert pair_in_chat.offer(account=mallory) == Outcome.WAIT
    later(HOUR, Pairing.objects.all())
    assert pair_in_chat.offer(account=mallory) == Outcome.OFFERED
    later(HOUR - 60, Pairing.objects.all())
    assert pair_in_chat.offer(account=mallory) == Outcome.WAIT


def test_it_warns_the_operator_without_naming_anybody(
    mallory: PlatformAccount, caplog: pytest.LogCaptureFixture
) -> None:
    for who in ("alice", "bob", "charlie", "dora"):
        reject(mallory, account(who))
        later(HOUR, Pairing.objects.all())

    [warning] = [one for one in caplog.records if one.levelname == "WARNING"]
    assert warning.getMessage() == (
        f"{audit.actor(mallory)} tried to link against the will of 3 others within a day: it may start once an hour now"
    )
    assert "mallory" not in warning.getMessage().lower()


def test_it_counts_a_responder_once(mallory: PlatformAccount) -> None:
    for _ in range(4):
        reject(mallory, account("alice"))

    assert rate_limits.rejections(mallory) == 1
    offered(mallory)


def test_it_counts_no_rejections_for_codes_that_were_handed_to_somebody(mallory: PlatformAccount) -> None:
    alice = account("alice")
    for platform in ("discord", "slack", "web", "matrix"):
        request = claimed(alice, account("mallory", platform))
        pair_in_chat.deny(account=account("mallory", platform), pairing_id=request.pk)

    assert rate_limits.rejections(alice) == 0
    assert not AuditEvent.objects.filter(kind="pairing_strikes").exists()


def test_it_alerts_the_operator_once_for_each_time_that_it_slows_somebody_down(mallory: PlatformAccount) -> None:
    for who in ("alice", "bob", "charlie", "charlie", "alice", "dora"):
        reject(mallory, account(who))
        later(HOUR, Pairing.objects.all())

    assert AuditEvent.objects.filter(kind="pairing_strikes").count() == 1


def test_it_forgets_rejections_after_a_day(mallory: PlatformAccount) -> None:
    for who in ("alice", "bob", "charlie"):
        reject(mallory, account(who))
    everything_later(DAY)

    assert rate_limits.rejections(mallory) == 0


def test_it_counts_a_lock_as_a_strike_and_alerts_the_operator(mallory: PlatformAccount) -> None:
    for who in ("alice", "bob"):
        reject(mallory, account(who))
    request = claimed(account("charlie"), mallory)
    for nth in (1, 2, 3):
        pair_in_chat.confirm(account=mallory, number=pairs.wrong(request, nth))

    assert rate_limits.rejections(mallory) == 3
    assert AuditEvent.objects.filter(kind="pairing_strikes").count() == 1


# --- All of these are settings


@pytest.mark.parametrize(
    ("name", "value"),
    [("guesses", "2"), ("lock_seconds", "1200"), ("number_tries", "1"), ("start_pause_seconds", "5")],
)
def test_it_takes_its_numbers_from_the_settings(told: Told, mallory: PlatformAccount, name: str, value: str) -> None:
    with override_settings(BOTOS_PAIRING={name: value}):
        if name == "guesses":
            assert guess(mallory, 3) == [Outcome.WRONG] * 2 + [Outcome.WAIT]
        elif name == "lock_seconds":
            guess(mallory, 6)
            assert told.text(mallory) == "Too many wrong codes. Wait 20 minutes."
        elif name == "number_tries":
            request = claimed(account("alice"), mallory)
            assert pair_in_chat.confirm(account=mallory, number=pairs.wrong(request)) == Outcome.LOCKED
        else:
            offered(mallory)
            later(5, Pairing.objects.all())
            offered(mallory)


def test_it_drops_counts_that_mean_nothing_any_more() -> None:
    long_ago = clock.seconds_from_now(-2 * DAY)
    GuessLimit.objects.create(guesser="old", last_at=long_ago, locked_until=long_ago)
    GuessLimit.objects.create(guesser="guessed since", last_at=clock.read(), locked_until=long_ago)
    GuessLimit.objects.create(guesser="locked since", last_at=long_ago, locked_until=clock.seconds_from_now(-DAY))

    assert rate_limits.forget_old() == 1
    assert set(GuessLimit.objects.values_list("guesser", flat=True)) == {"guessed since", "locked since"}


@pytest.mark.parametrize("pause", ["3600", "86400"])
def test_it_keeps_the_pause_beside_the_other_limits_of_starts(mallory: PlatformAccount, pause: str) -> None:
    with override_settings(BOTOS_PAIRING={"start_pause_seconds": pause}):
        offered(mallory)
        later(int(pause) - 60, Pairing.objects.all())
        assert pair_in_chat.offer(account=mallory) == Outcome.WAIT

        later(60, Pairing.objects.all())
        assert pair_in_chat.offer(account=mallory) == Outcome.OFFERED


def test_its_defaults_are_those_of_the_protocol() -> None:
    with override_settings(BOTOS_PAIRING={}):
        these = limits()

    assert these == Limits()
    assert (these.code_seconds, these.number_seconds, these.handshake_seconds, these.number_tries) == (600, 300, 900, 3)
    assert (these.guesses, these.guess_seconds, these.lock_seconds, these.lock_again_seconds) == (5, 900, 900, 3600)
    assert (these.start_pause_seconds, these.starts_an_hour, these.starts_a_day, these.strikes) == (30, 5, 20, 3)
    assert (these.invitation_seconds, these.invitation_number_seconds) == (72 * HOUR, 24 * HOUR)
    assert (these.first_reminder_seconds, these.second_reminder_seconds) == (DAY, 7 * DAY)
    assert (these.new_link_seconds, these.silence_seconds, these.message_seconds) == (DAY, 180 * DAY, 600)


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({}, []),
        ({"guesses": "5"}, []),
        ({"gueses": "5"}, ["identity.E001"]),
        ({"guesses": "many"}, ["identity.E001"]),
        ({"guesses": "0"}, ["identity.E001"]),
        ({"start_pause_seconds": "0"}, []),
        ({"number_tries": "-1"}, ["identity.E001"]),
        ({"number_tries": "11"}, ["identity.E002"]),
        ({"guesses": "101"}, ["identity.E003"]),
        ({"handshake_seconds": "60"}, ["identity.E004"]),
        ({"lock_again_seconds": "60"}, ["identity.E005"]),
        ({"first_reminder_seconds": str(8 * DAY)}, ["identity.E006"]),
        ({"browser_seconds": "1799"}, ["identity.E007"]),
        ({"browser_seconds": "1800"}, []),
        ({"browser_idle_seconds": "899"}, ["identity.E008"]),
        ({"browser_idle_seconds": "900"}, []),
        ({"fresh_seconds": str(8 * HOUR + 1)}, ["identity.E009"]),
        ({"together_seconds": str(8 * HOUR + 1)}, ["identity.E009"]),
        ({"fresh_seconds": str(8 * HOUR), "together_seconds": str(8 * HOUR)}, []),
    ],
)
def test_it_checks_its_numbers_at_start(given: dict[str, str], found: list[str]) -> None:
    with override_settings(BOTOS_PAIRING=given):
        assert [problem.id for problem in checks.check_limits(None)] == found


@override_settings(BOTOS_PAIRING={"code_seconds": "1200", "number_seconds": "90"})
def test_it_promises_what_its_numbers_say(told: Told, mallory: PlatformAccount) -> None:
    alice = account("alice")
    request = offered(alice)
    assert "It works once, for 20 minutes." in told.text(alice)

    pair_in_chat.claim(account=mallory, secret=code(request))
    assert "(1 minute)" in told.text(mallory)

    guess(mallory)
    assert "Codes work once, for 20 minutes." in told.text(mallory)


def test_it_slows_down_who_has_more_rejections_than_it_takes(mallory: PlatformAccount) -> None:
    for who in ("alice", "bob", "charlie", "dora"):
        reject(mallory, account(who))
        later(HOUR, Pairing.objects.all())

    offered(mallory)
    later(HOUR - 60, Pairing.objects.all())

    assert rate_limits.rejections(mallory) == 4
    assert pair_in_chat.offer(account=mallory) == Outcome.WAIT
