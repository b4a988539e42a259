from __future__ import annotations

from functools import partial

import pytest
from django.db import connection

from sessions_app import receiver_leases
from sessions_app.models import ReceiverLease
from tests.sessions_app.racing import at_once

pytestmark = pytest.mark.django_db

KEY = receiver_leases.key_of("123:secret")


def run_out() -> None:
    ReceiverLease.objects.update(lease_until="2001-01-01T00:00Z")


def test_one_receives_and_another_does_not() -> None:
    assert receiver_leases.take(KEY, "first")
    assert not receiver_leases.take(KEY, "second")
    assert receiver_leases.take(KEY, "first")
    assert receiver_leases.renew(KEY, "first")
    assert not receiver_leases.renew(KEY, "second")


def test_bots_do_not_wait_for_each_other() -> None:
    assert receiver_leases.take(KEY, "first")
    assert receiver_leases.take(receiver_leases.key_of("456:secret"), "second")


def test_another_takes_over_what_ran_out_or_was_given_back() -> None:
    receiver_leases.take(KEY, "first")
    run_out()
    assert receiver_leases.take(KEY, "second")
    assert not receiver_leases.renew(KEY, "first")
    receiver_leases.release(KEY, "first")
    assert not receiver_leases.take(KEY, "third")
    receiver_leases.release(KEY, "second")
    assert receiver_leases.take(KEY, "third")


def test_the_token_is_nowhere() -> None:
    receiver_leases.take(KEY, "first")
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT * FROM {ReceiverLease._meta.db_table}")
        assert "secret" not in repr(cursor.fetchall())


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("is_new", [True, False])
def test_of_all_who_try_at_once_one_receives(is_new: bool) -> None:
    if not is_new:
        receiver_leases.take(KEY, "before")
        run_out()
    done, raised = at_once(*(partial(receiver_leases.take, KEY, f"owner-{number}") for number in range(6)))

    assert sorted(map(bool, done)) == [False] * 5 + [True]
    assert not raised
