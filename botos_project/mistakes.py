"""One sentence, on stderr and with exit status 2, in place of a traceback where the configuration is to blame."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import TracebackType
from typing import Any

from django.conf import settings
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.core.management import ManagementUtility
from django.core.management.base import BaseCommand, SystemCheckError

from identity.support import db_errors

STATUS = 2


def explain() -> None:
    """From now on a mistake that ends this process is told in a sentence. For the modules that begin a process."""
    if sys.excepthook is not _say:
        _others.append(sys.excepthook)
        sys.excepthook = _say


def sentence_of(error: BaseException) -> str:
    """What is wrong and what to do, without a secret; empty where the configuration is not to blame."""
    text = str(error) if isinstance(error, ImproperlyConfigured) else db_errors.sentence_of(error)
    if text and settings.configured:  # an agent of one's own may quote anything
        for secret in sorted(settings.ENV.secrets, key=len, reverse=True):
            text = text.replace(secret, "***")
    return text


_others: list[Callable[[type[BaseException], BaseException, TracebackType | None], Any]] = []


def _say(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    text = sentence_of(error)
    if not text:
        _others[-1](kind, error, traceback)
        return
    sys.stderr.write(f"{text}\n")
    sys.exit(STATUS)  # which Python takes from a hook as the status of the process


class Management(ManagementUtility):
    """Django's command line. An error that the system checks find is told in a sentence, but for `check` itself."""

    def fetch_command(self, subcommand: str) -> BaseCommand:
        command = super().fetch_command(subcommand)
        if subcommand != "check":
            command.check = _Checked(command.check)  # type: ignore[assignment, method-assign]
        return command


class _Checked:
    def __init__(self, check: Callable[..., None]) -> None:
        self._check = check

    def __call__(self, *, databases: Any = None, **options: Any) -> None:
        try:
            self._check(databases=databases, **options)
        except SystemCheckError:
            found = [
                one for one in checks.run_checks(databases=databases) if one.is_serious() and not one.is_silenced()
            ]
            lines = [f"{one.msg} Hint: {one.hint}" if one.hint else str(one.msg) for one in found]
            raise ImproperlyConfigured("\n".join(lines)) from None
