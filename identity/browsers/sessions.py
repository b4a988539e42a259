"""Browsers of the pages, from the first change that a person makes there until sign-out, idleness or age ends them.

A browser is no account: it may read and write what is attached to it. The Django session holds its id and nothing else.
GET, HEAD and OPTIONS change nothing.
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
    """Too many browsers have begun at this address: the next must wait for `seconds`."""

    def __init__(self, seconds: int) -> None:
        super().__init__()
        self.seconds = seconds


# --- Which browser this is


def of(request: HttpRequest) -> Browser | None:
    """Return the request's browser, if it has begun and has neither ended nor run out. Changes nothing."""
    return of_session(request.session)


def of_session(session: SessionBase) -> Browser | None:
    """Return the same for a session that was read elsewhere: a socket's."""
    browser_id = browser_id_in(session)
    return _live().filter(pk=browser_id).first() if browser_id else None


def browser_id_in(session: SessionBase | Mapping[str, Any]) -> UUID | None:
    """Return the id of a session's browser, whether it is live or not; None if the session has none."""
    try:
        return UUID(str(session.get(SESSION_KEY, "")))
    except ValueError:
        return None


def alive(browser_ids: Iterable[UUID]) -> set[UUID]:
    """Return the ids of those browsers that have neither ended nor run out."""
    return set(_live().filter(pk__in=set(browser_ids)).values_list("pk", flat=True))


def start(request: HttpRequest) -> Browser:
    """Return the request's browser, and begin one if there is none. For POST only. Raises TooMany."""
    address = rate_limits.address_of(request.META)
    known = of(request)
    if known is not None:
        touch(known)
        return known
    with transaction.atomic():
        rate_limits.attempts_of(rate_limits.attempt_key_at(address))  # one browser of an address at a time
        if seconds := rate_limits.seconds_until_browser_from(address):
            raise TooMany(seconds)
        name = harmless(user_agents.rough_name(request.headers.get("User-Agent", "")))
        begun = Browser.objects.create(name=name, address=address)
    if SESSION_KEY in request.session:
        request.session.flush()  # nothing of an ended browser goes on,
    else:
        rotate(request)  # nor a key that someone else may have set
    request.session[SESSION_KEY] = str(begun.pk)
    return begun


def rotate(request: HttpRequest) -> None:
    """Change the session key when more becomes readable: an older key that leaked opens nothing."""
    request.session.cycle_key()


def leave_cookie(request: HttpRequest) -> None:
    """Keep the response to a page's own background request from deleting the session cookie.

    The request may carry the old session key while another response brings the new one. Django would then tell the
    browser to delete its cookie, the new one, which signs the browser out.
    """
    request.COOKIES.pop(settings.SESSION_COOKIE_NAME, None)


def _live() -> QuerySet[Browser]:
    idle = clock.seconds_from_now(-limits().browser_idle_seconds)
    old = clock.seconds_from_now(-limits().browser_seconds)
    return Browser.objects.filter(ended_at=None, seen_at__gt=idle, created_at__gt=old)


def hold(browser: Browser) -> bool:
    """Lock the browser's row until the transaction ends: one step of a browser at a time. False if it has ended."""
    return _live().select_for_update(no_key=True).filter(pk=browser.pk).first() is not None


# --- What is attached


def attached(browser: Browser) -> list[PlatformAccount]:
    """Return the accounts attached to a browser, oldest attachment first, fresh or not."""
    rows = attachments.live_attachments().filter(browser=browser)
    return [row.account for row in rows.select_related("account").order_by("attached_at", "pk")]


def readable(browser: Browser) -> list[PlatformAccount]:
    """Return the attached accounts whose messages may be shown and answered in the browser now.

    Their chats confirmed at most 15 minutes ago, or longer ago while the browser is in use, at most 8 hours.
    """
    rows = attachments.fresh_attachments().filter(browser=browser)
    return [row.account for row in rows.select_related("account").order_by("attached_at", "pk")]


def heard_in(browser_ids: Collection[UUID]) -> dict[UUID, set[int]]:
    """Return, for each browser, the accounts (primary keys) whose changes its open pages hear of.

    They are the attached ones, and those that share a conversation with them.
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
    """Note that the browser is in use: it does not end for idleness, and fresh accounts stay fresh.

    Call it on POST, and on messages from a socket.
    """
    _live().filter(pk=browser.pk).update(seen_at=clock.now())
    held = [row.pk for row in attachments.hold_attachments(browser=browser)]
    attachments.fresh_attachments().filter(pk__in=held).update(confirmed_at=clock.now())


# --- Ends


@transaction.atomic
def sign_out(browser: Browser) -> bool:
    """End the browser, its attachments and its requests. False if it had ended. The caller flushes its session."""
    requests = Pairing.objects.filter(Q(initiator_browser=browser) | Q(responder_browser=browser))
    ended = Browser.objects.filter(pk=browser.pk, ended_at=None).update(ended_at=clock.now())
    attachments.hold_attachments(browser=browser)  # before any request, as where an account's requests end
    pairing_requests.expire(requests)
    for pairing in pairing_requests.with_parties(requests.filter(ended_at=None)).order_by("pk"):
        pairing_requests.stop(pairing, Pairing.State.CANCELLED, actor=actor(browser))
    attachments.detach(browser=browser)
    if ended:
        audit.record(kind="browser_ended", actor=actor(browser))
        live.announce(live.topics(browsers=[browser.pk]), "ended")
    return bool(ended)


@transaction.atomic
def sign_out_everywhere(*whose: PlatformAccount) -> int:
    """End every browser that these accounts are attached to. Returns how many."""
    accounts = [account.pk for account in whose]
    locks.lock_people(accounts)  # no account is attached meanwhile
    browsers = set(attachments.live_attachments().filter(account__in=accounts).values_list("browser_id", flat=True))
    attachments.hold(browsers)
    attachments.hold_attachments(browser__in=browsers)
    return sum(sign_out(browser) for browser in Browser.objects.filter(pk__in=browsers).order_by("pk"))


def end_old() -> int:
    """End browsers that have run out. Returns how many.

    A browser's address is kept for an hour after its end, so that signing out and beginning again still counts.
    """
    long_ago = clock.bound(-3600)
    Browser.objects.filter(address__gt=Literal(""), ended_at__lte=long_ago).update(address="")
    idle, old = clock.bound(-limits().browser_idle_seconds), clock.bound(-limits().browser_seconds)
    browsers = Browser.objects.filter(ended_at=None)
    due = (
        browsers.filter(seen_at__lte=idle).order_by("seen_at"),
        browsers.filter(created_at__lte=old).order_by("created_at"),
    )
    return sum(portions.handle("ending a browser", rows, sign_out) for rows in due)


def actor(browser: Browser) -> str:
    """Return the browser's name as an actor in the audit log."""
    return f"browser {browser.pk.hex[:16]}"
