"""A turn by hand: the rows that BotOS reads and writes for a plain message, without Django and without a choice.

`python -P raw.py '{"url": ..., "people": ..., "turns": ..., "warm_up": ...}'` prints milliseconds of CPU a turn as
JSON. Each statement does as much as one statement can, and each is served by an index.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import psycopg

PLATFORM = "bench"
QUESTION = "And how long will it take to get there by train if I leave on Thursday morning?"
ANSWER = "About four hours: leave at 7:12, change once, and you arrive a little after eleven. Shall I remind you?"
LINES = 100  # of history that an agent is shown
QUIET = 0.02  # seconds between turns, as driver.py has, since a processor that was idle works slower

_ACCOUNT = """SELECT id, display_name, username FROM identity_platformaccount
WHERE platform = ? AND platform_user_id = ?"""
_CONVERSATION = """SELECT id, platform, chat_id, thread_id FROM sessions_app_conversation WHERE account_id = ?"""
_STORE_EVENT = """INSERT INTO sessions_app_inboundevent
(platform, native_key, kind, conversation_id, account_id, chat_id, chat_name, thread_id, message_id, text, status,
 edited, starts, failures, received_at) VALUES (?, ?, 'message', ?, ?, ?, ?, '', ?, ?, 'pending', '', 0, 0, ?)"""

_LOCK_ACCOUNT = """SELECT a.id FROM sessions_app_conversation c JOIN identity_platformaccount a ON a.id = c.account_id
WHERE c.id = ? {lock_account}"""
_LOCK_PERSON = """SELECT u.id FROM identity_accountlink l JOIN identity_unifieduser u ON u.id = l.user_id
WHERE l.account_id = ? AND l.ended_at IS NULL {lock_person}"""
_LANES = """SELECT n.conversation_id, n.fence, n.lease_until, n.not_before
FROM identity_accountlink l JOIN sessions_app_conversation c ON c.account_id = l.account_id
JOIN sessions_app_lane n ON n.conversation_id = c.id WHERE l.user_id = ? AND l.ended_at IS NULL"""
_LANE = "SELECT conversation_id, fence, lease_until, not_before FROM sessions_app_lane WHERE conversation_id = ?"
_WAITING = """SELECT e.id, e.conversation_id, e.platform, e.chat_id, e.chat_name, e.thread_id, e.message_id, e.text,
 e.kind, e.starts, e.failures, e.received_at, a.id, a.platform_user_id, a.display_name, a.username
FROM sessions_app_inboundevent e JOIN identity_platformaccount a ON a.id = e.account_id
WHERE e.conversation_id IN ({places}) AND e.done_at IS NULL ORDER BY e.id LIMIT 21"""
_TAKE_LANE = """UPDATE sessions_app_lane SET owner = 'raw', fence = fence + 1, lease_until = ?
WHERE conversation_id = ? AND fence = ?"""
_START = "UPDATE sessions_app_inboundevent SET starts = starts + 1 WHERE id = ?"

_BOUNDS = """SELECT c.id, a.window_from, l.since, l.shares_past, u.unified_user_id
FROM identity_accountlink l JOIN identity_unifieduser u ON u.id = l.user_id
JOIN identity_platformaccount a ON a.id = l.account_id JOIN sessions_app_conversation c ON c.account_id = l.account_id
WHERE l.user_id = ? AND l.ended_at IS NULL"""
_BOUND = """SELECT a.window_from FROM sessions_app_conversation c JOIN identity_platformaccount a ON a.id = c.account_id
WHERE c.id = ?"""
_NEWEST = """SELECT * FROM (SELECT role, text, said_at, source, source_label, platform, id
FROM sessions_app_historyentry WHERE conversation_id = ? AND said_at > ?
ORDER BY said_at DESC, id DESC LIMIT ?) AS newest"""
_MERGED = "{} ORDER BY said_at DESC, id DESC LIMIT ?"

_FREE_LANE = """UPDATE sessions_app_lane SET owner = '', lease_until = ?, not_before = ?
WHERE conversation_id = ? AND owner = 'raw' AND fence = ?"""
_END_EVENT = "UPDATE sessions_app_inboundevent SET status = 'done', done_at = ? WHERE id = ? AND done_at IS NULL"
_STORE_ENTRIES = """INSERT INTO sessions_app_historyentry
(conversation_id, author_id, event_id, role, source, source_label, text, metadata, platform, chat_id, thread_id,
 message_id, said_at, written_at) VALUES (?, ?, ?, 'user', 'message', '', ?, '{}', ?, ?, '', ?, ?, ?),
(?, ?, ?, 'assistant', 'reply', '', ?, '{}', ?, ?, '', '', ?, ?) RETURNING id"""
_QUEUE = """INSERT INTO sessions_app_outbounddelivery
(platform, chat_id, thread_id, text, nonce, event_id, entry_id, status, attempts, may_be_repeat, owner, lease_until,
 not_before, message_id, reason, template, subject, created_at)
VALUES (?, ?, '', ?, ?, ?, ?, 'pending', 0, ?, '', ?, ?, '', '', '', '{}', ?)"""

_DUE = """SELECT d.id, d.platform, d.chat_id, d.thread_id, d.text, d.nonce, d.status, d.attempts, d.may_be_repeat
FROM sessions_app_outbounddelivery d WHERE d.settled_at IS NULL AND d.platform IN ({places})
AND ((d.status = 'pending' AND d.not_before <= ?) OR (d.status = 'sending' AND d.lease_until <= ?))
AND NOT EXISTS (SELECT 1 FROM sessions_app_outbounddelivery b WHERE b.platform = d.platform AND b.chat_id = d.chat_id
 AND b.thread_id = d.thread_id AND b.id < d.id AND b.settled_at IS NULL)
ORDER BY d.id LIMIT 100 {lock_delivery}"""
_TAKE_DELIVERY = """UPDATE sessions_app_outbounddelivery SET status = 'sending', owner = 'raw', lease_until = ?,
attempts = attempts + 1 WHERE id = ?"""
_SETTLE = """UPDATE sessions_app_outbounddelivery SET status = 'sent', message_id = 'sent', settled_at = ?, reason = ''
WHERE id = ? AND owner = 'raw' AND attempts = 1 AND status = 'sending'"""


class Driver(Protocol):
    """What the two drivers do differently. Moments are in the form in which the driver stores them."""

    begin: str
    locks: dict[str, str]

    def execute(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """The rows that come back, if any do."""

    def moment(self, seconds: float = 0.0) -> object:
        """So many seconds from now."""


class SQLiteDriver:
    begin = "BEGIN IMMEDIATE"
    locks = {"lock_account": "", "lock_person": "", "lock_delivery": ""}

    def __init__(self, url: str) -> None:
        """As durable as the project's own options."""
        self._connection = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "secure_delete=ON"):
            self._connection.execute(f"PRAGMA {pragma}")

    def execute(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        return self._connection.execute(statement, values).fetchall()

    def moment(self, seconds: float = 0.0) -> object:
        return (datetime.now(tz=UTC) + timedelta(seconds=seconds)).replace(tzinfo=None).isoformat(" ")


class PsycopgDriver:
    begin = "BEGIN"
    locks = {
        "lock_account": "FOR NO KEY UPDATE OF a",
        "lock_person": "FOR NO KEY UPDATE OF u",
        "lock_delivery": "FOR UPDATE OF d SKIP LOCKED",
    }

    def __init__(self, url: str) -> None:
        self._connection = psycopg.connect(url, autocommit=True)

    def execute(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        # A statement of the benchmark's own, put together from nothing else.
        cursor = self._connection.execute(statement.replace("?", "%s").encode(), values or None)
        return cursor.fetchall() if cursor.description else []

    def moment(self, seconds: float = 0.0) -> object:
        return datetime.now(tz=UTC) + timedelta(seconds=seconds)


class Raw:
    """Runs turns through a driver."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    def turn(self, who: int) -> list[str]:
        """Take a message from its receipt to the note that the answer was sent. Return the history, oldest first."""
        conversation = self._in_transaction(self._receive, who)
        person, fence, event = self._in_transaction(self._claim, conversation)
        window = self._window(conversation, person)
        self._in_transaction(self._finish, conversation, fence, event)
        due = self._in_transaction(self._take)
        self._in_transaction(self._settle, due)
        assert len(due) == 1
        return [str(line[1]) for line in reversed(window)]

    def _in_transaction(self, step: Callable[..., Any], *values: Any) -> Any:
        self._driver.execute(self._driver.begin)
        result = step(*values)
        self._driver.execute("COMMIT")
        return result

    def _run(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        return self._driver.execute(statement, values)

    def _receive(self, who: int) -> int:
        [(account, name, username)] = self._run(_ACCOUNT, PLATFORM, f"person-{who}")
        assert (name, username) == (f"Person {who}", "")
        [(conversation, *place)] = self._run(_CONVERSATION, account)
        assert place == [PLATFORM, f"chat-{who}", ""]
        key = secrets.token_hex(8)
        event = (PLATFORM, key, conversation, account, f"chat-{who}", f"Person {who}")
        self._run(_STORE_EVENT, *event, key, QUESTION, self._driver.moment())
        return int(conversation)

    def _claim(self, conversation: int) -> tuple[int | None, int, tuple[Any, ...]]:
        locks, now = self._driver.locks, self._driver.moment()
        [(account,)] = self._run(_LOCK_ACCOUNT.format(**locks), conversation)
        people = self._run(_LOCK_PERSON.format(**locks), account)
        person = people[0][0] if people else None
        lanes = self._run(_LANES, person) if person else self._run(_LANE, conversation)
        assert all(lane[2] <= now and lane[3] <= now for lane in lanes)
        places = ", ".join("?" * len(lanes))
        [event] = self._run(_WAITING.format(places=places), *(lane[0] for lane in lanes))
        fence = next(lane[1] for lane in lanes if lane[0] == event[1])
        self._run(_TAKE_LANE, self._driver.moment(30), conversation, fence)
        self._run(_START, event[0])
        return person, fence + 1, event

    def _window(self, conversation: int, person: int | None) -> list[tuple[Any, ...]]:
        if person is None:
            [(bound,)] = self._run(_BOUND, conversation)
            return self._run(_MERGED.format(_NEWEST), conversation, bound, LINES, LINES)
        accounts = self._run(_BOUNDS, person)
        [own] = [row for row in accounts if row[0] == conversation]
        values: list[Any] = []
        for home, _, since, shares_past, _ in accounts:
            is_open = home == conversation or shares_past
            values += [home, own[1] if is_open else max(own[1], own[2], since), LINES]
        return self._run(_MERGED.format(" UNION ALL ".join([_NEWEST] * len(accounts))), *values, LINES)

    def _finish(self, conversation: int, fence: int, event: tuple[Any, ...]) -> None:
        now = self._driver.moment()
        self._run(_FREE_LANE, now, now, conversation, fence)
        event_id, _, platform, chat_id, _, _, message_id, text, _, _, _, received_at, account, *_ = event
        self._run(_END_EVENT, now, event_id)
        place, key = (platform, chat_id), (conversation, account, event_id)
        said = (*key, text, *place, message_id, received_at, received_at)
        answered = (*key, ANSWER, *place, received_at, now)
        entries = self._run(_STORE_ENTRIES, *said, *answered)
        nonce = secrets.token_hex(12)
        self._run(_QUEUE, *place, ANSWER, nonce, event_id, entries[-1][0], False, now, now, now)

    def _take(self) -> list[tuple[Any, ...]]:
        now, places = self._driver.moment(), "?"
        due = self._run(_DUE.format(places=places, **self._driver.locks), PLATFORM, now, now)
        for row in due:
            self._run(_TAKE_DELIVERY, self._driver.moment(60), row[0])
        return due

    def _settle(self, due: list[tuple[Any, ...]]) -> None:
        for row in due:
            self._run(_SETTLE, self._driver.moment(), row[0])


def measured(*, url: str, people: int, turns: int, warm_up: int) -> dict[str, float]:
    """CPU and duration of a turn in milliseconds."""
    raw = Raw(SQLiteDriver(url) if url.startswith("sqlite") else PsycopgDriver(url))
    for number in range(warm_up):
        assert len(raw.turn(number % people)) == LINES
    cpu, began = time.process_time(), time.perf_counter()
    for number in range(turns):
        raw.turn(number % people)
        time.sleep(QUIET)
    cpu, took = time.process_time() - cpu, time.perf_counter() - began - turns * QUIET
    return {"cpu": 1000 * cpu / turns, "elapsed": 1000 * took / turns}


if __name__ == "__main__":
    print(json.dumps(measured(**json.loads(sys.argv[1]))))
