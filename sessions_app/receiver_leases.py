"""Who receives for a bot: one process at a time for each token, under a lease by the database's clock."""

from __future__ import annotations

import hashlib
from contextlib import suppress

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import Q

from identity.support import clock
from sessions_app.models import PollerLease


def key_of(token: str) -> str:
    """What a token is called here. Nobody gets from it to the token."""
    return hashlib.sha256(f"poller {token}".encode()).hexdigest()


def holders() -> dict[str, str]:
    """Who receives now, by key."""
    return dict(PollerLease.objects.filter(lease_until__gt=clock.now()).values_list("key", "owner"))


def take(key: str, owner: str) -> bool:
    """Become the one who receives, if nobody else is. Of all who try at once, one does."""
    until = clock.seconds_from_now(settings.BOTOS_POLLER_SECONDS)
    free = Q(owner=owner) | Q(lease_until__lte=clock.now())
    if PollerLease.objects.filter(free, key=key).update(owner=owner, lease_until=until):
        return True
    with suppress(IntegrityError), transaction.atomic():
        if not PollerLease.objects.filter(key=key).exists():
            PollerLease.objects.create(key=key, owner=owner, lease_until=until)
            return True
    return False


def renew(key: str, owner: str) -> bool:
    """Stay the one who receives. False if somebody else is by now."""
    until = clock.seconds_from_now(settings.BOTOS_POLLER_SECONDS)
    return PollerLease.objects.filter(key=key, owner=owner).update(lease_until=until) > 0


def release(key: str, owner: str) -> None:
    """Let the next one receive at once."""
    PollerLease.objects.filter(key=key, owner=owner).update(owner="", lease_until=clock.EPOCH)
