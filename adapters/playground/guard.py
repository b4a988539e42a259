"""Who may open the playground: this machine, by a name of its own. There anybody can write as anybody."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from django.http import Http404, HttpRequest

from adapters.playground import stage
from adapters.playground.stage import Playground


def admit(request: HttpRequest) -> Playground:
    """The playground that runs here. Raises Http404 for everybody else, as if there was none.

    A page elsewhere whose name leads to this machine (DNS rebinding) comes from here, but asks by that name; a proxy
    on this machine comes from here, too, but says for whom.
    """
    is_from_here = is_loopback(request.META.get("REMOTE_ADDR", ""))
    is_by_own_name = is_loopback(urlsplit(f"//{request.get_host()}").hostname or "")
    is_passed_on = "X-Forwarded-For" in request.headers or "Forwarded" in request.headers
    if not stage.current or not is_from_here or not is_by_own_name or is_passed_on:
        raise Http404("There is no playground here.")
    return stage.current[-1]


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
