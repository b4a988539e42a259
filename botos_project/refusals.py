"""What a stranger's request is refused with, in one line of the log."""

from __future__ import annotations

import logging
from time import monotonic

SERVER_ERROR = 500
SECONDS_BETWEEN = 60.0
# What web server and event loop say about strangers' connections, by its beginning.
REPEATED = (
    "socket.accept() out of system resource",
    "Invalid HTTP request received.",
    "Unsupported upgrade request.",
)


class WithoutTraceback(logging.Filter):
    """Takes the traceback off what Django says about a request that it refused: nothing in BotOS has failed then.

    Anybody can ask for such a page, or name a wrong host, as often as they like.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name.startswith("django.") and getattr(record, "status_code", SERVER_ERROR) < SERVER_ERROR:
            record.exc_info = record.exc_text = None
        return True


class OnceAMinute(logging.Filter):
    """Passes each of the lines that strangers can bring about at will once a minute at most."""

    def __init__(self) -> None:
        super().__init__()
        self._passed: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        said = next((said for said in REPEATED if str(record.msg).startswith(said)), None)
        if said is None:
            return True
        now = monotonic()
        if now - self._passed.get(said, -SECONDS_BETWEEN) < SECONDS_BETWEEN:
            return False
        self._passed[said] = now
        return True
