"""Messages that were forgotten, known by keyed hashes of their keys alone."""

from __future__ import annotations

from collections.abc import Iterable

from django.utils.crypto import salted_hmac

from sessions_app.models import ForgottenEvent, InboundEvent


def knows(platform: str, native_key: str) -> bool:
    """Whether this message was forgotten: then a platform that delivers it again is told that it was received."""
    return ForgottenEvent.objects.filter(pk=hash_of(platform, native_key)).exists()


def remember(events: Iterable[InboundEvent]) -> None:
    """In the transaction that deletes them."""
    hashes = {hash_of(event.platform, event.native_key) for event in events}
    ForgottenEvent.objects.bulk_create([ForgottenEvent(pk=one) for one in sorted(hashes)], ignore_conflicts=True)


def hash_of(platform: str, native_key: str) -> str:
    """64 hex digits that tell the key to nobody without SECRET_KEY."""
    return salted_hmac("sessions_app.forgotten", f"{platform} {native_key}", algorithm="sha256").hexdigest()
