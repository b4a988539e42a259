"""Linking adds a row, unlinking ends it, both leave one audit row, and no number of hands makes two live links."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from itertools import pairwise

import pytest
from django.db import IntegrityError, connection, connections, transaction
from django.db.transaction import TransactionManagementError

from identity import audit
from identity.flows import linking
from identity.links import locks
from identity.models import AccountLink, AuditEvent, PlatformAccount, UnifiedUser
from identity.support import clock

HANDS = 8


def link(platform_user_id: str = "12345", unified_user_id: str = "alice", platform: str = "telegram") -> AccountLink:
    return linking.link(
        platform=platform,
        platform_user_id=platform_user_id,
        unified_user_id=unified_user_id,
        method="pairing",
        actor="operator",
    )


def unlink(platform_user_id: str = "12345", *, disown: bool = False) -> bool:
    return linking.unlink(platform="telegram", platform_user_id=platform_user_id, actor="operator", disown=disown)


@contextmanager
def threads() -> Iterator[Callable[..., Future[object]]]:
    """Gives `start(function, *args)`; every call gets a database connection of its own, closed afterwards."""

    def with_own_connection(function: Callable[..., object], *args: object) -> object:
        try:
            return function(*args)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(HANDS) as pool:
        yield lambda function, *args: pool.submit(with_own_connection, function, *args)


def at_once(function: Callable[[int], object]) -> list[object]:
    barrier = threading.Barrier(HANDS)

    def after_all_are_there(number: int) -> object:
        barrier.wait(10)
        return function(number)

    with threads() as start:
        started = [start(after_all_are_there, number) for number in range(HANDS)]
    return [future.result() for future in started]


# --- link


@pytest.mark.django_db
def test_it_makes_account_person_link_and_one_audit_row() -> None:
    before = clock.read()
    made = linking.link(
        platform="telegram",
        platform_user_id="12345",
        unified_user_id="alice",
        method="pairing",
        actor="operator",
        display_name="Alice B.",
    )

    assert before <= made.since <= clock.read()
    assert (made.ended_at, made.method, made.actor) == (None, "pairing", "operator")
    assert (made.user.unified_user_id, made.user.display_name) == ("alice", "Alice B.")
    event = AuditEvent.objects.get()
    assert (event.kind, event.actor, event.unified_user_id) == ("linked", "operator", "alice")
    assert event.account_hash == audit.account_hash(made.account)
    assert event.details == {"method": "pairing", "link": made.pk}


@pytest.mark.django_db
def test_it_changes_nothing_when_the_person_is_the_same() -> None:
    first = link()

    assert link() == first
    assert AccountLink.objects.get().since == first.since
    assert AuditEvent.objects.count() == 1


@pytest.mark.django_db
def test_it_ends_the_link_to_the_person_before() -> None:
    first = link("12345", "alice")

    second = link("12345", "bob")

    first.refresh_from_db()
    assert first.ended_at is not None
    assert first.since <= first.ended_at <= second.since
    assert AccountLink.objects.live().get() == second
    assert AuditEvent.objects.latest("pk").details == {"method": "pairing", "link": second.pk, "ended_link": first.pk}


@pytest.mark.django_db
def test_it_links_again_with_a_new_row() -> None:
    first = link()
    unlink()

    assert link() != first
    assert AccountLink.objects.count() == 2


@pytest.mark.django_db
def test_it_does_not_rename_a_person_who_is_known() -> None:
    UnifiedUser.objects.create(unified_user_id="alice", display_name="Alice B.")

    linking.link(
        platform="slack",
        platform_user_id="U-A",
        unified_user_id="alice",
        method="pairing",
        actor="operator",
        display_name="Mallory",
    )

    assert UnifiedUser.objects.get().display_name == "Alice B."


@pytest.mark.django_db
@pytest.mark.parametrize(
    "unified_user_id",
    ["", " ", "discord:1", "bot_telegram_1", "alice b", "alice\n", "\x00", "ali\u200bce", "\ud800", "a" * 151],
)
def test_it_refuses_an_id_that_is_no_persons(unified_user_id: str) -> None:
    with pytest.raises(ValueError, match="is no unified user id"):
        link("12345", unified_user_id)

    assert not PlatformAccount.objects.exists()


@pytest.mark.django_db
@pytest.mark.parametrize("platform", ["", "Telegram", "tele gram", "telegram\n", "1telegram", "a:b", "t" * 41])
def test_it_refuses_a_name_that_is_no_platforms(platform: str) -> None:
    with pytest.raises(ValueError, match="is no platform name"):
        link(platform=platform)


@pytest.mark.django_db
@pytest.mark.parametrize("platform_user_id", ["", " ", "1" * 191, "1\x002", "\udc00"])
def test_it_refuses_an_id_that_no_platform_sends(platform_user_id: str) -> None:
    with pytest.raises(ValueError, match="is no id on a platform"):
        link(platform_user_id)


# --- unlink and share


@pytest.mark.django_db
def test_it_ends_the_link_with_one_audit_row() -> None:
    made = link()

    assert unlink()

    made.refresh_from_db()
    assert made.ended_at is not None
    assert not made.disowned
    event = AuditEvent.objects.latest("pk")
    assert (event.kind, event.unified_user_id) == ("unlinked", "alice")
    assert event.details == {"method": "resolver", "link": made.pk, "disowned": False}


@pytest.mark.django_db
def test_it_disowns_only_the_link_that_lived() -> None:
    first = link()
    unlink()
    second = link("12345", "mallory")

    assert unlink(disown=True)

    first.refresh_from_db()
    second.refresh_from_db()
    assert (first.disowned, second.disowned) == (False, True)


@pytest.mark.django_db
def test_the_database_keeps_a_live_link_from_being_disowned() -> None:
    link()

    with pytest.raises(IntegrityError, match="link_disowned_has_ended"), transaction.atomic():
        AccountLink.objects.update(disowned=True)


@pytest.mark.django_db
def test_it_does_nothing_for_an_account_that_is_nobodys() -> None:
    link()
    unlink()
    ended_at = AccountLink.objects.get().ended_at

    assert not unlink(disown=True)
    assert not unlink("666")
    assert AccountLink.objects.get().ended_at == ended_at
    assert not PlatformAccount.objects.filter(platform_user_id="666").exists()
    assert AuditEvent.objects.count() == 2


@pytest.mark.django_db
def test_it_shares_the_past_of_one_account_once() -> None:
    telegram, discord = link(), link("snowflake-1", "alice", "discord")

    assert linking.share_past(account=telegram.account, actor="operator")
    assert not linking.share_past(account=telegram.account, actor="operator")

    telegram.refresh_from_db()
    discord.refresh_from_db()
    assert (telegram.shares_past, discord.shares_past) == (True, False)
    event = AuditEvent.objects.latest("pk")
    assert (event.kind, event.unified_user_id, event.details) == ("past_shared", "alice", {"link": telegram.pk})
    assert AuditEvent.objects.count() == 3


@pytest.mark.django_db
def test_it_shares_nothing_of_an_ended_link() -> None:
    made = link()
    unlink()

    assert not linking.share_past(account=made.account, actor="operator")
    made.refresh_from_db()
    assert not made.shares_past


# --- locks


@pytest.mark.django_db
def test_it_tells_whose_the_held_account_is() -> None:
    made = link()

    with transaction.atomic():
        assert locks.lock_person(made.account.pk) == made.user.pk
        unlink()
        assert locks.lock_person(made.account.pk) is None
        with pytest.raises(PlatformAccount.DoesNotExist):
            locks.lock_person(0)


@pytest.mark.django_db(transaction=True)
def test_it_locks_nothing_outside_a_transaction() -> None:
    made = link()

    with pytest.raises(TransactionManagementError, match="need a transaction"):
        locks.lock_person(made.account.pk)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("change", [lambda: link("12345", "bob"), unlink], ids=["link", "unlink"])
def test_it_makes_a_change_wait_for_who_holds_the_person(change: Callable[[], object]) -> None:
    made = link()

    with threads() as start:
        with transaction.atomic():
            locks.lock_person(made.account.pk)
            changed = start(change)
            time.sleep(0.3)
            assert not changed.done()
        changed.result(10)

    made.refresh_from_db()
    assert made.ended_at is not None


@pytest.mark.django_db(transaction=True)
def test_it_looks_again_after_waiting_for_the_person() -> None:
    made, held = link(), threading.Event()

    def end_while_holding_only_the_person() -> None:
        with transaction.atomic():
            UnifiedUser.objects.select_for_update(no_key=True).get(pk=made.user.pk)
            AccountLink.objects.live().update(ended_at=clock.now())
            held.set()
            time.sleep(0.3)

    with threads() as start:
        ended = start(end_while_holding_only_the_person)
        held.wait(10)
        with transaction.atomic():
            assert locks.lock_person(made.account.pk) is None
        ended.result(10)


@pytest.mark.django_db(transaction=True)
def test_it_lets_others_write_rows_that_point_to_the_held_ones() -> None:
    if connection.vendor != "postgresql":
        pytest.skip("SQLite has one writer at a time")
    made = link()

    def add_a_row() -> AccountLink:
        return AccountLink.objects.create(
            account=made.account, user=made.user, ended_at=clock.now(), method="pairing", actor="operator"
        )

    with threads() as start, transaction.atomic():
        locks.lock_person(made.account.pk)
        assert start(add_a_row).result(5)


# --- many hands at once


def lives(account: PlatformAccount) -> list[tuple[datetime, datetime | None]]:
    return list(AccountLink.objects.filter(account=account).order_by("pk").values_list("since", "ended_at"))


@pytest.mark.django_db(transaction=True)
def test_it_leaves_one_live_link_when_many_link_one_account_to_different_people() -> None:
    for number in range(10):  # the account is new each time, so that the hands also race to make it
        at_once(lambda hand, number=number: link(f"id-{number}", f"user-{hand}"))  # type: ignore[misc]

        account = PlatformAccount.objects.get(platform_user_id=f"id-{number}")
        assert AccountLink.objects.live().filter(account=account).count() == 1
        moments = lives(account)
        assert len(moments) == HANDS
        assert all(ended and ended <= since for (_, ended), (since, _) in pairwise(moments))
    assert AuditEvent.objects.count() == 10 * HANDS


@pytest.mark.django_db(transaction=True)
def test_it_makes_one_of_everything_when_many_make_the_same_link() -> None:
    made = at_once(lambda hand: link())

    assert len({link.pk for link in made if isinstance(link, AccountLink)}) == 1
    assert PlatformAccount.objects.count() == UnifiedUser.objects.count() == AccountLink.objects.count() == 1
    assert AuditEvent.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_it_never_waits_in_a_circle() -> None:
    accounts = [link(f"id-{number}", f"user-{number % 2}").account for number in range(4)]

    def meddle(hand: int) -> None:
        for step in range(20):
            account = accounts[(hand + step) % 4]
            if hand % 4 == 0:
                link(account.platform_user_id, f"user-{(hand // 4 + step) % 2}")
            elif hand % 4 == 1:
                unlink(account.platform_user_id)
            else:
                with transaction.atomic():
                    wanted = [account, accounts[(hand + step * 3) % 4]]
                    locks.lock_people([account.pk for account in wanted])
                    locks.lock_person(wanted[0].pk)

    at_once(meddle)

    for account in accounts:
        assert AccountLink.objects.live().filter(account=account).count() <= 1


@pytest.mark.django_db
def test_it_prefers_no_account_of_somebody_else() -> None:
    alice, mallory = link().account, link("666", "mallory").account

    assert not linking.prefer(account=alice, preferred=mallory)
    assert linking.prefer(account=alice, preferred=alice)
    assert UnifiedUser.objects.get(unified_user_id="alice").preferred == alice


@pytest.mark.django_db
def test_it_lets_a_new_link_prefer_nothing_for_a_day() -> None:
    old, new = link("1").account, link("2").account
    mine = AccountLink.objects.filter(account=new)
    AccountLink.objects.filter(account=old).update(since=clock.seconds_from_now(-2 * 86_400))
    linking.prefer(account=old, preferred=old)

    for wish in (new, None):
        assert not linking.prefer(account=new, preferred=wish)
    assert UnifiedUser.objects.get(unified_user_id="alice").preferred == old
    mine.update(since=clock.seconds_from_now(-86_400))
    assert linking.prefer(account=new, preferred=new)


@pytest.mark.django_db
def test_it_lets_links_of_one_moment_prefer() -> None:
    one, other = link("1").account, link("2").account
    AccountLink.objects.update(since=clock.read())

    assert linking.prefer(account=one, preferred=other)
    assert linking.prefer(account=other, preferred=one)
