"""The two-code handshake as a browser goes through it, and what it may do with the accounts that are attached then.

The other side is always a chat: two browsers prove nothing to each other. The chat's steps are in identity.pairing.
Rows are held in one order: accounts, people, the browser, the address, the request.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from django.db import transaction
from django.db.models import Q, QuerySet

from identity import (
    attachments,
    browsers,
    clock,
    codes,
    linking,
    locks,
    notices,
    pairing_finish,
    pairing_limits,
    pairing_policy,
    pairing_rows,
)
from identity.limits import limits
from identity.linking import How
from identity.models import Browser, BrowserAccount, Pairing, PlatformAccount
from identity.notices import Template
from identity.pairing_rows import Outcome

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
    theirs = pairing_rows.with_parties(Pairing.objects.filter(_is_party(browser)))
    return theirs.filter(_is_live()).order_by("state").first() or theirs.order_by("-created_at", "pk").first()


def is_live(pairing: Pairing) -> bool:
    """Whether something can still become of the request."""
    return pairing.ended_at is None and pairing.expires_at > clock.read()


@transaction.atomic
def offer(*, browser: Browser) -> Answer:
    """Give the browser a code to send to the bot in a chat. Ends what it had begun."""
    if not browsers.hold(browser):
        return Answer(Outcome.ENDED)
    pairing_limits.guesses_of(pairing_limits.guesser_at(browser.address))  # one start of an address at a time
    mine = Pairing.objects.filter(initiator_browser=browser)
    pairing_rows.expire(mine)
    if seconds := _seconds_until_start(browser):
        return Answer(Outcome.WAIT, seconds)
    for old in pairing_rows.with_parties(mine.filter(ended_at=None)):
        pairing_rows.stop(old, State.CANCELLED, actor=browsers.actor(browser))
    pairing = pairing_rows.begin(limits().code_seconds, limits().handshake_seconds, initiator_browser=browser)
    pairing_rows.record("offered", pairing, actor=browsers.actor(browser))
    return Answer(Outcome.OFFERED)


def _seconds_until_start(browser: Browser) -> int:
    own = pairing_limits.seconds_until_start(browser)
    return max(own, pairing_limits.seconds_until_start_from(browser.address))


@transaction.atomic
def claim(*, browser: Browser, secret: str, address: str) -> Answer:
    """A code that a chat was given was entered. The right one shows a number; whoever guesses is locked out.

    `address` is the keyed hash of where it was entered: that is who guesses, since browsers cost nothing. A locked-out
    one gets the same answer before any look-up, right code or wrong.
    """
    if not browsers.hold(browser):
        return Answer(Outcome.ENDED)
    limit, now = pairing_limits.guesses_of(pairing_limits.guesser_at(address)), clock.read()
    if limit.locked_until > now:
        return Answer(Outcome.WAIT, int((limit.locked_until - now).total_seconds()) + 1)
    offered = pairing_rows.offered(secret).filter(initiator__isnull=False)
    pairing = pairing_rows.with_parties(offered).first()
    if pairing and _claim(pairing, browser):
        return Answer(Outcome.CLAIMED)
    pairing_limits.count_wrong(limit, now, actor=browsers.actor(browser))
    return Answer(Outcome.WRONG)


def _claim(pairing: Pairing, browser: Browser) -> bool:
    claimed = Pairing.objects.filter(responder_browser=browser, state=State.CLAIMED)
    pairing_rows.expire(claimed)
    for earlier in pairing_rows.with_parties(claimed):
        pairing_rows.stop(earlier, State.DENIED, actor=browsers.actor(browser))
    if not pairing_rows.take(pairing, responder_browser=browser):
        return False
    pairing_rows.record("claimed", pairing, actor=browsers.actor(browser), account=pairing.initiator)
    notices.tell(pairing.initiator, Template.CLAIMED, pairing=str(pairing.pk))
    return True


@transaction.atomic
def confirm(*, browser: Browser, number: str) -> Outcome:
    """A number was typed in the browser. The one that the chat was shown attaches the two; the third wrong one ends it.

    NOTHING if the browser waits for no number.
    """
    asked = list(_awaiting_number_from(browser))
    pairing_finish.lock_sides(asked)
    if not browsers.hold(browser):
        return Outcome.ENDED
    pairing = _awaiting_number_from(browser).filter(pk__in=[one.pk for one in asked]).first()
    if pairing is None:
        return Outcome.ENDED if asked else Outcome.NOTHING
    return pairing_finish.try_number(pairing, codes.read_number(number) or "", _how(browser))


def _awaiting_number_from(browser: Browser) -> QuerySet[Pairing]:
    mine = Pairing.objects.filter(_is_live(), initiator_browser=browser, state=State.CLAIMED)
    return pairing_rows.with_parties(mine)


def deny(*, browser: Browser) -> Outcome:
    """ "Not me": nothing is attached. It counts against an account that it was the code of."""
    return _stop_all(browser, State.DENIED)


def cancel(*, browser: Browser) -> Outcome:
    """End what the browser is party to."""
    return _stop_all(browser, State.CANCELLED)


@transaction.atomic
def _stop_all(browser: Browser, state: str) -> Outcome:
    if not browsers.hold(browser):
        return Outcome.ENDED
    theirs = Pairing.objects.filter(_is_party(browser), _is_live()).order_by("pk")
    stopped = [_stop(one, state, browser) for one in pairing_rows.with_parties(theirs)]
    return Outcome(state) if any(stopped) else Outcome.NOTHING


def _stop(pairing: Pairing, state: str, browser: Browser) -> bool:
    actor = browsers.actor(browser)
    done = pairing_rows.stop(pairing, state, actor=actor, strikes=state == State.DENIED)
    if done:
        pairing_limits.alert(pairing)
    return done


def _is_party(browser: Browser) -> Q:
    return Q(initiator_browser=browser) | Q(responder_browser=browser)


def _is_live() -> Q:
    return Q(ended_at=None, expires_at__gt=clock.now())


def _how(browser: Browser) -> How:
    return How("pairing", browsers.actor(browser))


# --- Two attached accounts


def linkable(browser: Browser) -> list[tuple[PlatformAccount, PlatformAccount]]:
    """The pairs of accounts that `link_these_two` would join now."""
    accounts = [one.account for one in _together(browser)]
    pairs = [(one, other) for nth, one in enumerate(accounts) for other in accounts[nth + 1 :]]
    return [(one, other) for one, other in pairs if not pairing_policy.forbids_joining(other, one)]


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
    if not browsers.hold(browser):
        return Outcome.ENDED
    two = [one for one in _together(browser) if one.account_id in named]
    if len(two) != 2:
        return Outcome.NOTHING
    sides = [one.account for one in two]
    if pairing_policy.forbids_joining(sides[1], sides[0]):
        return Outcome.REFUSED
    pairing_finish.join(sides, pairing_policy.person_of(sides), two[1].pairing, _how(browser))
    return Outcome.LINKED


def _together(browser: Browser) -> list[BrowserAccount]:
    lately = clock.read() - timedelta(seconds=limits().together_seconds)
    theirs = attachments.live_ones().filter(browser=browser, attached_at__gt=lately)
    return list(theirs.select_related("account", "pairing").order_by("attached_at", "pk"))


def undo(*, browser: Browser, pairing_id: UUID) -> bool:
    """Take back what one handshake linked, as one of the attached accounts may. False if none of them may."""
    return any(linking.undo(account=account, pairing_id=pairing_id) for account in browsers.readable(browser))
