"""Plain SQL stores and reads what Django's ORM stores and reads."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import connection
from django.forms.models import model_to_dict

from adapters.runtime import health
from identity import checks
from identity.models import Browser, PlatformAccount
from identity.support import clock, sql
from sessions_app.models import Conversation, HistoryEntry, InboundEvent, OutboundDelivery
from sessions_app.outbox import queue as outbox_queue
from sessions_app.turns import lifecycle
from sessions_app.turns.lifecycle import Answer
from tests.sessions_app.browsing import browser_of
from tests.sessions_app.moments import StillClock
from tests.sessions_app.talk import claim, receive, say

pytestmark = pytest.mark.django_db


def stored(model: Any, pk: int) -> dict[str, Any]:
    """All columns of a row as the ORM reads them."""
    row = model.objects.get(pk=pk)
    return {field.attname: getattr(row, field.attname) for field in model._meta.concrete_fields}


@pytest.mark.parametrize("model", [InboundEvent, Conversation, PlatformAccount, HistoryEntry, OutboundDelivery])
def test_it_loads_what_the_orm_loads(model: Any) -> None:
    say("alice", "hello", platform="discord")
    statement = f"SELECT {sql.columns(model, 't')}, t.id FROM {model._meta.db_table} t ORDER BY t.id"

    for row in sql.run(statement):
        (loaded,) = sql.load(row[:-1], model)
        values = {field.attname: getattr(loaded, field.attname) for field in model._meta.concrete_fields}
        assert values == stored(model, row[-1])
        assert not loaded._state.adding


def test_it_loads_several_models_from_one_row() -> None:
    receive("alice", "hello")
    browser = browser_of(PlatformAccount.objects.get())
    columns = f"{sql.columns(PlatformAccount, 'a')}, {sql.columns(Browser, 'b')}"
    (row,) = sql.run(f"SELECT {columns} FROM identity_platformaccount a CROSS JOIN identity_browser b")

    account, loaded = sql.load(row, PlatformAccount, Browser)

    assert (account, loaded) == (PlatformAccount.objects.get(), browser)
    assert model_to_dict(loaded) == model_to_dict(browser)


def test_it_returns_keys_in_the_order_of_the_rows() -> None:
    receive("alice", "hello")
    conversation, account = Conversation.objects.get(), PlatformAccount.objects.get()
    row = {
        "conversation_id": conversation.pk,
        "author_id": account.pk,
        "role": "user",
        "source": "message",
        "source_label": "",
        "metadata": "{}",
        "platform": "telegram",
        "chat_id": "1",
        "thread_id": "",
        "message_id": "",
        "said_at": clock.EPOCH + timedelta(days=1),
        "written_at": clock.now(),
    }
    count = sql.MAX_ROWS + 3  # two statements

    keys = sql.insert(HistoryEntry, [row | {"text": str(number)} for number in range(count)])

    texts = dict(HistoryEntry.objects.values_list("pk", "text"))
    assert [texts[key] for key in keys] == [str(number) for number in range(count)]
    assert set(HistoryEntry.objects.values_list("said_at", flat=True)) == {clock.EPOCH + timedelta(days=1)}


def test_it_finds_among_any_number_of_values() -> None:
    for who in ("alice", "bob", "carol"):
        receive(who, "hello")
    condition, values = sql.among("platform_user_id", ["alice", "carol", "nobody"])

    found = sql.run(f"SELECT platform_user_id FROM identity_platformaccount WHERE {condition} ORDER BY 1", values)

    assert found == [("alice",), ("carol",)]


def test_a_turn_stores_what_the_orm_would_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same turn once more, with rows that the ORM makes."""
    StillClock().put_in_place(monkeypatch)
    conversation = receive("alice", "hello")
    claimed = claim(conversation)
    InboundEvent.objects.update(edited="hello there")

    lifecycle.finish_together([Answer(claimed, "hi", 2000)])

    about = {"conversation_id": conversation, "author": claimed.account, "event": claimed.head, "platform": "telegram"}
    about |= {"chat_id": claimed.head.chat_id, "said_at": claimed.head.received_at}
    place = {"platform": "telegram", "chat_id": claimed.head.chat_id}
    question, reply = HistoryEntry.objects.order_by("id")
    delivery = OutboundDelivery.objects.get()
    made: list[tuple[Any, Any]] = [
        (
            question,
            HistoryEntry(
                **about,
                role="user",
                source="message",
                text="hello",
                metadata={"edited": "hello there"},
                message_id=claimed.head.message_id,
                written_at=claimed.head.received_at,
            ),
        ),
        (reply, HistoryEntry(**about, role="assistant", source="reply", text="hi")),
        (delivery, OutboundDelivery(**place, text="hi", event=claimed.head, entry=reply, nonce=delivery.nonce)),
    ]
    for row, by_orm in made:
        as_stored = stored(type(row), row.pk)
        type(row).objects.filter(pk=row.pk).delete()
        by_orm.pk = row.pk
        by_orm.save(force_insert=True)
        if isinstance(row, HistoryEntry):  # deliveries of a deleted entry lose it
            OutboundDelivery.objects.filter(pk=delivery.pk).update(entry=by_orm)
        assert stored(type(row), row.pk) == as_stored


def test_settling_stores_what_the_orm_would_store(monkeypatch: pytest.MonkeyPatch) -> None:
    still = StillClock().put_in_place(monkeypatch)
    say("alice", "hello")
    (delivery,) = outbox_queue.claim(owner="test", platforms=["telegram"])
    before = stored(OutboundDelivery, delivery.pk)

    outbox_queue.settle([outbox_queue.Sent(delivery, "7" * 200)])

    changed = {"status": "sent", "message_id": "7" * 190, "settled_at": still.now}
    assert stored(OutboundDelivery, delivery.pk) == before | changed


@pytest.mark.parametrize(
    ("engine", "version", "found"),
    [
        ("sqlite3", (3, 34, 1), ["identity.E010"]),
        ("sqlite3", (3, 35, 0), []),
        ("postgresql", (3, 34, 1), []),
    ],
)
def test_it_refuses_a_sqlite_that_is_too_old(
    monkeypatch: pytest.MonkeyPatch, engine: str, version: tuple[int, int, int], found: list[str]
) -> None:
    monkeypatch.setattr("sqlite3.sqlite_version_info", version)
    databases = {"default": {"ENGINE": f"django.db.backends.{engine}"}}
    monkeypatch.setattr("identity.checks.settings", SimpleNamespace(DATABASES=databases))

    assert [problem.id for problem in checks.check_sqlite(None)] == found


def test_it_locks_only_where_the_database_can() -> None:
    assert sql.locking("FOR UPDATE") == ("FOR UPDATE" if connection.vendor == "postgresql" else "")


def require_migrated() -> None:
    from botos_project import setup  # looks at the database

    setup.require_migrated()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("look", [health.check_database, require_migrated])
def test_a_look_at_the_tables_leaves_no_connection_behind(look: Callable[[], None]) -> None:
    """A program that serves for months would keep one open in the thread of its first look."""

    def work() -> tuple[bool, bool]:
        look()
        closed = connection.connection is None
        connection.ensure_connection()
        look()
        kept = connection.connection is not None
        connection.close()
        return closed, kept

    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(work).result() == (True, True)
