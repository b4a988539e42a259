"""The deployment's secret keys: SECRET_KEY, for all new values, and SECRET_KEY_FALLBACKS, its predecessors.

Keyed hashes are looked up under every key, so that people notice nothing of a new SECRET_KEY.
"""

from __future__ import annotations

import secrets
from functools import cache

from django.conf import settings
from django.utils.crypto import salted_hmac

_MARK_BYTES = 4
_RANDOM_BYTES = 12


def known() -> list[str]:
    """Return all keys, the one for new values first."""
    return list(dict.fromkeys([settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS]))


def hashes(salt: str, value: str | bytes) -> list[str]:
    """Return 64 hex digits under each key, the ones to store first. Without the key they do not reveal the value."""
    return [salted_hmac(salt, value, secret=key, algorithm="sha256").hexdigest() for key in known()]


def new_nonce() -> bytes:
    """Return 16 bytes for one request: 12 random ones, and 4 that mark today's key, which derives its secrets."""
    return secrets.token_bytes(_RANDOM_BYTES) + _mark(known()[0])


def key_of(nonce: bytes) -> str:
    """Return the key that a nonce is marked with; today's key if it is marked with none."""
    keys = known()
    return next((key for key in keys if nonce.endswith(_mark(key))), keys[0])


@cache
def _mark(key: str) -> bytes:
    return salted_hmac("identity.keys.mark", "", secret=key, algorithm="sha256").digest()[:_MARK_BYTES]
