"""Accounts in browsers: a handshake attaches them; the end of the browser or link, or the account, detaches them."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from django.db.models import Q, QuerySet

from identity import live
from identity.models import Browser, BrowserAccount, Pairing, PlatformAccount
from identity.pairing.settings import limits
from identity.support import clock


def attach(*, browser: Browser, account: PlatformAccount, pairing: Pairing) -> BrowserAccount:
    """Attach an account to a browser, in place of an earlier attachment. The caller holds the account and browser."""
    live_attachments().filter(browser=browser, account=account).update(ended_at=clock.now())
    made = BrowserAccount.objects.create(browser=browser, account=account, pairing=pairing)
    _announce([made])
    return made


def detach(**whose: object) -> int:
    """End the attachments of `account`, of `browser`, or of both to each other. Returns how many.

    A caller that does so several times in one transaction calls `hold_attachments` for all of them before.
    """
    held = hold_attachments(**whose)
    ended = BrowserAccount.objects.filter(pk__in=[row.pk for row in held], ended_at=None).update(ended_at=clock.now())
    _announce(held)
    return ended


def hold(browser_ids: Iterable[UUID | None]) -> None:
    """Lock these browsers until the transaction ends, after their accounts and before any request. None is skipped."""
    pks = {pk for pk in browser_ids if pk}
    list(Browser.objects.select_for_update(no_key=True).filter(pk__in=pks).order_by("pk") if pks else ())


def hold_attachments(**whose: object) -> list[BrowserAccount]:
    """Lock and return live attachments, in the order of their primary keys.

    An UPDATE would lock them in any order, so that one for a browser and one for an account could deadlock.
    """
    return list(live_attachments().select_for_update(no_key=True).filter(**whose).order_by("pk"))


def live_attachments() -> QuerySet[BrowserAccount]:
    """Return the attachments that have not ended; their browsers may have run out."""
    return BrowserAccount.objects.filter(ended_at=None)


def fresh_attachments() -> QuerySet[BrowserAccount]:
    """Return the attachments whose accounts may be read: confirmed lately, by a handshake that is not too old."""
    confirmed = Q(confirmed_at__gt=clock.seconds_from_now(-limits().fresh_seconds))
    attached = Q(attached_at__gt=clock.seconds_from_now(-limits().browser_seconds))
    return live_attachments().filter(confirmed, attached, browser__ended_at=None)


def _announce(changed: list[BrowserAccount]) -> None:
    accounts, browsers = [row.account_id for row in changed], [row.browser_id for row in changed]
    live.announce(live.topics(accounts=accounts, browsers=browsers), "links")
