"""The log of what was done about identity: who did what to whose account, and neither names nor words."""

from __future__ import annotations

import re

from identity.models import AuditEvent, PlatformAccount, UnifiedUser
from identity.support import keys

# Methods, states, platforms, counts and row ids. Whatever a person wrote or is called does not fit in here.
WORD = re.compile(r"[a-z0-9_-]{1,40}")


def record(
    *,
    kind: str,
    actor: str,
    account: PlatformAccount | None = None,
    user: UnifiedUser | None = None,
    **details: str | int | None,
) -> AuditEvent:
    """Add one row, inside the caller's transaction.

    Details are numbers, truth values and single lower-case words; ValueError for anything else, because the log is kept
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
    """64 hex digits that stand for an account in new rows, and tell it to nobody without SECRET_KEY."""
    return account_hashes(account)[0]


def account_hashes(account: PlatformAccount) -> list[str]:
    """What finds all rows of an account: also those that were written under SECRET_KEY_FALLBACKS."""
    return keys.hashes("identity.audit.account", f"{account.platform}:{account.platform_user_id}")


def actor(account: PlatformAccount) -> str:
    """An account as the one who did something, without naming it."""
    return actors(account)[0]


def actors(account: PlatformAccount) -> list[str]:
    """The same under each key, today's first."""
    return [f"account {one[:16]}" for one in account_hashes(account)]
