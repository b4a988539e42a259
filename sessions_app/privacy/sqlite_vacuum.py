"""Removes deleted rows from SQLite's files. PostgreSQL vacuums by itself.

SQLite keeps deleted words in the segments of an index until they are merged, copies of rows in free pages until the
file is rewritten, and both in its write-ahead log until that is truncated.
"""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from tempfile import gettempdir
from time import sleep

from django.db import OperationalError, connection

SPARE = 64 * 2**20  # bytes left for other writers
HELD = "other processes hold them; trying again"
FULL = "rewriting them takes twice their size, and there is less free space; free some space"
VAR_TMP = Path("/var/tmp")  # noqa: S108 - SQLite's own choice
_ATTEMPTS, _PAUSE = 3, 0.2
_PATIENCE = 500  # milliseconds, in which nobody can write, to wait for readers of the log


def clean() -> str:
    """Rewrite the files. Return why it failed, or "". All other writers wait: a second or two for 100 MB."""
    if connection.vendor != "sqlite":
        return ""
    if not _has_room():
        return FULL
    if not _cut_log():  # with a reader that stays, rewriting would be in vain
        return HELD
    is_rewritten = False
    for attempt in range(_ATTEMPTS):
        if attempt:
            sleep(_PAUSE)
        is_rewritten = is_rewritten or _rewrite()
        if _cut_log() and is_rewritten:
            return ""
    return HELD if _has_room() else FULL


def gather_statistics() -> int:
    """Let SQLite choose its indexes by the content of the tables, in this connection at once. Return 0."""
    if connection.vendor == "sqlite":
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA analysis_limit=400")  # rows of each index: takes milliseconds for any size
            cursor.execute("ANALYZE")
    return 0


def _rewrite() -> bool:
    """Rewrite the database. False if another process held it, or there was no room."""
    with connection.cursor() as cursor:
        try:
            cursor.execute("INSERT INTO sessions_app_entrysearch (sessions_app_entrysearch) VALUES ('optimize')")
            cursor.execute("VACUUM")
        except OperationalError:
            return False
    return True


def _cut_log() -> bool:
    """Truncate the log, also after a failure, which may have left half a copy in it. False if others read it."""
    with connection.cursor() as cursor:
        patience = cursor.execute("PRAGMA busy_timeout").fetchone()[0]
        cursor.execute(f"PRAGMA busy_timeout={_PATIENCE}")
        try:
            is_held = cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        except OperationalError:
            return False
        finally:
            cursor.execute(f"PRAGMA busy_timeout={patience}")
        return not is_held


def _has_room() -> bool:
    """Whether two copies fit: VACUUM writes one to a temporary file, and one to the log.

    See https://sqlite.org/lang_vacuum.html.
    """
    file = Path(str(connection.settings_dict["NAME"]))
    if not file.exists():
        return True
    size = sum(part.stat().st_size for part in (file, file.with_name(f"{file.name}-wal")) if part.exists())
    # SQLite looks for its temporary folder where Python does, but in /tmp last: https://sqlite.org/tempfiles.html.
    temporary = Path(gettempdir())
    if temporary == Path("/tmp") and VAR_TMP.is_dir():  # noqa: S108 - nothing is opened there
        temporary = VAR_TMP
    folders = (temporary, file.parent)
    times = Counter(folder.stat().st_dev for folder in folders)
    return all(shutil.disk_usage(folder).free >= size * times[folder.stat().st_dev] + SPARE for folder in folders)
