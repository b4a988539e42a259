"""The network address of a browser, as limits need it: a keyed hash, never the address."""

from __future__ import annotations

import ipaddress
from typing import Any

from django.conf import settings

from identity.support import keys

UNKNOWN = "unknown"


def hash_of(meta: dict[str, Any]) -> str:
    """Return 64 hex digits for the address of a request, given its META: the same for all addresses of one line."""
    return hashes_of(meta)[0]


def hashes_of(meta: dict[str, Any]) -> list[str]:
    """Return the same under each key, today's first."""
    try:
        parsed = ipaddress.ip_address(client_address(meta))
    except ValueError:
        return keys.hashes("identity.addresses", UNKNOWN)
    network: object = parsed
    if isinstance(parsed, ipaddress.IPv6Address):  # by /64, which is what one line gets
        network = parsed.ipv4_mapped or ipaddress.ip_network((parsed, 64), strict=False)
    return keys.hashes("identity.addresses", str(network))


def client_address(meta: dict[str, Any]) -> str:
    """Return the address that the outermost of our own proxies saw.

    Each proxy adds the address of its client at the right end. With BOTOS_TRUSTED_PROXIES of them, the entry so many
    from the right is reliable, and everything left of it is made up by the client.
    """
    nearest = str(meta.get("REMOTE_ADDR") or "")
    forwarded = [entry.strip() for entry in str(meta.get("HTTP_X_FORWARDED_FOR", "")).split(",") if entry.strip()]
    proxies: int = settings.BOTOS_TRUSTED_PROXIES
    return forwarded[-proxies] if proxies and len(forwarded) >= proxies else nearest
