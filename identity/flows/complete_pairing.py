"""The last step: a number is tried, and the right one links two sides, or attaches an account to a browser."""

from __future__ import annotations

from collections.abc import Iterable

from identity import notices
from identity.browsers import attachments
from identity.browsers import sessions as browser_sessions
from identity.flows import linking
from identity.flows.linking import How
from identity.links import locks
from identity.models import AccountLink, Browser, Pairing, PlatformAccount, UnifiedUser
from identity.notices import Template
from identity.pairing import codes, policy, rate_limits
from identity.pairing import requests as pairing_requests
from identity.pairing.requests import Outcome
from identity.pairing.secrets import secrets_of
from identity.pairing.settings import limits
from identity.support import clock

State = Pairing.State


def lock_sides(pairings: Iterable[Pairing]) -> None:
    """Hold all accounts, people and browsers that these requests may join, so that what policy is asked stays true."""
    accounts = {one for pairing in pairings for one in (pairing.initiator_id, pairing.responder_id) if one}
    people = {pairing.person_id for pairing in pairings if pairing.person_id}
    locks.lock_people(accounts, joining=people)
    attachments.hold(
        one for pairing in pairings for one in (pairing.initiator_browser_id, pairing.responder_browser_id)
    )


def fits(pairing: Pairing, number: str) -> bool:
    """Whether the number is that of a request, as it was read, with tries left. The caller holds the sides."""
    return pairing.tries < limits().number_tries and codes.is_same(number, secrets_of(pairing).number)


def try_number(pairing: Pairing, number: str, how: How) -> Outcome:
    """Try a number that an account, a browser or an operator has typed. The caller holds the sides."""
    if not pairing_requests.count_try(pairing):
        notices.tell(how.account, Template.NOTHING_THERE)
        return Outcome.ENDED
    if fits(pairing, number):
        return _finish(pairing, how)
    left = limits().number_tries - pairing.tries - 1
    if left > 0:
        pairing_requests.record("number_wrong", pairing, actor=how.actor, account=how.account, left=left)
        notices.tell(how.account, Template.WRONG_NUMBER, left=left)
        return Outcome.WRONG
    pairing_requests.end(pairing, State.LOCKED, was=[State.CLAIMED], strike=pairing.initiator)
    pairing_requests.record("locked", pairing, actor=how.actor, account=how.account)
    pairing_requests.tell_both(pairing, Template.LOCKED)
    pairing.strike = pairing.initiator
    rate_limits.alert(pairing)
    return Outcome.LOCKED


def _finish(pairing: Pairing, how: How) -> Outcome:
    browser = pairing.initiator_browser or pairing.responder_browser
    account = pairing.responder or pairing.initiator
    if account is None:
        raise AssertionError("the database keeps an account on every claimed request")
    return _attach(pairing, browser, account, how) if browser else _link(pairing, account, how)


def _attach(pairing: Pairing, browser: Browser, account: PlatformAccount, how: How) -> Outcome:
    """With a browser, nobody is linked: the account may be read and written there, and is told so at once.

    The number may have come in the chat, when the browser had run out in the meantime.
    """
    if not browser_sessions.hold(browser):
        pairing_requests.stop(pairing, State.CANCELLED, actor=how.actor)
        return Outcome.CANCELLED
    _end(pairing, State.ATTACHED)
    attachments.attach(browser=browser, account=account, pairing=pairing)
    pairing_requests.record("attached", pairing, actor=how.actor, account=account)
    notices.tell(account, Template.BROWSER_ATTACHED, browser=str(browser.pk))
    return Outcome.ATTACHED


def _link(pairing: Pairing, responder: PlatformAccount, how: How) -> Outcome:
    """Join the two sides. The rows they stand on are locked, and policy is asked once more."""
    if reason := policy.forbids(pairing, responder):
        pairing_requests.refuse(pairing, responder, reason, was=State.CLAIMED)
        return Outcome.REFUSED
    _end(pairing, State.LINKED)
    sides = [one for one in (pairing.initiator, responder) if one]
    join(sides, policy.person_of(sides, pairing.person), pairing, how)
    return Outcome.LINKED


def _end(pairing: Pairing, state: str) -> None:
    if not pairing_requests.end(pairing, state, was=[State.CLAIMED]):
        raise AssertionError("the row has been ours since the try was counted")


def join(sides: list[PlatformAccount], person: UnifiedUser, pairing: Pairing, how: How) -> None:
    """Make those of `sides` the person's that are not yet, and tell everybody. The caller has asked policy."""
    known, since = linking.accounts_of(person), clock.read()
    if len(known) == 1:
        linking.close_past(person)
    took_part = [*sides, *(one for one in (how.account,) if one and one not in sides)]
    for one in sides:
        if one not in known:
            link = linking.join(account=one, user=person, pairing=pairing, since=since, how=how)
            _tell_others(link, [other for other in known if other not in took_part])
    is_alone = len(known) + len(sides) == 1
    for one in took_part:
        notices.tell(one, Template.KNOWN if is_alone else Template.LINKED, pairing=str(pairing.pk))


def _tell_others(link: AccountLink, others: Iterable[PlatformAccount]) -> None:
    for other in others:
        notices.tell(other, Template.ACCOUNT_ADDED, link=link.pk)
