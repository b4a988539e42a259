"""Every address of the pages, from the URL resolver, so that a new page is tested by being there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from uuid import UUID

from django.apps import apps
from django.contrib.auth.models import Group, User
from django.contrib.sessions.backends.db import SessionStore
from django.http import Http404
from django.urls import URLPattern, URLResolver, get_resolver, resolve

from adapters.playground.stage import PERSONAS
from identity import audit
from identity.browsers import attachments
from identity.browsers import sessions as browser_sessions
from identity.flows import linking
from identity.models import Browser, Pairing, PlatformAccount
from identity.support import clock
from sessions_app.history import window
from sessions_app.models import Conversation, InboundEvent, OutboundDelivery

ALICE = PERSONAS[0]
FOR_PLATFORMS = ("/hooks/slack", "/hooks/telegram")  # which no browser opens
_SAMPLES = {"int": "1", "uuid": str(UUID(int=1)), "str": "x", "slug": "x", "path": "x"}
_ADMIN_OF_A_MODEL = re.compile(r"admin/(\w+)/(\w+)/")


def addresses() -> list[str]:
    """The path of every URL, with the keys of rows that are there."""
    return sorted({f"/{_filled(route)}" for route in _routes(get_resolver().url_patterns)})


def without_csrf() -> list[str]:
    """The addresses to which anybody's browser may post without a token."""
    return [one for one in addresses() if getattr(_view_of(one), "csrf_exempt", False)]


def _view_of(address: str) -> object:
    try:
        return resolve(address).func
    except Http404:  # a sample key that no route takes
        return None


def _routes(patterns: list[URLPattern | URLResolver], before: str = "") -> Iterator[str]:
    for pattern in patterns:
        route = f"{before}{pattern.pattern}"
        if isinstance(pattern, URLResolver):
            yield from _routes(pattern.url_patterns, route)
        else:
            yield route


def _filled(route: str) -> str:
    route = re.sub(r"\^?\(\?P<app_label>(\w+).*", r"\1/", route)  # the admin's list of an app
    route = re.sub(r"\(\?P<url>.*", "nowhere/", route)  # the admin's answer to everything else
    return re.sub(r"<(?:(\w+):)?\w+>", lambda found: _key(route) or _SAMPLES[found[1] or "str"], route)


def _key(route: str) -> str:
    """Of a row of the model that an address of the admin is about."""
    about = _ADMIN_OF_A_MODEL.match(route)
    row = about and about[2] != "<path" and apps.get_model(about[1], about[2])._default_manager.first()
    assert row or not about, f"tests.pages.furnish makes no row for {route}"
    return str(row.pk) if row else ""


def furnish() -> dict[str, str]:
    """A row of everything that has a page. The session keys of those who look: `stranger` has none, `alice` has two
    linked accounts attached to her browser, `carol` is an operator.
    """
    Group.objects.create(name="operators")
    carol = User.objects.create_superuser("carol")
    accounts = [_linked(platform) for platform in ("telegram", "discord")]
    browser = Browser.objects.create(name="Firefox on Linux")
    for account in accounts:
        pairing = Pairing.objects.create(initiator_browser=browser, responder=account, state="attached", **_times())
        attachments.attach(browser=browser, account=account, pairing=pairing)
    audit.record(kind="linked", actor="carol")
    _given_up(accounts[0])
    return {
        "stranger": "",
        "alice": _session(**{browser_sessions.SESSION_KEY: str(browser.pk)}),
        "carol": _signed_in(carol),
    }


def _given_up(account: PlatformAccount) -> None:
    """A message that was put aside and an answer that nobody took."""
    place = {"platform": account.platform, "chat_id": account.platform_user_id}
    chat = Conversation.objects.get(account=account)
    now = clock.read()
    InboundEvent.objects.create(conversation=chat, account=account, status="quarantined", done_at=now, **place)
    OutboundDelivery.objects.create(status="dead", settled_at=now, reason="403", **place)


def _linked(platform: str) -> PlatformAccount:
    person = ALICE.accounts[platform]
    linking.link(
        platform=platform, platform_user_id=person.id, unified_user_id="alice", method="resolver", actor="carol"
    )
    account = PlatformAccount.objects.get(platform=platform)
    key = {"kind": "dm", "key": str(account), "platform": platform, "chat_id": person.id}
    conversation = Conversation.objects.create(account=account, **key)
    window.entry(conversation, author=account, role="user", source="message", text=f"octarine on {platform}").save()
    return account


def _times() -> dict[str, Any]:
    now = clock.read()
    return {"expires_at": now, "last_at": now, "ended_at": now}


def _signed_in(user: User) -> str:
    backend = "django.contrib.auth.backends.ModelBackend"
    return _session(
        _auth_user_id=str(user.pk), _auth_user_backend=backend, _auth_user_hash=user.get_session_auth_hash()
    )


def _session(**values: str) -> str:
    session = SessionStore()
    session.update(values)
    session.save()
    return str(session.session_key)
