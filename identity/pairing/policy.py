"""Decides which two sides may become one person, and which person that is."""

from __future__ import annotations

import re
import secrets

from django.db.models import Q

from identity.models import AccountLink, AuditEvent, Pairing, PlatformAccount, UnifiedUser
from identity.support.sanitize import harmless

GENERATED_ID = r"u-[0-9a-f]{16}"


def forbids(pairing: Pairing, responder: PlatformAccount) -> str:
    """Return the reason, in a word, why policy forbids to link the two sides; empty if it allows it.

    One side must share a conversation with nobody yet, and a person has at most one account on each platform. A browser
    may always be claimed: it is nobody's account. After the claim no account may join either side: each was shown who
    the other is.
    """
    if pairing.initiator_browser_id:
        return ""
    if reason := forbids_joining(responder, pairing.initiator, pairing.person_id):
        return reason
    live = AccountLink.objects.live()
    people = live.filter(account__in=(pairing.initiator_id, responder.pk)).values("user")
    sides = live.filter(Q(user__in=people) | Q(user=pairing.person_id))
    has_grown = pairing.claimed_at is not None and sides.filter(since__gt=pairing.claimed_at).exists()
    return "changed" if has_grown else ""


def forbids_joining(responder: PlatformAccount, initiator: PlatformAccount | None, person_id: int | None = None) -> str:
    """Return the reason why two accounts, or an account and a person, must not be linked; empty if they may."""
    responding = _person_id_of(responder.pk)
    initiating = person_id or (_person_id_of(initiator.pk) if initiator else None)
    if responding and responding == initiating:
        return "same_person"
    if responding and initiating and not _given_up(responding, initiating, is_invited=person_id is not None):
        return "named" if _is_alone(responding) or _is_alone(initiating) else "both_linked"
    platforms = {initiator.platform} if initiator else set()
    platforms |= _platforms_of(initiating)
    joining = {responder.platform} | _platforms_of(responding)
    return "same_platform" if platforms & joining else ""


def _given_up(responding: int, initiating: int, *, is_invited: bool) -> int | None:
    """Return which of two people is given up when their accounts become one person's; None if neither may be.

    A person with one account shares with nobody, so the account may move to the other person. A person whose id or name
    was chosen stays, because others know the person by it, and so does one who is invited.
    """
    for user_id in [responding] if is_invited else [responding, initiating]:
        if _is_alone(user_id):
            person = UnifiedUser.objects.get(pk=user_id)
            renamed = AuditEvent.objects.filter(unified_user_id=person.unified_user_id, kind="person_renamed")
            has_chosen_id = not re.fullmatch(GENERATED_ID, person.unified_user_id)
            if not has_chosen_id and not (person.display_name and renamed.exists()):
                return user_id
    return None


def _is_alone(user_id: int) -> bool:
    return AccountLink.objects.live().filter(user=user_id).count() == 1


def _person_id_of(account_id: int) -> int | None:
    return AccountLink.objects.live().filter(account=account_id).values_list("user_id", flat=True).first()


def _platforms_of(user_id: int | None) -> set[str]:
    live = AccountLink.objects.live().filter(user=user_id) if user_id else AccountLink.objects.none()
    return set(live.values_list("account__platform", flat=True))


def person_of(sides: list[PlatformAccount], invited: UnifiedUser | None = None) -> UnifiedUser:
    """Return the person for the accounts: the one invited or already there on either side, else a new one.

    If both sides have a person, the one who is not given up. The caller has asked policy.
    """
    if invited:
        return invited
    initiator, responder = sides[0], sides[-1]
    initiating, responding = _person_id_of(initiator.pk), _person_id_of(responder.pk)
    stays = initiating or responding
    if initiating and responding and initiating == _given_up(responding, initiating, is_invited=False):
        stays = responding
    if stays:
        return UnifiedUser.objects.get(pk=stays)
    return UnifiedUser.objects.create(unified_user_id=generated_id(), display_name=harmless(initiator.display_name))


def generated_id() -> str:
    """Return a new id for a person whose id nobody chooses."""
    return f"u-{secrets.token_hex(8)}"
