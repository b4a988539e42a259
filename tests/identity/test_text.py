"""Text as databases and platforms take it."""

from __future__ import annotations

import pytest

from identity.support.text import is_storable, storable, utf16_length


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("plain", "plain"),
        ("a\0b", "ab"),
        ("\ud83d\ude00", "😀"),
        ("\ufeffmark", "\ufeffmark"),
        ("half \ud83d", "half \ufffd"),
        ("\ude00 half", "\ufffd half"),
        ("\t\x07\x1b", "\t\x07\x1b"),
    ],
)
def test_it_is_taken_by_every_database(text: str, stored: str) -> None:
    assert storable(text) == stored
    assert is_storable(stored)
    assert is_storable(text) == (text == stored)


def test_a_growing_text_waits_for_the_other_half() -> None:
    assert storable("so \ud83d", growing=True) == "so "
    assert storable("so \ud83d\ude00", growing=True) == "so 😀"
    assert storable("lost \ude00", growing=True) == "lost \ufffd"


def test_it_counts_utf_16_code_units() -> None:
    assert [utf16_length(text) for text in ("", "a", "é", "😀", "\ud83d")] == [0, 1, 1, 2, 1]
