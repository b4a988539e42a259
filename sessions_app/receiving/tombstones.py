"""Deleted messages, kept only as keyed hashes of their keys."""

from __future__ import annotations

from collections.abc import Iterable

from identity.support import keys
from sessions_app.models import ForgottenEvent, InboundEvent


def knows(platform: str, native_key: str) -> bool:
    """Whether this message was deleted: a platform that delivers it again gets its acknowledgement, and no more."""
    return ForgottenEvent.objects.filter(pk__in=hashes(platform, native_key)).exists()


def remember(events: Iterable[InboundEvent]) -> None:
    """Store the hashes of these events. Call it in the transaction that deletes them."""
    stored = {hashes(event.platform, event.native_key)[0] for event in events}
    ForgottenEvent.objects.bulk_create(
        [ForgottenEvent(pk=key_hash) for key_hash in sorted(stored)], ignore_conflicts=True
    )


def hashes(platform: str, native_key: str) -> list[str]:
    """The hashes under which a message may be stored here, that of a new one first."""
    return keys.hashes("sessions_app.forgotten", f"{platform} {native_key}")
