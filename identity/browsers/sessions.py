"""Browsers of the pages, from the first change that somebody makes there until they sign out, idle away or grow old.

A browser is a place and nobody's account: what it may read and write is what is attached to it. The Django session
holds its id and nothing else. GET, HEAD and OPTIONS only look.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from typing import Any
from uuid import UUID

from django.conf import settings
from django.contrib.sessions.backends.base import SessionBase
from django.db import transaction
from django.db.models import Q, QuerySet
from django.http import HttpRequest

from identity import audit, live
from identity.browsers import attachments, user_agents
from identity.links import locks
from identity.models import AccountLink, Browser, Pairing, PlatformAccount
from identity.pairing import rate_limits
from identity.pairing import requests as pairing_requests
from identity.pairing.settings import limits
from identity.support import clock, portions
from identity.support.literals import Literal
from identity.support.sanitize import harmless

SESSION_KEY = "browser"


class TooMany(Exception):
    """So many browsers have begun at this address that the next must wait for `seconds`."""

    def __init__(self, seconds: int) -> None:
        super().__init__()
        self.seconds = seconds


# --- Which browser this is


def of(request: HttpRequest) -> Browser | None:
    """The browser that asks, if it has begun and has neither ended nor run out. Changes nothing."""
    return of_session(request.session)


def of_session(session: SessionBase) -> Browser | None:
    """The same for a session that was read elsewhere: a socket's."""
    named = browser_id_in(session)
    return _live().filter(pk=named).first() if named else None


def browser_id_in(session: SessionBase | Mapping[str, Any]) -> UUID | None:
    """The id of the browser that a session belongs to, whether it lives or not."""
    try:
        return UUID(str(session.get(SESSION_KEY, "")))
    except ValueError:
        return None


def alive(browser_ids: Iterable[UUID]) -> set[UUID]:
    """Those that have neither ended nor run out."""
    return set(_live().filter(pk__in=set(browser_ids)).values_list("pk", flat=True))


def start(request: HttpRequest) -> Browser:
    """The browser that asks, begun now if it has not. For POST alone. Raises TooMany."""
    address = rate_limits.address_of(request.META)
    known = of(request)
    if known is not None:
        touch(known)
        return known
    begun = _begin(request, address)
    if SESSION_KEY in request.session:
        request.session.flush()  # nothing of an ended browser goes on,
    else:
        rotate(request)  # and no key that somebody else may have set
    request.session[SESSION_KEY] = str(begun.pk)
    return begun


@transaction.atomic
def _begin(request: HttpRequest, address: str) -> Browser:
    rate_limits.attempts_of(rate_limits.attempt_key_at(address))  # one of an address at a time
    if seconds := rate_limits.seconds_until_browser_from(address):
        raise TooMany(seconds)
    name = harmless(user_agents.rough_name(request.headers.get("User-Agent", "")))
    return Browser.objects.create(name=name, address=address)


def rotate(request: HttpRequest) -> None:
    """Another session key, for the moment in which more becomes readable: an older one that leaked opens nothing."""
    request.session.cycle_key()


def leave_cookie(request: HttpRequest) -> None:
    """For what a page asks for by itself: it may have set out with the old key, while another answer brings the new
    one. Django would then tell the browser to forget its cookie, the new one, and so sign it out.
    """
    request.COOKIES.pop(settings.SESSION_COOKIE_NAME, None)


def _live() -> QuerySet[Browser]:
    idle = clock.seconds_from_now(-limits().browser_idle_seconds)
    old = clock.seconds_from_now(-limits().browser_seconds)
    return Browser.objects.filter(ended_at=None, seen_at__gt=idle, created_at__gt=old)


def hold(browser: Browser) -> bool:
    """Hold the browser's row until the transaction ends: one step of a browser at a time. False if it has ended."""
    return _live().select_for_update(no_key=True).filter(pk=browser.pk).first() is not None


# --- What is attached


def attached(browser: Browser) -> list[PlatformAccount]:
    """The accounts attached to a browser, in the order in which they came, fresh or not."""
    theirs = attachments.live_attachments().filter(browser=browser)
    return [one.account for one in theirs.select_related("account").order_by("attached_at", "pk")]


def readable(browser: Browser) -> list[PlatformAccount]:
    """Those of them whose words may be shown and answered here now: their chat has confirmed at most 15 minutes ago,
    longer while in use, at most 8 h.
    """
    fresh = attachments.fresh_attachments().filter(browser=browser)
    return [one.account for one in fresh.select_related("account").order_by("attached_at", "pk")]


def heard_in(browser_ids: Collection[UUID]) -> dict[UUID, set[int]]:
    """The accounts (primary keys) that pages open in these browsers are told of: that something changed, never what.

    Attached ones, and those that share a conversation with them.
    """
    attached = attachments.live_attachments().filter(browser__in=browser_ids).values_list("browser_id", "account_id")
    own = [(browser_id, account) for browser_id, account in attached]
    links = AccountLink.objects.live()
    person_of = dict(links.filter(account__in={one for _, one in own}).values_list("account_id", "user_id"))
    family: dict[int, set[int]] = defaultdict(set)
    for user, account in links.filter(user__in=set(person_of.values())).values_list("user_id", "account_id"):
        family[user].add(account)
    heard: dict[UUID, set[int]] = {browser_id: set() for browser_id in browser_ids}
    for browser_id, account in own:
        heard[browser_id] |= {account} | family.get(person_of.get(account, 0), set())
    return heard


@transaction.atomic
def touch(browser: Browser) -> None:
    """It is in use: it does not idle away, and what is fresh stays so. Call on POST, and on words from a socket."""
    _live().filter(pk=browser.pk).update(seen_at=clock.now())
    theirs = [one.pk for one in attachments.hold_attachments(browser=browser)]
    attachments.fresh_attachments().filter(pk__in=theirs).update(confirmed_at=clock.now())


# --- Ends


@transaction.atomic
def sign_out(browser: Browser) -> bool:
    """End the browser, what is attached to it and what it has begun. False if it had ended. Flush its session, too."""
    theirs = Pairing.objects.filter(Q(initiator_browser=browser) | Q(responder_browser=browser))
    ended = Browser.objects.filter(pk=browser.pk, ended_at=None).update(ended_at=clock.now())
    attachments.hold_attachments(browser=browser)  # before any request, as whoever ends an account's does
    pairing_requests.expire(theirs)
    for pairing in pairing_requests.with_parties(theirs.filter(ended_at=None)).order_by("pk"):
        pairing_requests.stop(pairing, Pairing.State.CANCELLED, actor=actor(browser))
    attachments.detach(browser=browser)
    if ended:
        audit.record(kind="browser_ended", actor=actor(browser))
        live.announce(live.topics(browsers=[browser.pk]), "ended")
    return bool(ended)


@transaction.atomic
def sign_out_everywhere(*whose: PlatformAccount) -> int:
    """End every browser that these accounts are attached to. How many there were."""
    accounts = [account.pk for account in whose]
    locks.lock_people(accounts)  # nothing is attached to them meanwhile
    theirs = attachments.live_attachments().filter(account__in=accounts).values_list("browser_id", flat=True)
    named = set(theirs)
    attachments.hold(named)
    attachments.hold_attachments(browser__in=named)
    return sum(sign_out(browser) for browser in Browser.objects.filter(pk__in=named).order_by("pk"))


def end_old() -> int:
    """End browsers that have run out, so that what remains of them says so. How many there were.

    Whence a browser came is kept for an hour after its end: who signs out and begins again is still counted.
    """
    long_ago = clock.bound(-3600)
    Browser.objects.filter(address__gt=Literal(""), ended_at__lte=long_ago).update(address="")
    idle, old = (clock.bound(-one) for one in (limits().browser_idle_seconds, limits().browser_seconds))
    open_ones = Browser.objects.filter(ended_at=None)
    ended = portions.handle("ending a browser", open_ones.filter(seen_at__lte=idle).order_by("seen_at"), sign_out)
    return ended + portions.handle(
        "ending a browser", open_ones.filter(created_at__lte=old).order_by("created_at"), sign_out
    )


def actor(browser: Browser) -> str:
    """A browser as the one who did something."""
    return f"browser {browser.pk.hex[:16]}"
