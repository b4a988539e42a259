"""The rows of handshakes, and the conditional UPDATEs that decide each step.

When several processes try a step at once, the one whose UPDATE changes the row has done it. In the same transaction,
identity.flows.pair_in_chat (chats and operators) and identity.flows.pair_in_browser (browsers) write what it causes.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from enum import StrEnum
from typing import cast

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
    """The result of a step."""

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
    """Create a request, offered by `side`: `initiator`, `initiator_browser`, or `person` and `operator`.

    Its code lives for `code_seconds`, and the whole handshake for `handshake_seconds` at most.
    """
    pairing = Pairing(id=uuid.uuid4(), nonce=keys.new_nonce(), **side)
    pairing.initiator_hash = audit.account_hash(pairing.initiator) if pairing.initiator else ""
    derived = secrets_of(pairing)
    pairing.code_hash, pairing.token_hash = lookup_hash(derived.code), lookup_hash(derived.token)
    pairing.expires_at = clock.seconds_from_now(code_seconds)
    pairing.last_at = clock.seconds_from_now(handshake_seconds)
    pairing.save(force_insert=True)
    return pairing


def with_parties(pairings: QuerySet[Pairing]) -> QuerySet[Pairing]:
    """Read both sides of the requests with them."""
    return pairings.select_related("initiator", "initiator_browser", "person", "responder", "responder_browser")


def offered(*secrets: str) -> QuerySet[Pairing]:
    """Return the live requests that have one of these codes or link tokens."""
    hashes = [hashed for secret in secrets for hashed in lookup_hashes(secret)]
    matches = Q(code_hash__in=hashes) | Q(token_hash__in=hashes)
    return Pairing.objects.filter(matches, state=State.OFFERED, expires_at__gt=clock.now())


def take(pairing: Pairing, **responder: Party) -> bool:
    """Claim a request for a `responder` or `responder_browser`. True for one only of all that send the code."""
    live = Pairing.objects.filter(pk=pairing.pk, state=State.OFFERED, expires_at__gt=clock.now())
    changed = live.update(
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
    """Return how many seconds the number that answers this request lives."""
    return limits().invitation_number_seconds if pairing.person_id else limits().number_seconds


def end(pairing: Pairing, state: str, *, was: Iterable[str], against: PlatformAccount | None = None) -> bool:
    """End a live request. False if its state is no longer one of `was`: another process was first.

    against: the account that it counts against.
    """
    unended = Pairing.objects.filter(pk=pairing.pk, state__in=was, ended_at=None)
    return unended.update(state=state, ended_at=clock.now(), strike=against, code_hash=None, token_hash=None) == 1


def end_live(pairing: Pairing, state: str) -> bool:
    """End a live request, offered or claimed, and read again who has claimed it: that side is told, too."""
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
    is_rejection: bool = False,
) -> bool:
    """Deny or cancel a live request for the account `by`, or for a browser; record it and tell both sides.

    With `is_rejection` it counts against the account on the other side. False if it had ended.
    """
    if not end_live(pairing, state):
        return False
    if is_rejection:
        if by is None:
            pairing.strike = pairing.initiator or pairing.responder
        else:
            pairing.strike = pairing.initiator if pairing.responder_id == by.pk else pairing.responder
        pairing.save(update_fields=["strike"])
    record(state, pairing, actor=actor, account=by)
    tell_both(pairing, Template.DENIED if state == State.DENIED else Template.CANCELLED)
    return True


def stop_all_of(accounts: Iterable[int], *, actor: str) -> None:
    """Cancel the live requests of these accounts (primary keys).

    The caller holds the accounts or their person, and their attachments, which the lock order puts before requests.
    """
    party = Q(initiator__in=accounts) | Q(responder__in=accounts)
    live = Pairing.objects.filter(party, ended_at=None, expires_at__gt=clock.now())
    for pairing in with_parties(live).order_by("pk"):
        stop(pairing, State.CANCELLED, actor=actor)


def refuse(pairing: Pairing, responder: PlatformAccount, reason: str, *, was: str) -> bool:
    """End a request that policy forbids, and tell both sides why. False if its state is no longer `was`."""
    if not end(pairing, State.REFUSED, was=[was]):
        return False
    record("refused", pairing, actor="system", account=responder, reason=reason)
    initiating = [pairing.initiator] if was == State.OFFERED else initiating_accounts(pairing)
    for account in (*initiating, responder):  # invited people hear of a request once it is claimed, and not before
        notices.tell(account, Template.REFUSED, reason=reason)
    return True


def refuse_outdated(user: UnifiedUser) -> None:
    """Refuse the claimed invitations of a person whose accounts have changed. The caller holds the person.

    The responder was shown other accounts than there are now, so policy would refuse the number anyway.
    """
    for invitation in with_parties(live_invitations(user).filter(state=State.CLAIMED)).order_by("pk"):
        if invitation.responder:
            refuse(invitation, invitation.responder, "changed", was=State.CLAIMED)


def withdraw(invitation: Pairing, *, actor: str) -> bool:
    """Withdraw a live invitation. False if it had ended."""
    if not end_live(invitation, State.CANCELLED):
        return False
    record("withdrawn", invitation, actor=actor)
    if invitation.responder:  # before the claim nobody was told of it
        tell_both(invitation, Template.CANCELLED)
    return True


def withdraw_all(user: UnifiedUser, *, actor: str) -> int:
    """Withdraw all invitations of a person. Returns how many. The caller holds the person."""
    invitations = with_parties(live_invitations(user)).order_by("pk")
    return sum(withdraw(invitation, actor=actor) for invitation in invitations)


def live_invitations(user: UnifiedUser) -> QuerySet[Pairing]:
    """Return the invitations of a person that have neither ended nor run out."""
    return Pairing.objects.filter(person=user, ended_at=None, expires_at__gt=clock.now())


def expire(pairings: QuerySet[Pairing]) -> int:
    """End those of the requests that have run out, so that no hash of them remains. Returns how many."""
    over = with_parties(pairings.filter(ended_at=None, expires_at__lte=clock.now())).order_by("pk")
    # Only in the state that was read: a claim gives a request more time.
    ended = [pairing for pairing in over if end(pairing, State.EXPIRED, was=[pairing.state])]
    for pairing in ended:
        record("expired", pairing, actor="system", account=pairing.initiator)
    return len(ended)


def initiating_accounts(pairing: Pairing) -> list[PlatformAccount]:
    """Return the accounts on the initiating side: the initiator, or those of the person who is invited."""
    if not pairing.person_id:
        return [pairing.initiator] if pairing.initiator else []
    links = AccountLink.objects.live().filter(user=pairing.person_id).order_by("since", "pk")
    return [link.account for link in links.select_related("account")]


def tell_both(pairing: Pairing, template: Template) -> None:
    """Tell the chats of both sides. A browser shows it on its page."""
    for account in (*initiating_accounts(pairing), pairing.responder):
        notices.tell(account, template)


def record(
    kind: str, pairing: Pairing, *, actor: str, account: PlatformAccount | None = None, **details: str | int | None
) -> None:
    """Write the audit row of a step, and announce the step to open pages."""
    step = cast(audit.Kind, f"pairing_{kind}")
    audit.record(kind=step, actor=actor, account=account, user=pairing.person, request=pairing.pk.hex, **details)
    accounts = (pairing.initiator_id, pairing.responder_id)
    browsers = (pairing.initiator_browser_id, pairing.responder_browser_id)
    live.announce(live.topics(accounts=accounts, browsers=browsers), "pairing")
