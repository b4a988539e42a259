"""Makes names harmless that people give themselves: others read them in sentences on which they decide."""

from __future__ import annotations

import re
import unicodedata

from identity.support import platforms

MAX_NAME = 32
_MAX_MARKS = 2  # on one letter; more of them would cover the text around it

# Invisible letters and marks, beside those in Unicode's categories for controls and the like.
_NOT_SEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2065\u2800\u3164\ufe00-\ufe0f\uffa0\ufff0-\ufff8\U000e0000-\U000e0fff]"
)
_DOUBLE_QUOTES = re.compile(
    '["\u02ba\u02dd\u02ee\u05f4\u201c-\u201f\u2033\u2034\u2036\u2037\u2057\u275d\u275e\u2e42\u3003'
    "\u301d-\u301f\uff02\U0001f676-\U0001f678]"
)
_SINGLE_QUOTES = re.compile("['`\u00b4\u02b9\u02bb-\u02bd\u02c8\u05f3\u2018-\u201b\u2032\u2035\u275b\u275c\uff07]{2,}")


def harmless(name: str) -> str:
    """Return a short name that cannot pretend to be something else.

    It has no control or direction characters, line breaks, double quotes or their look-alikes, nothing invisible, and
    at most two marks on a letter. Marks without a letter go: they would be drawn on the text before the name.
    """
    spaced = "".join(" " if letter.isspace() else letter for letter in name)
    visible = "".join(letter for letter in spaced if unicodedata.category(letter)[0] != "C")
    quoted = _SINGLE_QUOTES.sub("'", _DOUBLE_QUOTES.sub("'", _NOT_SEEN.sub("", visible)))
    kept, marks = [], _MAX_MARKS
    for letter in quoted:
        is_mark = unicodedata.category(letter) in {"Mn", "Me"}
        marks = marks + 1 if is_mark else _MAX_MARKS * (letter == " ")
        if not is_mark or marks <= _MAX_MARKS:
            kept.append(letter)
    plain = " ".join("".join(kept).split())
    return plain if len(plain) <= MAX_NAME else plain[: MAX_NAME - 1] + "…"


def literal(name: str, platform: str) -> str:
    """Return a harmless name for a text on `platform`.

    Mark-up is escaped where the app reads it in a bot's text: bold letters, mentions, links behind other words.
    """
    return platforms.escaped(harmless(name), platform)
