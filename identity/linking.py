"""The links between accounts and people: made, ended and opened, each with one audit row.

Rows are locked in one order everywhere, so that nobody waits in a circle: accounts by primary key, then people by
primary key. Whoever needs several in one transaction asks `lock_people` for all of them at once, before any change.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.db import connection, transaction
from django.db.models import Q, QuerySet
from django.db.transaction import TransactionManagementError

from identity import audit, clock, notices
from identity.limits import limits
from identity.models import PLATFORM_NAME, UNIFIED_USER_ID, AccountLink, Pairing, PlatformAccount, UnifiedUser
from identity.notices import Template


@dataclass(frozen=True, slots=True)
class How:
    """How a link was made, and by whom: `pairing` by an account, or `operator` by one of them."""

    method: str
    actor: str


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
    for one in accounts_of(closed.user):
        notices.tell(one, Template.PAST_SHARED, link=closed.pk)
    return True


# --- What people do with their links. A page, command or button names a link; the rules are here.


def join(*, account: PlatformAccount, pairing: Pairing, user: UnifiedUser, since: datetime, how: How) -> AccountLink:
    """The link that a finished handshake makes. The caller holds the account and the person, and has asked policy."""
    made = AccountLink.objects.create(
        account=account,
        user=user,
        since=since,
        pairing=pairing,
        method=how.method,
        actor=how.actor,
        remind_at=since + timedelta(seconds=limits().first_reminder_seconds),
    )
    audit.record(kind="linked", actor=how.actor, account=account, user=user, method=how.method, link=made.pk)
    return made


@transaction.atomic
def leave(*, account: PlatformAccount, platform: str = "") -> bool:
    """`/unlink`: take this account out, or the one that the person has on `platform`. False if there is none."""
    wanted = Q(account__platform=platform) if platform else Q(account=account)
    return _end_some(account, wanted, method="unlink")


@transaction.atomic
def undo(*, account: PlatformAccount, pairing_id: UUID) -> bool:
    """Take back what one handshake linked."""
    return _end_some(account, Q(pairing=pairing_id), method="undo")


@transaction.atomic
def disown(*, account: PlatformAccount, link_id: int | None = None) -> bool:
    """ "That wasn't me": end a link of the person, the newest other one if none is named, and keep from every agent
    what anybody said while it lived.
    """
    wanted = Q(pk=link_id) if link_id else ~Q(account=account)
    return _end_some(account, wanted, method="disowned", newest_only=True)


def _end_some(account: PlatformAccount, wanted: Q, *, method: str, newest_only: bool = False) -> bool:
    """End those links of the account's person that are wanted and that the account may end."""
    theirs = _held_links_of(account)
    own = next((link for link in theirs if link.account_id == account.pk), None)
    named = set(AccountLink.objects.filter(wanted, pk__in=[link.pk for link in theirs]).values_list("pk", flat=True))
    asked = [link for link in theirs if link.pk in named][: 1 if newest_only else None]
    ended = [link for link in asked if own and may_end(own, link)]
    for link in ended:
        _end(link, actor=audit.actor(account), method=method, disowned=method == "disowned")
    if not ended:
        notices.tell(account, Template.TOO_NEW if asked else Template.NOTHING_THERE)
    return bool(ended)


def may_end(own: AccountLink, other: AccountLink) -> bool:
    """One's own link always, and any that is not older than it; older ones once the own one has lived for a day."""
    grown = own.since + timedelta(seconds=limits().new_link_seconds) <= clock.read()
    return other.pk == own.pk or other.since >= own.since or grown


def _held_links_of(account: PlatformAccount) -> list[AccountLink]:
    """The live links of the account's person, newest first, with all their rows held until the transaction ends."""
    live = AccountLink.objects.live()
    user_id = live.filter(account=account).values_list("user_id", flat=True).first()
    theirs = live.filter(user=user_id) if user_id else live.filter(account=account)
    lock_people({account.pk, *theirs.values_list("account_id", flat=True)})
    return list(theirs.select_related("account", "user").order_by("-since", "-pk"))


def _end(link: AccountLink, *, actor: str, method: str, disowned: bool = False) -> None:
    """End one live link, and tell all accounts of the person, also the one that leaves."""
    live = AccountLink.objects.live().filter(pk=link.pk)
    if not live.update(ended_at=clock.now(), disowned=disowned, remind_at=None):
        return
    audit.record(kind="unlinked", actor=actor, account=link.account, user=link.user, method=method, link=link.pk)
    for one in (link.account, *accounts_of(link.user)):
        notices.tell(one, Template.UNLINKED, link=link.pk)


def accounts_of(user: UnifiedUser) -> list[PlatformAccount]:
    """All accounts that are linked to a person now, in the order in which they came."""
    live = AccountLink.objects.live().filter(user=user).select_related("account").order_by("since", "pk")
    return [link.account for link in live]


# --- What operators and time do


@transaction.atomic
def revoke(*, link: AccountLink, operator: str) -> bool:
    """An operator ends a link. False if it had ended."""
    return _end_for(link, actor=operator, method="revoked")


@transaction.atomic
def suspend(*, user: UnifiedUser, operator: str) -> int:
    """An operator ends all links of a person: each account is on its own again. How many there were."""
    lock_people((), joining=[user.pk])  # enough: nobody makes or ends a link of a person without holding the person
    links = list(AccountLink.objects.live().filter(user=user).select_related("account", "user"))
    for link in links:
        _end(link, actor=operator, method="suspended")
    return len(links)


@transaction.atomic
def account_is_gone(*, account: PlatformAccount) -> bool:
    """The platform says that there is no such account any more. Whoever gets its id next must not get its
    conversation.
    """
    link = AccountLink.objects.live().filter(account=account).select_related("account", "user").first()
    return link is not None and _end_for(link, actor="system", method="gone")


def suspend_silent() -> int:
    """End the links of accounts that nobody has written from for very long. How many there were.

    One transaction each: locks of several people, taken one after the other, could be waited for in a circle.
    """
    silent = clock.seconds_from_now(-limits().silence_seconds)
    links = AccountLink.objects.live().filter(account__seen_at__lte=silent, since__lte=silent)
    return sum(_end_for(link, actor="system", method="silent") for link in links.select_related("account", "user"))


@transaction.atomic
def _end_for(link: AccountLink, *, actor: str, method: str) -> bool:
    lock_people([link.account_id])
    still = AccountLink.objects.live().filter(pk=link.pk).exists()
    if still:
        _end(link, actor=actor, method=method)
    return still


@transaction.atomic
def remind() -> int:
    """Tell people once more of links that are a day, and a week, old. How many links there were."""
    due = AccountLink.objects.live().filter(remind_at__lte=clock.now()).select_related("user")
    return sum(_remind_of(link) for link in due)


def _remind_of(link: AccountLink) -> bool:
    """Whoever moves `remind_at` tells: of several workers that see it due, one."""
    second = link.since + timedelta(seconds=limits().second_reminder_seconds)
    following = second if link.remind_at and link.remind_at < second else None
    mine = AccountLink.objects.filter(pk=link.pk, remind_at=link.remind_at).update(remind_at=following)
    for one in accounts_of(link.user) if mine else ():
        notices.tell(one, Template.REMINDED, link=link.pk)
    return bool(mine)


# --- Accounts and people by their ids


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
