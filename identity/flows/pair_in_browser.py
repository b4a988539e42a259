"""The two-code handshake in a browser, and what the browser may do with the accounts that it attaches.

The other side is always a chat, because two browsers prove nothing to each other. identity.flows.pair_in_chat has the
steps of chats. Rows are locked in one order: accounts, people, the browser, the address, the request.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from django.db import transaction
from django.db.models import Q, QuerySet

from identity import notices
from identity.browsers import attachments
from identity.browsers import sessions as browser_sessions
from identity.flows import complete_pairing, linking
from identity.flows.linking import How
from identity.links import locks
from identity.models import Browser, BrowserAccount, Pairing, PlatformAccount
from identity.notices import Template
from identity.pairing import codes, policy, rate_limits
from identity.pairing import requests as pairing_requests
from identity.pairing.requests import Outcome
from identity.pairing.settings import limits
from identity.support import clock

State = Pairing.State


@dataclass(frozen=True, slots=True)
class Answer:
    """The outcome of a step and, with WAIT, how many `seconds` to wait."""

    outcome: Outcome
    seconds: int = 0


# --- The handshake


def current(browser: Browser) -> Pairing | None:
    """Return the request for the browser's page: a claimed one, else an offered one, else the last that ended."""
    requests = pairing_requests.with_parties(Pairing.objects.filter(_is_party(browser)))
    live = list(requests.filter(_is_live()).order_by("created_at", "pk"))
    if live:
        return next((request for request in live if request.state == State.CLAIMED), live[0])
    return requests.order_by("-created_at", "pk").first()


def is_live(pairing: Pairing) -> bool:
    """Whether the request has neither ended nor run out."""
    return pairing.ended_at is None and pairing.expires_at > clock.read()


@transaction.atomic
def offer(*, browser: Browser) -> Answer:
    """Give the browser a code to send to the bot in a chat. Its earlier requests end."""
    if not browser_sessions.hold(browser):
        return Answer(Outcome.ENDED)
    rate_limits.attempts_of(rate_limits.attempt_key_at(browser.address))  # one start of an address at a time
    own = Pairing.objects.filter(initiator_browser=browser)
    pairing_requests.expire(own)
    seconds = rate_limits.seconds_until_start(browser), rate_limits.seconds_until_start_from(browser.address)
    if any(seconds):
        return Answer(Outcome.WAIT, max(seconds))
    for old in pairing_requests.with_parties(own.filter(ended_at=None)):
        pairing_requests.stop(old, State.CANCELLED, actor=browser_sessions.actor(browser))
    pairing = pairing_requests.begin(limits().code_seconds, limits().handshake_seconds, initiator_browser=browser)
    pairing_requests.record("offered", pairing, actor=browser_sessions.actor(browser))
    return Answer(Outcome.OFFERED)


@transaction.atomic
def claim(*, browser: Browser, secret: str, address: str) -> Answer:
    """Try a code that a chat was given. A live one shows a number in the browser.

    Wrong codes count against `address`, the keyed hash of where it was entered, since browsers cost nothing. A
    locked-out address is told to wait before any look-up, with a right code or a wrong one.
    """
    if not browser_sessions.hold(browser):
        return Answer(Outcome.ENDED)
    limit, now = rate_limits.attempts_of(rate_limits.attempt_key_at(address)), clock.read()
    if limit.locked_until > now:
        return Answer(Outcome.WAIT, int((limit.locked_until - now).total_seconds()) + 1)
    actor = browser_sessions.actor(browser)
    offered = pairing_requests.offered(secret).filter(initiator__isnull=False)
    pairing = pairing_requests.with_parties(offered).first()
    if pairing:
        claimed = Pairing.objects.filter(responder_browser=browser, state=State.CLAIMED)
        pairing_requests.expire(claimed)
        for earlier in pairing_requests.with_parties(claimed):
            pairing_requests.stop(earlier, State.DENIED, actor=actor)
        if pairing_requests.take(pairing, responder_browser=browser):
            pairing_requests.record("claimed", pairing, actor=actor, account=pairing.initiator)
            notices.tell(pairing.initiator, Template.CLAIMED, pairing=str(pairing.pk))
            return Answer(Outcome.CLAIMED)
    rate_limits.count_wrong(limit, now, actor=actor)
    return Answer(Outcome.WRONG)


@transaction.atomic
def confirm(*, browser: Browser, number: str) -> Outcome:
    """Try a number that was typed in the browser: the right one attaches the account, the third wrong one ends it.

    NOTHING if the browser waits for no number.
    """
    asked = list(_awaiting_number_from(browser))
    complete_pairing.lock_sides(asked)
    if not browser_sessions.hold(browser):
        return Outcome.ENDED
    pairing = _awaiting_number_from(browser).filter(pk__in=[request.pk for request in asked]).first()
    if pairing is None:
        return Outcome.ENDED if asked else Outcome.NOTHING
    return complete_pairing.try_number(pairing, codes.read_number(number) or "", _how(browser))


def _awaiting_number_from(browser: Browser) -> QuerySet[Pairing]:
    claimed = Pairing.objects.filter(_is_live(), initiator_browser=browser, state=State.CLAIMED)
    return pairing_requests.with_parties(claimed)


def deny(*, browser: Browser) -> Outcome:
    """ "Not me": end the browser's requests, and count that against an account whose code it entered."""
    return _stop_all(browser, State.DENIED)


def cancel(*, browser: Browser) -> Outcome:
    """End all requests that the browser is party to."""
    return _stop_all(browser, State.CANCELLED)


@transaction.atomic
def _stop_all(browser: Browser, state: str) -> Outcome:
    if not browser_sessions.hold(browser):
        return Outcome.ENDED
    outcome, actor = Outcome.NOTHING, browser_sessions.actor(browser)
    live = Pairing.objects.filter(_is_party(browser), _is_live()).order_by("pk")
    for pairing in pairing_requests.with_parties(live):
        if pairing_requests.stop(pairing, state, actor=actor, is_rejection=state == State.DENIED):
            rate_limits.alert(pairing)
            outcome = Outcome(state)
    return outcome


def _is_party(browser: Browser) -> Q:
    return Q(initiator_browser=browser) | Q(responder_browser=browser)


def _is_live() -> Q:
    return Q(ended_at=None, expires_at__gt=clock.now())


def _how(browser: Browser) -> How:
    return How("pairing", browser_sessions.actor(browser))


# --- Two attached accounts


def linkable(browser: Browser) -> list[tuple[PlatformAccount, PlatformAccount]]:
    """Return the pairs of accounts that `link_these_two` would link now."""
    accounts = [attachment.account for attachment in _together(browser)]
    pairs = [(one, other) for nth, one in enumerate(accounts) for other in accounts[nth + 1 :]]
    return [(one, other) for one, other in pairs if not policy.forbids_joining(other, one)]


@transaction.atomic
def link_these_two(*, browser: Browser, accounts: Iterable[int]) -> Outcome:
    """Link exactly two accounts (primary keys) that were both attached within the last 15 minutes.

    The person at the browser has finished a handshake with each of the two chats, so both are theirs. NOTHING if they
    are not two such accounts of this browser, REFUSED if policy forbids the link.
    """
    named = set(accounts)
    if len(named) != 2 or named != {attachment.account_id for attachment in _together(browser)} & named:
        return Outcome.NOTHING
    locks.lock_people(named)
    if not browser_sessions.hold(browser):
        return Outcome.ENDED
    attached = [row for row in _together(browser) if row.account_id in named]
    if len(attached) != 2:
        return Outcome.NOTHING
    sides = [attachment.account for attachment in attached]
    if policy.forbids_joining(sides[1], sides[0]):
        return Outcome.REFUSED
    complete_pairing.join(sides, policy.person_of(sides), attached[1].pairing, _how(browser))
    return Outcome.LINKED


def _together(browser: Browser) -> list[BrowserAccount]:
    lately = clock.read() - timedelta(seconds=limits().together_seconds)
    attached = attachments.live_attachments().filter(browser=browser, attached_at__gt=lately)
    return list(attached.select_related("account", "pairing").order_by("attached_at", "pk"))


def undo(*, browser: Browser, pairing_id: UUID) -> bool:
    """Take back what one handshake linked, as one of the readable accounts. False if none of them may."""
    return any(linking.undo(account=account, pairing_id=pairing_id) for account in browser_sessions.readable(browser))
