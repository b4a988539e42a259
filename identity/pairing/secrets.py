"""The secrets of one request, derived when they are shown or compared."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache

from identity.models import Pairing
from identity.pairing import codes
from identity.support import keys


@dataclass(frozen=True, slots=True)
class Secrets:
    """The secrets that are shown and never stored. Their repr is empty, so that no log or traceback shows them."""

    code: str = field(repr=False)
    token: str = field(repr=False)
    number: str = field(repr=False)


def secrets_of(pairing: Pairing) -> Secrets:
    """Derive the link code, link token and number of a request."""
    nonce = bytes(pairing.nonce)
    key = _key(keys.key_of(nonce), "secrets")
    return Secrets(
        codes.code(key, pairing.pk, nonce), codes.token(key, pairing.pk, nonce), codes.number(key, pairing.pk, nonce)
    )


def lookup_hash(secret: str) -> str:
    """Return the hash that a new code or token is stored as."""
    return lookup_hashes(secret)[0]


def lookup_hashes(secret: str) -> list[str]:
    """Return the hashes that a code or token may be stored as, one under each key of the deployment, today's first."""
    return [codes.lookup_hash(_key(key, "look-up"), secret) for key in keys.known()]


@cache
def _key(secret: str, purpose: str) -> bytes:
    return codes.purpose_key(secret, purpose)
