"""Log lines without secrets, for people or for machines."""

from __future__ import annotations

import json
import logging
import logging.config
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any

from botos_project.masking import Mask, masked
from identity.support.db_errors import is_away


class RedactingFormatter(logging.Formatter):
    """Writes `time level logger message` on one line, a traceback below, and `***` for every secret in either.

    A formatter and not a filter: it sees the finished text, so nothing that a record is made of (arguments, exceptions,
    their causes, stacks) gets past it, and the record itself stays as it was.
    """

    def __init__(self, *, secrets: Iterable[str] = (), **options: Any) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s", **options)
        self._redact = Mask(secrets)

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


def configure(config: dict[str, Any]) -> None:
    """Django's LOGGING_CONFIG: the log as configured, and no secret in what others write beside it."""
    logging.config.dictConfig(config)
    mask = Mask(config["formatters"]["text"]["secrets"])
    before, sys.stderr = (sys.stderr, sys.__stderr__), masked(sys.stderr, mask)
    for handler in _handlers():
        if not isinstance(handler.formatter, RedactingFormatter) and handler.stream in (*before, sys.stdout):
            handler.setStream(sys.stderr)


def _handlers() -> Iterator[logging.StreamHandler[Any]]:
    """What libraries had set up before us, and what is ours."""
    loggers = [logging.root, *logging.root.manager.loggerDict.values()]
    handlers = {handler for one in loggers if isinstance(one, logging.Logger) for handler in one.handlers}
    return (handler for handler in handlers if isinstance(handler, logging.StreamHandler))
