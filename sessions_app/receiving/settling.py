"""Settling: the messages of one gesture wait for each other, so that one turn answers them together.

An app cuts a long paste into parts, and sends a comment and its forward apart. So a text is ready a moment after it was
received, and each further text of its author in that place starts the moment again for those that wait there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from django.conf import settings
from django.db import connection

from identity.support import platforms, sql
from identity.support.text import utf16_length
from sessions_app.messages import InboundMessage
from sessions_app.models import InboundEvent

MORE_SECONDS = 1.0  # after a message with which more comes, as the app shows
MAX_SECONDS = 3.0  # after the first of the messages that wait for each other
# An app cuts at a blank or a line, if one is near its limit, and drops it. UTF-16 code units.
NEAR_CUT = 300

# What waits and was never started. Rows that another transaction holds are left out: a claim starts them.
_HELD = """
SELECT e.id, e.received_at{columns} FROM {asked} sessions_app_inboundevent e
WHERE {place} AND e.done_at IS NULL AND e.ready_at IS NOT NULL AND e.starts = 0 AND e.failures = 0
ORDER BY e.id {locking}
"""
# CROSS JOIN keeps SQLite from reading all that waits. A message alone has its moment already.
_POSTPONE = """
WITH held AS ({held}),
gestures AS (
    SELECT nth, {earlier} AS ready_at FROM held GROUP BY nth HAVING COUNT(*) > 1
)
UPDATE sessions_app_inboundevent SET ready_at = gestures.ready_at
FROM held JOIN gestures ON gestures.nth = held.nth
WHERE sessions_app_inboundevent.id = held.id
"""
_END = """
WITH held AS ({held})
UPDATE sessions_app_inboundevent SET ready_at = NULL WHERE id IN (SELECT id FROM held)
"""
_DIALECTS = {
    "postgresql": {
        "asked": """json_to_recordset(%s::json) AS p (nth int, conversation_id bigint, account_id bigint, chat_id text,
            thread_id text, settles bigint) CROSS JOIN""",
        "columns": ", p.nth, p.settles",
        "place": """e.conversation_id = p.conversation_id AND e.account_id = p.account_id
            AND e.chat_id = p.chat_id AND e.thread_id = p.thread_id""",
        "earlier": """LEAST(MIN(received_at) + %s * INTERVAL '1 microsecond',
            MAX(received_at) + MAX(settles) * INTERVAL '1 microsecond')""",
    },
    # Django adds its functions about time to each connection: those of SQLite know milliseconds only.
    "sqlite": {
        "asked": "json_each(%s) AS p CROSS JOIN",
        "columns": ", p.key AS nth, json_extract(p.value, '$.settles') AS settles",
        "place": """e.conversation_id = json_extract(p.value, '$.conversation_id')
            AND e.account_id = json_extract(p.value, '$.account_id')
            AND e.chat_id = json_extract(p.value, '$.chat_id')
            AND e.thread_id = json_extract(p.value, '$.thread_id')""",
        "earlier": """MIN(django_format_dtdelta('+', MIN(received_at), %s),
            django_format_dtdelta('+', MAX(received_at), MAX(settles)))""",
    },
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where the messages of one gesture are: from one author, in one chat or thread of a conversation."""

    conversation_id: int
    account_id: int
    chat_id: str
    thread_id: str

    @classmethod
    def of(cls, event: InboundEvent) -> Place:
        return cls(event.conversation_id, event.account_id, event.chat_id, event.thread_id)


def seconds(message: InboundMessage) -> float:
    """How long a plain message waits for others; 0.0 if it is ready at once."""
    if not settings.BOTOS_SETTLE_SECONDS:
        return 0.0
    has_more = message.more_may_follow or may_be_cut(message.text, message.address.platform)
    return min(max(settings.BOTOS_SETTLE_SECONDS, MORE_SECONDS if has_more else 0.0), MAX_SECONDS)


def may_be_cut(text: str, platform: str) -> bool:
    """Whether the app may have cut a longer text behind this part."""
    length = utf16_length(text)
    return any(cut - NEAR_CUT <= length <= cut for cut in platforms.of(platform).cut_at)


def postpone(settles: Mapping[Place, float]) -> None:
    """Have what waits in these places wait for the newest message there. Call it when that message is stored.

    settles: how many seconds after the newest message they are ready. They never wait longer than MAX_SECONDS.
    """
    places = [
        {
            "nth": nth,
            "conversation_id": place.conversation_id,
            "account_id": place.account_id,
            "chat_id": place.chat_id,
            "thread_id": place.thread_id,
            "settles": microseconds(waits),
        }
        for nth, (place, waits) in enumerate(settles.items())
        if waits
    ]
    if places:
        dialect, locking = _DIALECTS[connection.vendor], sql.locking("FOR NO KEY UPDATE OF e SKIP LOCKED")
        held = _HELD.format(**dialect, locking=locking)
        statement = _POSTPONE.format(held=held, earlier=dialect["earlier"])
        sql.run(statement, [json.dumps(places, ensure_ascii=False), microseconds(MAX_SECONDS)])


def end(event: InboundEvent) -> None:
    """Let the turn of what waits before `event`, in its conversation and from its author, begin at once."""
    if settings.BOTOS_SETTLE_SECONDS:
        place = "e.conversation_id = %s AND e.account_id = %s AND e.id < %s"
        locking = sql.locking("FOR NO KEY UPDATE OF e SKIP LOCKED")
        held = _HELD.format(columns="", asked="", place=place, locking=locking)
        sql.run(_END.format(held=held), [event.conversation_id, event.account_id, event.pk])


def microseconds(value: float) -> int:
    """The seconds as whole microseconds, as both engines store them."""
    return round(value * 1_000_000)
