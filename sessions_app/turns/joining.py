"""Joins the texts that one turn answers."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import pairwise

from identity.support.text import utf16_length


def join(texts: Sequence[str], *, cut_at: Collection[int]) -> str:
    """The texts as one: with nothing between two parts of a text that the app cut, and a line break between others.

    A part was cut from the next one if the next character does not fit on it. A shorter one may be cut, too, but at a
    blank or a line, which the app drops. cut_at: the lengths at which the app cuts, in UTF-16 code units.
    """
    joined = texts[0]
    for before, after in pairwise(texts):
        length = utf16_length(before)
        is_cut = any(length <= cut < length + utf16_length(after[:1]) for cut in cut_at)
        joined += after if is_cut else f"\n{after}"
    return joined
