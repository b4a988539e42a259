"""The check of a typed number, whichever request it is for."""

from __future__ import annotations

import pytest

from identity.models import Pairing
from identity.pairing import challenge, codes
from identity.pairing.challenge import Check, Verdict
from tests.identity.pairs import account, claimed

pytestmark = pytest.mark.django_db

NUMBER, WRONG = "482913", "482914"


@pytest.fixture
def request_row() -> Pairing:
    return claimed(account("alice"), account("alice", "discord"))


def typed(number: str, row: Pairing) -> Check:
    row.refresh_from_db()
    return challenge.check(number, NUMBER, pending=Pairing.objects.filter(pk=row.pk, ended_at=None), tries=row.tries)


def test_a_request_has_three_tries(request_row: Pairing) -> None:
    checks = [typed(WRONG, request_row) for _ in range(4)]

    assert checks == [Check(Verdict.WRONG, 2), Check(Verdict.WRONG, 1), Check(Verdict.LOCKED), Check(Verdict.ENDED)]


def test_a_right_number_counts_as_a_try_too(request_row: Pairing) -> None:
    assert typed(NUMBER, request_row) == Check(Verdict.RIGHT)

    request_row.refresh_from_db()
    assert request_row.tries == 1


@pytest.mark.parametrize("change", [{"tries": 3}, {"ended_at": "2026-01-01T00:00Z", "state": "cancelled"}])
def test_a_number_without_a_try_is_not_compared(
    request_row: Pairing, monkeypatch: pytest.MonkeyPatch, change: dict[str, object]
) -> None:
    Pairing.objects.update(**change)
    compared: list[str] = []
    monkeypatch.setattr(codes, "is_same", lambda one, other: compared.append(one))

    assert typed(NUMBER, request_row) == Check(Verdict.ENDED)
    assert compared == []


def test_a_number_matches_no_request_without_a_try() -> None:
    assert challenge.matches(NUMBER, NUMBER, tries=2)
    assert not challenge.matches(WRONG, NUMBER, tries=2)
    assert not challenge.matches(NUMBER, NUMBER, tries=3)
