"""A database with two people whose conversations are of a given length, as if all of it had been said in turns.

Bob has one account that nobody linked. Alice has four, linked, and her history is spread over them.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta

from django.core.management import call_command
from django.db import connection, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Model

from identity.flows import linking
from identity.models import AccountLink
from identity.support import clock
from sessions_app.messages import Address, InboundMessage, Sender
from sessions_app.models import HistoryEntry, InboundEvent, Lane, OutboundDelivery
from tests.bench import engines
from tests.bench.ours import Ours

QUESTION = "And how long will it take to get there by train if I leave on Thursday morning?"
_GROWING: tuple[type[Model], ...] = (OutboundDelivery, HistoryEntry, InboundEvent)  # those that point to others first
_STEADY: tuple[type[Model], ...] = (Lane,)  # updated by every turn
_run = secrets.token_hex(4)  # several processes may talk to one database
_keys = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Person:
    name: str
    platforms: tuple[str, ...]  # with one account on each

    def message(self) -> InboundMessage:
        """The next thing that the person says, from each of the accounts in turn."""
        number = next(_keys)
        return message(self.name, self.platforms[number % len(self.platforms)], number)


BOB = Person("bob", ("telegram",))
ALICE = Person("alice", ("telegram", "discord", "slack", "slack-acme"))


@dataclass(frozen=True, slots=True)
class Stage:
    url: str
    connection: BaseDatabaseWrapper
    entries: int  # of each person
    forget: tuple[str, ...]  # statements that remove what was said after the stage was set


def message(who: str, platform: str, number: int) -> InboundMessage:
    return InboundMessage(
        native_key=f"{_run}-{number}",
        address=Address(platform, f"chat-{who}"),
        sender=Sender(who, who.title()),
        text=QUESTION,
        message_id=f"m-{number}",
        chat_name=who.title(),
    )


def crowd(name: str, people: int) -> Iterator[InboundMessage]:
    """One message of each of so many people."""
    for number in range(people):
        yield message(f"{name}-{number}", "telegram", next(_keys))


def migrated(url: str) -> BaseDatabaseWrapper:
    """The connection in use from now on, to a database with all tables."""
    made = engines.connection_to(url)
    engines.use(made)
    call_command("migrate", verbosity=0)
    return made


def built(url: str, entries: int) -> Stage:
    """Set the stage at `url`: `entries` history entries of each person, and the events and deliveries behind them."""
    made = migrated(url)
    _fill(entries // 2)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE" if connection.vendor == "postgresql" else "PRAGMA wal_checkpoint(TRUNCATE)")
    return Stage(url, made, entries, tuple(_forgetting()))


def enter(stage: Stage) -> None:
    """Work on this stage from now on, tidied up so that earlier measurements leave no trace."""
    engines.use(stage.connection)
    if connection.vendor == "postgresql":
        _tidy()


def _tidy() -> None:
    tables = ", ".join(model._meta.db_table for model in _GROWING + _STEADY)
    with connection.cursor() as cursor:
        cursor.execute(f"VACUUM {tables}" if connection.vendor == "postgresql" else "PRAGMA wal_checkpoint(TRUNCATE)")


def _forgetting() -> Iterator[str]:
    for model in _GROWING:
        newest = model._default_manager.order_by("-pk").values_list("pk", flat=True)[0]
        yield f"DELETE FROM {model._meta.db_table} WHERE id > {newest}"


@transaction.atomic
def _fill(turns: int) -> None:
    """Have one real turn on each account, and copies of it before it, a second apart."""
    _link(ALICE)
    for person in (BOB, ALICE):
        for number, platform in enumerate(person.platforms):
            Ours().turn(message(person.name, platform, next(_keys)), lambda: None)
            _copy_event((turns - number - 1) // len(person.platforms))
    _copy_entries()
    _copy_deliveries()


def _link(person: Person) -> None:
    """Make the accounts one person's, long before anything was said: each may read everything."""
    for platform in person.platforms:
        account = {"platform": platform, "platform_user_id": person.name}
        linking.link(**account, unified_user_id=person.name, method="import", actor="bench")
    AccountLink.objects.update(since=clock.EPOCH + timedelta(days=1))


def _copy_event(copies: int) -> None:
    """Repeat the newest event, into the past."""
    earlier = "old.{0} - n.i * INTERVAL '1 second'"
    if connection.vendor == "sqlite":
        earlier = "strftime('%Y-%m-%d %H:%M:%f000', old.{0}, -n.i || ' seconds')"
    changed = {at: earlier.format(at) for at in ("received_at", "done_at")}
    series = "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {})"
    _copy(
        InboundEvent,
        changed | {"native_key": "old.native_key || '-' || n.i"},
        f"CROSS JOIN n WHERE n.i > 0 AND old.id = (SELECT MAX(id) FROM {InboundEvent._meta.db_table})",
        series.format(copies),
    )


def _copy_entries() -> None:
    """For each event that has no entries, those of the real event of its conversation."""
    _copy(
        HistoryEntry,
        {"event_id": "e.id", "said_at": "e.received_at"},
        f"""CROSS JOIN {InboundEvent._meta.db_table} e
        WHERE e.conversation_id = old.conversation_id
        AND NOT EXISTS (SELECT 1 FROM {HistoryEntry._meta.db_table} own WHERE own.event_id = e.id)
        ORDER BY e.received_at, old.id""",
    )


def _copy_deliveries() -> None:
    """For each reply that has no delivery, that of the real reply of its conversation."""
    _copy(
        OutboundDelivery,
        {"nonce": "'copy-' || e.id", "entry_id": "e.id", "event_id": "e.event_id"}
        | dict.fromkeys(("created_at", "settled_at"), "e.said_at"),
        f"""CROSS JOIN {HistoryEntry._meta.db_table} r CROSS JOIN {HistoryEntry._meta.db_table} e
        WHERE r.id = old.entry_id AND e.conversation_id = r.conversation_id AND e.role = r.role
        AND NOT EXISTS (SELECT 1 FROM {OutboundDelivery._meta.db_table} own WHERE own.entry_id = e.id)
        ORDER BY e.id""",
    )


def _copy(model: type[Model], changed: Mapping[str, str], source: str, before: str = "") -> None:
    """Insert copies of rows (`old`), each column as it was unless `changed` has an expression for it.

    CROSS JOIN in `source`: SQLite then reads the tables in the order in which they are written.
    """
    columns = [field.column or "" for field in model._meta.concrete_fields if not field.primary_key]
    values = [changed.get(column, f"old.{column}") for column in columns]
    table = model._meta.db_table
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {table} ({', '.join(columns)}) {before} SELECT {', '.join(values)} FROM {table} old {source}"
        )
