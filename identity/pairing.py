"""The two-code handshake: the only way in which people and operators make a link.

A link code travels from the initiating side to the responder, and a number travels back. Whoever is talked into sending
somebody else's code has opened nothing: only the number finishes it, and it is shown to the responder alone.

    offer, invite -> OFFERED -> claim -> CLAIMED -> confirm -> LINKED
    and on the way: deny, cancel, burn, expire; LOCKED after the third wrong number, REFUSED where policy forbids the
    link

Each step is decided by one conditional UPDATE whose row count must be 1, in one transaction with what it causes: links,
audit rows, and what must be said. Constraints on Pairing and AccountLink stand behind it. Times are the database's. No
secret is stored, logged or returned. That a message is private and first-hand is for the caller to know.
"""

from __future__ import annotations

import math
import secrets
import uuid
from collections.abc import Iterable
from datetime import datetime, timedelta
from enum import StrEnum

from django.db import transaction
from django.db.models import F, Q, QuerySet
from django.db.models.functions import Least

from identity import audit, clock, codes, linking, notices
from identity.limits import DAY, limits
from identity.linking import How
from identity.models import AccountLink, GuessLimit, Pairing, PlatformAccount, UnifiedUser
from identity.notices import Template
from identity.pairing_secrets import lookup_hash, secrets_of

State = Pairing.State


class Outcome(StrEnum):
    """What came of a step."""

    OFFERED = "offered"
    CLAIMED = "claimed"
    LINKED = "linked"
    CANCELLED = "cancelled"
    DENIED = "denied"
    LOCKED = "locked"
    REFUSED = "refused"
    WAIT = "wait"
    WRONG = "wrong"
    OWN_CODE = "own_code"
    OTHER_SIDE = "other_side"
    ENDED = "ended"
    NOTHING = "nothing"


# --- OFFERED


@transaction.atomic
def offer(*, account: PlatformAccount) -> Outcome:
    """`/link`: give `account` a code to send in another app. Ends the one it had."""
    linking.lock_person(account.pk)  # one start of an account at a time
    mine = Pairing.objects.filter(initiator=account)
    _expire(mine)
    if seconds := _seconds_until_start(account):
        notices.tell(account, Template.WAIT_TO_START, seconds=seconds)
        return Outcome.WAIT
    for old in mine.filter(ended_at=None).select_related("responder", "person"):
        _end(old, State.CANCELLED)
        _audit("cancelled", old, actor=audit.actor(account), account=account)
        notices.tell(old.responder, Template.CANCELLED)
    pairing = _open(limits().code_seconds, limits().handshake_seconds, initiator=account)
    _audit("offered", pairing, actor=audit.actor(account), account=account)
    notices.tell(account, Template.OFFER, pairing=str(pairing.pk), minutes=limits().code_seconds // 60)
    return Outcome.OFFERED


@transaction.atomic
def invite(*, person: UnifiedUser, operator: str, platform: str = "") -> Pairing:
    """An operator's invitation: a code with which an account (of `platform`, if given) asks to become `person`'s."""
    code, number = limits().invitation_seconds, limits().invitation_number_seconds
    pairing = _open(code, code + number, person=person, operator=operator, platform=platform)
    _audit("invited", pairing, actor=operator)
    return pairing


def _open(code_seconds: int, handshake_seconds: int, **side: object) -> Pairing:
    pairing = Pairing(id=uuid.uuid4(), nonce=secrets.token_bytes(16), **side)
    derived = secrets_of(pairing)
    pairing.code_hash, pairing.token_hash = lookup_hash(derived.code), lookup_hash(derived.token)
    pairing.expires_at = clock.seconds_from_now(code_seconds)
    pairing.last_at = clock.seconds_from_now(handshake_seconds)
    pairing.save(force_insert=True)
    return pairing


def _seconds_until_start(account: PlatformAccount) -> int:
    """How long the account must wait before it may start again; 0 for not at all. Reads at most a day's starts."""
    these, now = limits(), clock.read()
    most = {these.start_pause_seconds: 1, 3600: these.starts_an_hour, DAY: these.starts_a_day}
    if strikes(account) >= these.strikes:
        most[3600] = 1
    starts = Pairing.objects.filter(initiator=account).order_by("-created_at").values_list("created_at", flat=True)
    times = list(starts[: max(most.values())])
    waits = [times[count - 1] + timedelta(seconds=span) - now for span, count in most.items() if len(times) >= count]
    return max(0, *(math.ceil(wait.total_seconds()) for wait in waits)) if waits else 0


def strikes(account: PlatformAccount) -> int:
    """Against how many others' will the account tried to link within a day."""
    recent = Pairing.objects.filter(strike=account, ended_at__gt=clock.seconds_from_now(-DAY))
    return recent.values("initiator", "responder").distinct().count()


# --- CLAIMED


@transaction.atomic
def claim(*, account: PlatformAccount, secret: str) -> Outcome:
    """A code or link token arrived from `account`. The right one shows it a number; whoever guesses is locked out.

    A locked-out account gets the same answer before any look-up, right code or wrong.
    """
    linking.lock_person(account.pk)  # before any request, as confirm does, so that nobody waits in a circle
    limit = _guesses_of(account)
    now = clock.read()
    if limit.locked_until > now:
        notices.tell(account, Template.WAIT_TO_GUESS, minutes=_minutes(limit.locked_until - now))
        return Outcome.WAIT
    pairing = _offered(secret).select_related("initiator", "person").first()
    if pairing is None:
        return _wrong_code(account, limit, now)
    if pairing.initiator_id == account.pk:
        notices.tell(account, Template.OWN_CODE)
        return Outcome.OWN_CODE
    if pairing.platform not in ("", account.platform):
        notices.tell(account, Template.OTHER_APP)
        return Outcome.REFUSED
    if reason := _forbids(pairing, account):
        return _refuse(pairing, account, reason)
    return _claim(pairing, account) or _wrong_code(account, limit, now)


def _offered(secret: str) -> QuerySet[Pairing]:
    hashed = lookup_hash(secret)
    matches = Q(code_hash=hashed) | Q(token_hash=hashed)
    return Pairing.objects.filter(matches, state=State.OFFERED, expires_at__gt=clock.now())


def _claim(pairing: Pairing, account: PlatformAccount) -> Outcome | None:
    """The deciding step: of all who send the code at once, one changes the row."""
    claimed = Pairing.objects.filter(responder=account, state=State.CLAIMED)
    _expire(claimed)
    for earlier in claimed.select_related("initiator", "responder", "person"):
        _stop(earlier, State.DENIED, account)
    seconds = limits().number_seconds if pairing.initiator_id else limits().invitation_number_seconds
    changed = Pairing.objects.filter(pk=pairing.pk, state=State.OFFERED, expires_at__gt=clock.now()).update(
        state=State.CLAIMED,
        responder=account,
        claimed_at=clock.now(),
        expires_at=Least(clock.seconds_from_now(seconds), F("last_at")),
        code_hash=None,
        token_hash=None,
    )
    if changed != 1:
        return None
    _audit("claimed", pairing, actor=audit.actor(account), account=account)
    notices.tell(account, Template.NUMBER, pairing=str(pairing.pk), minutes=seconds // 60)
    for one in _initiating_accounts(pairing):
        notices.tell(one, Template.CLAIMED, pairing=str(pairing.pk))
    return Outcome.CLAIMED


def _guesses_of(account: PlatformAccount) -> GuessLimit:
    """The account's count of wrong codes, held until commit, so that guesses are counted one after the other."""
    GuessLimit.objects.get_or_create(account=account)
    return GuessLimit.objects.select_for_update().get(account=account)


def _wrong_code(account: PlatformAccount, limit: GuessLimit, now: datetime) -> Outcome:
    """Wrong, expired, used and unknown look alike. Too many within the window lock the guesser, and nobody else."""
    is_recent = limit.since > now - timedelta(seconds=limits().guess_seconds)
    limit.failures = limit.failures + 1 if is_recent else 1
    limit.since = limit.since if is_recent else now
    if limit.failures >= limits().guesses:
        was_locked = limit.locked_until > now - timedelta(seconds=DAY)
        locked = limits().lock_again_seconds if was_locked else limits().lock_seconds
        limit.failures, limit.locked_until = 0, now + timedelta(seconds=locked)
        audit.record(kind="pairing_guesser_locked", actor=audit.actor(account), account=account, seconds=locked)
    limit.save()
    notices.tell(account, Template.WRONG_CODE)
    return Outcome.WRONG


# --- LINKED


@transaction.atomic
def confirm(*, account: PlatformAccount, number: str) -> Outcome:
    """A number arrived from `account`. The one that the responder was shown links the two; the third wrong one ends it.

    NOTHING if the account is party to no claimed request: then the number was just a message.
    """
    asked = list(_awaiting_number_from(account))
    if not asked:
        return _answer_wrong_side(account)
    _lock_sides(asked)
    still = list(_awaiting_number_from(account).filter(pk__in=[pairing.pk for pairing in asked]))
    how = How("pairing", audit.actor(account))
    outcomes = [_try(pairing, number, account, how) for pairing in still] or [_too_late(account)]
    return Outcome.LINKED if Outcome.LINKED in outcomes else outcomes[0]


@transaction.atomic
def confirm_as_operator(*, pairing: Pairing, number: str, operator: str) -> Outcome:
    """The operator types the number that the person read out. Only for a person who has no account, and had none when
    the code was claimed: they were told then to type it themselves, and taking out an account does not change that.
    """
    claimed = Pairing.objects.filter(pk=pairing.pk, state=State.CLAIMED, person__isnull=False)
    asked = claimed.select_related("initiator", "responder", "person")
    _lock_sides(asked)
    still = asked.all().first()
    if still is None:
        return Outcome.NOTHING
    if _had_accounts(still):
        return Outcome.OTHER_SIDE
    return _try(still, number, None, How("operator", operator))


def _had_accounts(pairing: Pairing) -> bool:
    theirs = AccountLink.objects.filter(user=pairing.person_id)
    return theirs.filter(Q(ended_at=None) | Q(ended_at__gt=pairing.claimed_at)).exists()


def is_party_to_number(account: PlatformAccount) -> bool:
    """Whether the account was shown, or is asked for, a number just now, or another one of its person is."""
    return _awaiting_number_from(account).exists() or _shown_elsewhere(account).exists()


def is_spent_number(account: PlatformAccount, numbers: Iterable[str]) -> bool:
    """Whether one of these was the number of a request of the account that ended within a day: of no use, and still not
    to be kept. Says nothing about requests that live, or it would be a free guess.
    """
    own_people = AccountLink.objects.live().filter(account=account).values("user")
    party = Q(initiator=account) | Q(responder=account) | Q(person__in=own_people)
    is_over = Q(ended_at__isnull=False) | Q(expires_at__lte=clock.now())
    ended = Pairing.objects.filter(party, is_over, claimed_at__gt=clock.seconds_from_now(-DAY))
    spent = [secrets_of(pairing).number for pairing in ended]
    return any(codes.is_same(number, one) for number in numbers for one in spent)


def _awaiting_number_from(account: PlatformAccount) -> QuerySet[Pairing]:
    """Claimed requests that this account finishes: its own, and invitations to the person that it is linked to."""
    own_people = AccountLink.objects.live().filter(account=account).values("user")
    mine = Q(initiator=account) | Q(person__in=own_people)
    claimed = Pairing.objects.filter(mine, state=State.CLAIMED, expires_at__gt=clock.now())
    return claimed.select_related("initiator", "responder", "person").order_by("claimed_at")


def _answer_wrong_side(account: PlatformAccount) -> Outcome:
    if not _shown_elsewhere(account).exists():
        return Outcome.NOTHING
    notices.tell(account, Template.TYPE_IN_OTHER_APP)
    return Outcome.OTHER_SIDE


def _shown_elsewhere(account: PlatformAccount) -> QuerySet[Pairing]:
    """Claimed requests whose number is typed neither by this account nor, if it is linked, here."""
    live = AccountLink.objects.live()
    same_person = live.filter(user__in=live.filter(account=account).values("user")).values("account")
    sides = Q(responder=account) | Q(initiator__in=same_person)
    return Pairing.objects.filter(sides, state=State.CLAIMED, expires_at__gt=clock.now())


def _too_late(account: PlatformAccount | None) -> Outcome:
    """The request ended while the number was on its way."""
    notices.tell(account, Template.NOTHING_THERE)
    return Outcome.ENDED


def _lock_sides(pairings: Iterable[Pairing]) -> None:
    """Hold all accounts and people that these requests may join, so that policy is decided on what stays true."""
    accounts = {one for pairing in pairings for one in (pairing.initiator_id, pairing.responder_id) if one}
    people = {pairing.person_id for pairing in pairings if pairing.person_id}
    linking.lock_people(accounts, joining=people)


def _try(pairing: Pairing, number: str, account: PlatformAccount | None, how: How) -> Outcome:
    """Count the try before it is looked at, so that none is evaluated beyond the last."""
    claimed = Pairing.objects.filter(pk=pairing.pk, state=State.CLAIMED, expires_at__gt=clock.now())
    if claimed.filter(tries__lt=limits().number_tries).update(tries=F("tries") + 1) != 1:
        return _too_late(account)
    if codes.is_same(number, secrets_of(pairing).number):
        return _link(pairing, how)
    left = limits().number_tries - pairing.tries - 1
    if left > 0:
        notices.tell(account, Template.WRONG_NUMBER, left=left)
        return Outcome.WRONG
    _end(pairing, State.LOCKED, strike=pairing.initiator)
    _audit("locked", pairing, actor=how.actor, account=account)
    _tell_both(pairing, Template.LOCKED)
    _alert(pairing.initiator)
    return Outcome.LOCKED


def _link(pairing: Pairing, how: How) -> Outcome:
    """Join the two sides. The rows they stand on are locked, and policy is asked once more."""
    responder = pairing.responder
    if responder is None:
        raise AssertionError("the database keeps a responder on every claimed request")
    if reason := _forbids(pairing, responder):
        return _refuse(pairing, responder, reason)
    if not _end(pairing, State.LINKED):
        raise AssertionError("the row has been ours since the try was counted")
    sides = [one for one in (pairing.initiator, responder) if one]
    person, since = _person_of(pairing), clock.read()
    known = linking.accounts_of(person)
    for one in sides:
        if one not in known:
            link = linking.join(account=one, user=person, pairing=pairing, since=since, how=how)
            _tell_others(link, [other for other in known if other not in sides])
        notices.tell(one, Template.LINKED, pairing=str(pairing.pk))
    return Outcome.LINKED


def _tell_others(link: AccountLink, others: Iterable[PlatformAccount]) -> None:
    for other in others:
        notices.tell(other, Template.ACCOUNT_ADDED, link=link.pk)


def _person_of(pairing: Pairing) -> UnifiedUser:
    """Whose the accounts will be: the person invited or already there on either side, else a new one."""
    sides = [one for one in (pairing.initiator_id, pairing.responder_id) if one]
    link = AccountLink.objects.live().filter(account__in=sides).select_related("user").first()
    if pairing.person:
        return pairing.person
    if link:
        return link.user
    name = pairing.initiator.display_name if pairing.initiator else ""
    return UnifiedUser.objects.create(unified_user_id=f"u-{secrets.token_hex(8)}", display_name=name)


def _forbids(pairing: Pairing, responder: PlatformAccount) -> str:
    """Why policy does not allow the two sides to be joined, in a word; empty if it does.

    One side must be linked to nobody yet, and a person has at most one account on each platform.
    """
    theirs = AccountLink.objects.live().filter(account=responder).values_list("user_id", flat=True).first()
    ours = pairing.person_id or _person_id_of(pairing.initiator_id)
    if theirs and theirs == ours:
        return "same_person"
    has_accounts = AccountLink.objects.live().filter(user=ours).exists() if ours else False
    if theirs and (has_accounts or pairing.person_id):
        return "both_linked"
    platforms = {pairing.initiator.platform} if pairing.initiator else set()
    platforms |= _platforms_of(ours)
    joining = {responder.platform} | _platforms_of(theirs)
    return "same_platform" if platforms & joining else ""


def _person_id_of(account_id: int | None) -> int | None:
    return AccountLink.objects.live().filter(account=account_id).values_list("user_id", flat=True).first()


def _platforms_of(user_id: int | None) -> set[str]:
    live = AccountLink.objects.live().filter(user=user_id) if user_id else AccountLink.objects.none()
    return set(live.values_list("account__platform", flat=True))


# --- Ends without a link


@transaction.atomic
def deny(*, account: PlatformAccount, pairing_id: uuid.UUID) -> Outcome:
    """ "Not me", from either side: nothing is linked, and it counts against the other side."""
    linking.lock_person(account.pk)
    pairing = _live_of(account).filter(pk=pairing_id).first()
    if pairing is None:
        notices.tell(account, Template.NOTHING_THERE)
        return Outcome.NOTHING
    other = pairing.initiator if pairing.responder_id == account.pk else pairing.responder
    return _stop(pairing, State.DENIED, account, strike=other)


@transaction.atomic
def cancel(*, account: PlatformAccount) -> Outcome:
    """`/cancel`: end what the account is party to."""
    linking.lock_person(account.pk)
    outcomes = [_stop(pairing, State.CANCELLED, account) for pairing in _live_of(account).order_by("pk")]
    if not outcomes:
        notices.tell(account, Template.NOTHING_THERE)
    return outcomes[0] if outcomes else Outcome.NOTHING


@transaction.atomic
def withdraw(*, pairing: Pairing, operator: str) -> Outcome:
    """An operator takes an invitation back. Requests that people started in a chat are theirs to end."""
    live = Pairing.objects.filter(pk=pairing.pk, person__isnull=False, expires_at__gt=clock.now())
    invitation = live.select_related("person").first()
    if invitation is None or not _end(invitation, State.CANCELLED):
        return Outcome.NOTHING
    _audit("withdrawn", invitation, actor=operator)
    invitation.refresh_from_db(fields=["responder"])  # somebody may have claimed it just before
    if invitation.responder:  # nobody else was told of it yet
        _tell_both(invitation, Template.CANCELLED)
    return Outcome.CANCELLED


def _stop(pairing: Pairing, state: str, account: PlatformAccount, strike: PlatformAccount | None = None) -> Outcome:
    if not _end(pairing, state, strike=strike):
        return Outcome.NOTHING
    _audit(state, pairing, actor=audit.actor(account), account=account)
    _tell_both(pairing, Template.DENIED if state == State.DENIED else Template.CANCELLED)
    _alert(strike)
    return Outcome(state)


def _alert(struck: PlatformAccount | None) -> None:
    """Write down for the operator that an account has reached the strikes that slow it down."""
    if struck and strikes(struck) == limits().strikes:
        audit.record(kind="pairing_strikes", actor="system", account=struck)


def _live_of(account: PlatformAccount) -> QuerySet[Pairing]:
    """Requests that the account is party to: as initiator, as responder, or because they are invitations to its
    person.
    """
    own_people = AccountLink.objects.live().filter(account=account).values("user")
    party = Q(initiator=account) | Q(responder=account) | Q(person__in=own_people, state=State.CLAIMED)
    live = Pairing.objects.filter(party, ended_at=None, expires_at__gt=clock.now())
    return live.select_related("initiator", "responder", "person")


@transaction.atomic
def burn(*, found: Iterable[str]) -> bool:
    """Codes or tokens were seen in public: those that are live end, and their owners are told in private."""
    hashes = [lookup_hash(secret) for secret in found]
    seen = Q(code_hash__in=hashes) | Q(token_hash__in=hashes)
    live = Pairing.objects.filter(seen, state=State.OFFERED, expires_at__gt=clock.now()).order_by("pk")
    burned = [one for one in live.select_related("initiator", "person") if _end(one, State.BURNED)]
    for pairing in burned:
        _audit("burned", pairing, actor="system", account=pairing.initiator)
        notices.tell(pairing.initiator, Template.BURNED)
    return bool(burned)


@transaction.atomic
def expire() -> int:
    """End what has run out, so that no hash of it remains. How many there were."""
    return _expire(Pairing.objects.all())


def _expire(pairings: QuerySet[Pairing]) -> int:
    over = pairings.filter(ended_at=None, expires_at__lte=clock.now())
    return over.update(state=State.EXPIRED, ended_at=clock.now(), code_hash=None, token_hash=None)


def _refuse(pairing: Pairing, responder: PlatformAccount, reason: str) -> Outcome:
    if _end(pairing, State.REFUSED):
        _audit("refused", pairing, actor="system", account=responder, reason=reason)
        for one in (pairing.initiator, responder):
            notices.tell(one, Template.REFUSED, reason=reason)
    return Outcome.REFUSED


def _end(pairing: Pairing, state: str, strike: PlatformAccount | None = None) -> bool:
    """Bring a live request to its end, once: False if somebody else was first."""
    live = Pairing.objects.filter(pk=pairing.pk, ended_at=None)
    return live.update(state=state, ended_at=clock.now(), strike=strike, code_hash=None, token_hash=None) == 1


# --- Who


def _initiating_accounts(pairing: Pairing) -> list[PlatformAccount]:
    """All accounts that see what becomes of the request: the initiator, or those of the person who is invited."""
    if pairing.initiator:
        return [pairing.initiator]
    return linking.accounts_of(pairing.person) if pairing.person else []


def _tell_both(pairing: Pairing, template: Template) -> None:
    for one in (*_initiating_accounts(pairing), pairing.responder):
        notices.tell(one, template)


def _audit(
    kind: str, pairing: Pairing, *, actor: str, account: PlatformAccount | None = None, **details: str | int | None
) -> None:
    audit.record(
        kind=f"pairing_{kind}", actor=actor, account=account, user=pairing.person, request=pairing.pk.hex, **details
    )


def _minutes(span: timedelta) -> int:
    return math.ceil(span.total_seconds() / 60)
