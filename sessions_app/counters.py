"""Counters for /metrics and the doctor.

Counting does not use the database. Every few seconds and at its end, each process adds its counts to rows that all
processes share. A killed process loses its last seconds.
"""

from __future__ import annotations

import asyncio
import collections
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from django.db.models import F

from sessions_app import db, duties
from sessions_app.models import Counter

WRITE_SECONDS = 5.0

_counts: collections.Counter[tuple[str, str]] = collections.Counter()  # not written yet
_lock = threading.Lock()


def up(what: str, platform: str = "") -> None:
    """Count one more. Thread-safe."""
    with _lock:
        _counts[what, platform] += 1


def written(what: str) -> dict[str, int]:
    """The count of all processes, by platform."""
    return all_written().get(what, {})


def all_written() -> dict[str, dict[str, int]]:
    """Every count of all processes: for each thing that is counted, the counts by platform. One statement."""
    found: dict[str, dict[str, int]] = {}
    for what, platform, count in Counter.objects.order_by("what", "platform").values_list("what", "platform", "count"):
        found.setdefault(what, {})[platform] = count
    return found


def write() -> None:
    """Add the counts since the last call to the rows. Counts that cannot be written are kept."""
    with _lock:
        counts = _counts.copy()
        _counts.clear()
    try:
        for what, platform in sorted(counts):
            _add(what, platform, counts[what, platform])
            del counts[what, platform]
    finally:
        with _lock:
            _counts.update(counts)


def _add(what: str, platform: str, count: int) -> None:
    rows = Counter.objects.filter(what=what, platform=platform)
    if not rows.update(count=F("count") + count):
        _, is_first = Counter.objects.get_or_create(what=what, platform=platform, defaults={"count": count})
        if not is_first:  # another process was quicker
            rows.update(count=F("count") + count)


@asynccontextmanager
async def kept() -> AsyncIterator[None]:
    """Within the block, and when it ends, write the counts of this process."""
    writing = asyncio.create_task(_keep_writing())
    try:
        yield
    finally:
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        await _try_to_write()


async def _keep_writing() -> None:
    while True:
        await asyncio.sleep(WRITE_SECONDS)
        await _try_to_write()


async def _try_to_write() -> None:
    try:
        await db.call(write)
        await db.call(duties.write)
        duties.succeeded("write counts")
    except Exception as error:  # noqa: BLE001 - nothing depends on it
        duties.failed("write counts", error, then=f"trying again in {WRITE_SECONDS:g} s")
