"""The rows of handshakes, and the conditional UPDATEs by which each step is decided.

Of all who try a step at once, the one whose UPDATE changes the row has done it. What a step causes is written
by identity.flows.pair_in_chat (chats and operators) and identity.flows.pair_in_browser (browsers), in the same
transaction.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from enum import StrEnum

from django.db.models import F, Q, QuerySet
from django.db.models.functions import Least

from identity import audit, live, notices
from identity.models import AccountLink, Browser, Pairing, PlatformAccount, UnifiedUser
from identity.notices import Template
from identity.pairing.secrets import lookup_hash, lookup_hashes, secrets_of
from identity.pairing.settings import limits
from identity.support import clock, keys

State = Pairing.State
LIVE = (State.OFFERED, State.CLAIMED)
Party = PlatformAccount | Browser


class Outcome(StrEnum):
    """What came of a step."""

    OFFERED = "offered"
    CLAIMED = "claimed"
    LINKED = "linked"
    ATTACHED = "attached"
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


def begin(code_seconds: int, handshake_seconds: int, **side: object) -> Pairing:
    """A new request, offered by `side`: `initiator`, `initiator_browser`, or `person` and `operator`."""
    pairing = Pairing(id=uuid.uuid4(), nonce=keys.new_nonce(), **side)
    pairing.initiator_hash = audit.account_hash(pairing.initiator) if pairing.initiator else ""
    derived = secrets_of(pairing)
    pairing.code_hash, pairing.token_hash = lookup_hash(derived.code), lookup_hash(derived.token)
    pairing.expires_at = clock.seconds_from_now(code_seconds)
    pairing.last_at = clock.seconds_from_now(handshake_seconds)
    pairing.save(force_insert=True)
    return pairing


def with_parties(pairings: QuerySet[Pairing]) -> QuerySet[Pairing]:
    """The same with both sides read along."""
    return pairings.select_related("initiator", "initiator_browser", "person", "responder", "responder_browser")


def offered(*found: str) -> QuerySet[Pairing]:
    """The live requests whose codes or link tokens these are; none for whatever else."""
    hashes = [one for secret in found for one in lookup_hashes(secret)]
    matches = Q(code_hash__in=hashes) | Q(token_hash__in=hashes)
    return Pairing.objects.filter(matches, state=State.OFFERED, expires_at__gt=clock.now())


def take(pairing: Pairing, **responder: Party) -> bool:
    """The deciding step of a claim, by `responder` or `responder_browser`: of all who send the code, one changes it."""
    live_one = Pairing.objects.filter(pk=pairing.pk, state=State.OFFERED, expires_at__gt=clock.now())
    changed = live_one.update(
        state=State.CLAIMED,
        claimed_at=clock.now(),
        expires_at=Least(clock.seconds_from_now(number_seconds(pairing)), F("last_at")),
        code_hash=None,
        token_hash=None,
        **responder,
    )
    for name, party in responder.items() if changed else ():
        setattr(pairing, name, party)
    return changed == 1


def number_seconds(pairing: Pairing) -> int:
    """How long the number that answers this request may live."""
    return limits().invitation_number_seconds if pairing.person_id else limits().number_seconds


def end(pairing: Pairing, state: str, *, was: Iterable[str], strike: PlatformAccount | None = None) -> bool:
    """Bring a live request to its end, once: False if somebody else was first, or it is no longer what it `was` when
    this was decided.
    """
    unended = Pairing.objects.filter(pk=pairing.pk, state__in=was, ended_at=None)
    return unended.update(state=state, ended_at=clock.now(), strike=strike, code_hash=None, token_hash=None) == 1


def end_whoever_has_it(pairing: Pairing, state: str) -> bool:
    """End a live request, offered or claimed, and read who has claimed it by then: they are to be told, too."""
    if not end(pairing, state, was=LIVE):
        return False
    pairing.refresh_from_db(fields=["responder", "responder_browser"])
    return True


def stop(
    pairing: Pairing,
    state: str,
    *,
    actor: str,
    by: PlatformAccount | None = None,
    strikes: bool = False,
) -> bool:
    """Deny or cancel a live request for the account `by`, or for a browser; write it down and tell both sides. With
    `strikes` it speaks against the account on the other side. False if it had ended.
    """
    if not end_whoever_has_it(pairing, state):
        return False
    if strikes:
        pairing.strike = _other_side(pairing, by)
        pairing.save(update_fields=["strike"])
    record(state, pairing, actor=actor, account=by)
    tell_both(pairing, Template.DENIED if state == State.DENIED else Template.CANCELLED)
    return True


def stop_all_of(accounts: Iterable[int], *, actor: str) -> None:
    """Cancel what these accounts (primary keys) are party to. The caller holds them or their person, and what they are
    attached to, which comes before any request.
    """
    party = Q(initiator__in=accounts) | Q(responder__in=accounts)
    live_ones = Pairing.objects.filter(party, ended_at=None, expires_at__gt=clock.now())
    for pairing in with_parties(live_ones).order_by("pk"):
        stop(pairing, State.CANCELLED, actor=actor)


def refuse(pairing: Pairing, responder: PlatformAccount, reason: str, *, was: str) -> bool:
    """End a request that policy forbids, and say why. False if it is no longer what it `was`."""
    if not end(pairing, State.REFUSED, was=[was]):
        return False
    record("refused", pairing, actor="system", account=responder, reason=reason)
    initiating = [pairing.initiator] if was == State.OFFERED else initiating_accounts(pairing)
    for one in (*initiating, responder):  # invited people hear of what has been claimed, and not before
        notices.tell(one, Template.REFUSED, reason=reason)
    return True


def refuse_outdated(user: UnifiedUser) -> None:
    """Whoever has claimed another invitation of the person was shown other accounts than there are now: policy would
    refuse the number, whoever types it. The caller holds the person.
    """
    for one in with_parties(live_invitations(user).filter(state=State.CLAIMED)).order_by("pk"):
        if one.responder:
            refuse(one, one.responder, "changed", was=State.CLAIMED)


def withdraw(invitation: Pairing, *, actor: str) -> bool:
    """Take a live invitation back. False if it had ended."""
    if not end_whoever_has_it(invitation, State.CANCELLED):
        return False
    record("withdrawn", invitation, actor=actor)
    if invitation.responder:  # nobody else was told of it yet
        tell_both(invitation, Template.CANCELLED)
    return True


def withdraw_all(user: UnifiedUser, *, actor: str) -> int:
    """Take all invitations of a person back. The caller holds the person. How many there were."""
    return sum(withdraw(one, actor=actor) for one in with_parties(live_invitations(user)).order_by("pk"))


def live_invitations(user: UnifiedUser) -> QuerySet[Pairing]:
    """Those of a person that have not ended or run out."""
    return Pairing.objects.filter(person=user, ended_at=None, expires_at__gt=clock.now())


def _other_side(pairing: Pairing, by: PlatformAccount | None) -> PlatformAccount | None:
    if by is None:
        return pairing.initiator or pairing.responder
    return pairing.initiator if pairing.responder_id == by.pk else pairing.responder


def expire(pairings: QuerySet[Pairing]) -> int:
    """End what has run out, so that no hash of it remains. How many there were."""
    over = with_parties(pairings.filter(ended_at=None, expires_at__lte=clock.now())).order_by("pk")
    ended = [one for one in over if end(one, State.EXPIRED, was=[one.state])]  # a claim gives it more time
    for one in ended:
        record("expired", one, actor="system", account=one.initiator)
    return len(ended)


def initiating_accounts(pairing: Pairing) -> list[PlatformAccount]:
    """All accounts that see what becomes of the request: the initiator, or those of the person who is invited."""
    if not pairing.person_id:
        return [pairing.initiator] if pairing.initiator else []
    theirs = AccountLink.objects.live().filter(user=pairing.person_id).order_by("since", "pk")
    return [link.account for link in theirs.select_related("account")]


def tell_both(pairing: Pairing, template: Template) -> None:
    """Say something in the chats of both sides. Browsers see it on their page."""
    for one in (*initiating_accounts(pairing), pairing.responder):
        notices.tell(one, template)


def record(
    kind: str, pairing: Pairing, *, actor: str, account: PlatformAccount | None = None, **details: str | int | None
) -> None:
    """The audit row of a step, and the word to open pages that there was one."""
    audit.record(
        kind=f"pairing_{kind}", actor=actor, account=account, user=pairing.person, request=pairing.pk.hex, **details
    )
    accounts = (pairing.initiator_id, pairing.responder_id)
    browsers = (pairing.initiator_browser_id, pairing.responder_browser_id)
    live.announce(live.topics(accounts=accounts, browsers=browsers), "pairing")
