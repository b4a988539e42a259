"""Migrations that rewrite rows keep what was in them, there and back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

pytestmark = pytest.mark.django_db(transaction=True)

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
Migrate = Callable[[str, str], Any]


@pytest.fixture
def migrate() -> Iterator[Migrate]:
    """Bring an app to a migration, and give the models of that moment. Everything is brought back afterwards."""

    def to(app: str, name: str) -> Any:
        executor = MigrationExecutor(connection)
        executor.migrate([(app, name)])
        return MigrationExecutor(connection).loader.project_state([(app, name)]).apps.get_model

    yield to
    executor = MigrationExecutor(connection)
    executor.migrate(executor.loader.graph.leaf_nodes())


def test_it_keeps_who_has_guessed_how_often(migrate: Migrate) -> None:
    model = migrate("identity", "0002_operator_permissions")
    account = model("identity", "PlatformAccount").objects.create(platform="telegram", platform_user_id="mallory")
    counted = {"failures": 3, "since": NOON, "locked_until": NOON + timedelta(hours=1), "locks": 2}
    model("identity", "GuessLimit").objects.create(account=account, **counted)

    limits = migrate("identity", "0003_guessers")("identity", "GuessLimit").objects
    assert limits.values(*counted).get(guesser=f"account {account.pk}") == counted
    limits.create(guesser="address 3f", failures=1)
    limits.create(guesser="account 999999", failures=1)

    model = migrate("identity", "0002_operator_permissions")
    assert model("identity", "GuessLimit").objects.values("account", *counted).get() == {
        "account": account.pk,
        **counted,
    }


def test_it_keeps_wrong_codes_as_of_the_first_of_them(migrate: Migrate) -> None:
    limits = migrate("identity", "0004_browsers")("identity", "GuessLimit").objects
    limits.create(guesser="account 1", failures=3, since=NOON)
    limits.create(guesser="account 2")

    limits = migrate("identity", "0005_guess_times")("identity", "GuessLimit").objects
    assert dict(limits.values_list("guesser", "times")) == {"account 1": [NOON.timestamp()] * 3, "account 2": []}

    limits = migrate("identity", "0004_browsers")("identity", "GuessLimit").objects
    assert dict(limits.values_list("guesser", "failures")) == {"account 1": 3, "account 2": 0}


def test_processes_of_the_version_before_still_begin_requests(migrate: Migrate) -> None:
    model = migrate("identity", "0006_preferred")
    alice = model("identity", "PlatformAccount").objects.create(platform="telegram", platform_user_id="alice")
    pairings = migrate("identity", "0007_initiator_hash")("identity", "Pairing").objects

    begun = model("identity", "Pairing").objects.create(initiator=alice, expires_at=NOON, last_at=NOON)

    assert pairings.get(pk=begun.pk).initiator_hash == ""


def test_it_dates_replies_by_the_end_of_their_message(migrate: Migrate) -> None:
    model = migrate("sessions_app", "0001_initial")
    account = model("identity", "PlatformAccount").objects.create(platform="telegram", platform_user_id="alice")
    chat = model("sessions_app", "Conversation").objects.create(kind="dm", account=account, platform="telegram")
    event = model("sessions_app", "InboundEvent").objects.create(
        conversation=chat, account=account, text="", status="done", done_at=NOON + timedelta(minutes=5)
    )
    entries = model("sessions_app", "HistoryEntry").objects
    entries.create(conversation=chat, event=event, role="user", source="message", said_at=NOON)
    entries.create(conversation=chat, event=event, role="assistant", source="reply", said_at=NOON)
    entries.create(conversation=chat, role="assistant", source="reply", said_at=NOON)
    entries.create(conversation=chat, role="assistant", source="mirror", said_at=NOON)

    entries = migrate("sessions_app", "0003_historyentry_written_at")("sessions_app", "HistoryEntry").objects
    later = [written - NOON for written in entries.order_by("pk").values_list("written_at", flat=True)]
    assert later == [timedelta(0), timedelta(minutes=5), timedelta(0), timedelta(0)]


def test_it_knows_whose_name_an_operator_chose_before(migrate: Migrate) -> None:
    model = migrate("identity", "0007_initiator_hash")
    for name in ("c-1", "u-1"):
        model("identity", "UnifiedUser").objects.create(unified_user_id=name, display_name="Alice")
    model("identity", "AuditEvent").objects.create(kind="person_renamed", actor="root", unified_user_id="c-1")
    model("identity", "AuditEvent").objects.create(kind="linked", actor="root", unified_user_id="u-1")

    people = migrate("identity", "0010_person_name_is_chosen")("identity", "UnifiedUser").objects
    assert dict(people.values_list("unified_user_id", "is_name_chosen")) == {"c-1": True, "u-1": False}
