"""What operators and time do to links: revoked, suspended, gone, silent, reminded of."""

from __future__ import annotations

from datetime import timedelta

from django.db import transaction
from django.db.models import OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Greatest, Least

from identity import notices
from identity.browsers import attachments
from identity.flows import linking
from identity.links import locks
from identity.models import AccountLink, PlatformAccount, UnifiedUser
from identity.notices import Template
from identity.pairing import requests as pairing_requests
from identity.pairing.settings import limits
from identity.support import clock, portions

ENDED_AT_ONCE = 20  # links that one call ends or reminds of: each takes about ten milliseconds
LOOK_SECONDS = 30 * 86_400


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
    pairing_requests.stop_all_of([link.account_id for link in links], actor=operator)
    return len(links)


@transaction.atomic
def account_is_gone(*, account: PlatformAccount) -> bool:
    """The platform says that there is no such account any more. Whoever gets its id next must not get its
    conversation.
    """
    locks.lock_person(account.pk)
    attachments.detach(account=account)
    pairing_requests.stop_all_of([account.pk], actor="system")
    link = AccountLink.objects.live().filter(account=account).select_related("account", "user").first()
    return link is not None and _end_for(link, actor="system", method="gone")


def end_silent() -> int:
    """A portion of `suspend_silent`, of links whose time to be looked at has come. How many were looked at."""
    looked_at = _look_later()
    return looked_at if looked_at == portions.AT_ONCE else looked_at + suspend_silent()


def suspend_silent() -> int:
    """End some links of accounts that nobody has written from for very long. How many there were.

    One transaction each: locks of several people, taken one after the other, could be waited for in a circle.
    """
    silent, what = _silent(), "ending the link of a silent account"

    def end(link: AccountLink) -> bool:
        return _end_for(link, actor="system", method="silent", still=silent)

    due = [links.filter(silent).select_related("account", "user") for links in _to_be_looked_at()]
    return sum(portions.handle(what, links, end, most=ENDED_AT_ONCE) for links in due)


def _look_later() -> int:
    """Put off the look at links that are not silent yet, until they could be. How many there were."""
    active = [links.exclude(_silent()).values_list("pk", flat=True) for links in _to_be_looked_at()]
    due = next((pks for links in active if (pks := list(links[: portions.AT_ONCE]))), [])
    # At least now and then: the time after which an account is silent may be set shorter.
    later = Least(
        Greatest("since", "account__seen_at") + timedelta(seconds=limits().silence_seconds),
        clock.seconds_from_now(LOOK_SECONDS),
    )
    when = AccountLink.objects.filter(pk=OuterRef("pk")).annotate(later=later).values("later")
    return AccountLink.objects.filter(pk__in=due).update(look_at=Subquery(when)) if due else 0


def _silent() -> Q:
    long_ago = clock.seconds_from_now(-limits().silence_seconds)
    return Q(account__seen_at__lte=long_ago, since__lte=long_ago)


def _to_be_looked_at() -> tuple[QuerySet[AccountLink], QuerySet[AccountLink]]:
    """Two questions, as SQLite answers one with an OR by reading all links."""
    live = AccountLink.objects.live()
    return live.filter(look_at=None), live.filter(look_at__lte=clock.bound()).order_by("look_at")


@transaction.atomic
def _end_for(link: AccountLink, *, actor: str, method: str, still: Q | None = None) -> bool:
    """Whoever ends it, it was not the account: what that has begun or claimed must not link it again."""
    locks.lock_people([link.account_id])
    if not linking.end_one(link, actor=actor, method=method, still=still):
        return False
    pairing_requests.stop_all_of([link.account_id], actor=actor)
    return True


def remind() -> int:
    """Tell people once more of links that are a day, and a week, old. How many links there were.

    One transaction each, as in `suspend_silent`.
    """
    due = AccountLink.objects.live().filter(remind_at__lte=clock.bound()).select_related("user")
    return portions.handle("a reminder of a link", due.order_by("remind_at"), _remind_of, most=ENDED_AT_ONCE)


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
