"""The log says what was done and by whom, keeps no names and no words, and is only ever added to."""

from __future__ import annotations

import pytest
from django.core.exceptions import ValidationError
from django.db import transaction
from pytest_django import Settings

from identity import audit
from identity.models import AuditEvent, PlatformAccount, UnifiedUser


@pytest.fixture
def telegram(db: None) -> PlatformAccount:
    return PlatformAccount.objects.create(platform="telegram", platform_user_id="12345", display_name="Alice B.")


@pytest.fixture
def alice(db: None) -> UnifiedUser:
    return UnifiedUser.objects.create(unified_user_id="alice", display_name="Alice B.")


def test_it_records_who_did_what_to_whom(telegram: PlatformAccount, alice: UnifiedUser) -> None:
    event = audit.record(kind="linked", actor="operator", account=telegram, user=alice, method="pairing", tries=2)

    event.refresh_from_db()
    assert (event.kind, event.actor, event.unified_user_id) == ("linked", "operator", "alice")
    assert event.account_hash == audit.account_hash(telegram)
    assert event.details == {"method": "pairing", "tries": 2}
    assert event.at.tzinfo is not None


@pytest.mark.django_db
def test_it_records_what_concerns_nobody() -> None:
    event = audit.record(kind="unlinked", actor="sweeper")

    assert (event.account_hash, event.unified_user_id, event.details) == ("", "", {})


def test_it_does_not_tell_the_account(telegram: PlatformAccount, settings: Settings) -> None:
    event = audit.record(kind="linked", actor="operator", account=telegram)
    assert len(event.account_hash) == 64
    assert "12345" not in str(AuditEvent.objects.values().get())

    settings.SECRET_KEY = "another key, with which nobody can look up this account"
    assert audit.account_hash(telegram) != event.account_hash


def test_it_finds_the_same_account_under_any_name(telegram: PlatformAccount) -> None:
    before = audit.account_hash(telegram)
    telegram.display_name = "Mallory"

    assert audit.account_hash(telegram) == before
    assert audit.account_hash(PlatformAccount(platform="discord", platform_user_id="12345")) != before


@pytest.mark.django_db
@pytest.mark.parametrize("words", ["Alice B.", "my favourite colour is octarine", "WDJB-MJHT", "x" * 41, ""])
def test_it_takes_no_names_and_no_words(words: str) -> None:
    with pytest.raises(ValueError, match="'note' is neither a number nor a plain word"):
        audit.record(kind="linked", actor="operator", note=words)

    assert not AuditEvent.objects.exists()


@pytest.mark.django_db
def test_it_refuses_changes() -> None:
    event = audit.record(kind="linked", actor="operator")
    event.actor = "nobody"

    with pytest.raises(ValidationError, match="never changed"):
        event.save()
    with pytest.raises(ValidationError, match="never changed"):
        AuditEvent.objects.update(actor="nobody")
    with pytest.raises(ValidationError, match="never changed"):
        AuditEvent.objects.filter(pk=event.pk).update(actor="nobody")
    with pytest.raises(ValidationError, match="never changed"), transaction.atomic():
        AuditEvent.objects.bulk_update([event], ["actor"])

    assert AuditEvent.objects.get().actor == "operator"


@pytest.mark.django_db
def test_it_refuses_deletion() -> None:
    event = audit.record(kind="linked", actor="operator")

    with pytest.raises(ValidationError, match="never shortened"):
        event.delete()
    with pytest.raises(ValidationError, match="never shortened"):
        AuditEvent.objects.all().delete()

    assert AuditEvent.objects.count() == 1
