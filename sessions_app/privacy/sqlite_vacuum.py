"""Bringing what was deleted out of the database's own files. SQLite alone needs that; PostgreSQL vacuums by itself.

SQLite keeps deleted words in the parts of an index until these are merged, copies of rows in the gaps of its pages
until all are written anew, and both in its log until that is cut off.
"""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from tempfile import gettempdir
from time import sleep

from django.db import OperationalError, connection

SPARE = 64 * 2**20  # bytes left for whoever writes meanwhile
HELD = "others hold them; it is tried again"
FULL = "writing them anew takes as much room again, twice, and there is less; make room"
VAR_TMP = Path("/var/tmp")  # noqa: S108 - SQLite's own choice
_ATTEMPTS, _PAUSE = 3, 0.2
_PATIENCE = 500  # milliseconds, of which nobody can write, until a reader of the log counts as one that stays


def clean() -> str:
    """Why it could not be done, in words; empty if it was. All others wait meanwhile: a second or two for 100 MB."""
    if connection.vendor != "sqlite":
        return ""
    if not _has_room():
        return FULL
    if not _cut_log():  # a reader that stays would have it all written anew for nothing
        return HELD
    is_written = False
    for attempt in range(_ATTEMPTS):
        if attempt:
            sleep(_PAUSE)
        is_written = is_written or _write_anew()
        if _cut_log() and is_written:
            return ""
    return HELD if _has_room() else FULL


def gather_statistics() -> int:
    """Let SQLite choose its indexes by what is in the tables; it does so for this connection at once. Always 0."""
    if connection.vendor == "sqlite":
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA analysis_limit=400")  # rows of each index: milliseconds, however much there is
            cursor.execute("ANALYZE")
    return 0


def _write_anew() -> bool:
    """False if others held the file, or if there was no room after all."""
    with connection.cursor() as cursor:
        try:
            cursor.execute("INSERT INTO sessions_app_entrysearch (sessions_app_entrysearch) VALUES ('optimize')")
            cursor.execute("VACUUM")
        except OperationalError:
            return False
    return True


def _cut_log() -> bool:
    """Also after a failure, which may have left half a copy in it. False if others read it."""
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
    """VACUUM writes a whole copy into a temporary file and then into the log: https://sqlite.org/lang_vacuum.html."""
    file = Path(str(connection.settings_dict["NAME"]))
    if not file.exists():
        return True
    size = sum(one.stat().st_size for one in (file, file.with_name(f"{file.name}-wal")) if one.exists())
    folders = (_temporary_folder(), file.parent)
    times = Counter(folder.stat().st_dev for folder in folders)
    return all(shutil.disk_usage(folder).free >= size * times[folder.stat().st_dev] + SPARE for folder in folders)


def _temporary_folder() -> Path:
    """Where SQLite puts it: https://sqlite.org/tempfiles.html. Python looks in the same places, but in /tmp first."""
    first = Path(gettempdir())
    return VAR_TMP if first == Path("/tmp") and VAR_TMP.is_dir() else first  # noqa: S108 - nothing is opened there
