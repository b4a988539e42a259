"""Log lines without secrets, for people or for machines."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

from identity.outages import is_away

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

    def formatException(self, ei: Any) -> str:  # noqa: N802 - the name is logging's
        """One line where the database is away: every part of BotOS meets that, again and again until it is back."""
        if is_away(ei[1]):
            return f"{type(ei[1]).__name__}: {' '.join(str(ei[1]).split())}"
        return super().formatException(ei)

    def _redact(self, text: str) -> str:
        for form in self._forms:
            text = text.replace(form, _MASK)
        return text


class JSONFormatter(RedactingFormatter):
    """The same as one JSON object a line; `event` and `delivery` are the ids that follow a message from end to end."""

    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def format(self, record: logging.LogRecord) -> str:
        # Masked before it is escaped, which would disguise a secret.
        found = {key: self._redact(value) if isinstance(value, str) else value for key, value in self._parts(record)}
        return json.dumps({key: value for key, value in found.items() if value is not None and value != ""})

    def _parts(self, record: logging.LogRecord) -> Iterable[tuple[str, Any]]:
        yield "time", self.formatTime(record)
        yield "level", record.levelname
        yield "logger", record.name
        yield "message", record.getMessage()
        yield "event", getattr(record, "event", None)
        yield "delivery", getattr(record, "delivery", None)
        yield "exception", self.formatException(record.exc_info) if record.exc_info else ""
        yield "stack", self.formatStack(record.stack_info) if record.stack_info else ""


def _written_forms(secrets: Iterable[str]) -> list[str]:
    """Each secret as it is, in a URL and as Python prints it; the longest first, since one may hold another."""
    long_enough = {secret for secret in secrets if len(secret) >= _SHORTEST}
    forms = {form for secret in long_enough for form in (secret, quote(secret, safe=""), repr(secret)[1:-1])}
    return sorted(forms, key=len, reverse=True)
