"""Every statement of a turn, of the sweeps, of housekeeping and of what watches reads by an index what it needs.

The statements are those that are really executed, against tables of which hardly anything is due.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client, override_settings
from pytest_django import DjangoDbBlocker

from adapters.monitoring import diagnostics, metrics
from adapters.runtime import housekeeping
from identity import audit
from identity.admin import base
from identity.models import Browser, Pairing, PlatformAccount
from identity.support import clock
from sessions_app import inbox
from sessions_app.history import search
from sessions_app.messages import Address
from sessions_app.models import HistoryEntry, OutboundDelivery
from sessions_app.outbox import queue as outbox_queue
from sessions_app.outbox.queue import Sent
from sessions_app.turns import drafts, leases, lifecycle, stopping
from sessions_app.turns.unanswered import unanswered
from tests.sessions_app.talk import DATABASE, message, receive, say
from tests.sessions_app.test_views import attach

ROWS = 50_000
BIG = {
    "sessions_app_inboundevent",
    "sessions_app_outbounddelivery",
    "sessions_app_historyentry",
    "identity_accountlink",
    "identity_platformaccount",
    "identity_unifieduser",
    "identity_browser",
    "identity_pairing",
    "identity_auditevent",
    "sessions_app_conversation",
    "sessions_app_lane",
}
# Partial indexes of what is due, or went wrong: they hold next to nothing, so all of one may be read.
SMALL = {
    "events_waiting_by_platform",
    "events_waiting_in_a_lane",
    "events_given_up",
    "deliveries_open_by_platform",
    "deliveries_open_at_an_address",
    "deliveries_dead",
    "event_has_one_draft",
    "disowned_links_of_a_user",
    "live_links_to_remind_of",
    "requests_that_may_expire",
    "initiator_has_one_live_request",
    "responder_has_one_claimed_request",
    "browser_has_one_live_request",
    "browser_has_one_claimed_request",
}
PLATFORMS = ("telegram", "discord", "slack")
IN_ORDER = {"requests_by_age"}
Statement = tuple[str, Any]

_NUMBERS = {
    "sqlite": "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {rows}) ",
    "postgresql": "WITH numbers AS (SELECT n FROM generate_series(1, {rows}) AS n) ",
}


def fill() -> None:
    """Copy the one row that each big table has, so that what is kept is long done and still within its time."""
    say("filler", "hello", answer="ok")
    OutboundDelivery.objects.update(status="sent", settled_at="2026-01-01T00:00Z")
    audit.record(kind="linked", actor="test")
    browser = Browser.objects.create(ended_at=clock.now())
    Pairing.objects.create(
        initiator_browser=browser, state="expired", expires_at=clock.now(), last_at=clock.now(), ended_at=clock.now()
    )
    own: dict[str, dict[str, str]] = {
        "identity_platformaccount": {"platform_user_id": "'filler-' || n"},
        "identity_unifieduser": {"unified_user_id": "'filler-' || n"},
        "sessions_app_inboundevent": {"native_key": "'filler-' || n", "done_at": _days_ago(1)},
        "sessions_app_historyentry": {"event_id": "NULL"},
        "sessions_app_outbounddelivery": {
            "nonce": "'filler-' || n",
            "chat_id": "'chat-' || n",
            "settled_at": _days_ago(1),
        },
        # Each third one is live, so that the indexes of live ones are big.
        "identity_browser": {
            "id": _uuid(),
            "ended_at": f"CASE WHEN n % 3 = 0 THEN NULL ELSE {_days_ago(1)} END",
            "seen_at": _milliseconds_ago("n"),
            "created_at": _milliseconds_ago("n"),
        },
        "identity_pairing": {"id": _uuid(), "ended_at": _days_ago(1)},
        "identity_auditevent": {},
    }
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO identity_unifieduser (unified_user_id, display_name, created_at)"
            f" VALUES ('filler', '', {_days_ago(9)})"
        )
        for table in ("identity_platformaccount", "identity_unifieduser"):
            _copy(cursor, table, own.pop(table))
        cursor.execute(
            "INSERT INTO sessions_app_conversation"
            " (kind, key, account_id, platform, chat_id, thread_id, window_from, created_at)"
            " SELECT 'dm', 'filler:' || a.id, a.id, a.platform, 'chat-' || a.id, '', a.window_from, a.created_at"
            " FROM identity_platformaccount a WHERE a.platform_user_id LIKE 'filler-%'"
        )
        cursor.execute(
            "INSERT INTO sessions_app_lane (conversation_id, owner, lease_until, fence, not_before)"
            " SELECT c.id, '', c.window_from, 1, c.window_from FROM sessions_app_conversation c"
            " WHERE c.key LIKE 'filler:%'"
        )
        cursor.execute(
            "SELECT MIN(id) - 1, MIN(account_id) - 1 FROM sessions_app_conversation WHERE key LIKE 'filler:%'"
        )
        conversation, account = cursor.fetchone()
        own["sessions_app_inboundevent"] |= {"conversation_id": f"{conversation} + n", "account_id": f"{account} + n"}
        cursor.execute("SELECT MIN(id) - 1 FROM identity_unifieduser WHERE unified_user_id LIKE 'filler-%'")
        person = cursor.fetchone()[0]
        # A third each is begun by a browser, an account, and an operator.
        own["identity_pairing"] |= {
            "initiator_browser_id": "CASE WHEN n % 3 = 0 THEN t.initiator_browser_id END",
            "initiator_id": f"CASE WHEN n % 3 = 1 THEN {account} + n END",
            "person_id": f"CASE WHEN n % 3 = 2 THEN {person} + n END",
            "operator": "CASE WHEN n % 3 = 2 THEN 'chief' ELSE '' END",
            "responder_id": f"CASE WHEN n % 3 > 0 THEN {account} + n END",
        }
        for table, changed in own.items():
            _copy(cursor, table, changed)
        cursor.execute(
            "INSERT INTO identity_accountlink"
            " (account_id, user_id, since, look_at, shares_past, disowned, method, actor)"
            f" SELECT a.id, u.id, {_days_ago(9)}, {_ahead('a.id')}, {_false()}, {_false()}, 'import', 'test'"
            " FROM identity_platformaccount a JOIN identity_unifieduser u ON u.unified_user_id = a.platform_user_id"
        )
        cursor.execute("ANALYZE")


def _copy(cursor: Any, table: str, changed: dict[str, str]) -> None:
    columns = [one.name for one in connection.introspection.get_table_description(cursor, table)]
    columns = [one for one in columns if one != "id" or one in changed]
    values = ", ".join(changed.get(column, f"t.{column}") for column in columns)
    numbers = _NUMBERS[connection.vendor].format(rows=ROWS)
    select = f"SELECT {values} FROM numbers, (SELECT * FROM {table} ORDER BY id DESC LIMIT 1) t"
    cursor.execute(f"INSERT INTO {table} ({', '.join(columns)}) {numbers}{select}")


def _uuid() -> str:
    return "printf('%032x', n)" if connection.vendor == "sqlite" else "lpad(to_hex(n), 32, '0')::uuid"


def _days_ago(days: int) -> str:
    if connection.vendor == "sqlite":
        return f"strftime('%Y-%m-%d %H:%M:%f', 'now', '{-days} days')"
    return f"now() - interval '{days} days'"


def _milliseconds_ago(count: str) -> str:
    if connection.vendor == "sqlite":
        return f"strftime('%Y-%m-%d %H:%M:%f', 'now', '-' || ({count} / 1000.0) || ' seconds')"
    return f"now() - {count} * interval '1 millisecond'"


def _ahead(seconds: str) -> str:
    """So many seconds from tomorrow, so that no two rows have the same."""
    if connection.vendor == "sqlite":
        return f"strftime('%Y-%m-%d %H:%M:%f', 'now', '1 day', '+' || {seconds} || ' seconds')"
    return f"now() + interval '1 day' + {seconds} * interval '1 second'"


def _false() -> str:
    return "0" if connection.vendor == "sqlite" else "false"


@contextmanager
def captured() -> Iterator[dict[str, Statement]]:
    """What is executed within the block: each statement once, with the values that it had first."""
    found: dict[str, Statement] = {}

    def keep(execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
        if re.match(r"(SELECT|UPDATE|DELETE|WITH)\b", sql) and not many:
            found.setdefault(sql, (sql, params))
        return execute(sql, params, many, context)

    with connection.execute_wrapper(keep):
        yield found


def a_turn() -> None:
    """Receive, claim, begin, finish, deliver, settle."""
    conversation = receive("alice", "hello")
    found = leases.waiting(PLATFORMS, longer_than=0.0)
    assert conversation in found
    claimed = leases.claim(found, owner="me", platforms=PLATFORMS)
    [claim] = claimed.claims
    leases.renew([claim.lease])
    lifecycle.begin(claim, resolver=None)
    search.find(claim.lease.conversation, "hello", limit=10, speaker=("telegram", "alice"), for_agent=True)
    unanswered(found, [Address("telegram", "chat-alice")])
    lifecycle.finish(claim, "hello to you", limit=2000)
    going = outbox_queue.claim(owner="me", platforms=PLATFORMS, besides=[1])
    assert going
    outbox_queue.seconds_until_next(PLATFORMS)
    outbox_queue.settle([Sent(one, "1") for one in going])


def a_stopped_turn() -> None:
    """Receive, claim, show a part, stop, notice it, give back."""
    [claim] = leases.claim([receive("alice", "hello")], owner="me", platforms=PLATFORMS).claims
    drafts.write(claim, "hello to")
    assert stopping.stop(claim.lease.conversation, claim.account)
    assert leases.stopped([claim.lease])
    lifecycle.release(claim)


@override_settings(BOTOS_SETTLE_SECONDS=0.3)
def settling() -> None:
    for text in ("one", "two", "/new"):
        receive("alice", text)
    said = [message("alice", text) for text in ("three", "four")]
    assert len(inbox.receive_together(said, resolver=DATABASE)) == 2


def watching() -> None:
    metrics.exposition()
    list(diagnostics.findings())


def keeping_house() -> None:
    for duty in housekeeping.DUTIES:
        if duty.name not in {"gather statistics", "clean the files"}:
            duty.portion()


LISTS = (
    "sessions_app/inboundevent",
    "sessions_app/outbounddelivery",
    "identity/platformaccount",
    "identity/accountlink",
    "identity/auditevent",
    "identity/unifieduser",
    "identity/pairing",
)


def admin_lists() -> None:
    client = Client()
    client.force_login(User.objects.create_superuser("operator"))
    for one in LISTS:
        assert client.get(f"/admin/{one}/").status_code == 200
    for one in LISTS[:2]:
        assert client.get(f"/admin/{one}/?state=all").status_code == 200


def links_of_lists(client: Client) -> Iterator[str]:
    """Each list with each choice of its filters, sorted by each column, searched for a word and for an ID."""
    for one in LISTS:
        address = f"/admin/{one}/"
        yield address
        for all_rows in ("?", "?state=all&") if one.startswith("sessions_app") else ("?",):
            page = client.get(f"{address}{all_rows}").content.decode()
            for link in sorted(set(re.findall(r'href="(\?[^"]+)"', page))):
                yield address + html.unescape(link)
            for words in ("nothing", "filler-7"):
                yield f"{address}{all_rows}q={words}"


def reader_with(words: int) -> Client:
    """A browser of an account that wrote so much in private, and as much in a group."""
    who = f"reader-{words}"
    places = [receive(who, "hello"), receive(who, "hello", group=f"group-{words}")]
    account = PlatformAccount.objects.get(platform_user_id=who)
    for conversation in places:
        written = {"role": "user", "source": "message", "text": "hello"}
        entries = (HistoryEntry(conversation_id=conversation, author=account, **written) for _ in range(words))
        HistoryEntry.objects.bulk_create(entries, batch_size=500)
    client = Client()
    attach(client, account)
    return client


@contextmanager
def rows_read() -> Iterator[list[int]]:
    """At the end of the block, how much its statements read: on SQLite, instructions; on PostgreSQL, rows."""
    read = [0]
    if connection.vendor == "sqlite":

        def count() -> None:
            read[0] += 100

        connection.connection.set_progress_handler(count, 100)
        try:
            yield read
        finally:
            connection.connection.set_progress_handler(None, 0)
        return
    with captured() as statements:
        yield read
    with connection.cursor() as cursor:
        for sql, params in statements.values():
            if sql.startswith("SELECT"):
                cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}", params)
                read[0] += _rows_of(cursor.fetchone()[0][0]["Plan"])


def _rows_of(plan: dict[str, Any]) -> int:
    left_out = sum(count for name, count in plan.items() if name.startswith("Rows Removed by"))
    own = (plan["Actual Rows"] + left_out) * plan["Actual Loops"]
    return int(own) + sum(map(_rows_of, plan.get("Plans", ())))


def faults_in(statement: Statement) -> list[str]:
    """Lines of its plan that read a big table, or all of it that belongs to one platform."""
    sql, params = statement
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            cursor.execute(f"EXPLAIN QUERY PLAN {sql}", params)
            lines = [str(row[-1]) for row in cursor.fetchall()]
            return [line for line in lines if _is_scan(line, sql) or _is_by_platform_alone(line)]
        cursor.execute(f"EXPLAIN (FORMAT TEXT) {sql}", params)
        lines = [str(row[0]) for row in cursor.fetchall()]
    scans = [line for line, below in pairwise([*lines, ""]) if _is_scan_of_postgresql(line, below, sql)]
    by_platform = [line for line in lines if re.search(r"Index Cond: \(?platform\)?[^()]* = [^()]*\)$", line)]
    return scans + by_platform


def _is_scan_of_postgresql(line: str, below: str, sql: str) -> bool:
    """A table, or an index from end to end: the line below says which part of it is read, if not all is."""
    if found := re.search(r"Seq Scan on (\w+)", line):
        return found[1] in BIG and not _stops_early(sql)
    found = re.search(r"Index (?:Only )?Scan (?:Backward )?using (\w+) on (\w+)|Bitmap Index Scan on (\w+)", line)
    if found is None or "Index Cond:" in below or _stops_early(sql, found[1]):
        return False
    return (found[1] or found[3]) not in SMALL and (found[2] is None or found[2] in BIG)


def _is_by_platform_alone(line: str) -> bool:
    """Nothing but the platform is compared, in an index of all rows: half of a table is read."""
    found = re.search(r"INDEX (\w+) \(platform=\?\)$", line)
    return found is not None and found[1] not in SMALL


def _is_scan(line: str, sql: str) -> bool:
    found = re.match(r"SCAN (\w+)(?: USING (?:COVERING )?INDEX (\w+))?", line)
    if found is None or not _is_big(found[1], sql):
        return False
    return found[2] not in SMALL and not _stops_early(sql, found[2])


def _is_big(name: str, sql: str) -> bool:
    """Statements call tables by other names in their subqueries."""
    aliased = re.search(rf'"(\w+)" {name}\b', sql)
    return (aliased[1] if aliased else name) in BIG


def _stops_early(sql: str, index: str | None = None) -> bool:
    """In the order of the primary key, or of an index that is there for it, and the first rows only."""
    if index in IN_ORDER and re.search(r"DESC LIMIT \d+(?: OFFSET \d+)?$", sql):
        return True
    by_id = r'ORDER BY (?:"\w+"\.)?"id" (?:ASC|DESC) LIMIT \d+\s*$|^SELECT "\w+"\."id" AS "pk" .* ORDER BY 1 \w+ LIMIT'
    listed = r'IN \(SELECT \w+\."id" AS "pk" .* LIMIT \d+\)'  # the rows that a list has
    return bool(re.search(rf"{by_id}|{listed}|^SELECT COUNT\(\*\) FROM \(SELECT .* LIMIT \d+\)", sql))


@pytest.fixture(scope="module", autouse=True)
def short_log(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """SQLite's log keeps the length that so many rows gave it, and other tests read all of it."""
    yield
    if connection.vendor == "sqlite":
        with django_db_blocker.unblock(), connection.cursor() as cursor:
            cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")


@pytest.mark.django_db
@override_settings(BOTOS_RETENTION_HISTORY_DAYS=365)
def test_every_statement_reads_what_it_needs() -> None:
    fill()
    with captured() as statements:
        for part in (a_turn, a_stopped_turn, settling, watching, keeping_house, admin_lists):
            part()

    faults = {sql: found for sql, one in statements.items() if (found := faults_in(one))}
    assert len(statements) > 80
    assert not faults, "\n\n".join(f"{found}\n{sql}" for sql, found in faults.items())


@pytest.mark.django_db
def test_no_link_of_a_list_reads_a_whole_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """A list of 100 rows out of 50,000 reads a few thousand: whatever is filtered, sorted and searched."""
    monkeypatch.setattr(base, "MAX_LISTED", 100)
    fill()
    client = Client()
    client.force_login(User.objects.create_superuser("operator"))
    client.get("/admin/")

    reading: dict[str, int] = {}
    for link in links_of_lists(client):
        with rows_read() as read:
            assert client.get(link).status_code == 200
        reading[link] = read[0]

    assert len(reading) > 80
    assert not {link: count for link, count in reading.items() if count > ROWS // 2}


@pytest.mark.django_db
@pytest.mark.parametrize("page", ["/me/", "/me/now/", "/me/history/"])
def test_my_page_reads_as_much_however_much_was_written(page: str) -> None:
    clients = [reader_with(words) for words in (500, 5_000)]
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")

    reading = []
    for client in clients:
        assert client.get(page).status_code == 200
        with rows_read() as read:
            assert client.get(page).status_code == 200
        reading.append(read[0])

    few, many = reading
    assert many < 1.2 * few + 2_000  # PostgreSQL may pass by rows of the other reader
