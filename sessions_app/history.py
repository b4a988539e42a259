"""What was said, and who may read it. This module is the only road from history to an agent, a page or an export."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django.db import connection
from django.db.models import Q
from django.db.models.functions import Greatest

from identity import clock
from identity.models import AccountLink, PlatformAccount
from sessions_app.messages import Line
from sessions_app.models import Conversation, HistoryEntry

# One statement, so that links, bounds and entries are of one moment. For each conversation that may be read it finds
# where the newest `limit` readable entries begin, in the index `entries_in_order`, and reads on from there: the cost
# grows with `limit` and the number of linked accounts, never with history, except that a disowned link is read over.
# CROSS JOIN keeps SQLite from reading the entries first, NOT MATERIALIZED from reading all links or entries.
_READ = """
WITH own AS NOT MATERIALIZED (
    SELECT c.id, c.account_id, l.user_id, l.since, {put_behind} AS put_behind
    FROM sessions_app_conversation c
    LEFT JOIN identity_platformaccount a ON a.id = c.account_id
    LEFT JOIN identity_accountlink l ON l.account_id = c.account_id AND l.ended_at IS NULL
    WHERE c.id = %(conversation)s
),
readable AS (
    SELECT own.id, own.account_id, own.put_behind AS after FROM own
    UNION ALL
    SELECT c.id, c.account_id, CASE WHEN other.shares_past THEN own.put_behind
                      ELSE {latest}(own.put_behind, own.since, other.since) END
    FROM own
    JOIN identity_accountlink other
        ON other.user_id = own.user_id AND other.ended_at IS NULL AND other.account_id <> own.account_id
    JOIN sessions_app_conversation c ON c.account_id = other.account_id
),
disowned AS (
    SELECT readable.id, {latest}(mine.since, wrong.since) AS since,
           {first}(COALESCE(mine.ended_at, wrong.ended_at), wrong.ended_at) AS until
    FROM readable CROSS JOIN identity_accountlink mine CROSS JOIN identity_accountlink wrong {by_user}
    WHERE {is_window} AND mine.account_id = readable.account_id
      AND wrong.disowned AND wrong.user_id IN (mine.user_id, mine.user_id)
)
SELECT e.role, e.text, e.said_at, e.source, e.source_label, e.platform, CASE WHEN readable.account_id IS NULL
       THEN (SELECT author.display_name FROM identity_platformaccount author WHERE author.id = e.author_id) END
{newest}
ORDER BY e.said_at DESC, e.id DESC
LIMIT %(limit)s
"""
# Bounded within each conversation: with one limit around all, PostgreSQL may come to sort every entry that there is.
_NEWEST_ON_POSTGRESQL = """
FROM readable CROSS JOIN LATERAL (
    SELECT entry.* FROM sessions_app_historyentry entry
    WHERE entry.conversation_id = readable.id AND entry.said_at > readable.after AND NOT EXISTS (
        SELECT 1 FROM disowned d
        WHERE d.id = readable.id AND entry.said_at > d.since AND entry.said_at <= d.until)
    ORDER BY entry.said_at DESC, entry.id DESC LIMIT %(limit)s) e
"""
# SQLite has no LATERAL: from where the n-th newest begins, in a subquery of its own.
_NEWEST_ON_SQLITE = """
FROM readable CROSS JOIN sessions_app_historyentry e
WHERE e.conversation_id = readable.id
  AND e.said_at >= COALESCE((
        SELECT nth.said_at FROM sessions_app_historyentry nth
        WHERE nth.conversation_id = readable.id AND nth.said_at > readable.after AND NOT EXISTS (
            SELECT 1 FROM disowned d
            WHERE d.id = readable.id AND nth.said_at > d.since AND nth.said_at <= d.until)
        ORDER BY nth.said_at DESC LIMIT 1 OFFSET %(skip)s), readable.after)
  AND e.said_at <> readable.after
  AND NOT EXISTS (
        SELECT 1 FROM disowned d
        WHERE d.id = readable.id AND e.said_at > d.since AND e.said_at <= d.until)
"""
_FUNCTIONS = {
    "postgresql": {"latest": "GREATEST", "first": "LEAST", "by_user": "", "newest": _NEWEST_ON_POSTGRESQL},
    # Left alone, and for a plain equality too, SQLite may read all links to make a filter of them: hence also the IN.
    "sqlite": {
        "latest": "MAX",
        "first": "MIN",
        "by_user": "INDEXED BY disowned_links_of_a_user",
        "newest": _NEWEST_ON_SQLITE,
    },
}
_WINDOW = {"put_behind": "COALESCE(a.window_from, c.window_from)", "is_window": "TRUE"}
_EVERYTHING = {"put_behind": "%(epoch)s", "is_window": "FALSE"}


def readable(conversation: Conversation, *, limit: int) -> tuple[Line, ...]:
    """The newest `limit` entries that may be read in `conversation`, oldest first, `/new` or not."""
    return _read(conversation, limit, _EVERYTHING)


def window_for(conversation: Conversation, *, limit: int) -> tuple[Line, ...]:
    """What an agent gets in `conversation`, the newest `limit`, oldest first.

    That is the readable entries, less what `/new` put behind, and less what anybody of a person said or was answered
    while a link of that person lived that was disowned later.
    """
    return _read(conversation, limit, _WINDOW)


def _read(conversation: Conversation, limit: int, terms: dict[str, str]) -> tuple[Line, ...]:
    epoch = connection.ops.adapt_datetimefield_value(clock.EPOCH)
    values = {"conversation": conversation.pk, "skip": limit - 1, "limit": limit, "epoch": epoch}
    with connection.cursor() as cursor:
        cursor.execute(_READ.format(**terms, **_FUNCTIONS[connection.vendor]), values)
        newest_first = cursor.fetchall()
    return tuple(_line(*row) for row in reversed(newest_first))


def _line(role: str, text: str, said_at: datetime, *about: str | None) -> Line:
    if said_at.tzinfo is None:  # SQLite keeps none
        said_at = said_at.replace(tzinfo=UTC)
    return Line(role, text, said_at, *(value or "" for value in about))


def start_anew(conversation: Conversation, *, at: datetime) -> None:
    """Put everything said up to `at` behind, for all accounts of the person: agents get it no more, pages show it."""
    if conversation.account_id is None:
        Conversation.objects.filter(pk=conversation.pk).update(window_from=Greatest("window_from", at))
        return
    live = AccountLink.objects.live()
    same_person = live.filter(user__in=live.filter(account=conversation.account_id).values("user"))
    theirs = Q(pk=conversation.account_id) | Q(pk__in=same_person.values("account"))
    PlatformAccount.objects.filter(theirs).update(window_from=Greatest("window_from", at))


def entry(conversation: Conversation, **fields: Any) -> HistoryEntry:
    """A new, unsaved entry of `conversation`; the address is the conversation's unless given."""
    place = {"platform": conversation.platform, "chat_id": conversation.chat_id, "thread_id": conversation.thread_id}
    return HistoryEntry(conversation=conversation, **place | fields)
