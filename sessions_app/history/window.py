"""History, and who may read it. Agents, pages and exports read history only through this module."""

from __future__ import annotations

import functools
import itertools
import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import connection, transaction
from django.db.models import Q, QuerySet
from django.db.models.functions import Greatest

from identity import live
from identity.flows import linking
from identity.models import PlatformAccount
from identity.resolvers import Pair, key_without_resolver, stranger_key
from identity.support import clock
from sessions_app.messages import Line, speaker_name
from sessions_app.models import Conversation, HistoryEntry

# One statement, so that links, bounds and entries are of one moment. For each conversation that may be read, the index
# `entries_in_order` shows where the newest `limit` readable entries begin, and the statement reads on from there. So
# the cost grows with `limit` and the number of linked accounts, not with history, except that it reads past a disowned
# link. CROSS JOIN keeps SQLite from reading entries first, NOT MATERIALIZED from reading all links or entries.
_READ = """
WITH twin AS (
{twin}
),
own AS NOT MATERIALIZED (
    SELECT c.id, c.account_id, l.user_id, l.since, {hidden_before} AS hidden_before
    FROM sessions_app_conversation c
    LEFT JOIN identity_platformaccount a ON a.id = c.account_id
    LEFT JOIN identity_accountlink l ON l.account_id = c.account_id AND l.ended_at IS NULL
    WHERE c.id = %(conversation)s
),
others AS (
    SELECT other.account_id, CASE WHEN other.shares_past THEN own.hidden_before
                      ELSE {latest}(own.hidden_before, own.since, other.since) END AS after
    FROM own
    JOIN identity_accountlink other
        ON other.user_id = own.user_id AND other.ended_at IS NULL AND other.account_id <> own.account_id
),
readable AS (
    SELECT own.id, own.account_id, own.hidden_before AS after FROM own
    UNION ALL
    SELECT twin.id, twin.account_id, own.hidden_before FROM own CROSS JOIN twin
    UNION ALL
    SELECT c.id, others.account_id, others.after
    FROM others JOIN sessions_app_conversation c ON c.account_id = others.account_id
    UNION ALL
    SELECT before.id, before.account_id, before.after
    FROM (SELECT (SELECT (SELECT c.id FROM sessions_app_conversation c WHERE {is_without_resolver})
                  FROM identity_platformaccount a WHERE a.id = others.account_id) AS id,
                 others.account_id, others.after
          FROM others) before
    WHERE before.id IS NOT NULL
),
disowned AS (
    SELECT readable.id, {latest}(mine.since, wrong.since) AS since,
           {first}(COALESCE(mine.ended_at, wrong.ended_at), wrong.ended_at) AS until
    FROM readable CROSS JOIN identity_accountlink mine CROSS JOIN identity_accountlink wrong {by_user}
    WHERE {is_window} AND mine.account_id = readable.account_id
      AND wrong.disowned AND wrong.user_id IN (mine.user_id, mine.user_id)
      AND mine.since < wrong.ended_at AND wrong.since < COALESCE(mine.ended_at, wrong.ended_at)
)
{wanted}
"""
ENTRIES = """
SELECT e.id, e.role, e.text, e.said_at, e.source, e.source_label, e.platform, CASE WHEN readable.account_id IS NULL
       THEN (SELECT COALESCE(NULLIF(author.display_name, ''), author.username)
             FROM identity_platformaccount author WHERE author.id = e.author_id) END, e.author_id
"""
NEWEST_FIRST = """
ORDER BY e.said_at DESC, e.id DESC
LIMIT %(limit)s
"""
# Bounded within each conversation: with one limit around all, PostgreSQL may sort every entry in the table.
_NEWEST_ON_POSTGRESQL = """
FROM readable CROSS JOIN LATERAL (
    SELECT entry.* FROM sessions_app_historyentry entry
    WHERE entry.conversation_id = readable.id AND entry.said_at > readable.after {bounds_of_entry} AND NOT EXISTS (
        SELECT 1 FROM disowned d
        WHERE d.id = readable.id AND entry.said_at <= d.until AND entry.written_at > d.since)
    ORDER BY entry.said_at DESC, entry.id DESC LIMIT %(limit)s) e
WHERE {is_chosen}
"""
# SQLite has no LATERAL: a subquery finds where the n-th newest entry begins.
_NEWEST_ON_SQLITE = """
FROM readable CROSS JOIN sessions_app_historyentry e INDEXED BY entries_in_order
WHERE {is_chosen} AND e.conversation_id = readable.id
  AND e.said_at >= COALESCE((
        SELECT nth.said_at FROM sessions_app_historyentry nth
        WHERE nth.conversation_id = readable.id AND nth.said_at > readable.after {bounds_of_nth} AND NOT EXISTS (
            SELECT 1 FROM disowned d
            WHERE d.id = readable.id AND nth.said_at <= d.until AND nth.written_at > d.since)
        ORDER BY nth.said_at DESC LIMIT 1 OFFSET %(skip)s), readable.after)
  AND e.said_at <> readable.after {bounds_of_e}
  AND NOT EXISTS (
        SELECT 1 FROM disowned d
        WHERE d.id = readable.id AND e.said_at <= d.until AND e.written_at > d.since)
"""
_FUNCTIONS = {
    "postgresql": {
        "latest": "GREATEST",
        "first": "LEAST",
        "by_user": "",
        "newest": _NEWEST_ON_POSTGRESQL,
        "not_asked": "<> ALL(%(asked)s)",
    },
    # Without this, or with a plain equality, SQLite may read all links to build a filter: hence also the IN.
    "sqlite": {
        "latest": "MAX",
        "first": "MIN",
        "by_user": "INDEXED BY disowned_links_of_a_user",
        "newest": _NEWEST_ON_SQLITE,
        "not_asked": "NOT IN (SELECT value FROM json_each(%(asked)s))",
    },
}
# An account's private chat continues in another conversation, its twin, when a resolver is configured or removed.
# Without a resolver, the key is the account's own, which no other account can have (see resolve_with). Both are read as
# one.
_IS_WITHOUT_RESOLVER = """c.kind = 'dm' AND c.account_id IS NULL AND c.platform = a.platform
        AND c.key = 'bot_' || a.platform || '_' || a.platform_user_id"""
_TWIN_OF_ACCOUNT = """
    SELECT c.id, a.id AS account_id, c.window_from
    FROM sessions_app_conversation mine
    JOIN identity_platformaccount a ON a.id = mine.account_id
    JOIN sessions_app_conversation c ON {is_without_resolver}
    WHERE mine.id = %(conversation)s"""
_TWIN_BY_KEY = """
    SELECT c.id, c.account_id, c.window_from
    FROM sessions_app_conversation c
    WHERE c.kind = 'dm' AND c.account_id IS NULL AND c.platform = %(platform)s AND c.key = %(twin)s"""
_TWIN_WITH_ACCOUNT = """
    UNION ALL
    SELECT c.id, c.account_id, a.window_from
    FROM identity_platformaccount a
    JOIN sessions_app_conversation c ON c.account_id = a.id
    WHERE a.platform = %(platform)s AND a.platform_user_id = %(user)s"""
_WINDOW = {
    "hidden_before": "{latest}(COALESCE(a.window_from, c.window_from),"
    " COALESCE((SELECT MAX(twin.window_from) FROM twin), %(epoch)s))",
    "is_window": "TRUE",
}
_EVERYTHING = {"hidden_before": "%(epoch)s", "is_window": "FALSE"}
# What an agent gets. asked: the events whose words it is asked with. For a condition on the entries alone, SQLite may
# read all of them to build a filter: hence also `readable`.
FOR_AGENT = "AND (readable.id IS NULL OR NOT {entry}.is_withheld)"
# The same for an entry that is found in another way than by the order of entries.
FOUND_FOR_AGENT = """AND (readable.id IS NULL OR NOT e.is_withheld) AND NOT EXISTS (
    SELECT 1 FROM disowned d WHERE d.id = readable.id AND e.said_at <= d.until AND e.written_at > d.since)"""
_NOT_ASKED = "AND (readable.id IS NULL OR {entry}.event_id IS NULL OR {entry}.event_id {not_asked})"
# A page begins at the index too, so that old pages cost no more than new ones.
_BEFORE = """AND {entry}.said_at <= %(before_at)s
    AND ({entry}.said_at < %(before_at)s OR {entry}.id < %(before_id)s)"""


# From one place where the account wrote to the next, and to its newest words there, all in `entries_of_an_author`: so
# the cost grows with the places, not with the words.
_GROUPS = """
WITH RECURSIVE places(id) AS (
    SELECT MIN(e.conversation_id) FROM sessions_app_historyentry e WHERE e.author_id = %(account)s
    UNION ALL
    SELECT (SELECT MIN(e.conversation_id) FROM sessions_app_historyentry e
            WHERE e.author_id = %(account)s AND e.conversation_id > places.id)
    FROM places WHERE places.id IS NOT NULL
),
newest AS (
    SELECT places.id, (SELECT e.id FROM sessions_app_historyentry e
        WHERE e.author_id = %(account)s AND e.conversation_id = places.id AND e.role = 'user'
        ORDER BY e.said_at DESC LIMIT 1) AS entry_id
    FROM places
)
SELECT c.id, c.platform, event.chat_name, e.said_at
FROM newest
JOIN sessions_app_conversation c ON c.id = newest.id AND c.kind = 'group'
JOIN sessions_app_historyentry e ON e.id = newest.entry_id
LEFT JOIN sessions_app_inboundevent event ON event.id = e.event_id
ORDER BY e.said_at DESC, c.id
LIMIT %(limit)s
"""


@dataclass(frozen=True, slots=True)
class Place:
    """A conversation whose entries after `after` may be read. account_id: None for a group."""

    conversation_id: int
    account_id: int | None
    after: datetime


@dataclass(frozen=True, slots=True)
class Group:
    """A group in which an account wrote, most recently at `last_at`."""

    conversation_id: int
    platform: str
    name: str
    last_at: datetime


@dataclass(frozen=True, slots=True)
class Page:
    """Some entries, oldest first. older: the `before` of the page before, or "". end: the cursor of the last entry."""

    lines: tuple[Line, ...]
    older: str = ""
    end: str = ""


def readable(conversation: Conversation, *, limit: int, speaker: Pair | None = None) -> tuple[Line, ...]:
    """The newest `limit` entries that may be read in `conversation`, oldest first, including those before `/new`.

    speaker: the account that asks (platform and id). If several accounts share a resolver's string, this account may
    also read what it said while no resolver was configured.
    """
    return tuple(line(row) for row in _read(conversation, limit, _EVERYTHING, speaker=speaker))


def window_for(
    conversation: Conversation,
    *,
    limit: int,
    speaker: Pair | None = None,
    asked: Collection[int] = (),
    for_agent: bool = True,
) -> tuple[Line, ...]:
    """The newest `limit` entries for an agent in `conversation`, oldest first.

    These are the readable entries, without those before `/new`, and without those that were written during a link that
    was disowned later. An answer from that time to an earlier message is left out too, as it may repeat words of the
    link. Withheld entries are left out unless `for_agent` is false. speaker: as in `readable`. asked: the ids of
    the events that the agent is asked with, whose own entries are left out.
    """
    return _window(conversation, limit, speaker, asked=asked, for_agent=for_agent)[0]


def window_with_name(
    conversation: Conversation,
    *,
    limit: int,
    speaker: Pair,
    account: PlatformAccount | None,
    asked: Collection[int] = (),
) -> tuple[tuple[Line, ...], str]:
    """The window for a turn of `account`, and the name of the account there: "" in a private chat.

    asked: as in `window_for`.
    """
    lines, names = _window(conversation, limit, speaker, account, asked=asked)
    return lines, names.get(account.pk, "") if account else ""


def _window(
    conversation: Conversation,
    limit: int,
    speaker: Pair | None,
    account: PlatformAccount | None = None,
    *,
    asked: Collection[int] = (),
    for_agent: bool = True,
) -> tuple[tuple[Line, ...], dict[int, str]]:
    """The lines of a window, and in a group the names of their authors and of `account`, by primary key.

    No two names are alike: of namesakes, all but the account that is known longest get a number.
    """
    rows = _read(conversation, limit, _WINDOW, speaker=speaker, asked=asked, for_agent=for_agent)
    if conversation.kind != Conversation.Kind.GROUP:
        return tuple(line(row, author="") for row in rows), {}
    labels = _labels(rows)
    if account is not None:
        labels[account.pk] = account.display_name or account.username
    names = _names(labels)
    return tuple(line(row, author=names.get(row[8], "")) for row in rows), names


def names_for_agent(conversation: Conversation, rows: Iterable[Any], *, speaker: Pair) -> dict[int, str]:
    """The names of the authors of these rows of ENTRIES, by primary key; none in a private chat.

    Who is in the window of `speaker` has the same name there, and nobody else has it.
    """
    if conversation.kind != Conversation.Kind.GROUP:
        return {}
    account = PlatformAccount.objects.filter(platform=speaker[0], platform_user_id=speaker[1]).first()
    return _names(_labels(rows), known=_window(conversation, settings.BOTOS_WINDOW, speaker, account)[1])


def _labels(rows: Iterable[Any]) -> dict[int, str]:
    return {row[8]: row[7] or "" for row in rows if row[8] is not None}


def _names(labels: Mapping[int, str], *, known: Mapping[int, str] | None = None) -> dict[int, str]:
    """Names for accounts with these labels, beside `known` ones."""
    names = dict(known or {})
    taken = {name.casefold() for name in names.values()}
    for pk, label in sorted(labels.items()):
        if pk in names:
            continue
        name = plain = speaker_name(label)
        for number in itertools.count(2):
            if name.casefold() not in taken:
                break
            name = f"{plain} ({number})"
        names[pk] = name
        taken.add(name.casefold())
    return names


def page(conversation: Conversation, *, limit: int, before: str = "", only: int | None = None) -> Page:
    """The newest `limit` readable entries before the page whose `older` is `before`; "" or an invalid one: the newest.

    only: the id of one conversation of those in `places`.
    """
    is_chosen = "TRUE" if only is None else "readable.id = %(only)s"
    return _page(_read(conversation, limit + 1, _EVERYTHING, before=before, is_chosen=is_chosen, only=only), limit)


def own_page(conversation: Conversation, *, limit: int, before: str = "") -> Page:
    """As `page`, but only what the account of a private `conversation` itself said, and its answers."""
    own, account = "readable.account_id = %(only)s", conversation.account_id
    return _page(_read(conversation, limit + 1, _EVERYTHING, before=before, is_chosen=own, only=account), limit)


def _page(rows: list[Any], limit: int) -> Page:
    """The page of these rows. There is one row more than `limit` if there is an older page."""
    shown = rows[-limit:]
    older = cursor(shown[0]) if len(rows) > limit else ""
    return Page(tuple(line(row) for row in shown), older, cursor(shown[-1]) if shown else "")


def own_words(account: PlatformAccount, *, limit: int, before: str = "", only: int | None = None) -> Page:
    """The newest `limit` entries that an account wrote in groups: its author may read them anywhere.

    only: the id of one group. Words of others are left out, and so are answers, which may repeat them.
    """
    entries = _own_words(account) if only is None else _own_words(account).filter(conversation=only)
    if place := _read_cursor(before):
        entries = entries.filter(Q(said_at__lt=place[0]) | Q(said_at=place[0], pk__lt=place[1]))
    columns = ("pk", "role", "text", "said_at", "source", "source_label", "platform")
    return _page(list(entries.order_by("-said_at", "-pk").values_list(*columns)[: limit + 1])[::-1], limit)


def _own_words(account: PlatformAccount) -> QuerySet[HistoryEntry]:
    group = Conversation.Kind.GROUP
    return HistoryEntry.objects.filter(author=account, role=HistoryEntry.Role.USER, conversation__kind=group)


def groups_of(account: PlatformAccount, *, limit: int) -> list[Group]:
    """The `limit` groups where an account wrote most recently, with the names of that time."""
    with connection.cursor() as database:
        database.execute(_GROUPS, {"account": account.pk, "limit": limit})
        rows = database.fetchall()
    return [Group(pk, platform, name or "", moment(at)) for pk, platform, name, at in rows]


def places(conversation: Conversation, *, speaker: Pair | None = None) -> list[Place]:
    """What may be read in `conversation`: itself, and what the person's other accounts share with it."""
    wanted = "SELECT readable.id, readable.account_id, readable.after FROM readable ORDER BY readable.id"
    rows = select(conversation, wanted, {}, speaker=speaker)
    return [Place(pk, account, moment(after)) for pk, account, after in rows]


def select(
    conversation: Conversation,
    wanted: str,
    values: Mapping[str, Any],
    *,
    speaker: Pair | None = None,
    for_agent: bool = False,
) -> list[Any]:
    """Rows of the query `wanted` over what may be read in `conversation`.

    wanted: reads from `readable (id, account_id, after)`. An entry may be read exactly if it is in such a conversation
    and was said after `after`. for_agent: whether this is after `/new`; then `FOUND_FOR_AGENT` is needed too. speaker:
    as in `readable`.
    """
    return _select(conversation, wanted, values, _WINDOW if for_agent else _EVERYTHING, speaker)


def _read(
    conversation: Conversation,
    limit: int,
    terms: dict[str, str],
    *,
    before: str = "",
    is_chosen: str = "TRUE",
    only: int | None = None,
    speaker: Pair | None = None,
    asked: Collection[int] = (),
    for_agent: bool = False,
) -> list[Any]:
    """The newest `limit` rows of ENTRIES, oldest first."""
    place = _read_cursor(before)
    functions = _FUNCTIONS[connection.vendor]
    wanted = ((_BEFORE, place), (FOR_AGENT, for_agent), (_NOT_ASKED, asked))
    bounds = " ".join(condition for condition, is_wanted in wanted if is_wanted)
    bounds_of = {
        f"bounds_of_{alias}": bounds.format(entry=alias, not_asked=functions["not_asked"])
        for alias in ("e", "nth", "entry")
    }
    newest = functions["newest"].format(is_chosen=is_chosen, **bounds_of)
    values: dict[str, Any] = {"skip": limit - 1, "limit": limit, "only": only}
    values["asked"] = list(asked) if connection.vendor == "postgresql" else json.dumps(list(asked))
    if place:
        at = connection.ops.adapt_datetimefield_value(place[0])
        values |= {"before_at": at, "before_id": place[1]}
    return _select(conversation, ENTRIES + newest + NEWEST_FIRST, values, terms, speaker)[::-1]


def _select(
    conversation: Conversation, wanted: str, values: Mapping[str, Any], terms: dict[str, str], speaker: Pair | None
) -> list[Any]:
    epoch = connection.ops.adapt_datetimefield_value(clock.EPOCH)
    twin, about_twin = _twin_of(conversation, speaker)
    statement = _statement(connection.vendor, wanted, twin, **terms)
    with connection.cursor() as database:
        database.execute(statement, {"conversation": conversation.pk, "epoch": epoch, **about_twin, **values})
        return list(database.fetchall())


@functools.lru_cache(64)  # every turn needs the same few
def _statement(vendor: str, wanted: str, twin: str, *, hidden_before: str, is_window: str) -> str:
    fixed = {"is_without_resolver": _IS_WITHOUT_RESOLVER, "wanted": wanted, "is_window": is_window}
    functions = _FUNCTIONS[vendor]
    return _READ.format(**functions | fixed, hidden_before=hidden_before.format(**functions), twin=twin.format(**fixed))


def _twin_of(conversation: Conversation, speaker: Pair | None) -> tuple[str, dict[str, str]]:
    """The subquery that finds the twin of a private conversation, and its values."""
    if conversation.account_id is not None or conversation.kind != Conversation.Kind.DM:
        return _TWIN_OF_ACCOUNT, {}
    platform = conversation.platform
    user = conversation.key.removeprefix(key_without_resolver(platform, ""))
    if user != conversation.key:  # no resolver: entries of others under a resolver stay theirs
        return _TWIN_BY_KEY + _TWIN_WITH_ACCOUNT, {"platform": platform, "user": user, "twin": f"{platform}:{user}"}
    own = conversation.key.removeprefix(stranger_key(platform, ""))
    asker = speaker or ((platform, own) if own != conversation.key else None)
    if asker is None:
        return _TWIN_OF_ACCOUNT, {}
    return _TWIN_BY_KEY, {"platform": asker[0], "twin": key_without_resolver(*asker)}


def line(row: Any, *, author: str | None = None) -> Line:
    """The line of a row of ENTRIES. author: a name in place of the row's."""
    _pk, role, text, said_at, source, label, platform, *own = row
    if author is None:
        author = (own and own[0]) or ""
    return Line(role, text, moment(said_at), source, label, platform, author)


def moment(value: datetime | str) -> datetime:
    """A time as SQLite returns it: without a time zone, and as text where it is computed."""
    moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def cursor(row: Any, *, behind: bool = False) -> str:
    """The place before a row of ENTRIES, or `behind` it. It reveals nothing about other people's entries."""
    return f"{(moment(row[3]) - clock.EPOCH) // timedelta(microseconds=1)}-{row[0] + behind}"


def _read_cursor(text: str) -> tuple[datetime, int] | None:
    match = re.fullmatch(r"([0-9]{1,17})-([0-9]{1,18})", text, re.ASCII)
    return (clock.EPOCH + timedelta(microseconds=int(match[1])), int(match[2])) if match else None


def announce(places: Iterable[Conversation], authors: Iterable[int] = ()) -> None:
    """Notify open pages of new entries in these conversations, in the caller's transaction.

    authors: primary keys of accounts, which see their own words wherever they wrote them.
    """
    live.announce(live.topics(accounts=[*(place.account_id for place in places), *authors]), "messages")


@transaction.atomic
def reset_context(conversation: Conversation, *, at: datetime, of_all: bool = False) -> bool:
    """Hide everything up to `at` from agents, for all accounts of the person. Pages still show it.

    A new link does not reset accounts that were linked before it or with it, as a stranger could make an agent forget;
    then return False. of_all: whether the deployer's own program asks, which resets all.
    """
    if conversation.account is None:
        Conversation.objects.filter(pk=conversation.pk).update(window_from=Greatest("window_from", at))
        return True
    account_id = conversation.account.pk
    links = linking.hold_links_of(conversation.account)  # in the order of all locks, before any row changes
    own = next((link for link in links if link.account_id == account_id), None)
    everybody = {account_id, *(link.account_id for link in links)}
    reset = {account_id, *(link.account_id for link in links if of_all or (own and linking.may_reset(own, link)))}
    PlatformAccount.objects.filter(pk__in=reset).update(window_from=Greatest("window_from", at))
    return everybody <= reset


def entry(conversation: Conversation, **fields: Any) -> HistoryEntry:
    """An unsaved entry of `conversation`, with the conversation's address unless another is given.

    Only a reply may be written later than it is dated: it may repeat entries from in between.
    """
    place = {"platform": conversation.platform, "chat_id": conversation.chat_id, "thread_id": conversation.thread_id}
    if fields.get("source") != HistoryEntry.Source.REPLY and "said_at" in fields:
        place["written_at"] = fields["said_at"]
    return HistoryEntry(conversation=conversation, **place | fields)
