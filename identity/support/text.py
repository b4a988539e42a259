"""Text as databases and platforms take it."""

from __future__ import annotations

_FIRST_HALVES = "\ud800", "\udbff"


def storable(text: str, *, growing: bool = False) -> str:
    """`text` as every database and platform takes it: without NUL, and with U+FFFD for each half of a surrogate pair.

    `growing`: more text follows, so a half pair at the end is left out, as its other half may be on its way.
    """
    if growing and text and _FIRST_HALVES[0] <= text[-1] <= _FIRST_HALVES[1]:
        text = text[:-1]
    return text.replace("\0", "").encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def is_storable(text: str) -> bool:
    """Whether every database takes `text` as it is: PostgreSQL refuses NUL, and both engines half a surrogate pair."""
    return "\0" not in text and not any("\ud800" <= char <= "\udfff" for char in text)


def utf16_length(text: str) -> int:
    """The length in UTF-16 code units, which platforms count in: characters outside the basic plane count twice."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2
