"""Whoever ends what is attached, or tells of links, takes rows in one order, so that two who come from both sides never
wait in a circle.

SQLite has one writer at a time, so all of this is about PostgreSQL.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from uuid import UUID

import pytest
from django.db import connection, connections, transaction

from identity.browsers import attachments
from identity.browsers import sessions as browser_sessions
from identity.flows import link_maintenance, linking
from identity.models import AccountLink, Browser, BrowserAccount, Pairing, PlatformAccount
from identity.support import clock
from tests.identity import pairs
from tests.identity.pairs import account

pytestmark = pytest.mark.django_db(transaction=True)

FIRST, SECOND = Browser(pk=UUID(int=1), name="Firefox"), Browser(pk=UUID(int=2), name="Safari")


@pytest.fixture(autouse=True)
def postgresql_alone() -> None:
    if connection.vendor != "postgresql":
        pytest.skip("SQLite has one writer at a time")


def attach(*, to: Browser, who: PlatformAccount) -> BrowserAccount:
    Browser.objects.get_or_create(pk=to.pk, name=to.name)
    now = clock.read()
    request = Pairing.objects.create(
        initiator_browser=to, responder=who, state="attached", expires_at=now, last_at=now, ended_at=now
    )
    return attachments.attach(browser=to, account=who, pairing=request)


def is_somebody_waiting() -> bool:
    """For a row that this transaction holds."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY(pg_blocking_pids(pid))")
        return cursor.fetchone() is not None


def does_it_wait_for(
    held: object, step: Callable[[], object], *, leaving: BrowserAccount | AccountLink | Pairing
) -> bool:
    """Whether `step`, when somebody has `held`, waits for that and has not taken `leaving` before."""

    def take_it() -> None:
        step()
        connections.close_all()

    waiting = threading.Thread(target=take_it)
    with transaction.atomic():
        type(held)._default_manager.select_for_update(no_key=True).get(pk=held.pk)  # type: ignore[attr-defined]
        waiting.start()
        until = time.monotonic() + 5
        while not is_somebody_waiting() and time.monotonic() < until:
            time.sleep(0.02)
        is_waiting = is_somebody_waiting()
        rest = type(leaving)._default_manager.select_for_update(no_key=True, skip_locked=True)
        is_free = rest.filter(pk__in=[leaving.pk]).exists()
    waiting.join(10)
    return is_waiting and is_free


def move(one: BrowserAccount) -> None:
    """Behind the others, where a statement without an order finds it last."""
    BrowserAccount.objects.filter(pk=one.pk).update(confirmed_at=clock.now())


def two_linked() -> tuple[PlatformAccount, PlatformAccount, Pairing]:
    telegram, discord = account("alice"), account("alice", "discord")
    with pairs.listening():
        return telegram, discord, pairs.linked(telegram, discord)


def test_undoing_takes_them_in_order() -> None:
    telegram, discord, request = two_linked()
    one, other = attach(to=FIRST, who=telegram), attach(to=FIRST, who=discord)

    assert does_it_wait_for(one, lambda: linking.undo(account=telegram, pairing_id=request.pk), leaving=other)


def test_suspending_takes_them_in_order() -> None:
    telegram, discord, _ = two_linked()
    one, other = attach(to=FIRST, who=discord), attach(to=FIRST, who=telegram)
    person = pairs.live_link(telegram).user

    assert does_it_wait_for(one, lambda: link_maintenance.suspend(user=person, operator="carol"), leaving=other)


@pytest.mark.parametrize("step", [browser_sessions.touch, browser_sessions.sign_out], ids=["use", "signing out"])
def test_a_browser_takes_them_in_order(step: Callable[[Browser], object]) -> None:
    one, other = attach(to=FIRST, who=account("alice")), attach(to=FIRST, who=account("alice", "discord"))
    move(one)

    assert does_it_wait_for(one, lambda: step(FIRST), leaving=other)


def test_signing_out_everywhere_takes_them_in_order() -> None:
    alice = account("alice")
    one, other = attach(to=SECOND, who=alice), attach(to=FIRST, who=alice)

    assert does_it_wait_for(one, lambda: browser_sessions.sign_out_everywhere(alice), leaving=other)


def test_an_account_that_is_gone_is_held_before_what_it_is_attached_to() -> None:
    alice, _, _ = two_linked()
    only = attach(to=FIRST, who=alice)

    assert does_it_wait_for(alice, lambda: link_maintenance.account_is_gone(account=alice), leaving=only)


@pytest.mark.parametrize("free", ["alice", "bob"])
def test_reminding_holds_one_person_at_a_time_and_before_the_link(free: str) -> None:
    alice, bob = pairs.person("alice", account("alice")), pairs.person("bob", account("bob"))
    AccountLink.objects.update(remind_at=clock.now())

    assert does_it_wait_for(
        bob, link_maintenance.remind, leaving=AccountLink.objects.get(user={"alice": alice, "bob": bob}[free])
    )


ENDS: dict[str, Callable[[PlatformAccount], object]] = {
    "signing out": lambda alice: browser_sessions.sign_out(FIRST),
    "gone": lambda alice: link_maintenance.account_is_gone(account=alice),
    "suspended": lambda alice: link_maintenance.suspend(user=pairs.live_link(alice).user, operator="carol"),
    "revoked": lambda alice: link_maintenance.revoke(link=pairs.live_link(alice), operator="carol"),
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_what_is_attached_is_held_before_any_request(end: Callable[[PlatformAccount], object]) -> None:
    alice, _, _ = two_linked()
    one = attach(to=FIRST, who=alice)
    soon = clock.seconds_from_now(60)
    request = Pairing.objects.create(initiator=alice, responder_browser=FIRST, expires_at=soon, last_at=soon)

    assert does_it_wait_for(one, lambda: end(alice), leaving=request)
    request.refresh_from_db()
    assert request.state == "cancelled"
