"""The deployment's secret keys: SECRET_KEY, with which things are written, and SECRET_KEY_FALLBACKS, its predecessors.

What is stored as a keyed hash is looked up under every key, so that a new SECRET_KEY changes nothing that people see.
"""

from __future__ import annotations

import secrets
from functools import cache

from django.conf import settings
from django.utils.crypto import salted_hmac

_MARK_BYTES = 4
_RANDOM_BYTES = 12


def known() -> list[str]:
    """All keys, the one to write with first."""
    return list(dict.fromkeys([settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS]))


def hashes(salt: str, value: str | bytes) -> list[str]:
    """64 hex digits under each key, the ones to write first. They tell the value to nobody without the key."""
    return [salted_hmac(salt, value, secret=key, algorithm="sha256").hexdigest() for key in known()]


def new_nonce() -> bytes:
    """16 bytes for one request, 12 of them random. The others mark today's key, from which its secrets are derived."""
    return secrets.token_bytes(_RANDOM_BYTES) + _mark(known()[0])


def key_of(nonce: bytes) -> str:
    """The key that a nonce is marked with. Today's key if none of them is."""
    keys = known()
    return next((key for key in keys if nonce.endswith(_mark(key))), keys[0])


@cache
def _mark(key: str) -> bytes:
    return salted_hmac("identity.keys.mark", "", secret=key, algorithm="sha256").digest()[:_MARK_BYTES]
