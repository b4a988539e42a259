"""Who may do what in the admin: nothing without its permission, and nothing by opening a page."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest
from django.contrib import admin
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from identity.models import AccountLink, AuditEvent, Pairing, UnifiedUser
from tests.identity.operator_pages import (
    account,
    all_permissions,
    chief,
    claimed,
    invited,
    linked,
    number_of,
    operator,
    person,
    rows,
    spelled,
    url,
)

pytestmark = pytest.mark.django_db

REFUSED = {302, 403, 404, 405}


@pytest.fixture
def world() -> None:
    """One row of each kind at least; alice has an account and bob has none, but an invitation that was claimed."""
    linked("alice")
    invited(UnifiedUser.objects.get(unified_user_id="alice"))
    claimed(person("bob"), account("discord", 2))


def addresses() -> Iterator[str]:
    """Every address that the admin has for identity, for every row there is."""
    for model, pages in admin.site._registry.items():
        if model._meta.app_label != "identity":
            continue
        keys = [str(key) for key in model._default_manager.values_list("pk", flat=True)]
        base = url(f"{model._meta.model_name}_changelist")
        for pattern in pages.urls:
            for key in keys:
                yield base + re.sub(r"<\w+:\w+>", key, str(pattern.pattern))


def test_it_walks_every_page() -> None:
    names = {pattern.name for pages in admin.site._registry.values() for pattern in pages.urls if pattern.name}

    assert {
        "identity_unifieduser_pair",
        "identity_unifieduser_import",
        "identity_unifieduser_suspend",
        "identity_accountlink_revoke",
        "identity_pairing_live",
        "identity_pairing_status",
        "identity_pairing_number",
        "identity_pairing_withdraw",
    } <= names


@pytest.mark.usefixtures("world")
def test_it_refuses_every_page_to_staff_without_permissions() -> None:
    client, before = operator(), rows()

    walked = sorted(set(addresses()))
    for address in walked:
        for answer in (client.get(address), client.post(address, {"number": "123456", "content": "x", "platform": ""})):
            assert answer.status_code in REFUSED, address
            if answer.status_code == 302:  # Django's old addresses lead to the new ones
                assert client.get(answer["Location"]).status_code == 403, address

    assert len(walked) > 30
    assert rows() == before


@pytest.mark.usefixtures("world")
def test_it_asks_strangers_to_sign_in() -> None:
    before = rows()

    for address in set(addresses()):
        for answer in (Client().get(address), Client().post(address)):
            assert answer.status_code == 302
            assert "/admin/login/" in answer["Location"]

    assert rows() == before


@pytest.mark.usefixtures("world")
def test_it_changes_nothing_when_pages_are_only_opened() -> None:
    client, before = chief(), rows()

    for address in set(addresses()):
        assert client.get(address).status_code in {200, 302, 403, 405}, address

    assert rows() == before


@pytest.mark.usefixtures("world")
def test_it_takes_a_number_only_from_a_form() -> None:
    client = chief()
    request = Pairing.objects.get(person__unified_user_id="bob")

    assert client.get(url("pairing_number", request.pk), {"number": number_of(request)}).status_code == 405


@pytest.mark.usefixtures("world")
def test_it_deletes_nothing_for_anybody() -> None:
    client, before = chief(), rows()

    for address in set(addresses()):
        if "/delete/" in address:
            assert client.post(address, {"post": "yes"}).status_code == 403
    for model in ("unifieduser", "platformaccount", "accountlink", "pairing", "auditevent"):
        keys = {"action": "delete_selected", "_selected_action": ["1"], "post": "yes"}
        client.post(url(f"{model}_changelist"), keys)

    assert rows() == before


# --- One permission for each action


def bob() -> UnifiedUser:
    return UnifiedUser.objects.get(unified_user_id="bob")


def _pair(client: Client) -> int:
    return client.post(url("unifieduser_pair", bob().pk), {"platform": ""}).status_code


def _type_number(client: Client) -> int:
    request = Pairing.objects.get(person=bob())
    return client.post(url("pairing_number", request.pk), {"number": number_of(request)}).status_code


def _withdraw(client: Client) -> int:
    return client.post(url("pairing_withdraw", Pairing.objects.get(person=bob()).pk)).status_code


def _suspend(client: Client) -> int:
    return client.post(url("unifieduser_suspend", AccountLink.objects.get().user_id)).status_code


def _revoke(client: Client) -> int:
    return client.post(url("accountlink_revoke", AccountLink.objects.get().pk)).status_code


def _import(client: Client) -> int:
    return client.post(url("unifieduser_import"), {"content": "unified_user_id\ndora\n"}).status_code


def _invite(client: Client) -> int:
    chosen = {"action": "invite_selected", "_selected_action": [str(bob().pk)]}
    return client.post(url("unifieduser_changelist"), chosen).status_code


def _add(client: Client) -> int:
    return client.post(url("unifieduser_add"), {"unified_user_id": "dora", "display_name": "Dora"}).status_code


def _rename(client: Client) -> int:
    return client.post(url("unifieduser_change", bob().pk), {"display_name": "Bob"}).status_code


ACTIONS: dict[str, tuple[str, Callable[[Client], int]]] = {
    "pair": ("pair_account", _pair),
    "number": ("pair_account", _type_number),
    "withdraw": ("withdraw_request", _withdraw),
    "suspend": ("suspend_person", _suspend),
    "revoke": ("revoke_link", _revoke),
    "import": ("import_people", _import),
    "invite": ("invite_people", _invite),
    "add": ("add_unifieduser", _add),
    "rename": ("change_unifieduser", _rename),
}


@pytest.mark.usefixtures("world")
@pytest.mark.parametrize(("permission", "act"), ACTIONS.values(), ids=ACTIONS)
def test_it_takes_the_permission_of_the_action(permission: str, act: Callable[[Client], int]) -> None:
    everything_else = operator(*all_permissions() - {permission})
    before = rows()

    assert act(everything_else) in {200, 302, 403}

    assert rows() == before


@pytest.mark.usefixtures("world")
@pytest.mark.parametrize(("permission", "act"), ACTIONS.values(), ids=ACTIONS)
def test_it_takes_no_other_permission(permission: str, act: Callable[[Client], int]) -> None:
    only = operator(permission, "view_unifieduser", name="dave")
    known = AuditEvent.objects.latest("pk").pk
    requests = list(Pairing.objects.all())

    assert act(only) in {200, 302}

    written = AuditEvent.objects.filter(pk__gt=known)
    assert written.filter(actor="dave").exists()
    told = str(list(written.values()))
    assert not [
        secret for request in [*requests, *Pairing.objects.all()] for secret in spelled(request) if secret in told
    ]


def test_it_may_be_asked_for_no_column_that_is_not_shown() -> None:
    request, client = invited(person()), chief()

    for lookup in ("code_hash__startswith", "token_hash", "nonce", "tries__gt", "person__links__actor"):
        answer = client.get(url("pairing_changelist"), {lookup: str(request.code_hash)[:4]})
        assert answer.status_code == 400, lookup


def test_it_takes_no_file_from_another_site() -> None:
    client = operator("import_people")
    client.handler.enforce_csrf_checks = True

    file = SimpleUploadedFile("people.csv", b"unified_user_id\nmallory\n")
    assert client.post(url("unifieduser_import"), {"file": file}).status_code == 403
    assert client.post(url("unifieduser_import"), {"content": "unified_user_id\nmallory\n"}).status_code == 403
    assert not UnifiedUser.objects.exists()
