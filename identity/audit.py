"""The audit log of identity: who did what to whose account, without names and messages."""

from __future__ import annotations

import re
from typing import Literal

from identity.models import AuditEvent, PlatformAccount, UnifiedUser
from identity.support import keys

# Methods, states, platforms, counts and row ids. Names and messages of people do not match.
WORD = re.compile(r"[a-z0-9_-]{1,40}")

# What is done. The operators' list shows each kind under one topic. The steps of a pairing request are not here:
# identity/pairing/requests.py writes them, and their kinds all begin with `pairing_`.
Kind = Literal[
    "browser_ended",
    "delivery_dismissed",
    "delivery_redriven",
    "disowned",
    "event_dismissed",
    "event_redriven",
    "exported",
    "forget_asked",
    "forget_confirmed",
    "forgotten",
    "linked",
    "pairing_code_wrong",
    "pairing_guesser_locked",
    "pairing_strikes",
    "past_shared",
    "people_imported",
    "person_added",
    "person_imported",
    "person_renamed",
    "person_suspended",
    "preferred",
    "sign_in_failed",
    "told",
    "unlinked",
]


def record(
    *,
    kind: Kind,
    actor: str,
    account: PlatformAccount | None = None,
    user: UnifiedUser | None = None,
    **details: str | int | None,
) -> AuditEvent:
    """Add one row, inside the caller's transaction.

    Details are numbers, truth values and single lower-case words. Raises ValueError for others, because the log stays
    when a person's messages and names are deleted.
    """
    for name, value in details.items():
        if isinstance(value, str) and not WORD.fullmatch(value):
            raise ValueError(f"The audit detail {name!r} is neither a number nor a plain word.")
    return AuditEvent.objects.create(
        kind=kind,
        actor=actor,
        account_hash=account_hash(account) if account else "",
        unified_user_id=user.unified_user_id if user else "",
        details=details,
    )


def account_hash(account: PlatformAccount) -> str:
    """Return 64 hex digits that stand for an account in new rows. Without SECRET_KEY they do not reveal it."""
    return account_hashes(account)[0]


def account_hashes(account: PlatformAccount) -> list[str]:
    """Return the hashes of all rows of an account, those written under SECRET_KEY_FALLBACKS included."""
    return keys.hashes("identity.audit.account", f"{account.platform}:{account.platform_user_id}")


def actor(account: PlatformAccount) -> str:
    """Return an account's name as an actor, by its hash."""
    return actors(account)[0]


def actors(account: PlatformAccount) -> list[str]:
    """Return the same under each key, today's first."""
    return [f"account {hashed[:16]}" for hashed in account_hashes(account)]
