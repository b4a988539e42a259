"""The two-code handshake in chats and with operators: the only way to make a link there.

A link code travels from the initiating side to the responder, and a number travels back. Sending someone else's code is
not enough: only the number finishes the handshake, and only the responder sees it.

    offer, invite -> OFFERED -> claim -> CLAIMED -> confirm -> LINKED, or ATTACHED where one side is a browser
    other ends: deny, cancel, burn, expire; LOCKED after the third wrong number; REFUSED where policy forbids the link

identity.flows.pair_in_browser has the steps of browsers.

One conditional UPDATE decides each step, and its transaction also writes what the step causes: links, audit rows and
notices. Constraints on Pairing and AccountLink back it up. All times are the database's. No secret is stored, logged or
returned. The caller has checked that a message is private and first-hand.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterable, Sequence

from django.db import transaction
from django.db.models import Q, QuerySet

from identity import audit, notices
from identity.browsers import sessions as browser_sessions
from identity.flows import complete_pairing, linking
from identity.flows.linking import How
from identity.links import locks
from identity.models import AccountLink, Browser, BrowserAccount, Pairing, PlatformAccount, UnifiedUser
from identity.notices import Template
from identity.pairing import challenge, codes, policy, rate_limits
from identity.pairing import requests as pairing_requests
from identity.pairing.requests import Outcome
from identity.pairing.secrets import lookup_hashes, secrets_of
from identity.pairing.settings import DAY, limits
from identity.support import clock, portions

State = Pairing.State


# --- OFFERED


@transaction.atomic
def offer(*, account: PlatformAccount) -> Outcome:
    """`/link`: give `account` a code to send in another app. Its earlier codes end."""
    locks.lock_person(account.pk)  # one start of an account at a time
    own = Pairing.objects.filter(initiator=account)
    pairing_requests.expire(own)
    if seconds := rate_limits.seconds_until_start(account):
        notices.tell(account, Template.WAIT_TO_START, seconds=seconds)
        return Outcome.WAIT
    for old in pairing_requests.with_parties(own.filter(ended_at=None)):
        if pairing_requests.end_live(old, State.CANCELLED):
            pairing_requests.record("cancelled", old, actor=audit.actor(account), account=account)
            notices.tell(old.responder, Template.CANCELLED)
    pairing = pairing_requests.begin(limits().code_seconds, limits().handshake_seconds, initiator=account)
    pairing_requests.record("offered", pairing, actor=audit.actor(account), account=account)
    notices.tell(account, Template.OFFER, pairing=str(pairing.pk))
    return Outcome.OFFERED


@transaction.atomic
def invite(*, person: UnifiedUser, operator: str, platform: str = "") -> Pairing:
    """Begin an operator's invitation: with its code an account (of `platform`, if given) asks to become `person`'s."""
    code, number = limits().invitation_seconds, limits().invitation_number_seconds
    pairing = pairing_requests.begin(code, code + number, person=person, operator=operator, platform=platform)
    pairing_requests.record("invited", pairing, actor=operator)
    return pairing


# --- CLAIMED


@transaction.atomic
def claim(*, account: PlatformAccount, secret: str) -> Outcome:
    """Try a code or link token that `account` sent. A live one shows the account a number.

    Wrong, expired, used and unknown codes get the same answer. So do all codes of an account that is locked out for too
    many wrong ones: it is told to wait before any look-up.
    """
    outcome = try_codes(account=account, secrets=[secret])
    if outcome != Outcome.NOTHING:
        return outcome
    notices.tell(account, Template.WRONG_CODE)
    return Outcome.WRONG


@transaction.atomic
def try_codes(*, account: PlatformAccount, secrets: Sequence[str], takes: bool = True) -> Outcome:
    """Try the codes and tokens that a text of `account` may contain. Wrong ones count, without an answer: NOTHING.

    Many in one text count as much as one each in many texts: they are looked up together, and each wrong one counts,
    even beside a live one. A text with more of them than the account has tries left is not looked up at all, and must
    not be kept, as one of them may be live: REFUSED.

    `takes` is False for a text that was not typed here and now: then a live code is left alone, and the text must not
    be kept either: OFFERED.
    """
    locks.lock_person(account.pk)  # before any request, as confirm does, so that nobody waits in a circle
    limit = rate_limits.attempts_by(account)
    now = clock.read()
    if limit.locked_until > now:
        minutes = math.ceil((limit.locked_until - now).total_seconds() / 60)
        notices.tell(account, Template.WAIT_TO_GUESS, minutes=minutes)
        return Outcome.WAIT
    recent = [at for at in limit.times if at > now.timestamp() - limits().guess_seconds]
    if len(secrets) > max(1, limits().guesses - len(recent) - 1):
        notices.tell(account, Template.JUST_THE_CODE)
        return Outcome.REFUSED
    live = list(pairing_requests.with_parties(pairing_requests.offered(*secrets)).order_by("created_at"))
    outcome = _claim(live[0], account, takes) if live else None
    hashes = {known for pairing in live for known in (pairing.code_hash, pairing.token_hash)} if outcome else set()
    for secret in secrets:
        if hashes.isdisjoint(lookup_hashes(secret)):
            rate_limits.count_wrong(limit, now, actor=audit.actor(account), account=account)
    return outcome or Outcome.NOTHING


def _claim(pairing: Pairing, account: PlatformAccount, takes: bool) -> Outcome | None:
    """Answer a live code; None if it has ended meanwhile."""
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
    claimed = Pairing.objects.filter(responder=account, state=State.CLAIMED)
    pairing_requests.expire(claimed)
    for earlier in pairing_requests.with_parties(claimed):
        _stop(earlier, State.DENIED, account)
    if not pairing_requests.take(pairing, responder=account):
        return None
    pairing_requests.record("claimed", pairing, actor=audit.actor(account), account=account)
    notices.tell(account, Template.NUMBER, pairing=str(pairing.pk))
    for initiator in pairing_requests.initiating_accounts(pairing):
        notices.tell(initiator, Template.CLAIMED, pairing=str(pairing.pk))
    return Outcome.CLAIMED


# --- LINKED


@transaction.atomic
def confirm(*, account: PlatformAccount, number: str) -> Outcome:
    """Try a number that `account` sent: the right one finishes the handshake, the third wrong one ends it.

    NOTHING if the account is party to no claimed request: then the number is an ordinary message.
    """
    asked = list(_awaiting_number_from(account))
    if not asked:
        shown = _shown_elsewhere(account).order_by("-claimed_at").first()
        if shown is None:
            return Outcome.NOTHING
        place = Template.TYPE_IN_BROWSER if shown.initiator_browser_id else Template.TYPE_IN_OTHER_APP
        notices.tell(account, place)
        return Outcome.OTHER_SIDE
    complete_pairing.lock_sides(asked)
    waiting = list(_awaiting_number_from(account).filter(pk__in=[pairing.pk for pairing in asked]))
    # The number of one of these requests does not count as a wrong one of the others.
    matching = [row for row in waiting if challenge.matches(number, secrets_of(row).number, tries=row.tries)]
    how = How("pairing", audit.actor(account), account)
    outcomes = [complete_pairing.try_number(pairing, number, how) for pairing in matching[:1] or waiting]
    if not outcomes:  # the request ended while the number was on its way
        notices.tell(account, Template.NOTHING_THERE)
        return Outcome.ENDED
    return outcomes[0]


@transaction.atomic
def confirm_as_operator(*, pairing: Pairing, number: str, operator: str) -> Outcome:
    """Try the number that an invited person read out to the operator.

    OTHER_SIDE if the person has an account, or had one when the code was claimed: then the person was told to type the
    number in one of those chats, and removing the account does not move that right to the operator.
    """
    claimed = Pairing.objects.filter(pk=pairing.pk, state=State.CLAIMED, person__isnull=False)
    asked = pairing_requests.with_parties(claimed)
    complete_pairing.lock_sides(asked)
    invitation = asked.all().first()
    if invitation is None:
        return Outcome.NOTHING
    links = AccountLink.objects.filter(user=invitation.person_id)
    if links.filter(Q(ended_at=None) | Q(ended_at__gt=invitation.claimed_at)).exists():
        return Outcome.OTHER_SIDE
    return complete_pairing.try_number(invitation, number, How("operator", operator))


def awaits_number(account: PlatformAccount) -> bool:
    """Whether the account is to type a number now."""
    return _awaiting_number_from(account).exists()


def is_party_to_number(account: PlatformAccount) -> bool:
    """Whether the account, or another one of its person, is shown or asked for a number now."""
    return awaits_number(account) or _shown_elsewhere(account).exists()


def is_spent_number(account: PlatformAccount, numbers: Iterable[str]) -> bool:
    """Whether one of these is the number of a request that ended within a day, of the account or its person.

    Such a number is useless, but must not be kept. Live requests are left out: they would make this a free guess.
    """
    family = [account.pk, *_accounts_beside(account)]
    own_people = AccountLink.objects.live().filter(account=account).values("user")
    party = Q(initiator__in=family) | Q(responder__in=family) | Q(person__in=own_people)
    is_over = Q(ended_at__isnull=False) | Q(expires_at__lte=clock.now())
    ended = Pairing.objects.filter(party, is_over, claimed_at__gt=clock.seconds_from_now(-DAY))
    spent = [secrets_of(pairing).number for pairing in ended]
    return any(codes.is_same(number, spent_number) for number in numbers for spent_number in spent)


def _awaiting_number_from(account: PlatformAccount) -> QuerySet[Pairing]:
    """The claimed requests that this account finishes: its own, and the invitations of its person."""
    own_people = AccountLink.objects.live().filter(account=account).values("user")
    own = Q(initiator=account) | Q(person__in=own_people)
    claimed = Pairing.objects.filter(own, state=State.CLAIMED, expires_at__gt=clock.now())
    return pairing_requests.with_parties(claimed).order_by("claimed_at")


def _shown_elsewhere(account: PlatformAccount) -> QuerySet[Pairing]:
    """The claimed requests of the account or its person whose number is to be typed elsewhere."""
    family = _accounts_beside(account)
    sides = Q(responder=account) | Q(responder__in=family) | Q(initiator__in=family)
    return Pairing.objects.filter(sides, state=State.CLAIMED, expires_at__gt=clock.now())


def _accounts_beside(account: PlatformAccount) -> QuerySet[AccountLink, int]:
    """The accounts of its person, itself included; none if it has no link."""
    live = AccountLink.objects.live()
    return live.filter(user__in=live.filter(account=account).values("user")).values_list("account", flat=True)


# --- Ends without a link


@transaction.atomic
def deny(*, account: PlatformAccount, pairing_id: uuid.UUID) -> Outcome:
    """ "Not me", from either side: end the request, and count that against the other side.

    If the handshake is finished already, take back its links and browsers.
    """
    links = linking.hold_links_of(account)
    pairing = _live_of(account).filter(pk=pairing_id).first()
    if pairing is None:
        return _take_back(account, pairing_id, links)
    return _stop(pairing, State.DENIED, account, is_rejection=True)


def _take_back(account: PlatformAccount, pairing_id: uuid.UUID, links: Sequence[AccountLink]) -> Outcome:
    """Disown the links of a finished handshake, and sign out the browser that it attached.

    `links`: the live links of the account's person, which the caller holds.
    """
    page = Browser.objects.filter(accounts__account=account, accounts__pairing=pairing_id, accounts__ended_at=None)
    browser = page.select_for_update(no_key=True, of=("self",)).first()  # before any attachment or request
    # A link that the browser made carries the request by which one of its accounts was attached.
    there = BrowserAccount.objects.filter(browser__accounts__account=account, browser__accounts__pairing=pairing_id)
    pairing_ids = {pairing_id, *there.values_list("pairing", flat=True)}
    is_linked = any(link.pairing_id in pairing_ids for link in links)
    is_done = is_linked and linking.repudiate(links, account=account, pairing_ids=pairing_ids)
    if browser and browser_sessions.sign_out(browser):
        notices.tell(account, Template.SIGNED_OUT, browsers=1)
        return Outcome.DENIED
    if not is_linked:
        notices.tell(account, Template.NOTHING_THERE)
    return Outcome.DENIED if is_done else Outcome.NOTHING


@transaction.atomic
def cancel(*, account: PlatformAccount) -> Outcome:
    """`/cancel`: end all requests that the account is party to."""
    locks.lock_person(account.pk)
    outcomes = [_stop(pairing, State.CANCELLED, account) for pairing in _live_of(account).order_by("pk")]
    if not outcomes:
        notices.tell(account, Template.NOTHING_THERE)
    return outcomes[0] if outcomes else Outcome.NOTHING


@transaction.atomic
def withdraw(*, pairing: Pairing, operator: str) -> Outcome:
    """End an invitation for an operator. NOTHING for a request that was started in a chat: only its parties end it."""
    live = Pairing.objects.filter(pk=pairing.pk, person__isnull=False, expires_at__gt=clock.now())
    invitation = live.select_related("person").first()
    if invitation is None or not pairing_requests.withdraw(invitation, actor=operator):
        return Outcome.NOTHING
    return Outcome.CANCELLED


def _stop(pairing: Pairing, state: str, account: PlatformAccount, *, is_rejection: bool = False) -> Outcome:
    if not pairing_requests.stop(pairing, state, actor=audit.actor(account), by=account, is_rejection=is_rejection):
        return Outcome.NOTHING
    rate_limits.alert(pairing)
    return Outcome(state)


def _live_of(account: PlatformAccount) -> QuerySet[Pairing]:
    """The live requests of the account as initiator or responder, and the claimed invitations of its person."""
    own_people = AccountLink.objects.live().filter(account=account).values("user")
    party = Q(initiator=account) | Q(responder=account) | Q(person__in=own_people, state=State.CLAIMED)
    live = Pairing.objects.filter(party, ended_at=None, expires_at__gt=clock.now())
    return pairing_requests.with_parties(live)


@transaction.atomic
def burn(*, secrets: Iterable[str]) -> bool:
    """End the live requests whose codes or tokens were posted in public, and tell their owners in private."""
    live = pairing_requests.with_parties(pairing_requests.offered(*set(secrets))).order_by("pk")
    burned = [pairing for pairing in live if pairing_requests.end(pairing, State.BURNED, was=[State.OFFERED])]
    for pairing in burned:
        pairing_requests.record("burned", pairing, actor="system", account=pairing.initiator)
        notices.tell(pairing.initiator, Template.BURNED)
    return bool(burned)


@transaction.atomic
def expire() -> int:
    """End the requests that have run out, so that no hash of them remains. Returns how many."""
    over = Pairing.objects.filter(ended_at=None, expires_at__lte=clock.bound()).order_by("expires_at")
    return portions.handle(
        "ending a request", over, lambda one: pairing_requests.expire(Pairing.objects.filter(pk=one.pk)) > 0
    )
