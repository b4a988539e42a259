"""The two-code handshake as a browser goes through it, and what it may do with the accounts that are attached then.

The other side is always a chat: two browsers prove nothing to each other. The chat's steps are in
identity.flows.pair_in_chat.
Rows are held in one order: accounts, people, the browser, the address, the request.
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
    """What came of a step; with WAIT, for how many `seconds`."""

    outcome: Outcome
    seconds: int = 0


# --- The handshake


def current(browser: Browser) -> Pairing | None:
    """What the page is about: the live request that the browser is party to, a claimed one before one that is offered;
    else the last one that ended.
    """
    theirs = pairing_requests.with_parties(Pairing.objects.filter(_is_party(browser)))
    return theirs.filter(_is_live()).order_by("state").first() or theirs.order_by("-created_at", "pk").first()


def is_live(pairing: Pairing) -> bool:
    """Whether something can still become of the request."""
    return pairing.ended_at is None and pairing.expires_at > clock.read()


@transaction.atomic
def offer(*, browser: Browser) -> Answer:
    """Give the browser a code to send to the bot in a chat. Ends what it had begun."""
    if not browser_sessions.hold(browser):
        return Answer(Outcome.ENDED)
    rate_limits.guesses_of(rate_limits.guesser_at(browser.address))  # one start of an address at a time
    mine = Pairing.objects.filter(initiator_browser=browser)
    pairing_requests.expire(mine)
    if seconds := _seconds_until_start(browser):
        return Answer(Outcome.WAIT, seconds)
    for old in pairing_requests.with_parties(mine.filter(ended_at=None)):
        pairing_requests.stop(old, State.CANCELLED, actor=browser_sessions.actor(browser))
    pairing = pairing_requests.begin(limits().code_seconds, limits().handshake_seconds, initiator_browser=browser)
    pairing_requests.record("offered", pairing, actor=browser_sessions.actor(browser))
    return Answer(Outcome.OFFERED)


def _seconds_until_start(browser: Browser) -> int:
    own = rate_limits.seconds_until_start(browser)
    return max(own, rate_limits.seconds_until_start_from(browser.address))


@transaction.atomic
def claim(*, browser: Browser, secret: str, address: str) -> Answer:
    """A code that a chat was given was entered. The right one shows a number; whoever guesses is locked out.

    `address` is the keyed hash of where it was entered: that is who guesses, since browsers cost nothing. A locked-out
    one gets the same answer before any look-up, right code or wrong.
    """
    if not browser_sessions.hold(browser):
        return Answer(Outcome.ENDED)
    limit, now = rate_limits.guesses_of(rate_limits.guesser_at(address)), clock.read()
    if limit.locked_until > now:
        return Answer(Outcome.WAIT, int((limit.locked_until - now).total_seconds()) + 1)
    offered = pairing_requests.offered(secret).filter(initiator__isnull=False)
    pairing = pairing_requests.with_parties(offered).first()
    if pairing and _claim(pairing, browser):
        return Answer(Outcome.CLAIMED)
    rate_limits.count_wrong(limit, now, actor=browser_sessions.actor(browser))
    return Answer(Outcome.WRONG)


def _claim(pairing: Pairing, browser: Browser) -> bool:
    claimed = Pairing.objects.filter(responder_browser=browser, state=State.CLAIMED)
    pairing_requests.expire(claimed)
    for earlier in pairing_requests.with_parties(claimed):
        pairing_requests.stop(earlier, State.DENIED, actor=browser_sessions.actor(browser))
    if not pairing_requests.take(pairing, responder_browser=browser):
        return False
    pairing_requests.record("claimed", pairing, actor=browser_sessions.actor(browser), account=pairing.initiator)
    notices.tell(pairing.initiator, Template.CLAIMED, pairing=str(pairing.pk))
    return True


@transaction.atomic
def confirm(*, browser: Browser, number: str) -> Outcome:
    """A number was typed in the browser. The one that the chat was shown attaches the two; the third wrong one ends it.

    NOTHING if the browser waits for no number.
    """
    asked = list(_awaiting_number_from(browser))
    complete_pairing.lock_sides(asked)
    if not browser_sessions.hold(browser):
        return Outcome.ENDED
    pairing = _awaiting_number_from(browser).filter(pk__in=[one.pk for one in asked]).first()
    if pairing is None:
        return Outcome.ENDED if asked else Outcome.NOTHING
    return complete_pairing.try_number(pairing, codes.read_number(number) or "", _how(browser))


def _awaiting_number_from(browser: Browser) -> QuerySet[Pairing]:
    mine = Pairing.objects.filter(_is_live(), initiator_browser=browser, state=State.CLAIMED)
    return pairing_requests.with_parties(mine)


def deny(*, browser: Browser) -> Outcome:
    """ "Not me": nothing is attached. It counts against an account that it was the code of."""
    return _stop_all(browser, State.DENIED)


def cancel(*, browser: Browser) -> Outcome:
    """End what the browser is party to."""
    return _stop_all(browser, State.CANCELLED)


@transaction.atomic
def _stop_all(browser: Browser, state: str) -> Outcome:
    if not browser_sessions.hold(browser):
        return Outcome.ENDED
    theirs = Pairing.objects.filter(_is_party(browser), _is_live()).order_by("pk")
    stopped = [_stop(one, state, browser) for one in pairing_requests.with_parties(theirs)]
    return Outcome(state) if any(stopped) else Outcome.NOTHING


def _stop(pairing: Pairing, state: str, browser: Browser) -> bool:
    actor = browser_sessions.actor(browser)
    done = pairing_requests.stop(pairing, state, actor=actor, strikes=state == State.DENIED)
    if done:
        rate_limits.alert(pairing)
    return done


def _is_party(browser: Browser) -> Q:
    return Q(initiator_browser=browser) | Q(responder_browser=browser)


def _is_live() -> Q:
    return Q(ended_at=None, expires_at__gt=clock.now())


def _how(browser: Browser) -> How:
    return How("pairing", browser_sessions.actor(browser))


# --- Two attached accounts


def linkable(browser: Browser) -> list[tuple[PlatformAccount, PlatformAccount]]:
    """The pairs of accounts that `link_these_two` would join now."""
    accounts = [one.account for one in _together(browser)]
    pairs = [(one, other) for nth, one in enumerate(accounts) for other in accounts[nth + 1 :]]
    return [(one, other) for one, other in pairs if not policy.forbids_joining(other, one)]


@transaction.atomic
def link_these_two(*, browser: Browser, accounts: Iterable[int]) -> Outcome:
    """Join exactly two accounts (primary keys) that were both attached within the last 15 minutes.

    The numbers of two handshakes have been typed by whoever has the browser, so both chats are theirs. NOTHING if they
    are not two such accounts of this browser, REFUSED if policy forbids it.
    """
    named = set(accounts)
    if len(named) != 2 or named != {one.account_id for one in _together(browser)} & named:
        return Outcome.NOTHING
    locks.lock_people(named)
    if not browser_sessions.hold(browser):
        return Outcome.ENDED
    two = [one for one in _together(browser) if one.account_id in named]
    if len(two) != 2:
        return Outcome.NOTHING
    sides = [one.account for one in two]
    if policy.forbids_joining(sides[1], sides[0]):
        return Outcome.REFUSED
    complete_pairing.join(sides, policy.person_of(sides), two[1].pairing, _how(browser))
    return Outcome.LINKED


def _together(browser: Browser) -> list[BrowserAccount]:
    lately = clock.read() - timedelta(seconds=limits().together_seconds)
    theirs = attachments.live_ones().filter(browser=browser, attached_at__gt=lately)
    return list(theirs.select_related("account", "pairing").order_by("attached_at", "pk"))


def undo(*, browser: Browser, pairing_id: UUID) -> bool:
    """Take back what one handshake linked, as one of the attached accounts may. False if none of them may."""
    return any(linking.undo(account=account, pairing_id=pairing_id) for account in browser_sessions.readable(browser))
