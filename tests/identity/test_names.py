from __future__ import annotations

import pytest
from django.test import Client

from identity import operators
from identity.models import PlatformAccount, UnifiedUser
from identity.support.sanitize import harmless
from tests.identity import pairs
from tests.identity.pairs import account


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("Al\u201d (@alice, ID ..6789", "Al' (@alice, ID ..6789"),
        ("Al'' (@alice, ID ..6789", "Al' (@alice, ID ..6789"),
        ("Al\u2019\u2019 (@al", "Al' (@al"),
        ("Al\uff02 \u02ee \u2033 \u275e \u301e", "Al' ' ' ' '"),
        ("\u3164", ""),
        ("\u034f\u115f\u1160\u2800\uffa0\ufff0\U000e0041\U000e0101", ""),
        ("a\ufe0fb\u180bc\u180f", "abc"),
        ("\u0301" * 20 + "x", "x"),
        ("x" + "\u0301" * 20 + "y", "x\u0301\u0301y"),
        ("x \u20dd\u0301 y", "x y"),
        ("O\u2019Brien", "O\u2019Brien"),
        ("Zoe\u0308 \u092a\u094d\u0930\u093f\u092f\u093e", "Zoe\u0308 \u092a\u094d\u0930\u093f\u092f\u093e"),
    ],
)
def test_it_makes_names_harmless(name: str, shown: str) -> None:
    assert harmless(name) == shown


def test_it_names_a_person_with_the_id() -> None:
    assert str(UnifiedUser(unified_user_id="alice", display_name='Al\u202e"ice\u200b\nB')) == "Al'ice B (alice)"
    assert str(UnifiedUser(unified_user_id="alice", display_name="\u3164")) == "alice"


@pytest.mark.django_db
def test_it_takes_over_no_name_as_an_account_spells_it() -> None:
    spoofed = account("mallory")
    PlatformAccount.objects.filter(pk=spoofed.pk).update(display_name="Al\u202eice\u200b\nB")
    spoofed.refresh_from_db()

    pairs.linked(spoofed, account("mallory", "discord"))

    assert UnifiedUser.objects.get().display_name == "Alice B"


@pytest.mark.django_db
@pytest.mark.parametrize("page", ["", "{}/change/", "{}/pair/"])
def test_it_shows_operators_no_name_as_it_is_spelled(admin_client: Client, page: str) -> None:
    person = UnifiedUser.objects.create(unified_user_id="alice", display_name="")
    assert operators.is_pairing_available()
    UnifiedUser.objects.filter(pk=person.pk).update(display_name="Al\u202eice\u200b\u3164B")

    body = admin_client.get(f"/admin/identity/unifieduser/{page.format(person.pk)}").content.decode()
    shown = "\n".join(line for line in body.splitlines() if 'name="display_name"' not in line)

    assert "AliceB" in shown
    assert not {"\u202e", "\u200b", "\u3164"} & set(shown)
