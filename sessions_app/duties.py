"""When each periodic duty last succeeded and last failed, for the doctor and /metrics.

Noting does not use the database. The notes are written together with the counters, those of an unchanged duty once a
minute.
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
    """Times that are not written yet, by the monotonic clock."""

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
    """Note that the duty succeeded. Thread-safe."""
    with _lock:
        note = _notes.setdefault(name, _Note())
        note.succeeded = monotonic()
        if note.is_failing:
            note.is_failing, note.written = False, None


def failed(name: str, error: BaseException, *, then: str) -> None:
    """Note and log that the duty failed; the first time with its traceback. Thread-safe. then: what happens next."""
    with _lock:
        note = _notes.setdefault(name, _Note())
        is_new, note.is_failing = not note.is_failing, True
        note.failed, note.error = monotonic(), type(error).__name__
        if is_new:
            note.written = None
    log.error("%s failed: %s; %s", name, type(error).__name__, then, exc_info=error if is_new else None)


def write() -> None:
    """Write the notes. Those that cannot be written are kept."""
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
