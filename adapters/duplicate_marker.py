"""How a message says that it may be a second one, where the platform cannot be asked whether the first arrived."""

from __future__ import annotations

from identity.support.text import utf16_length

MARK = "(sent again after an interruption)\n"
ROOM = len(MARK)  # what the text limit of an adapter leaves of the platform's own


def marked(text: str, most: int) -> str:
    """The text behind the mark, or as it is where both are longer than `most` UTF-16 code units: nothing is cut off."""
    return MARK + text if utf16_length(MARK + text) <= most else text
