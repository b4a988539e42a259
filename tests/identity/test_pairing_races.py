"""Many hands at the same request: one gets it, nothing is done by halves, and nobody waits in a circle.

Small and with threads here; with real processes, in full size and under kill -9, in `make faults`.
"""

from __future__ import annotations

import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from itertools import count, pairwise
from typing import Any

import pytest
from django.db import OperationalError, connection, connections

from identity import notices
from identity.browsers import sessions as browser_sessions
from identity.flows import link_maintenance, linking, pair_in_browser, pair_in_chat
from identity.links import locks
from identity.models import (
    AccountLink,
    AuditEvent,
    Browser,
    BrowserAccount,
    GuessLimit,
    Pairing,
    PlatformAccount,
)
from identity.notices import Template
from identity.pairing import rate_limits
from identity.pairing import requests as pairing_requests
from identity.pairing.requests import Outcome
from identity.support import clock
from sessions_app import inbox
from sessions_app.models import OutboundDelivery
from sessions_app.turns import leases, lifecycle
from tests.identity import hands, pairs
from tests.identity.pairs import account, are_one, claimed, code, linked, number, offered, person, state
from tests.journeys.running import eventually
from tests.sessions_app.talk import DATABASE, PLATFORMS, message

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Nobody is told: these tests are about identity's own rows."""
    with pairs.listening():
        yield


def at_once(*steps: Callable[[], object]) -> list[object]:
    """What the steps give, all begun at the same moment, each on a connection of its own."""
    barrier = threading.Barrier(len(steps))

    def after_all_are_there(step: Callable[[], object]) -> object:
        try:
            barrier.wait(10)
            return step()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(len(steps)) as pool:
        started = [pool.submit(after_all_are_there, step) for step in steps]
    return [future.result(60) for future in started]


def is_whole() -> bool:
    """Whether every finished handshake has its links and its audit rows, and no link is without one."""
    finished = Pairing.objects.filter(state="linked")
    made = Counter(AccountLink.objects.filter(pairing__isnull=False).values_list("pairing", flat=True))
    audited = AuditEvent.objects.filter(kind="linked", details__method="pairing").count()
    return set(made) == {one.pk for one in finished} and sum(made.values()) == audited


# --- browsers


def begun(nth: object = 0) -> Browser:
    return Browser.objects.create(name="Firefox on Linux", address=f"home-{nth}")


def shown_on(page: Browser) -> Pairing:
    assert pair_in_browser.offer(browser=page).outcome == Outcome.OFFERED
    return Pairing.objects.get(initiator_browser=page, state="offered")


def test_it_gives_the_code_of_a_page_to_one_of_many() -> None:
    request = shown_on(begun())
    hands = [account(f"hand-{nth}", "discord") for nth in range(30)]
    outcomes = at_once(*(partial(pair_in_chat.claim, account=one, secret=code(request)) for one in hands))

    assert outcomes.count(Outcome.CLAIMED) == 1
    assert outcomes.count(Outcome.WRONG) == 29


def test_it_gives_the_code_of_a_chat_to_one_of_many_pages() -> None:
    request, pages = offered(account("alice")), [begun(nth) for nth in range(8)]
    outcomes = at_once(
        *(partial(pair_in_browser.claim, browser=one, secret=code(request), address=one.address) for one in pages)
    )

    assert [answer.outcome for answer in outcomes].count(Outcome.CLAIMED) == 1  # type: ignore[attr-defined]


def test_it_attaches_once_when_two_tabs_finish_together() -> None:
    page, alice = begun(), account("alice")
    request = shown_on(page)
    pair_in_chat.claim(account=alice, secret=code(request))
    outcomes = at_once(*[partial(pair_in_browser.confirm, browser=page, number=number(request))] * 2)

    assert outcomes.count(Outcome.ATTACHED) == 1
    assert BrowserAccount.objects.count() == 1


def test_it_attaches_nothing_to_a_browser_that_signs_out_meanwhile() -> None:
    for nth in range(4):
        page, alice = begun(nth), account(f"alice-{nth}")
        request = shown_on(page)
        pair_in_chat.claim(account=alice, secret=code(request))
        at_once(
            partial(pair_in_browser.confirm, browser=page, number=number(request)),
            partial(browser_sessions.sign_out, page),
        )

    assert not BrowserAccount.objects.filter(ended_at=None).exists()


def test_it_links_two_once_when_two_tabs_ask_together() -> None:
    page, sides = begun(), [account("alice"), account("alice", "discord")]
    for one in sides:
        pairs.later(31, Pairing.objects.all())
        request = shown_on(page)
        pair_in_chat.claim(account=one, secret=code(request))
        pair_in_browser.confirm(browser=page, number=number(request))
    ask = partial(pair_in_browser.link_these_two, browser=page, accounts=[one.pk for one in sides])

    assert at_once(ask, ask).count(Outcome.LINKED) == 1
    assert AccountLink.objects.live().count() == 2
    assert are_one(*sides)


# --- claim


def test_it_gives_each_code_to_one_of_many() -> None:
    hands = [account(f"hand-{nth}", "discord") for nth in range(8)]
    requests = [offered(account(f"alice-{nth}")) for nth in range(12)]
    taken: Counter[int] = Counter()
    for nth, request in enumerate(requests):
        fresh = [account(f"hand-{hand}-{nth // 4}", "discord") for hand in range(len(hands))]
        outcomes = at_once(*(partial(pair_in_chat.claim, account=one, secret=code(request)) for one in fresh))
        taken[nth] = outcomes.count(Outcome.CLAIMED)

    assert set(taken.values()) == {1}
    assert AuditEvent.objects.filter(kind="pairing_claimed").count() == len(requests)


def test_it_lets_one_hand_hold_one_claim() -> None:
    discord = account("alice", "discord")
    requests = [offered(account(f"alice-{nth}")) for nth in range(4)]

    at_once(*(partial(pair_in_chat.claim, account=discord, secret=code(r)) for r in requests))

    states = Counter(Pairing.objects.values_list("state", flat=True))
    assert states == {"claimed": 1, "denied": 3}


def test_it_counts_guesses_one_after_the_other() -> None:
    mallory = account("mallory", "slack")

    outcomes = at_once(*(partial(pair_in_chat.claim, account=mallory, secret="BBBBBBBB") for _ in range(8)))

    assert Counter(outcomes) == {Outcome.WRONG: 5, Outcome.WAIT: 3}
    assert len(GuessLimit.objects.get().times) == 5


# --- offer


def test_it_offers_one_code_at_once() -> None:
    alice = account("alice")

    outcomes = at_once(*(partial(pair_in_chat.offer, account=alice) for _ in range(6)))

    assert Counter(outcomes) == {Outcome.OFFERED: 1, Outcome.WAIT: 5}
    assert Pairing.objects.filter(ended_at=None).count() == 1


# --- confirm


def test_two_numbers_at_once_make_one_link() -> None:
    for nth in range(5):
        telegram, discord = account(f"alice-{nth}"), account(f"alice-{nth}", "discord")
        request = claimed(discord, telegram)

        outcomes = at_once(*(partial(pair_in_chat.confirm, account=telegram, number=number(request)),) * 3)

        assert Counter(outcomes)[Outcome.LINKED] == 1
        assert AccountLink.objects.filter(pairing=request).count() == 2
        assert are_one(telegram, discord)
    assert is_whole()


def test_many_wrong_numbers_at_once_are_three() -> None:
    telegram, discord = account("alice"), account("alice", "discord")
    request = claimed(discord, telegram)

    outcomes = at_once(
        *(partial(pair_in_chat.confirm, account=telegram, number=pairs.wrong(request, nth)) for nth in range(1, 7))
    )

    assert Counter(outcomes)[Outcome.WRONG] == 2
    assert Counter(outcomes)[Outcome.LOCKED] == 1
    assert (state(request), Pairing.objects.get().tries) == ("locked", 3)
    assert rate_limits.rejections(telegram) == 1


@pytest.mark.parametrize("stop", ["cancel", "deny", "offer"])
def test_a_number_and_its_opposite_end_one_way(stop: str) -> None:
    for nth in range(6):
        telegram, discord = account(f"alice-{nth}"), account(f"alice-{nth}", "discord")
        request = claimed(discord, telegram)
        pairs.later(31, Pairing.objects.all())
        against: Callable[[], object] = {
            "cancel": partial(pair_in_chat.cancel, account=discord),
            "deny": partial(pair_in_chat.deny, account=discord, pairing_id=request.pk),
            "offer": partial(pair_in_chat.offer, account=telegram),
        }[stop]

        at_once(partial(pair_in_chat.confirm, account=telegram, number=number(request)), against)

        is_linked = AccountLink.objects.live().filter(account__in=[telegram, discord]).count() == 2
        assert is_linked == (state(request) == "linked" and stop != "deny")  # a late denial takes it back
        assert is_linked == are_one(telegram, discord)
    assert is_whole()


def test_crossing_handshakes_make_one_person() -> None:
    """Each is the other's responder: both numbers come at once."""
    for nth in range(6):
        one, other = account(f"alice-{nth}"), account(f"alice-{nth}", "discord")
        there, back = claimed(other, one), claimed(one, other)

        at_once(
            partial(pair_in_chat.confirm, account=one, number=number(there)),
            partial(pair_in_chat.confirm, account=other, number=number(back)),
        )

        assert are_one(one, other)
        assert Counter([state(there), state(back)]) == {"linked": 1, "refused": 1}


def test_two_accounts_of_one_app_do_not_come_in_together() -> None:
    """The person is one row: whoever comes second is asked about policy after the first is in."""
    for nth in range(6):
        telegram, discord = account(f"alice-{nth}"), account(f"alice-{nth}", "discord")
        person(f"alice-{nth}", telegram, discord)
        first, second = (account(f"alice-{nth}-{one}", "slack") for one in ("a", "b"))
        requests = [claimed(first, telegram), claimed(second, discord)]

        at_once(
            partial(pair_in_chat.confirm, account=telegram, number=number(requests[0])),
            partial(pair_in_chat.confirm, account=discord, number=number(requests[1])),
        )

        slack = AccountLink.objects.live().filter(account__in=[first, second])
        assert slack.count() == 1
        assert Counter(map(state, requests)) == {"linked": 1, "refused": 1}


def test_nobody_is_left_behind_with_others() -> None:
    """Slack is alone when it is asked, and goes to telegram unless discord comes to it first."""
    for nth in range(6):
        telegram, discord, slack = (account(f"alice-{nth}", one) for one in ("telegram", "discord", "slack"))
        for one, beside in ((telegram, "matrix"), (slack, "irc")):
            leaver = account(f"alice-{nth}", beside)
            linked(one, leaver)
            linking.leave(account=leaver)
        pairs.later(86_400, Pairing.objects.all())
        away, here = claimed(slack, telegram), claimed(discord, slack)
        people = {link.user_id for link in AccountLink.objects.live().filter(account__in=(telegram, slack))}

        outcomes = at_once(
            partial(pair_in_chat.confirm, account=telegram, number=number(away)),
            partial(pair_in_chat.confirm, account=slack, number=number(here)),
        )

        live = AccountLink.objects.live().filter(account__in=(telegram, discord, slack))
        assert Outcome.LINKED in outcomes
        assert live.filter(account__in=(telegram, slack)).count() == 2
        assert set(live.values_list("user_id", flat=True)) <= people
        assert are_one(telegram, slack) == (state(away) == "linked")
        assert are_one(discord, slack) == (state(here) == "linked")
    assert is_whole()


def test_an_account_that_is_taken_out_finishes_nothing() -> None:
    for nth in range(6):
        telegram, discord, slack = (account(f"alice-{nth}", one) for one in ("telegram", "discord", "slack"))
        alice = person(f"alice-{nth}", telegram, discord)
        request = pair_in_chat.invite(person=alice, operator="root")
        pair_in_chat.claim(account=slack, secret=code(request))

        at_once(
            partial(link_maintenance.suspend, user=alice, operator="root"),
            partial(pair_in_chat.confirm, account=discord, number=number(request)),
        )

        made = AccountLink.objects.filter(account=slack).first()
        assert (made is not None) == (state(request) == "linked")
        if made:  # the number came first: then discord's link still lived
            assert made.since <= (AccountLink.objects.get(account=discord).ended_at or made.since)
        else:
            assert not AccountLink.objects.live().filter(user=alice).exists()


# --- Nobody waits in a circle


def test_a_late_denial_holds_accounts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second time others may have come, before these in the order of locks."""
    telegram, discord = account("alice"), account("alice", "discord")
    request = linked(telegram, discord)
    held, hold = [], locks.lock_people

    def hold_and_note(accounts: Iterable[int], **joining: Any) -> dict[int, int]:
        held.append(set(accounts))
        return hold(held[-1], **joining)

    monkeypatch.setattr(locks, "lock_people", hold_and_note)
    assert pair_in_chat.deny(account=discord, pairing_id=request.pk) == Outcome.DENIED

    assert held[0] == {telegram.pk, discord.pk}
    assert all(later <= held[0] for later in held[1:])
    assert len(held) == 1


def test_suspending_waits_in_no_circle() -> None:
    accounts = [account("alice", one) for one in ("telegram", "discord", "slack")]
    alice = person("alice", *accounts)

    def suspend() -> None:
        for _ in range(10):
            link_maintenance.suspend(user=alice, operator="root")
            link_maintenance.suspend_silent()

    def come_back(one: PlatformAccount) -> None:
        for _ in range(20):
            person("alice", one)
            linking.leave(account=one)

    at_once(suspend, *(partial(come_back, one) for one in accounts))


def talk_until(until: float, platform: str) -> int:
    """Write and be answered. How often the lane was had."""
    answered = 0
    for nth in count(1):
        if time.monotonic() > until:
            break
        waits = inbox.receive(message("alice", f"{platform} {nth}", platform=platform), resolver=DATABASE)
        assert waits is not None
        for taken in leases.claim([waits], owner=f"{platform}-{nth}", platforms=PLATFORMS).claims:
            with suppress(lifecycle.LeaseLost):  # it leaves the message to another turn, and writes nothing
                lifecycle.begin(taken, resolver=DATABASE)
                lifecycle.finish(taken, "yes", limit=2000)
                answered += 1
    return answered


def meddle_until(until: float, accounts: list[PlatformAccount], hand: int) -> None:
    """Link and take out."""
    chance = random.Random(hand)
    while time.monotonic() < until:
        one, other = chance.sample(accounts, 2)
        pairs.later(31, Pairing.objects.filter(initiator=one))
        pair_in_chat.offer(account=one)
        if request := Pairing.objects.filter(initiator=one, state="offered").first():
            pair_in_chat.claim(account=other, secret=code(request))
            pair_in_chat.confirm(account=one, number=number(request))
        ends: list[Callable[..., object]] = [linking.leave, linking.disown, pair_in_chat.cancel]
        chance.choice(ends)(account=chance.choice(accounts))


def test_links_change_while_turns_are_running() -> None:
    """Claims of lanes, messages, handshakes and unlinking of the same accounts, all at the same time."""
    for platform in PLATFORMS:
        inbox.receive(message("alice", "hello", platform=platform), resolver=DATABASE)
    accounts = [PlatformAccount.objects.get(platform=one, platform_user_id="alice") for one in PLATFORMS]
    until = time.monotonic() + 2.5

    answered = at_once(
        *(partial(talk_until, until, p) for p in PLATFORMS),
        *(partial(meddle_until, until, accounts, hand) for hand in range(3)),
    )

    assert any(answered[:3])  # lanes were claimed meanwhile; whose, is chance
    assert is_whole()
    for one in accounts:
        lives = AccountLink.objects.filter(account=one).order_by("since").values_list("since", "ended_at")
        assert all(ended and ended <= since for (_, ended), (since, _) in pairwise(lives))


# --- Real processes

_REDEEM = (
    hands.WORKER
    + """
mine = PlatformAccount.objects.get(platform="discord", platform_user_id=sys.argv[1])
print("ready", flush=True)
codes = sys.stdin.read().split()
print(sum(pair_in_chat.claim(account=mine, secret=one) == "claimed" for one in codes), flush=True)
"""
)
_PAIR_FOREVER = (
    hands.WORKER
    + """
print("ready", flush=True)
nth = 0
while True:
    nth += 1
    one, _ = PlatformAccount.objects.get_or_create(platform="telegram", platform_user_id=f"{sys.argv[1]}-{nth}")
    other, _ = PlatformAccount.objects.get_or_create(platform="discord", platform_user_id=f"{sys.argv[1]}-{nth}")
    pair_in_chat.offer(account=one)
    request = Pairing.objects.get(initiator=one)
    pair_in_chat.claim(account=other, secret=secrets_of(request).code)
    pair_in_chat.confirm(account=one, number=secrets_of(request).number)
"""
)


def redeem_by_processes(many: int, amount: int) -> list[int]:
    """How many of `amount` codes each of `many` processes was given, when all try all of them at the same time."""
    for hand in range(many):
        account(f"hand-{hand}", "discord")
    codes = [code(offered(account(f"alice-{nth}"))) for nth in range(amount)]
    # A hand holds one claim at a time, so each next one ends the one before.
    workers = [hands.process(_REDEEM, f"hand-{hand}-discord") for hand in range(many)]
    outputs = hands.race({worker: random.sample(codes, amount) for worker in workers})
    return [int(output[-1]) for output in outputs]


def test_processes_share_codes_without_one_given_twice() -> None:
    given = redeem_by_processes(3, 20)

    assert sum(given) == 20
    assert AuditEvent.objects.filter(kind="pairing_claimed").count() == 20


@pytest.mark.faults
def test_thirty_processes_and_five_hundred_codes_make_five_hundred_claims() -> None:
    given = redeem_by_processes(30, 500)

    assert sum(given) == 500
    assert AuditEvent.objects.filter(kind="pairing_claimed").count() == 500
    assert not Pairing.objects.filter(state="offered").exists()


def nobody_else_is_connected() -> bool:
    """PostgreSQL still ends what somebody asked for who is dead, a COMMIT for example."""
    if connection.vendor == "sqlite":
        return True
    with connection.cursor() as cursor:
        others = (
            "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
            "AND backend_type = 'client backend'"
        )
        return cursor.execute(others).fetchone() is None


@pytest.mark.faults
def test_no_kill_leaves_half_a_link() -> None:
    chance = random.Random(1)
    for life in range(20):
        workers = [hands.process(_PAIR_FOREVER, f"life-{life}-{hand}") for hand in range(2)]
        for worker in workers:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "ready\n"
        time.sleep(chance.uniform(0.02, 0.6))
        for worker in workers:
            worker.send_signal(signal.SIGKILL)
            worker.wait(30)
            for stream in (worker.stdin, worker.stdout):
                assert stream is not None
                stream.close()

    eventually(nobody_else_is_connected)
    assert AccountLink.objects.count() > 20, "they were killed before they did anything"
    assert is_whole()
    pairs_of = Counter(AccountLink.objects.values_list("user", flat=True))
    assert set(pairs_of.values()) == {2}
    # Whoever was cut off goes on from there.
    cut = Pairing.objects.filter(state="claimed", expires_at__gt=clock.now()).select_related("initiator").first()
    if cut and cut.initiator:
        assert pair_in_chat.confirm(account=cut.initiator, number=number(cut)) == Outcome.LINKED


@pytest.mark.faults
def test_ten_thousand_hostile_starts_stop_nobody() -> None:
    made = PlatformAccount.objects.bulk_create(
        [PlatformAccount(platform="telegram", platform_user_id=f"stranger-{nth}") for nth in range(10_000)],
        batch_size=1000,
    )
    started = time.monotonic()
    for one in made:
        assert pair_in_chat.offer(account=one) == Outcome.OFFERED
    print(f"10,000 starts in {time.monotonic() - started:.0f} s")
    hostile = threading.Event()

    def keep_starting() -> None:
        for one in made:
            if hostile.is_set():
                return
            pair_in_chat.offer(account=one)
            pair_in_chat.claim(account=one, secret="BBBBBBBB")

    def start_afresh() -> float:
        time.sleep(0.5)
        longest = 0.0
        for nth in range(10):
            fresh, other = account(f"alice-{nth}"), account(f"alice-{nth}", "discord")
            before = time.monotonic()
            assert pair_in_chat.offer(account=fresh) == Outcome.OFFERED
            longest = max(longest, time.monotonic() - before)
            linked(fresh, other)
        hostile.set()
        return longest

    longest = at_once(keep_starting, keep_starting, start_afresh)[2]

    assert isinstance(longest, float)
    assert longest < 1.0
    assert OutboundDelivery.objects.count() == 0


@pytest.mark.faults
def test_a_busy_database_is_an_error_and_no_half_step() -> None:
    """A sanity check of the harness itself: an error in the last statement of a step undoes the first."""
    telegram, discord = account("alice"), account("alice", "discord")
    request = claimed(discord, telegram)

    def fail(*about: object) -> None:
        raise OperationalError("the power is gone")

    notices.deliver_by(fail)
    with pytest.raises(OperationalError):
        pair_in_chat.confirm(account=telegram, number=number(request))

    assert (state(request), AccountLink.objects.count(), Pairing.objects.get().tries) == ("claimed", 0, 0)
    assert connection.vendor in {"sqlite", "postgresql"}


# --- Somebody claims a request in the moment in which it is to end


@pytest.fixture
def claimed_before_its_end(monkeypatch: pytest.MonkeyPatch) -> Pairing:
    """A request of alice's that her Discord account claims right before the next UPDATE that would end one."""
    request, end = offered(account("alice")), pairing_requests.end

    def end_too_late(*args: Any, **options: Any) -> bool:
        monkeypatch.setattr(pairing_requests, "end", end)
        assert pair_in_chat.claim(account=account("alice", "discord"), secret=code(request)) == Outcome.CLAIMED
        return end(*args, **options)

    monkeypatch.setattr(pairing_requests, "end", end_too_late)
    return request


def test_it_refuses_nothing_that_somebody_else_has_claimed(claimed_before_its_end: Pairing) -> None:
    request = claimed_before_its_end

    assert pair_in_chat.claim(account=account("mallory"), secret=code(request)) == Outcome.WRONG
    assert state(request) == "claimed"


def test_it_burns_nothing_that_somebody_has_claimed(claimed_before_its_end: Pairing) -> None:
    request = claimed_before_its_end

    assert not pair_in_chat.burn(secrets=[code(request)])
    assert state(request) == "claimed"


def end_by_cancelling() -> None:
    pair_in_chat.cancel(account=account("alice"))


def end_by_denying() -> None:
    pair_in_chat.deny(account=account("alice"), pairing_id=Pairing.objects.get().pk)


def end_by_starting_again() -> None:
    pairs.later(31, Pairing.objects.all())
    pair_in_chat.offer(account=account("alice"))


@pytest.mark.parametrize("end", [end_by_cancelling, end_by_denying, end_by_starting_again])
def test_it_tells_whoever_has_claimed_it_just_before(claimed_before_its_end: Pairing, end: Callable[[], None]) -> None:
    request = claimed_before_its_end
    with pairs.listening() as told:
        end()

        assert told.to(account("alice", "discord")) == [Template.NUMBER, Template(state(request))]


def test_it_counts_a_denial_against_whoever_has_claimed_it_just_before(claimed_before_its_end: Pairing) -> None:
    request = claimed_before_its_end

    end_by_denying()

    request.refresh_from_db()
    assert request.strike == account("alice", "discord")
