"""Stores many messages with few statements. The rows equal those that `inbox.receive` writes one by one.

The statements are plain SQL, since the ORM takes longer to build them than the database to run them. Their text does
not depend on the number of messages, so that the database prepares them once: a list is one parameter, and the new rows
are one JSON document.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import connection

from identity.support import clock, sql
from sessions_app.history import conversations
from sessions_app.messages import InboundMessage, label
from sessions_app.receiving import settling, tombstones
from sessions_app.receiving.settling import Place

_DAY = timedelta(days=1).total_seconds()

# CROSS JOIN keeps SQLite from reading conversations first.
# {locked}: on PostgreSQL the rows stay as they are until the transaction ends. A row that another transaction deletes
# or renames is left out, so that its message goes the way of one alone, and holds up no other.
_PRIVATE_CHATS = """
SELECT a.platform_user_id, a.id, a.display_name, a.username, a.seen_at < {day_ago},
    c.id, c.platform, c.chat_id, c.thread_id, {now}
FROM identity_platformaccount a CROSS JOIN sessions_app_conversation c
WHERE c.account_id = a.id AND c.kind = 'dm' AND a.platform = %s AND a.platform_user_id {listed} {locked}
"""
_ACCOUNTS = """
SELECT a.platform_user_id, a.id, a.display_name, a.username, a.seen_at < {day_ago}
FROM identity_platformaccount a
WHERE a.platform = %s AND a.platform_user_id {listed} {locked}
"""
_GROUP_CHATS = """
SELECT c.key, c.id, c.platform, c.chat_id, c.thread_id
FROM {listed_keys} {locked}
"""
# In the order of `nth`, so that ids and times of receipt grow with it.
_INSERT = """
INSERT INTO sessions_app_inboundevent (
    received_at, ready_at, platform, kind, status, edited, starts, failures,
    native_key, conversation_id, account_id, chat_id, chat_name, thread_id, message_id, text)
SELECT {received_at}, {ready_at}, %s, 'message', 'pending', '', 0, 0,
    {native_key}, {conversation_id}, {account_id}, {chat_id}, {chat_name}, {thread_id}, {message_id}, {text}
FROM {rows}
WHERE NOT EXISTS (SELECT 1 FROM sessions_app_forgottenevent f WHERE f.key_hash {among_hashes})
ORDER BY {nth}
ON CONFLICT (platform, native_key) DO NOTHING
RETURNING native_key, id
"""
_FIELDS = {
    "native_key": "text",
    "conversation_id": "bigint",
    "account_id": "bigint",
    "chat_id": "text",
    "chat_name": "text",
    "thread_id": "text",
    "message_id": "text",
    "text": "text",
    "settles": "bigint",
}
_DIALECTS: dict[str, dict[str, str]] = {
    "postgresql": {
        "listed": "= ANY(%s)",
        "listed_keys": """sessions_app_conversation c
WHERE c.kind = 'group' AND c.account_id IS NULL AND c.key = ANY(%s)""",
        "locked": "FOR KEY SHARE SKIP LOCKED",
        "rows": "json_to_recordset(%s::json) AS m (nth int, hashes text[], {})".format(
            ", ".join(f"{name} {kind}" for name, kind in _FIELDS.items())
        ),
        "nth": "m.nth",
        "among_hashes": "= ANY(m.hashes)",
        **{name: f"m.{name}" for name in _FIELDS},
    },
    "sqlite": {
        "listed": "IN (SELECT value FROM json_each(%s))",
        # Key by key: for a list of keys, SQLite reads all conversations without an account.
        "listed_keys": """json_each(%s) AS m CROSS JOIN sessions_app_conversation c
WHERE c.kind = 'group' AND c.account_id IS NULL AND c.key = m.value""",
        "locked": "",
        "rows": "json_each(%s) AS m",
        "nth": "m.key",
        "among_hashes": "IN (SELECT value FROM json_each(m.value, '$.hashes'))",
        **{name: f"json_extract(m.value, '$.{name}')" for name in _FIELDS},
    },
}

_Row = tuple[Any, ...]
_NONE: _Row = (None,) * 10


@dataclass(frozen=True, slots=True)
class Prefix:
    """What became of the first messages of a group.

    conversations: theirs, in order. events: the ids of the new events; None for a message that is stored already or was
    deleted. now: the time before, by the database's clock.
    """

    conversations: list[int]
    events: list[int | None]
    now: datetime


def store(messages: Sequence[InboundMessage]) -> Prefix:
    """Store the longest prefix of `messages` that adds events. Call it in a transaction.

    Of other rows it changes only when earlier events of the same gestures are ready.

    It ends before the first message of an unknown account or chat, or of one that the message changes: by another name
    or address, as the first message from there, or as the first one of a day.

    messages: from one platform and with distinct keys; each is ordinary in all that it tells by itself.
    """
    places, now = _places(messages)
    settles = [settling.seconds(message) for message in messages[: len(places)]]
    rows = [
        {
            "nth": nth,
            "hashes": tombstones.hashes(message.address.platform, message.native_key),
            "native_key": message.native_key,
            "account_id": place.account_id,
            "conversation_id": place.conversation_id,
            "chat_id": place.chat_id,
            "chat_name": label(message.chat_name),
            "thread_id": place.thread_id,
            "message_id": message.message_id,
            "text": message.text,
            "settles": settling.microseconds(waits) if waits else None,
        }
        for nth, (message, place, waits) in enumerate(zip(messages, places, settles, strict=False))
    ]
    ids = _insert(messages[0].address.platform, rows) if rows else {}
    events = [ids.get(message.native_key) for message in messages[: len(rows)]]
    new = zip(places, settles, events, strict=True)
    settling.postpone({place: waits for place, waits, event_id in new if event_id is not None})
    return Prefix([place.conversation_id for place in places], events, now)


def _places(messages: Sequence[InboundMessage]) -> tuple[list[Place], datetime]:
    """Account and conversation, by their primary keys, and address of each message of the prefix; and the time."""
    platform = messages[0].address.platform
    keys = [None if message.is_private else conversations.group_key(message.address) for message in messages]
    users = {message.sender.user_id for message in messages if message.is_private}
    members = {message.sender.user_id for message in messages if not message.is_private}
    (day_ago, day), (now, zero) = clock.seconds_from_now(-_DAY).statement(), clock.now().statement()
    terms = _DIALECTS[connection.vendor] | {"day_ago": day_ago, "now": now}
    private_chats = _select(_PRIVATE_CHATS, terms, [day, zero, platform], users)
    accounts = _select(_ACCOUNTS, terms, [day, platform], members)
    group_chats = _select(_GROUP_CHATS, terms, [], {key for key in keys if key is not None})

    places = []
    for message, key in zip(messages, keys, strict=True):
        user_id, address = message.sender.user_id, message.address
        account_id, *names, is_stale = (private_chats if key is None else accounts).get(user_id, _NONE)[:4]
        chat = private_chats.get(user_id, _NONE)[4:8] if key is None else group_chats.get(key, _NONE)
        conversation_id, *place = chat[:4]
        is_unchanged = names == [label(message.sender.name), label(message.sender.username)] and not is_stale
        if not is_unchanged or place != [address.platform, address.chat_id, address.thread_id]:
            break
        places.append(Place(conversation_id, account_id, address.chat_id, address.thread_id))
    read = next((row[8] for row in private_chats.values()), clock.EPOCH)
    return places, read if connection.vendor == "postgresql" else clock.read()


def _select(
    statement: str, terms: Mapping[str, str], parameters: Sequence[Any], listed: Collection[str]
) -> dict[str, _Row]:
    """The rows by their first column, the key in `listed`."""
    if not listed:
        return {}
    keys = list(listed) if connection.vendor == "postgresql" else json.dumps(list(listed))
    with connection.cursor() as cursor:
        cursor.execute(statement.format(**terms), [*parameters, keys])
        return {row[0]: row[1:] for row in cursor.fetchall()}


def _insert(platform: str, rows: list[dict[str, Any]]) -> dict[str, int]:
    """Insert the rows whose messages are neither stored nor deleted. The new ids by native key."""
    terms, parameters = _DIALECTS[connection.vendor], [platform]
    if connection.vendor == "postgresql":
        moment, zero = clock.now().statement()
        received_at, parameters = f"{moment} + {terms['nth']} * INTERVAL '1 microsecond'", [zero, zero, platform]
        ready_at = f"{received_at} + {terms['settles']} * INTERVAL '1 microsecond'"
    else:
        received_at, ready_at = (f"json_extract(m.value, '$.{name}')" for name in ("received_at", "ready_at"))
        now = clock.read()
        for nth, row in enumerate(rows):
            received, settles = now + timedelta(microseconds=nth), row["settles"]
            row["received_at"] = sql.moment(received)
            row["ready_at"] = sql.moment(received + timedelta(microseconds=settles)) if settles else None
    with connection.cursor() as cursor:
        statement = _INSERT.format(**terms, received_at=received_at, ready_at=ready_at)
        cursor.execute(statement, [*parameters, json.dumps(rows, ensure_ascii=False)])
        return dict(cursor.fetchall())
