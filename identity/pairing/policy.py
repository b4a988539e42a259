"""Which two sides may become one person, and which person that is."""

from __future__ import annotations

import re
import secrets

from django.db.models import Q

from identity.models import AccountLink, AuditEvent, Pairing, PlatformAccount, UnifiedUser
from identity.support.sanitize import harmless

GENERATED_ID = r"u-[0-9a-f]{16}"


def forbids(pairing: Pairing, responder: PlatformAccount) -> str:
    """Why policy does not allow the two sides to be joined, in a word; empty if it does.

    One side must share a conversation with nobody yet, and a person has at most one account on each platform. A browser
    may always be claimed: it is nobody's account. Once the code was claimed, it is for those who were shown then.
    """
    if pairing.initiator_browser_id:
        return ""
    reason = forbids_joining(responder, pairing.initiator, pairing.person_id)
    return reason or ("changed" if _has_grown(pairing, responder) else "")


def _has_grown(pairing: Pairing, responder: PlatformAccount) -> bool:
    """Whether an account has come to either side since each was shown who the other is."""
    live = AccountLink.objects.live()
    people = live.filter(account__in=(pairing.initiator_id, responder.pk)).values("user")
    sides = live.filter(Q(user__in=people) | Q(user=pairing.person_id))
    return pairing.claimed_at is not None and sides.filter(since__gt=pairing.claimed_at).exists()


def forbids_joining(responder: PlatformAccount, initiator: PlatformAccount | None, person_id: int | None = None) -> str:
    """The same for two accounts, or for an account and a person."""
    theirs = _person_id_of(responder.pk)
    ours = person_id or (_person_id_of(initiator.pk) if initiator else None)
    if theirs and theirs == ours:
        return "same_person"
    if theirs and ours and not _left_behind(theirs, ours, is_invited=person_id is not None):
        return "named" if _is_alone(theirs) or _is_alone(ours) else "both_linked"
    platforms = {initiator.platform} if initiator else set()
    platforms |= _platforms_of(ours)
    joining = {responder.platform} | _platforms_of(theirs)
    return "same_platform" if platforms & joining else ""


def _left_behind(theirs: int, ours: int, *, is_invited: bool) -> int | None:
    """Which of two people is given up when their accounts become one person's; None if neither may be.

    A person with one account shares with nobody, so the account may go to the other person. One that is invited stays.
    """
    candidates = [theirs] if is_invited else [theirs, ours]
    return next((one for one in candidates if _is_alone(one) and not _is_named(one)), None)


def _is_alone(user_id: int) -> bool:
    return AccountLink.objects.live().filter(user=user_id).count() == 1


def _is_named(user_id: int) -> bool:
    """Whether an operator or a program chose this person's id or name: then others know the person by it."""
    person = UnifiedUser.objects.get(pk=user_id)
    if not re.fullmatch(GENERATED_ID, person.unified_user_id):
        return True
    chosen = AuditEvent.objects.filter(unified_user_id=person.unified_user_id, kind="person_renamed")
    return bool(person.display_name) and chosen.exists()


def _person_id_of(account_id: int) -> int | None:
    return AccountLink.objects.live().filter(account=account_id).values_list("user_id", flat=True).first()


def _platforms_of(user_id: int | None) -> set[str]:
    live = AccountLink.objects.live().filter(user=user_id) if user_id else AccountLink.objects.none()
    return set(live.values_list("account__platform", flat=True))


def person_of(sides: list[PlatformAccount], invited: UnifiedUser | None = None) -> UnifiedUser:
    """Whose the accounts will be: the person invited or already there on either side, else a new one.

    Where both sides are somebody's, it is the person who is not given up. The caller has asked policy.
    """
    if invited:
        return invited
    initiator, responder = sides[0], sides[-1]
    ours, theirs = _person_id_of(initiator.pk), _person_id_of(responder.pk)
    stays = ours or theirs
    if ours and theirs and ours == _left_behind(theirs, ours, is_invited=False):
        stays = theirs
    if stays:
        return UnifiedUser.objects.get(pk=stays)
    return UnifiedUser.objects.create(unified_user_id=generated_id(), display_name=harmless(initiator.display_name))


def generated_id() -> str:
    """The id of a person that nobody has chosen."""
    return f"u-{secrets.token_hex(8)}"
