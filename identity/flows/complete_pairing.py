"""The last step of a handshake: the right number links two accounts, or attaches an account to a browser."""

from __future__ import annotations

from collections.abc import Iterable

from identity import notices
from identity.browsers import attachments
from identity.browsers import sessions as browser_sessions
from identity.flows import linking
from identity.flows.linking import How
from identity.links import locks
from identity.models import Pairing, PlatformAccount, UnifiedUser
from identity.notices import Template
from identity.pairing import challenge, policy, rate_limits
from identity.pairing import requests as pairing_requests
from identity.pairing.challenge import Verdict
from identity.pairing.requests import Outcome
from identity.pairing.secrets import secrets_of
from identity.support import clock

State = Pairing.State


def lock_sides(pairings: Iterable[Pairing]) -> None:
    """Lock the accounts, people and browsers that these requests may join, so that policy's answer stays true."""
    accounts = {pk for pairing in pairings for pk in (pairing.initiator_id, pairing.responder_id) if pk}
    people = {pairing.person_id for pairing in pairings if pairing.person_id}
    locks.lock_people(accounts, joining=people)
    attachments.hold(pk for pairing in pairings for pk in (pairing.initiator_browser_id, pairing.responder_browser_id))


def try_number(pairing: Pairing, number: str, how: How) -> Outcome:
    """Check a number that an account, a browser or an operator typed, and finish the handshake if it is right.

    The last wrong one ends the request. The caller holds the sides.
    """
    pending = Pairing.objects.filter(pk=pairing.pk, state=State.CLAIMED, expires_at__gt=clock.now())
    check = challenge.check(number, secrets_of(pairing).number, pending=pending, tries=pairing.tries)
    if check.verdict == Verdict.ENDED:
        notices.tell(how.account, Template.NOTHING_THERE)
        return Outcome.ENDED
    if check.verdict == Verdict.RIGHT:
        return _finish(pairing, how)
    if check.verdict == Verdict.WRONG:
        pairing_requests.record("number_wrong", pairing, actor=how.actor, account=how.account, left=check.left)
        notices.tell(how.account, Template.WRONG_NUMBER, left=check.left)
        return Outcome.WRONG
    pairing_requests.end(pairing, State.LOCKED, was=[State.CLAIMED], against=pairing.initiator)
    pairing_requests.record("locked", pairing, actor=how.actor, account=how.account)
    pairing_requests.tell_both(pairing, Template.LOCKED)
    pairing.strike = pairing.initiator
    rate_limits.alert(pairing)
    return Outcome.LOCKED


def _finish(pairing: Pairing, how: How) -> Outcome:
    """Attach the account to the browser, if a browser is one side, else link the two accounts."""
    browser = pairing.initiator_browser or pairing.responder_browser
    account = pairing.responder or pairing.initiator
    if account is None:
        raise AssertionError("the database keeps an account on every claimed request")
    if browser and not browser_sessions.hold(browser):  # the chat's number may come after the browser's end
        pairing_requests.stop(pairing, State.CANCELLED, actor=how.actor)
        return Outcome.CANCELLED
    if not browser and (reason := policy.forbids(pairing, account)):
        pairing_requests.refuse(pairing, account, reason, was=State.CLAIMED)
        return Outcome.REFUSED
    if not pairing_requests.end(pairing, State.ATTACHED if browser else State.LINKED, was=[State.CLAIMED]):
        raise AssertionError("the row has been ours since the try was counted")
    if browser:
        attachments.attach(browser=browser, account=account, pairing=pairing)
        pairing_requests.record("attached", pairing, actor=how.actor, account=account)
        notices.tell(account, Template.BROWSER_ATTACHED, browser=str(browser.pk))
        return Outcome.ATTACHED
    sides = [side for side in (pairing.initiator, account) if side]
    join(sides, policy.person_of(sides, pairing.person), pairing, how)
    return Outcome.LINKED


def join(sides: list[PlatformAccount], person: UnifiedUser, pairing: Pairing, how: How) -> None:
    """Link those of `sides` that are not the person's yet, and tell all accounts. The caller has asked policy."""
    known, since = linking.accounts_of(person), clock.read()
    if len(known) == 1:
        linking.close_past(person)
    participants = [*sides, *([how.account] if how.account and how.account not in sides else [])]
    for side in sides:
        if side not in known:
            link = linking.join(account=side, user=person, pairing=pairing, since=since, how=how)
            for account in known:
                if account not in participants:
                    notices.tell(account, Template.ACCOUNT_ADDED, link=link.pk)
    is_alone = len(known) + len(sides) == 1
    for account in participants:
        notices.tell(account, Template.KNOWN if is_alone else Template.LINKED, pairing=str(pairing.pk))
