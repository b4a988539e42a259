"""Another SECRET_KEY, with the old one among SECRET_KEY_FALLBACKS: nothing is forgotten of what must be known."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from pytest_django import Settings

from identity import audit
from identity.flows import pair_in_browser, pair_in_chat
from identity.models import AuditEvent, Browser, GuessLimit
from identity.pairing.requests import Outcome
from sessions_app import inbox
from sessions_app.models import ForgottenEvent, InboundEvent
from sessions_app.privacy import confirmation, forgetting
from sessions_app.receiving import tombstones
from sessions_app.web import browser_chat
from tests.identity import pairs
from tests.identity.test_views import post
from tests.sessions_app.browsing import account, browser_of
from tests.sessions_app.talk import DATABASE, message

pytestmark = pytest.mark.django_db
NEW = "another-key-for-tests-that-is-long-enough-to-be-accepted"


@pytest.fixture(autouse=True)
def told() -> Iterator[pairs.Told]:
    with pairs.listening() as told:
        yield told


def rotate(settings: Settings) -> None:
    settings.SECRET_KEY_FALLBACKS = [settings.SECRET_KEY]
    settings.SECRET_KEY = NEW


def test_it_brings_nothing_back_that_was_forgotten(settings: Settings) -> None:
    said = message("alice", "octarine")
    inbox.receive(said, resolver=DATABASE)
    tombstones.remember(InboundEvent.objects.all())
    InboundEvent.objects.all().delete()

    rotate(settings)
    inbox.receive(said, resolver=DATABASE)

    assert not InboundEvent.objects.exists()


def test_it_writes_with_the_first_key(settings: Settings) -> None:
    inbox.receive(message("alice", "octarine", key="k"), resolver=DATABASE)
    rotate(settings)
    tombstones.remember(InboundEvent.objects.all())
    audit.record(kind="linked", actor="operator", account=account("alice"))

    settings.SECRET_KEY_FALLBACKS = []

    assert tombstones.knows("telegram", "k")
    assert ForgottenEvent.objects.count() == 1
    assert AuditEvent.objects.filter(account_hash=audit.account_hash(account("alice"))).exists()


def test_it_forgets_what_it_knew_without_the_old_key(settings: Settings) -> None:
    """What a lost key costs, and that the tests here would see it."""
    inbox.receive(message("alice", "octarine", key="k"), resolver=DATABASE)
    tombstones.remember(InboundEvent.objects.all())

    settings.SECRET_KEY = NEW

    assert not tombstones.knows("telegram", "k")


def test_it_shows_the_audit_rows_of_an_account_from_under_each_key(settings: Settings) -> None:
    alice = account("alice")
    audit.record(kind="linked", actor="operator", account=alice)
    rotate(settings)
    audit.record(kind="unlinked", actor="operator", account=alice)
    audit.record(kind="linked", actor="operator", account=account("bob"))
    client = Client()
    client.force_login(User.objects.create_superuser("carol"))

    page = client.get(reverse("admin:identity_platformaccount_change", args=[alice.pk])).content.decode()
    link = next(one for one in page.split('"') if "auditevent/?account=" in one).replace("&amp;", "&")
    rows = client.get(link).content.decode()

    assert rows.count("field-kind") == 2


@pytest.mark.parametrize("guesses", [(5, 0), (3, 2), (1, 4)])
def test_it_frees_no_account_that_guesses(settings: Settings, guesses: tuple[int, int]) -> None:
    mallory, request = account("mallory"), pairs.offered(account("alice"))
    for _ in range(guesses[0]):
        pair_in_chat.claim(account=mallory, secret="BBBBBBBB")
    rotate(settings)
    for _ in range(guesses[1]):
        pair_in_chat.claim(account=mallory, secret="BBBBBBBB")

    assert pair_in_chat.claim(account=mallory, secret=pairs.code(request)) == Outcome.WAIT
    assert GuessLimit.objects.get().guesser == audit.actor(mallory)


@pytest.mark.parametrize("guesses", [(5, 0), (3, 2)])
def test_it_frees_no_address_that_guesses(settings: Settings, guesses: tuple[int, int]) -> None:
    request = pairs.offered(account("alice"))
    for _ in range(guesses[0]):
        post(Client(), "pair-code", code="BBBBBBBB")
    rotate(settings)
    for _ in range(guesses[1]):
        post(Client(), "pair-code", code="BBBBBBBB")
    post(Client(), "pair-code", code=pairs.code(request))

    request.refresh_from_db()
    assert request.state == "offered"
    assert len(GuessLimit.objects.get().times) == 5


def test_it_counts_the_browsers_of_an_address_on(settings: Settings) -> None:
    settings.BOTOS_PAIRING = {"address_starts_an_hour": "2"}
    post(Client(), "pair-start")
    post(Client(), "pair-start")
    rotate(settings)
    post(Client(), "pair-start")

    assert Browser.objects.count() == 2
    assert Browser.objects.values("address").distinct().count() == 1


def test_it_counts_only_the_browsers_of_the_same_address_on(settings: Settings) -> None:
    elsewhere = Browser.objects.create(name="Firefox on Linux", address="elsewhere")
    post(Client(), "pair-start")
    rotate(settings)
    post(Client(), "pair-start")

    elsewhere.refresh_from_db()
    assert elsewhere.address == "elsewhere"


def test_it_counts_the_starts_of_an_account_on(settings: Settings) -> None:
    alice = account("alice")
    pairs.offered(alice)
    rotate(settings)

    assert pair_in_chat.offer(account=alice) == Outcome.WAIT


def test_it_takes_a_code_and_a_number_from_before(settings: Settings) -> None:
    alice = account("alice")
    request = pairs.offered(alice)
    code, number = pairs.code(request), pairs.number(request)

    rotate(settings)

    assert (pairs.code(request), pairs.number(request)) == (code, number)
    assert pair_in_chat.claim(account=account("alice", "discord"), secret=code) == Outcome.CLAIMED
    assert pair_in_chat.confirm(account=alice, number=number) == Outcome.LINKED


def test_it_burns_a_code_from_before(settings: Settings) -> None:
    code = pairs.code(pairs.offered(account("alice")))
    rotate(settings)

    assert pair_in_chat.burn(secrets=[code])


def test_it_takes_the_number_of_somebody_who_asked_to_be_forgotten_before(settings: Settings) -> None:
    request = forgetting.ask(account=account("alice"))
    assert request is not None
    number = confirmation.number_of(request)
    rotate(settings)

    assert forgetting.confirm(account=account("alice"), number=number).outcome == forgetting.Outcome.CONFIRMED


def test_it_keeps_what_a_page_sends_again_once(settings: Settings) -> None:
    alice = account("alice")
    page = browser_of(alice)
    browser_chat.say(browser=page, account_id=alice.pk, text="hello", key="k")
    rotate(settings)
    browser_chat.say(browser=page, account_id=alice.pk, text="hello", key="k")

    assert InboundEvent.objects.filter(platform="web").count() == 1


def test_it_keeps_browsers_and_operators_signed_in(settings: Settings) -> None:
    client, operator = Client(), Client()
    operator.force_login(User.objects.create_superuser("carol"))
    post(client, "pair-start")
    rotate(settings)

    assert operator.get(reverse("admin:index")).status_code == 200
    assert pair_in_browser.current(Browser.objects.get()) is not None
    post(client, "pair-start")
    assert Browser.objects.count() == 1
