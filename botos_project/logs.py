"""Log lines without secrets."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

_MASK = "***"
_SHORTEST = 4  # masking anything shorter would blot out ordinary words and hide nothing that can be guessed anyway


class RedactingFormatter(logging.Formatter):
    """Writes `time level logger message` on one line, a traceback below, and `***` for every secret in either.

    A formatter and not a filter: it sees the finished text, so nothing that a record is made of (arguments, exceptions,
    their causes, stacks) gets past it, and the record itself stays as it was.
    """

    def __init__(self, *, secrets: Iterable[str] = (), **options: Any) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s", **options)
        self._forms = _written_forms(secrets)

    def format(self, record: logging.LogRecord) -> str:
        return self._redact(super().format(record))

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name is logging's
        # A message may quote what a stranger wrote: a line break in it must not start a forged record.
        # Masked before, since the escaping would disguise a secret.
        return self._redact(super().formatMessage(record)).replace("\r", "\\r").replace("\n", "\\n")

    def _redact(self, text: str) -> str:
        for form in self._forms:
            text = text.replace(form, _MASK)
        return text


def _written_forms(secrets: Iterable[str]) -> list[str]:
    """Each secret as it is, in a URL and as Python prints it; the longest first, since one may hold another."""
    long_enough = {secret for secret in secrets if len(secret) >= _SHORTEST}
    forms = {form for secret in long_enough for form in (secret, quote(secret, safe=""), repr(secret)[1:-1])}
    return sorted(forms, key=len, reverse=True)
