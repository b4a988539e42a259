"""What holds for every address there is: looking changes nothing, other sites can do nothing, and nothing is framed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.conf import settings
from django.core.exceptions import PermissionDenied
from django.db import OperationalError, connection
from django.test import Client

from adapters.playground import stage
from identity.browsers import sessions as browser_sessions
from tests import pages

pytestmark = pytest.mark.django_db(transaction=True)  # async views have connections of their own

VISITORS = ("stranger", "alice", "carol")
SECURITY_POLICY: Any = settings.CONTENT_SECURITY_POLICY
DIRECTIVES: dict[str, list[str]] = SECURITY_POLICY["DIRECTIVES"]
POLICY = sorted(f"{name} {' '.join(sources)}" for name, sources in DIRECTIVES.items())
INLINE = re.compile(
    r"<style|\sstyle=|\son[a-z]+=|javascript:|<script(?![^>]*\ssrc=)(?![^>]*type=\"application/json\")", re.IGNORECASE
)
TOKEN = "t" * 32


@pytest.fixture
def keys() -> dict[str, str]:
    return pages.furnish()


@pytest.fixture(autouse=True)
def playground() -> Iterator[None]:
    running = stage.Playground()
    stage.current.append(running)
    yield
    stage.current.remove(running)


@pytest.fixture(autouse=True)
def webhooks(settings: Any) -> None:
    """Without them, nobody would have to be kept out."""
    settings.BOTOS_TELEGRAM_TRANSPORT, settings.TELEGRAM_WEBHOOK_SECRET = "webhook", TOKEN
    settings.BOTOS_SLACK_TRANSPORT, settings.SLACK_SIGNING_SECRET = "http", TOKEN


def client_of(key: str, **options: Any) -> Client:
    client = Client(headers={"host": "localhost"}, raise_request_exception=False, **options)
    if key:
        client.cookies[settings.SESSION_COOKIE_NAME] = key
    return client


def dump() -> dict[str, list[str]]:
    """Every row of every table."""
    found = {}
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f"SELECT * FROM {connection.ops.quote_name(table)}")
            found[table] = sorted(map(repr, cursor.fetchall()))
    return found


@pytest.mark.parametrize("looks", [4, pytest.param(20, marks=pytest.mark.slow)])
@pytest.mark.parametrize("visitor", VISITORS)
def test_looking_changes_nothing(keys: dict[str, str], visitor: str, looks: int) -> None:
    client, before = client_of(keys[visitor]), dump()
    addresses = pages.addresses()

    for address in addresses:
        ways: list[Callable[[str], Any]] = [client.get, client.head, client.options]
        answers = [look(address).status_code for look in (ways * looks)[:looks]]
        assert max(answers) < 500 or address == "/readyz", address  # which says there that no bot is up

    assert {"/", "/pair/", "/playground/", "/admin/", "/admin/identity/pairing/"} < set(addresses)
    assert dump() == before


ATTACKS: dict[str, dict[str, Any]] = {
    "without a token": {},
    "without a cookie": {"data": {"csrfmiddlewaretoken": TOKEN}, "cookie": ""},
    "from another origin": {"data": {"csrfmiddlewaretoken": TOKEN}, "headers": {"origin": "https://mallory.example"}},
    "from nowhere": {"data": {"csrfmiddlewaretoken": TOKEN}, "headers": {"origin": "null"}},
    "from a page elsewhere": {
        "data": {"csrfmiddlewaretoken": TOKEN},
        "headers": {"referer": "https://mallory.example/localhost/"},
        "secure": True,
    },
    "from an unknown page": {"data": {"csrfmiddlewaretoken": TOKEN}, "secure": True},
}


@pytest.mark.parametrize("visitor", VISITORS)
def test_another_site_can_do_nothing(keys: dict[str, str], visitor: str) -> None:
    before = dump()

    for name, attack in ATTACKS.items():
        client = client_of(keys[visitor], enforce_csrf_checks=True)
        client.cookies[settings.CSRF_COOKIE_NAME] = attack.get("cookie", TOKEN)
        asked = {"data": attack.get("data", {}), "headers": attack.get("headers", {})}
        for address in pages.addresses():
            answer = client.post(address, secure=attack.get("secure", False), **asked)
            assert answer.status_code == 403, (name, address)
            # Platforms have neither cookie nor token: a secret or a signature keeps others out, in no words.
            is_for_platforms = address in pages.FOR_PLATFORMS
            assert ("Please try that again" in answer.content.decode()) != is_for_platforms, address
            assert not (is_for_platforms and answer.cookies), address

    assert dump() == before


def test_the_own_site_can_do_something(keys: dict[str, str]) -> None:
    """Or else the attacks would fail whatever they did."""
    before = dump()
    client = client_of("", enforce_csrf_checks=True)
    client.cookies[settings.CSRF_COOKIE_NAME] = TOKEN

    answer = client.post("/pair/start/", {"csrfmiddlewaretoken": TOKEN}, headers={"origin": "http://localhost"})

    assert answer.status_code == 302
    assert dump() != before


def test_only_the_webhooks_need_no_token(keys: dict[str, str]) -> None:
    assert set(pages.without_csrf()) == set(pages.FOR_PLATFORMS)


def test_nobody_can_look_at_the_webhooks(keys: dict[str, str]) -> None:
    for visitor in VISITORS:
        client = client_of(keys[visitor])
        for address in pages.FOR_PLATFORMS:
            assert {client.get(address).status_code, client.head(address).status_code} == {405}


@pytest.mark.parametrize("visitor", VISITORS)
def test_every_answer_is_locked_down(keys: dict[str, str], visitor: str) -> None:
    client = client_of(keys[visitor])

    for address in pages.addresses():
        answer = client.get(address)
        assert sorted(answer["Content-Security-Policy"].split("; ")) == POLICY, address
        assert answer["X-Frame-Options"] == "DENY", address
        assert answer["X-Content-Type-Options"] == "nosniff", address
        assert answer["Referrer-Policy"] == "same-origin", address
        if answer.status_code == 200:
            assert "no-store" in answer["Cache-Control"], address
            assert not INLINE.search(answer.content.decode()), address


def test_the_policy_is_strict() -> None:
    assert {name: " ".join(sources) for name, sources in DIRECTIVES.items()} == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self' data:",
        "connect-src": "'self'",
        "form-action": "'self'",
        "base-uri": "'none'",
        "frame-ancestors": "'none'",
    }


def test_a_page_with_inline_code_would_be_found() -> None:
    assert all(
        map(INLINE.search, ("<p style='x'>", "<script>x", "<a onclick='x'>", '<a href="javascript:x">', "<style>"))
    )
    assert not INLINE.search('<script src="/x.js" defer></script>')


def broken(_request: object) -> None:
    raise RuntimeError("the password is hunter2")


def away(_request: object) -> None:
    raise OperationalError("the password is hunter2")


def forbidden(_request: object) -> None:
    raise PermissionDenied("alice's page")


def test_errors_have_our_look_and_no_details(monkeypatch: pytest.MonkeyPatch) -> None:
    client = client_of("")
    answers = {404: client.get("/nowhere/hunter2/"), 400: client.get("/", headers={"host": "hunter2.example"})}
    monkeypatch.setattr(browser_sessions, "of", broken)
    answers[500] = client.get("/")
    monkeypatch.setattr(browser_sessions, "of", away)
    answers[503] = client.get("/")
    monkeypatch.setattr(browser_sessions, "of", forbidden)
    answers[403] = client.get("/")

    for status, answer in answers.items():
        words = answer.content.decode()
        assert answer.status_code == status
        assert "botos.css" in words
        assert not [secret for secret in ("hunter2", "alice", "Traceback", "Error") if secret in words], status
        assert answer["X-Frame-Options"] == "DENY"
        assert "default-src 'none'" in answer["Content-Security-Policy"]
