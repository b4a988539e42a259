"""Migrations that rewrite rows keep what was in them, there and back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

import pytest
from django.contrib.auth.models import Group, Permission, User
from django.contrib.contenttypes.models import ContentType
from django.core.management import call_command
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from sessions_app import counters, receiver_leases

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


RENAMED = {"pollerlease": "receiverlease", "tally": "counter"}
ACTIONS = ("add", "change", "delete", "view")


def codenames() -> set[str]:
    """Of the permissions for the renamed models, by their old and new names."""
    kinds = ContentType.objects.filter(app_label="sessions_app", model__in=[*RENAMED, *RENAMED.values()])
    return set(Permission.objects.filter(content_type__in=kinds).values_list("codename", flat=True))


def test_operators_keep_their_permissions_for_renamed_models(migrate: Migrate) -> None:
    """By the command: it is what renames content types, and adds the permissions that are missing."""
    ContentType.objects.clear_cache()
    call_command("migrate", "sessions_app", "0015_indexes_of_what_is_due", verbosity=0)
    assert codenames() == {f"{action}_{name}" for action in ACTIONS for name in RENAMED}
    operator = User.objects.create(username="operator")
    support = Group.objects.create(name="support")
    operator.groups.add(support)
    operator.user_permissions.add(Permission.objects.get(codename="view_pollerlease"))
    support.permissions.add(Permission.objects.get(codename="change_tally"))

    call_command("migrate", "sessions_app", "0016_model_names", verbosity=0)

    assert codenames() == {f"{action}_{name}" for action in ACTIONS for name in RENAMED.values()}
    assert User.objects.get().get_all_permissions() == {
        "sessions_app.view_receiverlease",
        "sessions_app.change_counter",
    }
    assert Permission.objects.get(codename="view_receiverlease").name == "Can view receiver lease"

    call_command("migrate", "sessions_app", "0015_indexes_of_what_is_due", verbosity=0)

    assert User.objects.get().get_all_permissions() == {"sessions_app.view_pollerlease", "sessions_app.change_tally"}


def test_processes_of_the_version_before_go_on_with_renamed_models(migrate: Migrate) -> None:
    model = migrate("sessions_app", "0015_indexes_of_what_is_due")
    leases, tallies = model("sessions_app", "PollerLease").objects, model("sessions_app", "Tally").objects
    counters._counts.clear()
    leases.create(key="telegram", owner="old", lease_until=NOON.replace(year=2999))
    migrate("sessions_app", "0016_model_names")

    assert not receiver_leases.take("telegram", "new")
    leases.filter(key="telegram").update(lease_until=NOON.replace(year=2001))
    assert receiver_leases.take("telegram", "new")
    assert leases.get(key="telegram").owner == "new"
    tallies.create(what="turns", platform="slack", count=2)
    counters.up("turns", "slack")
    counters.write()

    assert counters.written("turns") == dict(tallies.values_list("platform", "count")) == {"slack": 3}


def test_processes_of_the_version_before_go_on_with_what_was_possibly_sent(migrate: Migrate) -> None:
    old = migrate("sessions_app", "0016_model_names")("sessions_app", "OutboundDelivery").objects
    old.create(platform="telegram", chat_id="1", nonce="1", may_be_repeat=True)
    new = migrate("sessions_app", "0017_possibly_sent")("sessions_app", "OutboundDelivery").objects
    old.create(platform="telegram", chat_id="2", nonce="2", may_be_repeat=True)
    new.create(platform="telegram", chat_id="3", nonce="3", possibly_sent=True)

    assert list(new.filter(possibly_sent=True).order_by("nonce").values_list("nonce", flat=True)) == ["1", "2", "3"]
    assert old.filter(may_be_repeat=True).count() == 3


@pytest.mark.parametrize("name", ["0016_model_names", "0017_possibly_sent"])
@pytest.mark.parametrize("backwards", [False, True])
def test_a_rename_changes_no_table(name: str, backwards: bool) -> None:
    out = StringIO()
    call_command("sqlmigrate", "sessions_app", name, backwards=backwards, stdout=out)

    assert [line for line in out.getvalue().splitlines() if not line.startswith("--")] == ["BEGIN;", "COMMIT;"]


def test_processes_of_the_version_before_go_on_beside_new_columns(migrate: Migrate) -> None:
    """They know nothing of the columns, and the triggers of the search stay on the table."""
    old = migrate("sessions_app", "0018_entries_of_an_author")
    chat = old("sessions_app", "Conversation").objects.create(kind="group", key="telegram/1/", platform="telegram")
    entries = old("sessions_app", "HistoryEntry").objects
    entries.create(conversation=chat, role="user", source="message", text="octarine before", platform="telegram")

    new = migrate("sessions_app", "0019_turns_never_stuck")
    entries.create(conversation=chat, role="user", source="message", text="octarine after", platform="telegram")
    old("sessions_app", "Lane").objects.create(conversation=chat)

    assert list(new("sessions_app", "HistoryEntry").objects.values_list("is_withheld", flat=True)) == [False, False]
    assert new("sessions_app", "Lane").objects.get().stop_fence is None
    if connection.vendor == "sqlite":
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT COUNT(*) FROM sessions_app_entrysearch WHERE sessions_app_entrysearch MATCH 'octarine'"
            )
            assert cursor.fetchone() == (2,)


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
