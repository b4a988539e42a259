"""What a stranger's request is refused with, in one line of the log."""

from __future__ import annotations

import logging

SERVER_ERROR = 500


class WithoutTraceback(logging.Filter):
    """Takes the traceback off what Django says about a request that it refused: nothing in BotOS has failed then.

    Anybody can ask for such a page, or name a wrong host, as often as they like.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name.startswith("django.") and getattr(record, "status_code", SERVER_ERROR) < SERVER_ERROR:
            record.exc_info = record.exc_text = None
        return True
