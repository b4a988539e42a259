"""Passwords of operators cannot be tried without end, and no stranger keeps an operator out."""

from __future__ import annotations

import logging

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.test.client import RequestFactory
from django.urls import reverse

from identity.models import AuditEvent, GuessLimit
from identity.web import sign_in
from tests.identity import pairs
from tests.sessions_app.racing import at_once

pytestmark = pytest.mark.django_db(transaction=True)

MAX_TRIES = sign_in.ADDRESS[1]


@pytest.fixture
def root() -> User:
    return User.objects.create_superuser("root", password="right")


def enter(client: Client, password: str, *, name: str = "root", address: str = "192.0.2.1") -> int:
    fields = {"username": name, "password": password, "next": "/admin/"}
    return client.post(reverse("admin:login"), fields, REMOTE_ADDR=address).status_code


def lock_out(address: str = "192.0.2.1", name: str = "root") -> None:
    for _ in range(MAX_TRIES):
        assert enter(Client(), "wrong", name=name, address=address) == 200


def test_it_checks_no_password_beyond_the_limit(root: User) -> None:
    lock_out()

    answer = Client().post(reverse("admin:login"), {"username": "root", "password": "right"}, REMOTE_ADDR="192.0.2.1")

    assert answer.status_code == 429
    assert 0 < int(answer["Retry-After"]) <= 900
    assert "Try again in 15 minutes" in answer.content.decode()
    assert enter(Client(), "right", address="192.0.2.2") == 302


def test_it_lets_an_address_try_again_later(root: User) -> None:
    lock_out()
    pairs.later(901, GuessLimit.objects.all())

    assert enter(Client(), "right") == 302


def test_it_counts_no_right_password(root: User) -> None:
    for _ in range(MAX_TRIES + 2):
        assert enter(Client(), "right") == 302


def test_it_limits_a_name_over_all_addresses(root: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sign_in, "NAME", (3600, 3))
    for number in range(3):
        assert enter(Client(), "wrong", address=f"192.0.2.{number}") == 200

    assert enter(Client(), "right", address="192.0.2.9") == 429
    assert enter(Client(), "right", address="192.0.2.9", name="ROOT ") == 429
    assert enter(Client(), "wrong", address="192.0.2.9", name="other") == 200


def test_a_browser_that_signed_in_before_is_not_kept_out_by_others(root: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sign_in, "NAME", (3600, MAX_TRIES))
    client = Client()
    assert enter(client, "right") == 302
    client.post(reverse("admin:logout"))
    lock_out()

    assert enter(Client(), "right") == 429
    assert enter(client, "right", name="other") == 429
    assert enter(client, "right") == 302


def test_such_a_browser_has_a_limit_of_its_own(root: User) -> None:
    client = Client()
    assert enter(client, "right") == 302
    client.post(reverse("admin:logout"))
    for number in range(sign_in.BROWSER[1]):  # each from another address, so that no address reaches its own limit
        assert enter(client, "wrong", address=f"198.51.100.{number}") == 200

    assert enter(client, "right", address="198.51.100.99") == 429
    assert enter(Client(), "right", address="198.51.100.99") == 302


def test_a_forged_proof_counts_for_nothing(root: User) -> None:
    lock_out()
    client = Client()
    client.cookies[sign_in.COOKIE] = f"{'0' * 32} {sign_in._hash('root')}:1:forged"

    assert enter(client, "right") == 429


def test_it_looks_for_the_address_behind_proxies(root: User, settings: object) -> None:
    settings.BOTOS_TRUSTED_PROXIES = 1  # type: ignore[attr-defined]  # pytest-django's wrapper takes any setting
    fields = {"username": "root", "password": "wrong"}
    for number in range(MAX_TRIES):
        said = f"10.0.0.{number}, 198.51.100.7"
        Client().post(reverse("admin:login"), fields, HTTP_X_FORWARDED_FOR=said, REMOTE_ADDR="127.0.0.1")

    def tried(said: str) -> int:
        sent = Client().post(reverse("admin:login"), fields, HTTP_X_FORWARDED_FOR=said, REMOTE_ADDR="127.0.0.1")
        return sent.status_code

    assert [tried("10.0.0.99, 198.51.100.7"), tried("198.51.100.8")] == [429, 200]


def test_it_writes_down_each_failure_without_the_name(root: User, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        enter(Client(), "wrong")
        enter(Client(), "x", name="my-password")

    rows = AuditEvent.objects.filter(kind="sign_in_failed").order_by("pk")
    assert [row.details for row in rows] == [{"operator": root.pk}, {"operator": None}]
    assert all(row.actor.startswith("address ") for row in rows)
    assert caplog.text.count("sign-in failed") == 2
    told = caplog.text + pairs.dump(AuditEvent, GuessLimit)
    assert "my-password" not in told
    assert "192.0.2.1" not in told


def test_it_limits_the_old_password_of_a_password_change(root: User) -> None:
    client = Client()
    client.force_login(root)
    new = "another-long-one-91"

    def change(old: str) -> int:
        fields = {"old_password": old, "new_password1": new, "new_password2": new}
        return client.post(reverse("admin:password_change"), fields).status_code

    assert [change("wrong") for _ in range(sign_in.CHANGE[1])] == [200] * sign_in.CHANGE[1]
    assert change("right") == 429
    assert AuditEvent.objects.filter(kind="sign_in_failed", details={"operator": root.pk}).count() == sign_in.CHANGE[1]
    pairs.later(901, GuessLimit.objects.all())
    assert change("right") == 302


def test_many_tries_at_once_get_no_more_than_the_limit(root: User) -> None:
    request = RequestFactory().post("/admin/login/")

    tried, raised = at_once(*[lambda: sign_in.begin(request, "root").wait] * (MAX_TRIES + 6))

    assert not raised
    assert tried.count(0) == MAX_TRIES
