"""What operators and time do to links: revoke, suspend, end silent or deleted accounts' links, remind."""

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
LOOK_SECONDS = 30 * 86_400  # the longest time between two looks at a link


@transaction.atomic
def revoke(*, link: AccountLink, operator: str) -> bool:
    """End a link for an operator. False if it had ended."""
    return _end_for(link, actor=operator, method="revoked")


@transaction.atomic
def suspend(*, user: UnifiedUser, operator: str) -> int:
    """End all links of a person, and the requests of its accounts, for an operator. Returns how many links ended."""
    # Locking the person is enough: a link is made or ended only while its person is locked.
    locks.lock_people((), joining=[user.pk])
    links = list(AccountLink.objects.live().filter(user=user).select_related("account", "user"))
    linking.end(links, actor=operator, method="suspended")
    pairing_requests.stop_all_of([link.account_id for link in links], actor=operator)
    return len(links)


@transaction.atomic
def account_is_gone(*, account: PlatformAccount) -> bool:
    """End the link, browsers and requests of an account that the platform has deleted. False if it had no link.

    The platform may give the id to another user, who must not get the conversation.
    """
    locks.lock_person(account.pk)
    attachments.detach(account=account)
    pairing_requests.stop_all_of([account.pk], actor="system")
    link = AccountLink.objects.live().filter(account=account).select_related("account", "user").first()
    return link is not None and _end_for(link, actor="system", method="gone")


def end_silent() -> int:
    """Look at a portion of the links that are due, and end those of silent accounts. Returns how many it looked at."""
    active = [links.exclude(_silent()).values_list("pk", flat=True) for links in _to_be_looked_at()]
    due = next((pks for links in active if (pks := list(links[: portions.AT_ONCE]))), [])
    # Not later than LOOK_SECONDS: the time after which an account is silent may be set shorter.
    later = Least(
        Greatest("since", "account__seen_at") + timedelta(seconds=limits().silence_seconds),
        clock.seconds_from_now(LOOK_SECONDS),
    )
    when = AccountLink.objects.filter(pk=OuterRef("pk")).annotate(later=later).values("later")
    put_off = AccountLink.objects.filter(pk__in=due).update(look_at=Subquery(when)) if due else 0
    return put_off if put_off == portions.AT_ONCE else put_off + suspend_silent()


def suspend_silent() -> int:
    """End some links of accounts that have not written for `silence_seconds`. Returns how many.

    Each in a transaction of its own: locks of several people, taken one after the other, could deadlock.
    """
    silent, what = _silent(), "ending the link of a silent account"

    def end(link: AccountLink) -> bool:
        return _end_for(link, actor="system", method="silent", still=silent)

    due = [links.filter(silent).select_related("account", "user") for links in _to_be_looked_at()]
    return sum(portions.handle(what, links, end, most=ENDED_AT_ONCE) for links in due)


def _silent() -> Q:
    long_ago = clock.seconds_from_now(-limits().silence_seconds)
    return Q(account__seen_at__lte=long_ago, since__lte=long_ago)


def _to_be_looked_at() -> tuple[QuerySet[AccountLink], QuerySet[AccountLink]]:
    """Return two querysets: SQLite answers one with OR by reading all links."""
    live = AccountLink.objects.live()
    return live.filter(look_at=None), live.filter(look_at__lte=clock.bound()).order_by("look_at")


@transaction.atomic
def _end_for(link: AccountLink, *, actor: str, method: str, still: Q | None = None) -> bool:
    """End a link, and the account's requests with it: they must not link the account again."""
    locks.lock_people([link.account_id])
    if not linking.end_one(link, actor=actor, method=method, still=still):
        return False
    pairing_requests.stop_all_of([link.account_id], actor=actor)
    return True


def remind() -> int:
    """Remind people of links that are a day, and a week, old. Returns how many links.

    Each in a transaction of its own, as in `suspend_silent`.
    """
    due = AccountLink.objects.live().filter(remind_at__lte=clock.bound()).select_related("user")
    return portions.handle("a reminder of a link", due.order_by("remind_at"), _remind_of, most=ENDED_AT_ONCE)


@transaction.atomic
def _remind_of(link: AccountLink) -> bool:
    """Remind of one link. Of several workers that see it due, the one that moves `remind_at` does it."""
    locks.lock_people([link.account_id])
    second = link.since + timedelta(seconds=limits().second_reminder_seconds)
    following = second if link.remind_at and link.remind_at < second else None
    is_ours = AccountLink.objects.filter(pk=link.pk, remind_at=link.remind_at).update(remind_at=following) == 1
    accounts = linking.accounts_of(link.user)
    if is_ours and len(accounts) > 1:  # an account alone shares with nobody
        for account in accounts:
            notices.tell(account, Template.REMINDED, link=link.pk)
    return is_ours
