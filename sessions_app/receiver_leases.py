"""Leases for receiving: one process at a time for each bot token, by the database's clock."""

from __future__ import annotations

import hashlib
from contextlib import suppress

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import Q

from identity.support import clock
from sessions_app.models import ReceiverLease


def key_of(token: str) -> str:
    """The key of a token. It does not reveal the token."""
    return hashlib.sha256(f"poller {token}".encode()).hexdigest()


def holders() -> dict[str, str]:
    """The current owners, by key."""
    return dict(ReceiverLease.objects.filter(lease_until__gt=clock.now()).values_list("key", "owner"))


def take(key: str, owner: str) -> bool:
    """Take the lease, if it is free. Of several owners at once, one succeeds."""
    until = clock.seconds_from_now(settings.BOTOS_RECEIVER_LEASE_SECONDS)
    free = Q(owner=owner) | Q(lease_until__lte=clock.now())
    if ReceiverLease.objects.filter(free, key=key).update(owner=owner, lease_until=until):
        return True
    with suppress(IntegrityError), transaction.atomic():
        if not ReceiverLease.objects.filter(key=key).exists():
            ReceiverLease.objects.create(key=key, owner=owner, lease_until=until)
            return True
    return False


def renew(key: str, owner: str) -> bool:
    """Extend the lease. False if another owner has it."""
    until = clock.seconds_from_now(settings.BOTOS_RECEIVER_LEASE_SECONDS)
    return ReceiverLease.objects.filter(key=key, owner=owner).update(lease_until=until) > 0


def release(key: str, owner: str) -> None:
    """Give the lease back, so that the next process receives at once."""
    ReceiverLease.objects.filter(key=key, owner=owner).update(owner="", lease_until=clock.EPOCH)
