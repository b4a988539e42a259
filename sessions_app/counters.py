"""What was done, counted for whoever watches.

Counting touches no database: each process adds what it counted to rows that all of them share, every few seconds and at
its end. One that is killed leaves its last seconds out.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from django.db.models import F

from sessions_app import db, duties
from sessions_app.models import Tally

WRITE_SECONDS = 5.0

_counts: Counter[tuple[str, str]] = Counter()  # what is not written yet
_lock = threading.Lock()


def up(what: str, platform: str = "") -> None:
    """Count one more; from any thread."""
    with _lock:
        _counts[what, platform] += 1


def written(what: str) -> dict[str, int]:
    """How often all processes did it, by platform."""
    return dict(Tally.objects.filter(what=what).order_by("platform").values_list("platform", "count"))


def write() -> None:
    """Add to the rows what was counted here since the last time. What cannot be written is kept."""
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
    rows = Tally.objects.filter(what=what, platform=platform)
    if not rows.update(count=F("count") + count):
        _, is_first = Tally.objects.get_or_create(what=what, platform=platform, defaults={"count": count})
        if not is_first:  # another process was quicker
            rows.update(count=F("count") + count)


@asynccontextmanager
async def kept() -> AsyncIterator[None]:
    """Within the block, and when it ends, what is counted in this process is written."""
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
