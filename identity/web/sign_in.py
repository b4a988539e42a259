"""How often operators may try to sign in before they must wait.

Each try is counted before the password is looked at, so that many at once get no more than the limit. A browser in
which an operator signed in before has an allowance of its own: no stranger's tries keep that operator out there.
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

# Within so many seconds, how many tries there may be
ADDRESS = (900, 10)
NAME = (3600, 100)  # of one name in all: it takes several addresses to reach it
BROWSER = (900, 10)
CHANGE = (900, 10)  # of the old password, by somebody who is signed in


@dataclass(frozen=True, slots=True)
class Try:
    """A try that was counted, at `moment` (seconds since 1970). With `wait`, in seconds, none was: it is too many."""

    guessers: Mapping[str, tuple[int, int]]
    moment: float = 0.0
    wait: int = 0


def begin(request: HttpRequest, name: str) -> Try:
    """Count a try to sign in with a user name, which may be anything, a password too."""
    known = _browser_of(request, name)
    if known:
        return _count({f"signin-browser {known}": BROWSER})
    address = client_address.hash_of(request.META)
    return _count({f"signin-from {address}": ADDRESS, f"signin-name {_hash(name)}": NAME})


def begin_change(user_id: int) -> Try:
    """Count a try to change a password by the old one."""
    return _count({f"signin-change {_hash(str(user_id))}": CHANGE})


@transaction.atomic
def _count(guessers: Mapping[str, tuple[int, int]]) -> Try:
    limits = {guesser: rate_limits.attempts_of(guesser) for guesser in sorted(guessers)}
    now = clock.read()
    moment, wait = now.timestamp(), 0
    for guesser, (span, most) in guessers.items():
        limit = limits[guesser]
        limit.times = [at for at in limit.times if at > moment - span]
        if len(limit.times) >= most:
            wait = max(wait, math.ceil(limit.times[-most] + span - moment), 1)
    if not wait:
        for limit in limits.values():
            limit.times, limit.last_at = [*limit.times, moment], now
            limit.save()
    return Try(guessers, moment, wait)


@transaction.atomic
def failed(request: HttpRequest, tried: Try, name: str) -> None:
    """Write down that a password was wrong. The name stands nowhere: it may be a password in the wrong field."""
    user = User.objects.filter(username=name).values_list("pk", flat=True).first()
    address = client_address.hash_of(request.META)[:16]
    audit.record(kind="sign_in_failed", actor=f"address {address}", operator=user)
    log.warning("an operator's sign-in failed: address %s, user %s", address, user or "unknown")


@transaction.atomic
def succeeded(tried: Try) -> None:
    """Take the try back: only wrong passwords count."""
    for guesser in sorted(tried.guessers):
        limit = rate_limits.attempts_of(guesser)
        if tried.moment in limit.times:
            limit.times.remove(tried.moment)
            limit.save()


def remember(request: HttpRequest, response: HttpResponse, name: str) -> None:
    """Let the browser prove later that this operator signed in there."""
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
    """The id of a browser in which this name signed in before; empty for any other."""
    try:
        browser, _, whose = str(request.get_signed_cookie(COOKIE, salt=SALT, max_age=COOKIE_SECONDS)).partition(" ")
    except (KeyError, signing.BadSignature):
        return ""
    return browser if whose == _hash(name) else ""


def _hash(name: str) -> str:
    written = unicodedata.normalize("NFKC", name).strip().casefold()
    return salted_hmac(SALT, written, algorithm="sha256").hexdigest()
