"""Messages that were forgotten, known by keyed hashes of their keys alone."""

from __future__ import annotations

from collections.abc import Iterable

from identity.support import keys
from sessions_app.models import ForgottenEvent, InboundEvent


def knows(platform: str, native_key: str) -> bool:
    """Whether this message was forgotten: then a platform that delivers it again is told that it was received."""
    return ForgottenEvent.objects.filter(pk__in=_hashes(platform, native_key)).exists()


def remember(events: Iterable[InboundEvent]) -> None:
    """In the transaction that deletes them."""
    hashes = {_hashes(event.platform, event.native_key)[0] for event in events}
    ForgottenEvent.objects.bulk_create([ForgottenEvent(pk=one) for one in sorted(hashes)], ignore_conflicts=True)


def _hashes(platform: str, native_key: str) -> list[str]:
    return keys.hashes("sessions_app.forgotten", f"{platform} {native_key}")
