"""Secrets in texts: which parts of a setting must not be shown, how they may be written, and `***` in their place."""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Iterable, Iterator
from typing import TextIO, cast
from urllib.parse import SplitResult, parse_qsl, quote, quote_plus, unquote, unquote_plus, urlsplit

MASK = "***"
_SHORT = 4  # anything shorter would blot out ordinary words: it is masked only where a value stands
_LINE = 8  # a line of a longer secret that is worth masking by itself
_SECRET_OPTION = re.compile(r"(?i)pass|secret|token|key")
_BREAK = r"(?:(?:\\[rn]|[\r\n])+[ \t]*)"


def parts(value: str) -> set[str]:
    """Of an address what signs in: the password or a lone user name, and what a Basic header makes of both."""
    try:
        address = urlsplit(value)
    except ValueError:  # an open bracket: the setting itself is refused elsewhere
        return set()
    options = {text for name, text in parse_qsl(address.query) if _SECRET_OPTION.search(name)}
    return {*_signing_in(address), *options} - {""}


def _signing_in(address: SplitResult) -> Iterator[str]:
    user, password = address.username or "", address.password or ""
    yield from {password, unquote(password)} if password else {user, unquote(user)}
    if user or password:
        for pair in {f"{user}:{password}", f"{unquote(user)}:{unquote(password)}"}:
            yield from _base64(pair)


def _base64(text: str) -> set[str]:
    raw = text.encode("utf-8", "surrogatepass")
    return {encode(raw).decode().rstrip("=") for encode in (base64.b64encode, base64.urlsafe_b64encode)}


class Mask:
    """Puts `***` where a secret stands, however it is written and whatever line break it is wrapped by."""

    def __init__(self, secrets: Iterable[str]) -> None:
        given = {one for secret in secrets for one in (secret, *parts(secret)) if one}
        given |= {line.strip() for secret in given for line in secret.splitlines() if len(line.strip()) >= _LINE}
        # The longest first, since one may hold another.
        self._forms = sorted({form for one in given if len(one) >= _SHORT for form in _forms(one)}, key=len)[::-1]
        short = "|".join(sorted({re.escape(form) for one in given if len(one) < _SHORT for form in _forms(one)}))
        where = rf"""(?i:(?<=['":=])|(?<=bearer[ ]))(?:{short})(?=['"@&,;)\s]|\Z)"""
        self._short = re.compile(where) if short else None

    def __call__(self, text: str) -> str:
        for form in self._forms:
            text = text.replace(form, MASK)
        if self._short:
            text = self._short.sub(MASK, text)
        joined = re.sub(_BREAK, "", text)
        for form in self._forms if len(joined) != len(text) else ():
            if form in joined:
                text = re.sub(f"{_BREAK}?".join(map(re.escape, form)), MASK, text)
        return text


def _forms(secret: str) -> set[str]:
    """As it is, in an address, in Python's and JSON's quotes, in a page, and as a Basic or Bearer value's base64."""
    plain = {secret, secret.strip(), unquote(secret), unquote_plus(secret)} - {""}
    written = {form for one in plain for form in (one, quote(one), quote(one, safe=""), quote_plus(one))}
    written |= {re.sub("%..", lambda code: code[0].lower(), form) for form in written - plain}
    for one in plain:
        written |= {repr(one)[1:-1], ascii(one)[1:-1], repr(one.encode("utf-8", "surrogatepass"))[2:-1]}
        written |= {json.dumps(one)[1:-1], json.dumps(one, ensure_ascii=False)[1:-1], html.escape(one)}
        written |= _base64(one) if len(one) >= _SHORT else set()
    # A text in quotes that quotes a text in quotes.
    return written | {quoted(form)[1:-1] for form in written for quoted in (repr, json.dumps)}


class MaskedStream:
    """Standard error for everybody who writes there by themselves: warnings, uncaught exceptions, libraries."""

    def __init__(self, stream: TextIO, mask: Mask) -> None:
        self._stream, self._mask = stream, mask

    def write(self, text: str) -> int:
        self._stream.write(self._mask(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        self.write("".join(lines))

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


def masked(stream: TextIO, mask: Mask) -> TextIO:
    """The stream with the mask before it, once."""
    bare = stream._stream if isinstance(stream, MaskedStream) else stream  # noqa: SLF001 - its own module
    return cast("TextIO", MaskedStream(bare, mask))
