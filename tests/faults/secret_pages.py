"""Browsers for the search for secrets: what people do on pages, right and wrong, and where it might be kept."""

from __future__ import annotations

import itertools
import json
from typing import Protocol

from django.conf import settings
from django.contrib.messages.storage.cookie import CookieStorage
from django.contrib.sessions.backends.db import SessionStore
from django.contrib.sessions.models import Session as StoredSession
from django.core.cache import caches
from django.http import HttpRequest
from django.test import Client
from django.urls import reverse

from identity.browsers import sessions as browser_sessions
from identity.flows import pair_in_browser
from identity.models import Browser, Pairing, PlatformAccount
from identity.pairing import codes
from identity.pairing.secrets import secrets_of
from tests.identity import pairs

LOOKS = ("home", "pair", "pair-now", "me", "me-now", "chat", "chat-now")
_homes = itertools.count(1)


class Talks(Protocol):
    """What the search's own session can do."""

    cookies: list[str]

    def receive(self, who: str, text: str, platform: str) -> None: ...
    def note(self, request: Pairing) -> Pairing: ...
    def account(self, who: str, platform: str) -> PlatformAccount: ...
    def deliver(self) -> list[str]: ...


class Page:
    """One browser, at an address of its own. All that it was sent is kept for the search, but the pages' bodies."""

    def __init__(self, session: Talks) -> None:
        self.session = session
        self.client = Client(REMOTE_ADDR=f"10.{next(_homes) % 250}.{next(_homes) // 250}.1")

    def post(self, name: str, **fields: object) -> None:
        self.seen(self.client.post(reverse(name), fields))
        for look in LOOKS:
            self.seen(self.client.get(reverse(look)))

    def seen(self, answer: object) -> None:
        headers, cookies = answer.headers, answer.cookies  # type: ignore[attr-defined]
        assert "no-store" in headers["Cache-Control"], "a page may be kept"
        self.session.cookies += [*map(str, headers.values()), *(_read(one.key, one.value) for one in cookies.values())]

    def browser(self) -> Browser:
        return Browser.objects.get(pk=self.client.session[browser_sessions.SESSION_KEY])

    def shows(self) -> Pairing:
        """The request of a new code."""
        pairs.later(31, Pairing.objects.all())
        self.post("pair-start")
        request = pair_in_browser.current(self.browser())
        assert request is not None
        assert request.state == "offered"
        return self.session.note(request)


def _read(name: str, value: str) -> str:
    """A cookie, with what stands in it when it is unpacked."""
    if name != CookieStorage.cookie_name or not value:
        return value
    request = HttpRequest()
    request.COOKIES[name] = value
    return f"{value} {[str(one) for one in CookieStorage(request)]}"


def play(session: Talks, who: str, here: str, there: str) -> None:
    """Both accounts come into a browser, each in one of the two ways, with every slip on it; then they are linked."""
    page, other = Page(session), Page(session)
    for platform in (here, there):
        session.receive(who, "hello", platform)
    _show(session, page, who, here)
    _enter(session, page, who, there)
    ours = [session.account(who, platform).pk for platform in (here, there)]
    page.post("pair-link", account=ours)
    assert pairs.are_one(session.account(who, here), session.account(who, there))
    _write(session, page, who, here)
    _leave_half_way(session, other, who, there)
    page.post("pair-undo", pairing=pairs.live_link(session.account(who, there)).pairing_id)
    page.post("sign-out")
    session.receive(who, "/signout", here)


def _show(session: Talks, page: Page, who: str, platform: str) -> None:
    request = page.shows()
    secrets = secrets_of(request)
    page.post("pair-code", code=codes.shown_code(secrets.code))  # its own
    page.post("pair-number", number=codes.shown_code(secrets.code))
    session.receive(who, f"/start {secrets.token}", platform)
    session.deliver()
    session.receive(who, codes.shown_number(secrets.number), platform)  # belongs on the page
    session.receive(who, f"it says {secrets.number}", platform)
    page.post("pair-number", number=pairs.wrong(request))
    page.post("pair-code", code=codes.shown_number(secrets.number))
    page.post("pair-number", number=codes.shown_number(secrets.number))
    page.post("pair-number", number=secrets.number)  # again


def _enter(session: Talks, page: Page, who: str, platform: str) -> None:
    pairs.later(31, Pairing.objects.all())
    session.receive(who, "/link", platform)
    request = session.note(Pairing.objects.get(initiator=session.account(who, platform), state="offered"))
    secrets = secrets_of(request)
    page.post("pair-code", code=secrets.code.lower())
    page.post("pair-number", number=secrets.number)  # belongs in the chat
    session.receive(who, pairs.wrong(request), platform)
    session.receive(who, codes.shown_number(secrets.number), platform)
    page.post("pair-code", code=secrets.code)  # used


def _write(session: Talks, page: Page, who: str, platform: str) -> None:
    """What is said in the browser, with a code and a number that live."""
    account = session.account(who, platform)
    waiting = secrets_of(page.shows())
    page.post("chat-say", account=account.pk, key="1", text="we are one in the browser")
    page.post("chat-say", account=account.pk, key="2", text=f"is it {codes.shown_code(waiting.code)}?")
    page.post("chat-say", account=account.pk, key="3", text=f"https://t.me/bot?start={waiting.token}")
    session.receive(who, codes.shown_code(waiting.code), platform)
    page.post("chat-say", account=account.pk, key="4", text=f"the number is {waiting.number}")
    page.post("pair-not-me")


def _leave_half_way(session: Talks, page: Page, who: str, platform: str) -> None:
    request = page.shows()
    session.receive(who, codes.shown_code(secrets_of(request).code), platform)
    page.post("pair-cancel")
    page.post("pair-number", number=secrets_of(request).number)  # too late
    page.shows()
    page.post("sign-out")


def everything_in_sessions() -> str:
    """What the session table says when it is unpacked."""
    return json.dumps(
        [SessionStore().decode(one.session_data) for one in StoredSession.objects.all()], ensure_ascii=False
    )


def everything_in_caches() -> str:
    """What Django's caches of this process hold."""
    return "\n".join(repr(getattr(caches[name], "_cache", {})) for name in settings.CACHES)
