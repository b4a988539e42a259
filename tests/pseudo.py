"""A pseudo-language that puts each translated text between marks, so that text without marks was never translated."""

from __future__ import annotations

import re
from gettext import NullTranslations
from html.parser import HTMLParser

import pytest
from asgiref.local import Local
from django.conf import settings
from django.utils.translation import trans_real

OPEN, CLOSE = "⟦", "⟧"
_UNSEEN = {"script", "style", "svg"}
_READ_OUT = {"alt", "aria-label", "placeholder", "title"}  # attributes that people see or hear
_FOR_SCRIPTS = re.compile(
    r"data-(?:live|polling|offline|done|copied|pause|play|connecting|reconnecting|sending|unsent|failed|words)"
)
_CONTEXT = "\x04"


class _Marks(NullTranslations):
    """What Django takes for the translations of a language."""

    def gettext(self, message: str) -> str:
        return f"{OPEN}{message.rpartition(_CONTEXT)[2]}{CLOSE}"

    def ngettext(self, singular: str, plural: str, n: int) -> str:
        return self.gettext(singular if n == 1 else plural)

    def to_language(self) -> str:
        return "en"

    def language(self) -> str:
        return "en"


def speak(monkeypatch: pytest.MonkeyPatch) -> None:
    """Translate every text into the pseudo-language, in all threads, until the test ends."""
    marks = _Marks()
    monkeypatch.setattr(trans_real, "_default", marks)
    monkeypatch.setattr(trans_real, "_active", Local())  # whatever a thread has activated until now
    monkeypatch.setitem(vars(trans_real)["_translations"], settings.LANGUAGE_CODE, marks)


def unmarked(text: str) -> str:
    """What stands outside of the marks."""
    left, depth = [], 0
    for letter in text:
        depth += letter == OPEN
        if not depth:
            left.append(letter)
        depth -= letter == CLOSE
    assert not depth, f"marks that do not close: {text!r}"
    return "".join(left)


class _Reader(HTMLParser):
    """Collects what people see of a page: its text, and attributes that are read out or shown by scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.attributes: list[str] = []
        self._hidden = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._hidden += tag in _UNSEEN
        values = dict(attrs)
        is_button = tag == "input" and values.get("type") in {"submit", "button", "reset"}
        self.attributes += [
            value
            for name, value in attrs
            if value and (name in _READ_OUT or _FOR_SCRIPTS.fullmatch(name) or (is_button and name == "value"))
        ]
        self.texts.append(" ")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag in _UNSEEN
        self.texts.append(" ")

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.texts.append(data)


def texts_on(page: str) -> list[str]:
    """The text of a page, then its attributes that people see."""
    reader = _Reader()
    reader.feed(page)
    reader.close()
    return ["".join(reader.texts), *reader.attributes]
