"""Locks on accounts and people, until a transaction ends.

Rows are locked in one order everywhere, so that there is no deadlock: accounts by primary key, then people by primary
key. A caller that needs several in one transaction locks all of them with one `lock_people`, before any change.
"""

from __future__ import annotations

from collections.abc import Iterable

from django.db import connection
from django.db.models import QuerySet
from django.db.transaction import TransactionManagementError

from identity.models import AccountLink, PlatformAccount, UnifiedUser


def lock_person(account_id: int) -> int | None:
    """Lock the account, and its person if it has one, until this transaction ends.

    Returns the primary key of the person, who stays the account's while the lock is held; None if it has no link.
    Raises PlatformAccount.DoesNotExist, and TransactionManagementError outside a transaction.
    """
    return lock_people([account_id]).get(account_id)


def lock_people(account_ids: Iterable[int], *, joining: Iterable[int] = ()) -> dict[int, int]:
    """Lock the accounts, their people, and the people `joining` (primary keys), until this transaction ends.

    Returns a mapping of account to person, by primary key, for linked accounts. Raises as `lock_person` does.
    """
    if not connection.in_atomic_block:  # SQLite would pretend to lock
        raise TransactionManagementError("Locks need a transaction around them.")
    accounts, others = set(account_ids), set(joining)
    if _lock(PlatformAccount.objects.all(), accounts) != accounts:
        raise PlatformAccount.DoesNotExist("There is no such account to lock.")
    while True:
        people = _people_of(accounts)
        _lock(UnifiedUser.objects.all(), others.union(people.values()))
        # Another transaction that held only the person may have ended a link while we waited for the person.
        if not people or _people_of(accounts) == people:
            return people


def _lock(rows: QuerySet[PlatformAccount] | QuerySet[UnifiedUser], ids: set[int]) -> set[int]:
    # no_key: inserts of rows that point here, such as messages, do not wait. PostgreSQL locks in the given order.
    held = rows.select_for_update(no_key=True).filter(pk__in=ids).order_by("pk")
    return set(held.values_list("pk", flat=True)) if ids else set()


def _people_of(account_ids: set[int]) -> dict[int, int]:
    return dict(AccountLink.objects.live().filter(account__in=account_ids).values_list("account_id", "user_id"))
