"""The secrets of one request, derived for the moment in which they are shown or compared."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache

from django.conf import settings

from identity import codes
from identity.models import Pairing


@dataclass(frozen=True, slots=True)
class Secrets:
    """What is shown and never stored. Its repr says nothing, so that no log or traceback does."""

    code: str = field(repr=False)
    token: str = field(repr=False)
    number: str = field(repr=False)


def secrets_of(pairing: Pairing) -> Secrets:
    """The link code, link token and number of a request."""
    key, nonce = _key(settings.SECRET_KEY, "secrets"), bytes(pairing.nonce)
    return Secrets(
        codes.code(key, pairing.pk, nonce), codes.token(key, pairing.pk, nonce), codes.number(key, pairing.pk, nonce)
    )


def lookup_hash(secret: str) -> str:
    """What a code or token is found by: a hash under a key of its own."""
    return codes.lookup_hash(_key(settings.SECRET_KEY, "look-up"), secret)


@cache
def _key(secret: str, purpose: str) -> bytes:
    return codes.purpose_key(secret, purpose)
