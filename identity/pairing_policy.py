"""Which two sides may become one person, and which person that is."""

from __future__ import annotations

import secrets

from django.db.models import Q

from identity.models import AccountLink, Pairing, PlatformAccount, UnifiedUser
from identity.names import harmless


def forbids(pairing: Pairing, responder: PlatformAccount) -> str:
    """Why policy does not allow the two sides to be joined, in a word; empty if it does.

    One side must be linked to nobody yet, and a person has at most one account on each platform. A browser may always
    be claimed: it is nobody's account. Once the code was claimed, it is for those who were shown then.
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
    theirs = AccountLink.objects.live().filter(account=responder).values_list("user_id", flat=True).first()
    ours = person_id or (_person_id_of(initiator.pk) if initiator else None)
    if theirs and theirs == ours:
        return "same_person"
    has_accounts = AccountLink.objects.live().filter(user=ours).exists() if ours else False
    if theirs and (has_accounts or person_id):
        return "both_linked"
    platforms = {initiator.platform} if initiator else set()
    platforms |= _platforms_of(ours)
    joining = {responder.platform} | _platforms_of(theirs)
    return "same_platform" if platforms & joining else ""


def _person_id_of(account_id: int) -> int | None:
    return AccountLink.objects.live().filter(account=account_id).values_list("user_id", flat=True).first()


def _platforms_of(user_id: int | None) -> set[str]:
    live = AccountLink.objects.live().filter(user=user_id) if user_id else AccountLink.objects.none()
    return set(live.values_list("account__platform", flat=True))


def person_of(sides: list[PlatformAccount], invited: UnifiedUser | None = None) -> UnifiedUser:
    """Whose the accounts will be: the person invited or already there on either side, else a new one."""
    if invited:
        return invited
    link = AccountLink.objects.live().filter(account__in=sides).select_related("user").first()
    if link:
        return link.user
    return UnifiedUser.objects.create(
        unified_user_id=f"u-{secrets.token_hex(8)}", display_name=harmless(sides[0].display_name)
    )
