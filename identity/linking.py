"""The links between accounts and people: made, ended and opened, each with one audit row.

Rows are locked in one order everywhere, so that nobody waits in a circle: accounts by primary key, then people by
primary key. Whoever needs several in one transaction asks `lock_people` for all of them at once, before any change.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from django.db import connection, transaction
from django.db.models import QuerySet
from django.db.transaction import TransactionManagementError

from identity import audit, clock
from identity.models import PLATFORM_NAME, UNIFIED_USER_ID, AccountLink, PlatformAccount, UnifiedUser


def lock_person(account_id: int) -> int | None:
    """Hold the account, and its person if it has one, until this transaction ends.

    Returns the primary key of the UnifiedUser whose the account is, and stays while this is held; None if nobody's.
    Raises PlatformAccount.DoesNotExist, and TransactionManagementError outside a transaction.
    """
    return lock_people([account_id]).get(account_id)


def lock_people(account_ids: Iterable[int], *, joining: Iterable[int] = ()) -> dict[int, int]:
    """Hold the accounts, their people, and the people `joining` (primary keys), until this transaction ends.

    Returns account id to user id, for the linked ones. Raises as `lock_person` does.
    """
    if not connection.in_atomic_block:  # SQLite would pretend to lock
        raise TransactionManagementError("Locks need a transaction around them.")
    accounts, others = set(account_ids), set(joining)
    if _lock(PlatformAccount.objects.all(), accounts) != accounts:
        raise PlatformAccount.DoesNotExist("There is no such account to lock.")
    while True:
        people = _people_of(accounts)
        _lock(UnifiedUser.objects.all(), others.union(people.values()))
        # Somebody who holds only the person may have ended a link while we waited for the person.
        if not people or _people_of(accounts) == people:
            return people


def _lock(rows: QuerySet[PlatformAccount] | QuerySet[UnifiedUser], ids: set[int]) -> set[int]:
    # no_key: rows that point here, new messages for one, do not wait. PostgreSQL locks in the order asked for.
    held = rows.select_for_update(no_key=True).filter(pk__in=ids).order_by("pk")
    return set(held.values_list("pk", flat=True)) if ids else set()


def _people_of(account_ids: set[int]) -> dict[int, int]:
    return dict(AccountLink.objects.live().filter(account__in=account_ids).values_list("account_id", "user_id"))


@transaction.atomic
def link(
    *,
    platform: str,
    platform_user_id: str,
    unified_user_id: str,
    method: str,
    actor: str,
    display_name: str = "",
) -> AccountLink:
    """Make the account this person's from now on. Account and person (then so called) are made if they are missing.

    The same person again changes nothing; another person's link is ended. Returns the live link. Raises ValueError for
    a platform, an id or a unified user id that cannot be.
    """
    account = account_for(platform=platform, platform_user_id=platform_user_id)
    user = person_for(unified_user_id=unified_user_id, display_name=display_name)
    owner = lock_people([account.pk], joining=[user.pk]).get(account.pk)
    live = AccountLink.objects.live().filter(account=account)
    if owner == user.pk:
        return live.get()
    details = {"ended_link": live.get().pk} if owner else {}
    live.update(ended_at=clock.now())
    made = AccountLink.objects.create(account=account, user=user, method=method, actor=actor)
    made.refresh_from_db(fields=["since"])
    audit.record(kind="linked", actor=actor, account=account, user=user, method=method, link=made.pk, **details)
    return made


@transaction.atomic
def unlink(*, platform: str, platform_user_id: str, actor: str, method: str = "resolver", disown: bool = False) -> bool:
    """Make the account nobody's. False if it was nobody's already.

    `disown` says that the link was not the person's doing: what the account said in it is kept from every agent.
    """
    account = PlatformAccount.objects.filter(platform=platform, platform_user_id=platform_user_id).first()
    owner = lock_person(account.pk) if account else None
    if account is None or owner is None:
        return False
    live = AccountLink.objects.live().filter(account=account).select_related("user").get()
    AccountLink.objects.filter(pk=live.pk).update(ended_at=clock.now(), disowned=disown)
    audit.record(
        kind="unlinked", actor=actor, account=account, user=live.user, method=method, link=live.pk, disowned=disown
    )
    return True


@transaction.atomic
def share_past(*, account: PlatformAccount, actor: str) -> bool:
    """Let the person's other accounts read what this one said before it was linked.

    False, and no audit row, if it does already or is nobody's.
    """
    lock_person(account.pk)
    closed = AccountLink.objects.live().filter(account=account, shares_past=False).select_related("user").first()
    if closed is None:
        return False
    AccountLink.objects.filter(pk=closed.pk).update(shares_past=True)
    audit.record(kind="past_shared", actor=actor, account=account, user=closed.user, link=closed.pk)
    return True


def account_for(*, platform: str, platform_user_id: str) -> PlatformAccount:
    """The account with this id, made if it is missing. Raises ValueError as `check_account` does."""
    check_account(platform, platform_user_id)
    account, _ = PlatformAccount.objects.get_or_create(platform=platform, platform_user_id=platform_user_id)
    return account


def person_for(*, unified_user_id: str, display_name: str = "") -> UnifiedUser:
    """The person with this id, made (and then so called) if missing. Raises ValueError as `check_person` does."""
    check_person(unified_user_id)
    named = {"display_name": display_name[:150]}
    user, _ = UnifiedUser.objects.get_or_create(unified_user_id=unified_user_id, defaults=named)
    return user


def check_account(platform: str, platform_user_id: str) -> None:
    """Raises ValueError for what no platform would send, or no database keep."""
    if not re.fullmatch(PLATFORM_NAME, platform) or len(platform) > 40:
        raise ValueError(f"{platform!r} is no platform name: up to 40 of a-z, 0-9 and -, and a letter first.")
    if not platform_user_id.strip() or len(platform_user_id) > 190 or not _storable(platform_user_id):
        raise ValueError(f"{platform_user_id!r} is no id on a platform: 1 to 190 characters.")


def check_person(unified_user_id: str) -> None:
    """Raises ValueError for what could be mistaken for another key, or looks like another person's."""
    fits = re.match(UNIFIED_USER_ID, unified_user_id) and len(unified_user_id) <= 150
    if not fits or not unified_user_id.isprintable():
        raise ValueError(
            f"{unified_user_id!r} is no unified user id: 1 to 150 visible characters, "
            'without spaces and ":", and not starting with "bot_".'
        )


def _storable(text: str) -> bool:
    """PostgreSQL has no NUL in text, and neither engine half a surrogate pair."""
    return "\0" not in text and not any("\ud800" <= char <= "\udfff" for char in text)
