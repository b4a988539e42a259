"""The log of what was done about identity: who did what to whose account, and neither names nor words."""

from __future__ import annotations

import re

from django.utils.crypto import salted_hmac

from identity.models import AuditEvent, PlatformAccount, UnifiedUser

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
    """64 hex digits that find an account's rows in the log, and tell the account to nobody without SECRET_KEY.

    A changed SECRET_KEY gives other digits: rows from before it are then found only by person and time.
    """
    key = f"{account.platform}:{account.platform_user_id}"
    return salted_hmac("identity.audit.account", key, algorithm="sha256").hexdigest()


def actor(account: PlatformAccount) -> str:
    """An account as the one who did something, without naming it."""
    return f"account {account_hash(account)[:16]}"
