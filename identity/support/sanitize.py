"""Names that people give themselves, made harmless: they stand in sentences on which others decide."""

from __future__ import annotations

import re
import unicodedata

MAX_NAME = 32
_MAX_MARKS = 2  # on one letter; more of them cover what stands around it

# Letters and marks to Unicode that are drawn as nothing, beside those of its categories for controls and the like.
_NOT_SEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2065\u2800\u3164\ufe00-\ufe0f\uffa0\ufff0-\ufff8\U000e0000-\U000e0fff]"
)
_DOUBLE_QUOTES = re.compile(
    '["\u02ba\u02dd\u02ee\u05f4\u201c-\u201f\u2033\u2034\u2036\u2037\u2057\u275d\u275e\u2e42\u3003'
    "\u301d-\u301f\uff02\U0001f676-\U0001f678]"
)
_SINGLE_QUOTES = re.compile("['`\u00b4\u02b9\u02bb-\u02bd\u02c8\u05f3\u2018-\u201b\u2032\u2035\u275b\u275c\uff07]{2,}")

# Discord's, in the middle of a line, and the colon that makes an address a link.
_MARK_UP = re.compile(r"[\\*_~`|<>\[\]()@#:]")


def harmless(name: str) -> str:
    """A name that cannot pretend to be anything else: no controls, directions, line breaks, double quotes or what looks
    like them, nothing invisible, no towers of marks, and short.
    """
    spaced = "".join(" " if letter.isspace() else letter for letter in name)
    seen = "".join(letter for letter in spaced if unicodedata.category(letter)[0] != "C")
    quoted = _SINGLE_QUOTES.sub("'", _DOUBLE_QUOTES.sub("'", _NOT_SEEN.sub("", seen)))
    plain = " ".join(_with_few_marks(quoted).split())
    return plain if len(plain) <= MAX_NAME else plain[: MAX_NAME - 1] + "…"


def literal(name: str, platform: str) -> str:
    """A name, made harmless, in a text for `platform`. Discord alone reads mark-up in what a bot writes: bold letters,
    mentions, links under other words.
    """
    plain = harmless(name)
    return _MARK_UP.sub(r"\\\g<0>", plain) if platform.startswith("discord") else plain


def _with_few_marks(name: str) -> str:
    """Without marks that stand on nothing, since they would be drawn on what is before the name."""
    kept, marks = [], _MAX_MARKS
    for letter in name:
        is_mark = unicodedata.category(letter) in {"Mn", "Me"}
        marks = marks + 1 if is_mark else _MAX_MARKS * (letter == " ")
        if not is_mark or marks <= _MAX_MARKS:
            kept.append(letter)
    return "".join(kept)
