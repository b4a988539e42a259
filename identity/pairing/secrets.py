"""The secrets of one request, derived for the moment in which they are shown or compared."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache

from identity.models import Pairing
from identity.pairing import codes
from identity.support import keys


@dataclass(frozen=True, slots=True)
class Secrets:
    """What is shown and never stored. Its repr says nothing, so that no log or traceback does."""

    code: str = field(repr=False)
    token: str = field(repr=False)
    number: str = field(repr=False)


def secrets_of(pairing: Pairing) -> Secrets:
    """The link code, link token and number of a request."""
    nonce = bytes(pairing.nonce)
    key = _key(keys.key_of(nonce), "secrets")
    return Secrets(
        codes.code(key, pairing.pk, nonce), codes.token(key, pairing.pk, nonce), codes.number(key, pairing.pk, nonce)
    )


def lookup_hash(secret: str) -> str:
    """What a new code or token will be found by: a hash under a key of its own."""
    return lookup_hashes(secret)[0]


def lookup_hashes(secret: str) -> list[str]:
    """What a code or token may be stored as: under each key of the deployment, today's first."""
    return [codes.lookup_hash(_key(key, "look-up"), secret) for key in keys.known()]


@cache
def _key(secret: str, purpose: str) -> bytes:
    return codes.purpose_key(secret, purpose)
