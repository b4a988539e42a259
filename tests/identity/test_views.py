"""The pages: looking changes nothing, each change is a POST of whoever may, and secrets stay where they belong."""

from __future__ import annotations

import pytest
from django.conf import settings
from django.contrib.sessions.models import Session
from django.test import Client
from django.urls import reverse

from identity.browsers import attachments
from identity.browsers import sessions as browser_sessions
from identity.flows import pair_in_browser, pair_in_chat
from identity.models import AuditEvent, BotProfile, Browser, BrowserAccount, LiveEvent, Pairing
from identity.pairing.requests import Outcome
from identity.support import clock, platforms
from identity.support.platforms import PlatformTraits
from tests.identity import pairs
from tests.identity.pairs import account, code, number, offered, state

pytestmark = pytest.mark.django_db

LOOKS = ("home", "pair", "pair-now")
CHANGES = ("start", "code", "number", "cancel", "not-me", "link", "undo")
POSTS = (*(f"pair-{name}" for name in CHANGES), "sign-out")
TABLES = (Session, Browser, BrowserAccount, Pairing, AuditEvent, LiveEvent)


def post(client: Client, name: str, **fields: object) -> str:
    """What the page shows afterwards."""
    answer = client.post(reverse(name), fields, follow=True)
    assert answer.status_code == 200
    return answer.content.decode()


def browser_of(client: Client) -> Browser:
    return Browser.objects.get(pk=client.session[browser_sessions.SESSION_KEY])


def request_of(client: Client) -> Pairing:
    found = pair_in_browser.current(browser_of(client))
    assert found is not None
    return found


@pytest.fixture
def signed_in(client: Client) -> Client:
    """A browser with an account in it."""
    post(client, "pair-start")
    request = request_of(client)
    assert pair_in_chat.claim(account=account("alice"), secret=code(request)) == Outcome.CLAIMED
    post(client, "pair-number", number=number(request))
    return client


@pytest.mark.parametrize("name", [*LOOKS, *POSTS])
def test_it_changes_nothing_when_somebody_looks(signed_in: Client, name: str) -> None:
    post(signed_in, "pair-cancel")
    before, fresh = pairs.dump(*TABLES), Client()
    for method in ("get", "head", "options"):
        for _ in range(3):
            getattr(signed_in, method)(reverse(name))
            getattr(fresh, method)(reverse(name))

        assert pairs.dump(*TABLES) == before, method


@pytest.mark.parametrize("name", POSTS)
def test_it_takes_no_change_from_another_site(name: str) -> None:
    assert Client(enforce_csrf_checks=True).post(reverse(name)).status_code == 403


@pytest.mark.parametrize("name", LOOKS)
def test_it_is_stored_nowhere_and_runs_own_scripts_alone(signed_in: Client, name: str) -> None:
    page = signed_in.get(reverse(name))

    assert "no-store" in page["Cache-Control"]
    assert "script-src 'self'" in page["Content-Security-Policy"]
    assert " style=" not in page.content.decode()
    assert "<style" not in page.content.decode()


def test_it_shows_a_code_and_then_asks_for_the_number(client: Client) -> None:
    page = post(client, "pair-start")
    request = request_of(client)
    assert pairs.code(request)[:4] in page

    pair_in_chat.claim(account=account("alice"), secret=code(request))
    page = client.get(reverse("pair-now")).content.decode()

    assert "Telegram account &quot;Alice&quot;" in page
    assert number(request) not in page.replace(" ", "")


def test_it_changes_the_session_key_when_an_account_is_attached(client: Client) -> None:
    post(client, "pair-start")
    before, request = client.session.session_key, request_of(client)
    pair_in_chat.claim(account=account("alice"), secret=code(request))
    page = post(client, "pair-number", number=number(request))

    assert "Telegram account" in page
    assert client.session.session_key != before
    assert not Session.objects.filter(pk=before).exists()
    assert set(client.session.keys()) == {browser_sessions.SESSION_KEY}


def test_it_takes_no_new_cookie_away_with_an_answer_to_an_old_one(client: Client) -> None:
    """The page asks every two seconds, also in the moment in which the session key changes."""
    post(client, "pair-start")
    late = Client()
    late.cookies[settings.SESSION_COOKIE_NAME] = str(client.session.session_key)
    browser_sessions.rotate(client.get(reverse("pair")).wsgi_request)

    assert settings.SESSION_COOKIE_NAME not in late.get(reverse("pair-now")).cookies
    assert settings.SESSION_COOKIE_NAME in late.get(reverse("pair")).cookies  # what Django does by itself


def test_it_shows_the_number_for_a_code_of_a_chat(client: Client) -> None:
    client.get(reverse("pair"))
    request = offered(account("alice"))
    page = post(client, "pair-code", code=f"{code(request)[:4]}-{code(request)[4:]}".lower())

    assert f"{number(request)[:3]} {number(request)[3:]}" in page
    assert pair_in_chat.confirm(account=account("alice"), number=number(request)) == Outcome.ATTACHED


def test_it_asks_for_six_digits_without_counting_a_try(client: Client) -> None:
    post(client, "pair-start")
    request = request_of(client)
    pair_in_chat.claim(account=account("alice"), secret=code(request))

    assert "six digits" in post(client, "pair-number", number="12")
    assert "2 tries left" in post(client, "pair-number", number=pairs.wrong(request))


def test_it_says_that_a_code_does_not_work_and_no_more(client: Client) -> None:
    other = Client()
    post(other, "pair-start")
    answers = {post(client, "pair-code", code=one).count("That code doesn&#x27;t work") for one in ("x", "BBBB-BBBB")}

    assert answers == {1}
    assert state(request_of(other)) == "offered"


def test_it_limits_new_browsers_of_an_address() -> None:
    for _ in range(60):
        Browser.objects.create(address=_home())

    assert "Try again in" in post(Client(), "pair-start")
    assert Browser.objects.count() == 60


def _home() -> str:
    from identity.support import client_address

    return client_address.hash_of({"REMOTE_ADDR": "127.0.0.1"})


def test_it_forgets_the_session_on_signing_out(signed_in: Client) -> None:
    key, browser = signed_in.session.session_key, browser_of(signed_in)
    post(signed_in, "sign-out")
    browser.refresh_from_db()

    assert not Session.objects.filter(pk=key).exists()
    assert browser.ended_at is not None
    assert "Sign out" not in signed_in.get(reverse("pair")).content.decode()


def test_it_knows_no_browser_that_was_idle_for_long(signed_in: Client) -> None:
    pairs.later(1801, Browser.objects.all())

    assert "Telegram account" not in signed_in.get(reverse("pair")).content.decode()


@pytest.mark.parametrize("name", [*(f"pair-{name}" for name in CHANGES)])
def test_it_does_not_idle_away_while_something_is_done(signed_in: Client, name: str) -> None:
    pairs.later(1700, Browser.objects.all())
    post(signed_in, name)
    pairs.later(1700, Browser.objects.all())

    assert "Telegram account" in signed_in.get(reverse("pair")).content.decode()


def test_it_ends_what_has_run_out(signed_in: Client) -> None:
    pairs.later(8 * 3600, Browser.objects.all())

    assert browser_sessions.end_old() == 1
    assert not BrowserAccount.objects.filter(ended_at=None).exists()


def test_it_puts_the_token_into_telegrams_link_and_nowhere_else(client: Client) -> None:
    BotProfile.objects.create(platform="telegram", name="bot", url="https://t.me/botos_bot")
    BotProfile.objects.create(platform="discord", name="bot", url="https://discord.com/users/1")
    page = post(client, "pair-start")

    assert page.count(pairs.token(request_of(client))) == 1
    assert f"https://t.me/botos_bot?start={pairs.token(request_of(client))}" in page
    assert "?start" not in client.get(reverse("home")).content.decode()


def test_it_calls_the_platforms_to_link_by_their_titles(signed_in: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    acme = PlatformTraits(name="acme", title="Chat of Acme")
    monkeypatch.setattr(platforms, "_source", lambda: {"acme": acme})
    browser, now = browser_of(signed_in), clock.read()
    for one in (account("alice", "acme"), account("alice", "slack")):
        times = {"expires_at": now, "last_at": now, "ended_at": now}
        request = Pairing.objects.create(initiator_browser=browser, responder=one, state="attached", **times)
        attachments.attach(browser=browser, account=one, pairing=request)

    page = signed_in.get(reverse("pair")).content.decode()

    assert "Link these two: Telegram and Chat of Acme" in page
    assert "Link these two: Chat of Acme and Slack" in page
