"""Limits on the operators' attempts to sign in.

Each attempt is counted before the password is checked, so that many at once get no more than the limit. A browser in
which an operator has signed in before has a limit of its own, so that a stranger's attempts cannot lock that operator
out there.
"""

from __future__ import annotations

import logging
import math
import secrets
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass

from django.conf import settings
from django.contrib.auth.models import User
from django.core import signing
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.utils.crypto import salted_hmac

from identity import audit
from identity.pairing import rate_limits
from identity.pairing.settings import DAY
from identity.support import client_address, clock

log = logging.getLogger(__name__)

COOKIE = "botos_operator"
COOKIE_SECONDS = 90 * DAY
SALT = "identity.sign_in"

# A span in seconds, and how many attempts there may be in it
ADDRESS = (900, 10)
NAME = (3600, 100)  # for one name from all addresses: one address cannot reach it
BROWSER = (900, 10)
CHANGE = (900, 10)  # of the old password, by a signed-in operator


@dataclass(frozen=True, slots=True)
class Try:
    """An attempt that was counted at `moment` (seconds since 1970), or, with `wait` in seconds, one too many.

    `keys` are the attempt keys under which it counts, each with its limit.
    """

    keys: Mapping[str, tuple[int, int]]
    moment: float = 0.0
    wait: int = 0


def begin(request: HttpRequest, name: str) -> Try:
    """Count an attempt to sign in with a user name, which may be any text, even a password."""
    known = _browser_of(request, name)
    if known:
        return _count({f"signin-browser {known}": BROWSER})
    address = client_address.hash_of(request.META)
    return _count({f"signin-from {address}": ADDRESS, f"signin-name {_hash(name)}": NAME})


def begin_change(user_id: int) -> Try:
    """Count an attempt to change a password with the old one."""
    return _count({f"signin-change {_hash(str(user_id))}": CHANGE})


@transaction.atomic
def _count(keys: Mapping[str, tuple[int, int]]) -> Try:
    limits = {key: rate_limits.attempts_of(key) for key in sorted(keys)}
    now = clock.read()
    moment, wait = now.timestamp(), 0
    for key, (span, allowed) in keys.items():
        limit = limits[key]
        limit.times = [at for at in limit.times if at > moment - span]
        if len(limit.times) >= allowed:
            wait = max(wait, math.ceil(limit.times[-allowed] + span - moment), 1)
    if not wait:
        for limit in limits.values():
            limit.times, limit.last_at = [*limit.times, moment], now
            limit.save()
    return Try(keys, moment, wait)


@transaction.atomic
def failed(request: HttpRequest, tried: Try, name: str) -> None:
    """Record that a password was wrong, without the name: it may be a password in the wrong field."""
    user = User.objects.filter(username=name).values_list("pk", flat=True).first()
    address = client_address.hash_of(request.META)[:16]
    audit.record(kind="sign_in_failed", actor=f"address {address}", operator=user)
    log.warning("an operator's sign-in failed: address %s, user %s", address, user or "unknown")


@transaction.atomic
def succeeded(tried: Try) -> None:
    """Remove the attempt from the counts: only wrong passwords count."""
    for key in sorted(tried.keys):
        limit = rate_limits.attempts_of(key)
        if tried.moment in limit.times:
            limit.times.remove(tried.moment)
            limit.save()


def remember(request: HttpRequest, response: HttpResponse, name: str) -> None:
    """Set a cookie by which the browser proves later that this operator signed in there."""
    value = f"{_browser_of(request, name) or secrets.token_hex(16)} {_hash(name)}"
    response.set_signed_cookie(
        COOKIE,
        value,
        salt=SALT,
        max_age=COOKIE_SECONDS,
        secure=settings.SESSION_COOKIE_SECURE,
        httponly=True,
        samesite="Lax",
    )


def _browser_of(request: HttpRequest, name: str) -> str:
    """Return the id of a browser in which this name has signed in before; empty for any other."""
    try:
        browser, _, whose = str(request.get_signed_cookie(COOKIE, salt=SALT, max_age=COOKIE_SECONDS)).partition(" ")
    except (KeyError, signing.BadSignature):
        return ""
    return browser if whose == _hash(name) else ""


def _hash(name: str) -> str:
    written = unicodedata.normalize("NFKC", name).strip().casefold()
    return salted_hmac(SALT, written, algorithm="sha256").hexdigest()
