"""The two-code handshake in chats and with operators: the only way in which they make a link.

A link code travels from the initiating side to the responder, and a number travels back. Whoever is talked into sending
somebody else's code has opened nothing: only the number finishes it, and it is shown to the responder alone.

    offer, invite -> OFFERED -> claim -> CLAIMED -> confirm -> LINKED, or ATTACHED where one side is a browser
    and on the way: deny, cancel, burn, expire; LOCKED after the third wrong number, REFUSED where policy forbids the
    link

What browsers do in it is in identity.flows.pair_in_browser.

Each step is decided by one conditional UPDATE whose row count must be 1, in one transaction with what it causes: links,
audit rows, and what must be said. Constraints on Pairing and AccountLink stand behind it. Times are the database's. No
secret is stored, logged or returned. That a message is private and first-hand is for the caller to know.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Q, QuerySet

from identity import audit, notices
from identity.browsers import sessions as browser_sessions
from identity.flows import complete_pairing, linking
from identity.flows.linking import How
from identity.links import locks
from identity.models import AccountLink, Browser, BrowserAccount, GuessLimit, Pairing, PlatformAccount, UnifiedUser
from identity.notices import Template
from identity.pairing import codes, policy, rate_limits
from identity.pairing import requests as pairing_requests
from identity.pairing.requests import Outcome
from identity.pairing.secrets import lookup_hashes, secrets_of
from identity.pairing.settings import DAY, limits
from identity.support import clock, portions

State = Pairing.State


# --- OFFERED


@transaction.atomic
def offer(*, account: PlatformAccount) -> Outcome:
    """`/link`: give `account` a code to send in another app. Ends the one it had."""
    locks.lock_person(account.pk)  # one start of an account at a time
    mine = Pairing.objects.filter(initiator=account)
    pairing_requests.expire(mine)
    if seconds := rate_limits.seconds_until_start(account):
        notices.tell(account, Template.WAIT_TO_START, seconds=seconds)
        return Outcome.WAIT
    for old in pairing_requests.with_parties(mine.filter(ended_at=None)):
        if pairing_requests.end_whoever_has_it(old, State.CANCELLED):
            pairing_requests.record("cancelled", old, actor=audit.actor(account), account=account)
            notices.tell(old.responder, Template.CANCELLED)
    pairing = pairing_requests.begin(limits().code_seconds, limits().handshake_seconds, initiator=account)
    pairing_requests.record("offered", pairing, actor=audit.actor(account), account=account)
    notices.tell(account, Template.OFFER, pairing=str(pairing.pk))
    return Outcome.OFFERED


@transaction.atomic
def invite(*, person: UnifiedUser, operator: str, platform: str = "") -> Pairing:
    """An operator's invitation: a code with which an account (of `platform`, if given) asks to become `person`'s."""
    code, number = limits().invitation_seconds, limits().invitation_number_seconds
    pairing = pairing_requests.begin(code, code + number, person=person, operator=operator, platform=platform)
    pairing_requests.record("invited", pairing, actor=operator)
    return pairing


# --- CLAIMED


@transaction.atomic
def claim(*, account: PlatformAccount, secret: str) -> Outcome:
    """A code or link token arrived from `account`. The right one shows it a number; whoever guesses is locked out.

    Wrong, expired, used and unknown look alike. A locked-out account gets the same answer before any look-up, right
    code or wrong.
    """
    outcome = guess(account=account, found=[secret])
    if outcome != Outcome.NOTHING:
        return outcome
    notices.tell(account, Template.WRONG_CODE)
    return Outcome.WRONG


@transaction.atomic
def guess(*, account: PlatformAccount, found: Sequence[str], takes: bool = True) -> Outcome:
    """What `account` wrote may be codes, or just look like some. As `claim`, but wrong ones are counted and not
    answered: NOTHING.

    Many in one text are worth as much as if each had come by itself: they are looked up together, and each wrong one
    counts, also beside one that lives. Of more than the guesser could try without being locked out none is looked up,
    so that nothing was guessed; such a text is not kept, as nobody knows whether one of them lives: REFUSED.

    Without `takes` it was not written here and now: then a live code is left alone, and not kept either.
    """
    locks.lock_person(account.pk)  # before any request, as confirm does, so that nobody waits in a circle
    limit = rate_limits.guesses_by(account)
    now = clock.read()
    if limit.locked_until > now:
        notices.tell(account, Template.WAIT_TO_GUESS, minutes=_minutes(limit.locked_until - now))
        return Outcome.WAIT
    if len(found) > max(1, _guesses_left(limit, now) - 1):
        notices.tell(account, Template.JUST_THE_CODE)
        return Outcome.REFUSED
    live = list(pairing_requests.with_parties(pairing_requests.offered(*found)).order_by("created_at"))
    outcome = _answer_code(live[0], account, takes) if live else None
    for _ in found if outcome is None else _wrong_ones(found, live):
        rate_limits.count_wrong(limit, now, actor=audit.actor(account), account=account)
    return outcome or Outcome.NOTHING


def _wrong_ones(found: Iterable[str], live: Iterable[Pairing]) -> list[str]:
    """Those that are the secrets of none of these, as they were read."""
    right = {looked_up for pairing in live for looked_up in (pairing.code_hash, pairing.token_hash)}
    return [secret for secret in found if right.isdisjoint(lookup_hashes(secret))]


def _guesses_left(limit: GuessLimit, now: datetime) -> int:
    recent = [at for at in limit.times if at > now.timestamp() - limits().guess_seconds]
    return limits().guesses - len(recent)


def _answer_code(pairing: Pairing, account: PlatformAccount, takes: bool) -> Outcome | None:
    """What comes of a code that lives; None if it has gone by now."""
    if not takes:
        notices.tell(account, Template.IN_PERSON)
        return Outcome.OFFERED
    if pairing.initiator_id == account.pk:
        notices.tell(account, Template.OWN_CODE)
        return Outcome.OWN_CODE
    if pairing.platform not in {"", account.platform}:
        notices.tell(account, Template.OTHER_APP)
        return Outcome.REFUSED
    if reason := policy.forbids(pairing, account):
        return Outcome.REFUSED if pairing_requests.refuse(pairing, account, reason, was=State.OFFERED) else None
    return _claim(pairing, account)


def _claim(pairing: Pairing, account: PlatformAccount) -> Outcome | None:
    """The deciding step: of all who send the code at once, one changes the row."""
    claimed = Pairing.objects.filter(responder=account, state=State.CLAIMED)
    pairing_requests.expire(claimed)
    for earlier in pairing_requests.with_parties(claimed):
        _stop(earlier, State.DENIED, account)
    if not pairing_requests.take(pairing, responder=account):
        return None
    pairing_requests.record("claimed", pairing, actor=audit.actor(account), account=account)
    notices.tell(account, Template.NUMBER, pairing=str(pairing.pk))
    for one in pairing_requests.initiating_accounts(pairing):
        notices.tell(one, Template.CLAIMED, pairing=str(pairing.pk))
    return Outcome.CLAIMED


# --- LINKED


@transaction.atomic
def confirm(*, account: PlatformAccount, number: str) -> Outcome:
    """A number arrived from `account`. The one that the responder was shown links the two; the third wrong one ends it.

    NOTHING if the account is party to no claimed request: then the number was just a message.
    """
    asked = list(_awaiting_number_from(account))
    if not asked:
        return _answer_wrong_side(account)
    complete_pairing.lock_sides(asked)
    still = list(_awaiting_number_from(account).filter(pk__in=[pairing.pk for pairing in asked]))
    how = How("pairing", audit.actor(account), account)
    # Nobody else tries one of these now. The number of one of them is no wrong one of the others.
    meant = [pairing for pairing in still if complete_pairing.fits(pairing, number)][:1] or still
    outcomes = [complete_pairing.try_number(pairing, number, how) for pairing in meant]
    if not outcomes:  # the request ended while the number was on its way
        notices.tell(account, Template.NOTHING_THERE)
        return Outcome.ENDED
    return outcomes[0]


@transaction.atomic
def confirm_as_operator(*, pairing: Pairing, number: str, operator: str) -> Outcome:
    """The operator types the number that the person read out. Only for a person who has no account, and had none when
    the code was claimed: they were told then to type it themselves, and taking out an account does not change that.
    """
    claimed = Pairing.objects.filter(pk=pairing.pk, state=State.CLAIMED, person__isnull=False)
    asked = pairing_requests.with_parties(claimed)
    complete_pairing.lock_sides(asked)
    still = asked.all().first()
    if still is None:
        return Outcome.NOTHING
    if _had_accounts(still):
        return Outcome.OTHER_SIDE
    return complete_pairing.try_number(still, number, How("operator", operator))


def _had_accounts(pairing: Pairing) -> bool:
    theirs = AccountLink.objects.filter(user=pairing.person_id)
    return theirs.filter(Q(ended_at=None) | Q(ended_at__gt=pairing.claimed_at)).exists()


def awaits_number(account: PlatformAccount) -> bool:
    """Whether a number typed by the account finishes something just now, or is a wrong one."""
    return _awaiting_number_from(account).exists()


def is_party_to_number(account: PlatformAccount) -> bool:
    """Whether the account was shown, or is asked for, a number just now, or another one of its person is."""
    return awaits_number(account) or _shown_elsewhere(account).exists()


def is_spent_number(account: PlatformAccount, numbers: Iterable[str]) -> bool:
    """Whether one of these was the number of a request of the account, or of another one of its person, that ended
    within a day: of no use, and still not to be kept. Says nothing about requests that live, or it would be a free
    guess.
    """
    family = [account.pk, *_accounts_beside(account)]
    own_people = AccountLink.objects.live().filter(account=account).values("user")
    party = Q(initiator__in=family) | Q(responder__in=family) | Q(person__in=own_people)
    is_over = Q(ended_at__isnull=False) | Q(expires_at__lte=clock.now())
    ended = Pairing.objects.filter(party, is_over, claimed_at__gt=clock.seconds_from_now(-DAY))
    spent = [secrets_of(pairing).number for pairing in ended]
    return any(codes.is_same(number, one) for number in numbers for one in spent)


def _awaiting_number_from(account: PlatformAccount) -> QuerySet[Pairing]:
    """Claimed requests that this account finishes: its own, and invitations to the person that it is linked to."""
    own_people = AccountLink.objects.live().filter(account=account).values("user")
    mine = Q(initiator=account) | Q(person__in=own_people)
    claimed = Pairing.objects.filter(mine, state=State.CLAIMED, expires_at__gt=clock.now())
    return pairing_requests.with_parties(claimed).order_by("claimed_at")


def _answer_wrong_side(account: PlatformAccount) -> Outcome:
    shown = _shown_elsewhere(account).order_by("-claimed_at").first()
    if shown is None:
        return Outcome.NOTHING
    notices.tell(account, Template.TYPE_IN_BROWSER if shown.initiator_browser_id else Template.TYPE_IN_OTHER_APP)
    return Outcome.OTHER_SIDE


def _shown_elsewhere(account: PlatformAccount) -> QuerySet[Pairing]:
    """Claimed requests whose number is typed neither by this account nor, if it is linked, here."""
    same_person = _accounts_beside(account)
    sides = Q(responder=account) | Q(responder__in=same_person) | Q(initiator__in=same_person)
    return Pairing.objects.filter(sides, state=State.CLAIMED, expires_at__gt=clock.now())


def _accounts_beside(account: PlatformAccount) -> QuerySet[AccountLink, int]:
    """The accounts of its person, itself included; none if it is nobody's."""
    live = AccountLink.objects.live()
    return live.filter(user__in=live.filter(account=account).values("user")).values_list("account", flat=True)


# --- Ends without a link


@transaction.atomic
def deny(*, account: PlatformAccount, pairing_id: uuid.UUID) -> Outcome:
    """ "Not me", from either side: nothing is linked, and it counts against the other side.

    A moment too late, what came of it is taken back.
    """
    held = linking.hold_links_of(account)
    pairing = _live_of(account).filter(pk=pairing_id).first()
    if pairing is None:
        return _take_back(account, pairing_id, held)
    return _stop(pairing, State.DENIED, account, strikes=True)


def _take_back(account: PlatformAccount, pairing_id: uuid.UUID, held: Sequence[AccountLink]) -> Outcome:
    """End the link as one that was somebody else's doing, and the browser with all that it reads. `held`: the links of
    the account's person, held once for all that is done.
    """
    page = Browser.objects.filter(accounts__account=account, accounts__pairing=pairing_id, accounts__ended_at=None)
    browser = page.select_for_update(no_key=True, of=("self",)).first()  # before any attachment or request
    # What that browser has linked carries the request of any account that it had.
    there = BrowserAccount.objects.filter(browser__accounts__account=account, browser__accounts__pairing=pairing_id)
    meant = {pairing_id, *there.values_list("pairing", flat=True)}
    is_linked = any(link.pairing_id in meant for link in held)
    is_done = is_linked and linking.repudiate(held, account=account, pairing_ids=meant)
    if browser and browser_sessions.sign_out(browser):
        notices.tell(account, Template.SIGNED_OUT, browsers=1)
        return Outcome.DENIED
    if not is_linked:
        notices.tell(account, Template.NOTHING_THERE)
    return Outcome.DENIED if is_done else Outcome.NOTHING


@transaction.atomic
def cancel(*, account: PlatformAccount) -> Outcome:
    """`/cancel`: end what the account is party to."""
    locks.lock_person(account.pk)
    outcomes = [_stop(pairing, State.CANCELLED, account) for pairing in _live_of(account).order_by("pk")]
    if not outcomes:
        notices.tell(account, Template.NOTHING_THERE)
    return outcomes[0] if outcomes else Outcome.NOTHING


@transaction.atomic
def withdraw(*, pairing: Pairing, operator: str) -> Outcome:
    """An operator takes an invitation back. Requests that people started in a chat are theirs to end."""
    live = Pairing.objects.filter(pk=pairing.pk, person__isnull=False, expires_at__gt=clock.now())
    invitation = live.select_related("person").first()
    if invitation is None or not pairing_requests.withdraw(invitation, actor=operator):
        return Outcome.NOTHING
    return Outcome.CANCELLED


def _stop(pairing: Pairing, state: str, account: PlatformAccount, *, strikes: bool = False) -> Outcome:
    if not pairing_requests.stop(pairing, state, actor=audit.actor(account), by=account, strikes=strikes):
        return Outcome.NOTHING
    rate_limits.alert(pairing)
    return Outcome(state)


def _live_of(account: PlatformAccount) -> QuerySet[Pairing]:
    """Requests that the account is party to: as initiator, as responder, or because they are invitations to its
    person.
    """
    own_people = AccountLink.objects.live().filter(account=account).values("user")
    party = Q(initiator=account) | Q(responder=account) | Q(person__in=own_people, state=State.CLAIMED)
    live = Pairing.objects.filter(party, ended_at=None, expires_at__gt=clock.now())
    return pairing_requests.with_parties(live)


@transaction.atomic
def burn(*, found: Iterable[str]) -> bool:
    """Codes or tokens were seen in public: those that are live end, and their owners are told in private."""
    hashes = {one for secret in set(found) for one in lookup_hashes(secret)}
    seen = Q(code_hash__in=hashes) | Q(token_hash__in=hashes)
    live = Pairing.objects.filter(seen, state=State.OFFERED, expires_at__gt=clock.now()).order_by("pk")
    burned = [
        one
        for one in pairing_requests.with_parties(live)
        if pairing_requests.end(one, State.BURNED, was=[State.OFFERED])
    ]
    for pairing in burned:
        pairing_requests.record("burned", pairing, actor="system", account=pairing.initiator)
        notices.tell(pairing.initiator, Template.BURNED)
    return bool(burned)


@transaction.atomic
def expire() -> int:
    """End what has run out, so that no hash of it remains. How many there were."""
    over = Pairing.objects.filter(ended_at=None, expires_at__lte=clock.bound()).order_by("expires_at")
    return portions.handle(
        "ending a request", over, lambda one: pairing_requests.expire(Pairing.objects.filter(pk=one.pk)) > 0
    )


def _minutes(span: timedelta) -> int:
    return math.ceil(span.total_seconds() / 60)
