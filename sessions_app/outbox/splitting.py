"""Splits long texts into parts that a platform accepts, at places where a reader would."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from identity.support.text import utf16_length

_FENCE = re.compile(r"^ {0,3}(?P<fence>`{3,})(?P<info>[^`\n]*)$", re.MULTILINE)
_PLACES_TO_SPLIT = ("\n\n", "\n", ". ", "! ", "? ", " ")


def split(text: str, limit: int) -> list[str]:
    """Parts of `text` of at most `limit` UTF-16 code units, cut at paragraphs, lines, sentences or words if possible.

    Only blanks at a cut are lost. A block of code that has to be cut is closed there and opened again.
    """
    parts = []
    while utf16_length(text) > limit:
        part, text = _cut(text, limit)
        parts.append(part)
    return [part for part in (*parts, text) if part]


def _cut(text: str, limit: int) -> tuple[str, str]:
    """The first part and the rest."""
    head = _fitting(text, limit)
    blocks = list(_blocks(text))
    cut = _last_border(head, blocks)
    for block in blocks:
        if block.start < cut < block.end:
            return _cut_in(block, text, limit) or (head, text[len(head) :])
    return text[:cut].rstrip(), text[cut:].lstrip()


def _fitting(text: str, limit: int) -> str:
    """The longest beginning that fits in `limit`, at least one character."""
    return text[:limit].encode("utf-16-le", "replace")[: limit * 2].decode("utf-16-le", "ignore") or text[:1]


def _last_border(head: str, blocks: Iterable[_Block]) -> int:
    """Where to cut: behind the last border in the second half of `head` that is in no block, else at its end."""
    for border in _PLACES_TO_SPLIT:
        at = len(head)
        while (at := head.rfind(border, 0, at)) > len(head) // 2:
            if not any(block.start < at < block.end for block in blocks):
                return at + len(border)
    return len(head)


@dataclass(frozen=True, slots=True)
class _Block:
    """A block of code: the line `opening` at `start`, the code up to `closing`, and the closing line up to `end`."""

    start: int
    closing: int
    end: int
    opening: str
    fence: str


def _blocks(text: str) -> Iterator[_Block]:
    opened: re.Match[str] | None = None
    for line in _FENCE.finditer(text):
        if opened is None:
            opened = line
        elif line["fence"].startswith(opened["fence"]) and not line["info"].strip():
            yield _Block(opened.start(), line.start() - 1, line.end(), opened[0], opened["fence"])
            opened = None
    if opened is not None:
        yield _Block(opened.start(), len(text), len(text) + 1, opened[0], opened["fence"])


def _cut_in(block: _Block, text: str, limit: int) -> tuple[str, str] | None:
    """Cut between two lines of code if possible. None if the fences alone would take half of each part."""
    if 2 * utf16_length(block.opening + block.fence) > limit:
        return None
    begin = block.start + len(block.opening) + 1
    head = _fitting(text[: block.closing], limit - len(block.fence) - 1)
    line = head.rfind("\n", begin + 1)
    cut = line if line > len(head) // 2 else len(head)
    if cut <= begin:
        return None
    closed = f"{text[:cut]}\n{block.fence}"
    if cut == block.closing:
        return closed, text[block.end :].lstrip()
    rest = text[cut:].removeprefix("\n")
    return closed, f"{block.opening}\n{rest}"
