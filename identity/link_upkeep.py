"""What operators and time do to links: revoked, suspended, gone, silent, reminded of."""

from __future__ import annotations

from datetime import timedelta

from django.db import transaction
from django.db.models import Q

from identity import attachments, clock, linking, locks, notices, pairing_rows
from identity.limits import limits
from identity.models import AccountLink, PlatformAccount, UnifiedUser
from identity.notices import Template


@transaction.atomic
def revoke(*, link: AccountLink, operator: str) -> bool:
    """An operator ends a link. False if it had ended."""
    return _end_for(link, actor=operator, method="revoked")


@transaction.atomic
def suspend(*, user: UnifiedUser, operator: str) -> int:
    """An operator ends all links of a person, and what its accounts have begun or claimed: each is on its own again.

    How many links there were.
    """
    # The person is enough: nobody makes or ends a link of theirs without holding them.
    locks.lock_people((), joining=[user.pk])
    links = list(AccountLink.objects.live().filter(user=user).select_related("account", "user"))
    linking.end(links, actor=operator, method="suspended")
    pairing_rows.stop_all_of([link.account_id for link in links], actor=operator)
    return len(links)


@transaction.atomic
def account_is_gone(*, account: PlatformAccount) -> bool:
    """The platform says that there is no such account any more. Whoever gets its id next must not get its
    conversation.
    """
    locks.lock_person(account.pk)
    attachments.detach(account=account)
    pairing_rows.stop_all_of([account.pk], actor="system")
    link = AccountLink.objects.live().filter(account=account).select_related("account", "user").first()
    return link is not None and _end_for(link, actor="system", method="gone")


def suspend_silent() -> int:
    """End the links of accounts that nobody has written from for very long. How many there were.

    One transaction each: locks of several people, taken one after the other, could be waited for in a circle.
    """
    long_ago = clock.seconds_from_now(-limits().silence_seconds)
    silent = Q(account__seen_at__lte=long_ago, since__lte=long_ago)
    links = AccountLink.objects.live().filter(silent).select_related("account", "user")
    return sum(_end_for(link, actor="system", method="silent", still=silent) for link in links)


@transaction.atomic
def _end_for(link: AccountLink, *, actor: str, method: str, still: Q | None = None) -> bool:
    """Whoever ends it, it was not the account: what that has begun or claimed must not link it again."""
    locks.lock_people([link.account_id])
    if not linking.end_one(link, actor=actor, method=method, still=still):
        return False
    pairing_rows.stop_all_of([link.account_id], actor=actor)
    return True


def remind() -> int:
    """Tell people once more of links that are a day, and a week, old. How many links there were.

    One transaction each, as in `suspend_silent`.
    """
    due = AccountLink.objects.live().filter(remind_at__lte=clock.now()).select_related("user")
    return sum(_remind_of(link) for link in due)


@transaction.atomic
def _remind_of(link: AccountLink) -> bool:
    """Whoever moves `remind_at` tells: of several workers that see it due, one."""
    locks.lock_people([link.account_id])
    second = link.since + timedelta(seconds=limits().second_reminder_seconds)
    following = second if link.remind_at and link.remind_at < second else None
    mine = AccountLink.objects.filter(pk=link.pk, remind_at=link.remind_at).update(remind_at=following)
    accounts = linking.accounts_of(link.user)
    for one in accounts if mine and len(accounts) > 1 else ():  # an account alone shares with nobody
        notices.tell(one, Template.REMINDED, link=link.pk)
    return bool(mine)
