"""Text that databases and platforms accept."""

from __future__ import annotations

_FIRST_HALVES = "\ud800", "\udbff"


def storable(text: str, *, growing: bool = False) -> str:
    """Return `text` as every database and platform accepts it: no NUL, and U+FFFD for each half of a surrogate pair.

    With `growing`, more text follows: half a pair at the end is left out, as its other half may come.
    """
    if growing and text and _FIRST_HALVES[0] <= text[-1] <= _FIRST_HALVES[1]:
        text = text[:-1]
    return text.replace("\0", "").encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def is_storable(text: str) -> bool:
    """Whether every database accepts `text`: PostgreSQL refuses NUL, and both engines refuse half a surrogate pair."""
    return "\0" not in text and not any("\ud800" <= char <= "\udfff" for char in text)


def utf16_length(text: str) -> int:
    """Return the length in UTF-16 code units, as platforms count: a character outside the basic plane counts twice."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2
