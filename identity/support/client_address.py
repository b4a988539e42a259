"""Where a browser comes from, as far as limits need it: a keyed hash of its network address, and never the address."""

from __future__ import annotations

import ipaddress
from typing import Any

from django.conf import settings

from identity.support import keys

UNKNOWN = "unknown"


def hash_of(meta: dict[str, Any]) -> str:
    """64 hex digits for the address of a request, given its META: the same for all addresses that one household has."""
    return hashes_of(meta)[0]


def hashes_of(meta: dict[str, Any]) -> list[str]:
    """The same under each key, today's first."""
    return keys.hashes("identity.addresses", _network(client_address(meta)))


def client_address(meta: dict[str, Any]) -> str:
    """The address that the outermost of our own proxies saw.

    Each proxy adds the address that it was asked from at the right end, so with BOTOS_PROXIES of them the entry so many
    from the right is theirs to say, and everything left of it is whatever the client made up.
    """
    nearest = str(meta.get("REMOTE_ADDR") or "")
    said = [one.strip() for one in str(meta.get("HTTP_X_FORWARDED_FOR", "")).split(",") if one.strip()]
    proxies: int = settings.BOTOS_PROXIES
    return said[-proxies] if proxies and len(said) >= proxies else nearest


def _network(address: str) -> str:
    """IPv6 by /64, which is what one line gets: whoever has it has every address in it."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return UNKNOWN
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    return str(parsed.ipv4_mapped or ipaddress.ip_network((parsed, 64), strict=False))
