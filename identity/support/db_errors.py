"""Errors of the database itself, and not of a query: it is out of reach, full, or locked."""

from __future__ import annotations

from pathlib import Path

from django.db import connection
from django.db.utils import InterfaceError, OperationalError

STOOD_STILL = "25P03"  # PostgreSQL ended a transaction that was idle for too long
# Classes of PostgreSQL's codes about the server and its users. A server that is out of reach gives no code.
_ABOUT_SERVER = ("08", "28", "3D", "53", "57P")
NO_TABLES = "The database is missing tables. Hint: run manage.py migrate."


def is_away(error: BaseException | None) -> bool:
    """Whether the database is out of reach, so that a later attempt may succeed."""
    return isinstance(error, OperationalError | InterfaceError) or sqlstate(error) == STOOD_STILL


def is_out_of_reach(error: BaseException | None) -> bool:
    """Whether the database was away, busy or full, so that any other statement would have failed too.

    That leaves out PostgreSQL's words for one statement that is too long, too large or too slow.
    """
    state = sqlstate(error)
    return is_away(error) and not (state.startswith("54") or state == "57014")


def sqlstate(error: BaseException | None) -> str:
    """Return PostgreSQL's code of an error (manual, appendix A); empty for another database."""
    return str(getattr(getattr(error, "__cause__", None), "sqlstate", None) or "")


def sentence_of(error: BaseException) -> str:
    """Tell operators what is wrong with the database and what to do; empty for any other error.

    The driver's own text may quote the connection string, so it is only searched for known words.
    """
    if sqlstate(error) == "42P01" or "no such table" in str(error):
        return NO_TABLES
    code = sqlstate(error)
    if not is_away(error) or (code and not code.startswith(_ABOUT_SERVER)):
        return ""
    given = connection.settings_dict
    if connection.vendor == "sqlite":
        return _about_file(Path(given["NAME"]).absolute(), str(error))
    return _about_server(f"{given['HOST'] or 'this machine'}{':' if given['PORT'] else ''}{given['PORT']}", str(error))


def _about_file(file: Path, words: str) -> str:
    if "not a database" in words:
        return f"{file} is not a SQLite database. Hint: move it away, or correct DATABASE_URL."
    if "unable to open" in words and not file.parent.is_dir():
        return f"The folder {file.parent} does not exist. Hint: create it, or correct BOTOS_DATA_DIR or DATABASE_URL."
    if "unable to open" in words or "readonly" in words:
        return f"{file} cannot be written. Hint: let this user write to the file and its folder, or set BOTOS_DATA_DIR."
    if "locked" in words:
        return f"{file} is in use by another program for too long. Hint: stop that program, and try again."
    if "disk" in words:
        return f"{file} cannot be written: the disk is full or fails. Hint: make room, and look at the disk."
    return ""


def _about_server(where: str, words: str) -> str:
    refused = "password" in words or ("role" in words and "does not exist" in words)
    if refused:
        return f"PostgreSQL at {where} refuses the user or the password. Hint: correct DATABASE_URL."
    if "database" in words and "does not exist" in words:
        return f"PostgreSQL at {where} has no such database. Hint: make it with createdb, or correct DATABASE_URL."
    return f"PostgreSQL at {where} does not answer. Hint: check that it is running and DATABASE_URL is correct."
