"""Accounts in browsers: attached by a handshake, ended with the browser, the link, or by the account itself."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from django.db.models import Q, QuerySet

from identity import live
from identity.models import Browser, BrowserAccount, Pairing, PlatformAccount
from identity.pairing.settings import limits
from identity.support import clock


def attach(*, browser: Browser, account: PlatformAccount, pairing: Pairing) -> BrowserAccount:
    """In the place of an earlier one: the handshake is the confirmation. The caller holds the account and browser."""
    live_attachments().filter(browser=browser, account=account).update(ended_at=clock.now())
    made = BrowserAccount.objects.create(browser=browser, account=account, pairing=pairing)
    _announce([made])
    return made


def detach(**whose: object) -> int:
    """End the attachments of `account`, of `browser`, or of both to each other. How many there were.

    Whoever does so several times in one transaction asks `hold_attachments` for all of them before.
    """
    found = hold_attachments(**whose)
    ended = BrowserAccount.objects.filter(pk__in=[one.pk for one in found], ended_at=None).update(ended_at=clock.now())
    _announce(found)
    return ended


def hold(browser_ids: Iterable[UUID | None]) -> None:
    """Hold these browsers until the transaction ends, after their accounts and before any request."""
    named = {one for one in browser_ids if one}
    list(Browser.objects.select_for_update(no_key=True).filter(pk__in=named).order_by("pk") if named else ())


def hold_attachments(**whose: object) -> list[BrowserAccount]:
    """Hold live attachments until the transaction ends, by primary key: an UPDATE takes rows in any order, and one from
    the other side, a browser's or an account's, might wait in a circle.
    """
    return list(live_attachments().select_for_update(no_key=True).filter(**whose).order_by("pk"))


def live_attachments() -> QuerySet[BrowserAccount]:
    """Those that have not ended; the browser may have run out."""
    return BrowserAccount.objects.filter(ended_at=None)


def fresh_attachments() -> QuerySet[BrowserAccount]:
    """Those whose account may be read there now: confirmed lately, and by a handshake that is not too old."""
    confirmed = Q(confirmed_at__gt=clock.seconds_from_now(-limits().fresh_seconds))
    attached = Q(attached_at__gt=clock.seconds_from_now(-limits().browser_seconds))
    return live_attachments().filter(confirmed, attached, browser__ended_at=None)


def _announce(changed: list[BrowserAccount]) -> None:
    accounts, browsers = [one.account_id for one in changed], [one.browser_id for one in changed]
    live.announce(live.topics(accounts=accounts, browsers=browsers), "links")
