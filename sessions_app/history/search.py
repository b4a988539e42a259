"""Finding words in what was said: SQLite's FTS5 and PostgreSQL's full text, kept up to date by the database itself."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

from django.db import connection

from identity.resolvers import Pair
from identity.support.text import storable
from sessions_app.history import window
from sessions_app.history.window import Place
from sessions_app.messages import Line
from sessions_app.models import Conversation

MAX_WORDS = 10
MAX_WORD = 100  # PostgreSQL refuses very long ones

# `window.select` decides which entries may be read; these only say which of them have the words.
_SQLITE = """
FROM sessions_app_entrysearch CROSS JOIN sessions_app_historyentry e CROSS JOIN readable
WHERE sessions_app_entrysearch MATCH %(words)s AND e.id = sessions_app_entrysearch.rowid
  AND readable.id = e.conversation_id AND e.said_at > readable.after
"""
# The expression of the index entries_by_words, letter by letter.
_POSTGRESQL = """
FROM readable JOIN sessions_app_historyentry e ON e.conversation_id = readable.id AND e.said_at > readable.after
WHERE to_tsvector('simple', translate(left(e.text, 100000), '._-/@:~+=&?#', '            '))
      @@ to_tsquery('simple', %(words)s)
"""
_APART = str.maketrans(dict.fromkeys("._-/@:~+=&?#\0", " "))


@dataclass(frozen=True, slots=True)
class Hit:
    """An entry with the words. `place` is the `before` of the history page that ends with it."""

    line: Line
    place: str


def find(conversation: Conversation, words: str, *, limit: int, speaker: Pair | None = None) -> list[Hit]:
    """The newest `limit` entries that may be read in `conversation` and have words beginning with all of `words`.

    Whatever is typed is taken for words: nothing in it is an operator, and nothing raises. `speaker` as in
    `window.readable`.
    """
    asked = _words(words)
    if not asked:
        return []
    is_sqlite = connection.vendor == "sqlite"
    places = window.places(conversation, speaker=speaker) if is_sqlite else []
    values = {"words": _for_sqlite(asked, places) if is_sqlite else _for_postgresql(asked), "limit": limit}
    wanted = window.ENTRIES + (_SQLITE if is_sqlite else _POSTGRESQL) + window.NEWEST_FIRST
    rows = window.select(conversation, wanted, values, speaker=speaker)
    return [Hit(window.line(row), window.cursor(row, behind=True)) for row in rows]


def _words(text: str) -> list[str]:
    plain = storable(text[:2000]).translate(_APART)
    words = (word[:MAX_WORD] for word in plain.split() if any(map(str.isalnum, word[:MAX_WORD])))
    return list(itertools.islice(words, MAX_WORDS))


def _for_sqlite(words: list[str], places: Iterable[Place]) -> str:
    """With the conversations, so that the index gives none of all the others' entries."""
    quoted = " AND ".join(f'"{word.replace(chr(34), chr(34) * 2)}" *' for word in words)
    conversations = " OR ".join(f'"{place.conversation_id}"' for place in places)
    return f"conversation_id : ({conversations}) AND text : ({quoted})"


def _for_postgresql(words: list[str]) -> str:
    escaped = (word.replace("\\", "\\\\").replace("'", "''") for word in words)
    return " & ".join(f"'{word}':*" for word in escaped)
