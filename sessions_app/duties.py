"""When each periodic duty last succeeded and last failed, for the doctor and /metrics.

Noting touches no database. What was noted is written with the counts of counters.py; a duty that goes on as before is
written once a minute.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from time import monotonic
from typing import Any

from identity.support import clock
from sessions_app.models import Duty

log = logging.getLogger(__name__)

WRITE_SECONDS = 60.0


@dataclass(slots=True)
class _Note:
    """What is not written yet, by the monotonic clock."""

    succeeded: float | None = None
    failed: float | None = None
    error: str = ""
    is_failing: bool = False
    written: float | None = None

    def is_due(self, now: float) -> bool:
        if self.succeeded is None and self.failed is None:
            return False
        return self.written is None or now - self.written >= WRITE_SECONDS


_notes: dict[str, _Note] = {}
_lock = threading.Lock()


def succeeded(name: str) -> None:
    """The duty did what was due; from any thread."""
    with _lock:
        note = _notes.setdefault(name, _Note())
        note.succeeded = monotonic()
        if note.is_failing:
            note.is_failing, note.written = False, None


def failed(name: str, error: BaseException, *, then: str) -> None:
    """The duty failed; from any thread. `then`: what happens next, for the log. The traceback comes once a failure."""
    with _lock:
        note = _notes.setdefault(name, _Note())
        is_new, note.is_failing = not note.is_failing, True
        note.failed, note.error = monotonic(), type(error).__name__
        if is_new:
            note.written = None
    log.error("%s failed: %s; %s", name, type(error).__name__, then, exc_info=error if is_new else None)


def write() -> None:
    """Write what was noted here. What cannot be written is kept."""
    now = monotonic()
    with _lock:
        due = {name: note for name, note in _notes.items() if note.is_due(now)}
    for name, note in sorted(due.items()):
        values: dict[str, Any] = {}
        was = (note.succeeded, note.failed)
        if was[0] is not None:
            values["succeeded_at"] = clock.seconds_from_now(was[0] - now)
        if was[1] is not None:
            values |= {"failed_at": clock.seconds_from_now(was[1] - now), "error": note.error[:100]}
        if not Duty.objects.filter(name=name).update(**values):
            Duty.objects.update_or_create(name=name, defaults=values)
        with _lock:
            note.succeeded = None if note.succeeded == was[0] else note.succeeded
            note.failed = None if note.failed == was[1] else note.failed
            note.written = now
