"""Checks at start: of pairing's limits, and of SQLite's version."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error

from identity.pairing.codes import NUMBER_DIGITS
from identity.pairing.settings import Limits, limits

MIN_SQLITE = (3, 35)
MAX_TRIES = 10  # of a number of 6 digits: one chance in 100,000


def check_limits(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[CheckMessage]:
    """Check that the limits are numbers, and that together they keep pairing safe."""
    hint = "see identity/pairing/settings.py for the names and what they mean."
    try:
        problems = _problems(limits())
    except ValueError as error:
        return [Error(f"BOTOS_PAIRING: {error}.", hint=hint, id="identity.E001")]
    return [Error(f"BOTOS_PAIRING: {problem}.", hint=hint, id=code) for code, problem in problems]


def check_sqlite(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[CheckMessage]:
    """Check that SQLite knows RETURNING, which Django itself does not need."""
    uses_sqlite = settings.DATABASES["default"]["ENGINE"].endswith("sqlite3")
    if not uses_sqlite or sqlite3.sqlite_version_info >= MIN_SQLITE:
        return []
    problem = f"Python's SQLite is {sqlite3.sqlite_version}, but BotOS needs {'.'.join(map(str, MIN_SQLITE))} or newer."
    return [Error(problem, hint="use a newer Python, or PostgreSQL (see DATABASE_URL).", id="identity.E010")]


def _problems(these: Limits) -> list[tuple[str, str]]:
    rules = (
        (
            these.number_tries > MAX_TRIES,
            "identity.E002",
            f"number_tries above {MAX_TRIES} makes a number of {NUMBER_DIGITS} digits easy to guess",
        ),
        (these.guesses > 100, "identity.E003", "guesses above 100 makes codes easy to guess"),
        (
            these.handshake_seconds < max(these.code_seconds, these.number_seconds),
            "identity.E004",
            "handshake_seconds is shorter than a code or a number lives",
        ),
        (
            these.lock_again_seconds < these.lock_seconds,
            "identity.E005",
            "lock_again_seconds is shorter than lock_seconds",
        ),
        (
            these.second_reminder_seconds <= these.first_reminder_seconds,
            "identity.E006",
            "second_reminder_seconds is not after first_reminder_seconds",
        ),
        (
            these.browser_seconds < these.browser_idle_seconds,
            "identity.E007",
            "browser_seconds is shorter than browser_idle_seconds",
        ),
        (
            these.browser_idle_seconds < these.handshake_seconds,
            "identity.E008",
            "browser_idle_seconds is shorter than a handshake, so that a browser could be gone before its end",
        ),
        (
            these.fresh_seconds > these.browser_seconds or these.together_seconds > these.browser_seconds,
            "identity.E009",
            "fresh_seconds or together_seconds is longer than a browser lives",
        ),
    )
    return [(code, problem) for is_wrong, code, problem in rules if is_wrong]
