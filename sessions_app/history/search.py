"""Full-text search in history: SQLite's FTS5 and PostgreSQL's, which the database itself keeps up to date."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from django.db import connection

from identity.resolvers import Pair
from identity.support.text import storable
from sessions_app.history import window
from sessions_app.messages import Line
from sessions_app.models import Conversation

MAX_WORDS = 10
MAX_WORD = 100  # PostgreSQL refuses very long ones

# `window.select` decides which entries may be read; these only choose those that have the words.
_SQLITE = """
FROM sessions_app_entrysearch CROSS JOIN sessions_app_historyentry e CROSS JOIN readable
WHERE sessions_app_entrysearch MATCH %(words)s AND e.id = sessions_app_entrysearch.rowid
  AND readable.id = e.conversation_id AND e.said_at > readable.after {bounds}
"""
# Exactly the expression of the index entries_by_words.
_POSTGRESQL = """
FROM readable JOIN sessions_app_historyentry e ON e.conversation_id = readable.id AND e.said_at > readable.after
WHERE to_tsvector('simple', translate(left(e.text, 100000), '._-/@:~+=&?#', '            '))
      @@ to_tsquery('simple', %(words)s) {bounds}
"""
_APART = str.maketrans(dict.fromkeys("._-/@:~+=&?#\0", " "))


@dataclass(frozen=True, slots=True)
class Hit:
    """An entry with the words. place: the `before` of the history page that ends with it."""

    line: Line
    place: str


def find(
    conversation: Conversation, words: str, *, limit: int, speaker: Pair | None = None, for_agent: bool = False
) -> list[Hit]:
    """The newest `limit` entries that may be read in `conversation` and have words beginning with all of `words`.

    Any text is accepted: nothing in it is an operator. speaker: as in `window.readable`. for_agent: whether an agent
    searches, which finds only what could be in its window: nothing from before `/new`, and nothing withheld. Then the
    authors have the names that they have there.
    """
    plain = storable(words[:2000]).translate(_APART)
    searchable = (word[:MAX_WORD] for word in plain.split() if any(map(str.isalnum, word[:MAX_WORD])))
    wanted_words = list(itertools.islice(searchable, MAX_WORDS))
    if not wanted_words:
        return []
    is_sqlite = connection.vendor == "sqlite"
    if is_sqlite:
        # With the conversations, so that the index returns no entries of other people.
        places = window.places(conversation, speaker=speaker)
        quoted = " AND ".join(f'"{word.replace(chr(34), chr(34) * 2)}" *' for word in wanted_words)
        conversations = " OR ".join(f'"{place.conversation_id}"' for place in places)
        query = f"conversation_id : ({conversations}) AND text : ({quoted})"
    else:
        escaped = (word.replace("\\", "\\\\").replace("'", "''") for word in wanted_words)
        query = " & ".join(f"'{word}':*" for word in escaped)
    values = {"words": query, "limit": limit}
    bounds = window.FOUND_FOR_AGENT if for_agent else ""
    found = (_SQLITE if is_sqlite else _POSTGRESQL).format(bounds=bounds)
    wanted = window.ENTRIES + found + window.NEWEST_FIRST
    rows = window.select(conversation, wanted, values, speaker=speaker, for_agent=for_agent)
    names = window.names_for_agent(conversation, rows, speaker=speaker) if for_agent and speaker else None
    authors = [None if names is None else names.get(row[8], "") for row in rows]
    return [
        Hit(window.line(row, author=author), window.cursor(row, behind=True))
        for row, author in zip(rows, authors, strict=True)
    ]
