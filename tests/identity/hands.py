"""Real processes that pair, on the database under test."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Mapping

from tests import zygote
from tests.journeys.running import database_url

ANY_LIMIT = "guesses=9999 start_pause_seconds=0 starts_an_hour=9999999 starts_a_day=9999999"

WORKER = """
import os, sys, django
django.setup()
from django.db import connection, transaction
from identity import notices
from identity.flows import pair_in_chat
from identity.models import Pairing, PlatformAccount
from identity.pairing.secrets import secrets_of
notices._sinks.clear()
if connection.vendor == "sqlite":
    # Of thirty who want its one writer, chance decides who waits.
    connection.settings_dict["OPTIONS"]["init_command"] += "; PRAGMA busy_timeout=600000"
"""


def process(script: str, *arguments: object) -> zygote.Forked:
    """One that runs `script`, which begins with WORKER, under limits that stop nobody."""
    environment = os.environ | {
        "DJANGO_SETTINGS_MODULE": "botos_project.settings",
        "DATABASE_URL": database_url(),
        "BOTOS_PAIRING": ANY_LIMIT,
        "PYTHONWARNINGS": "ignore",
    }
    return zygote.start(
        ["-c", script, *arguments], environment=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )


def race(given: Mapping[zygote.Forked, Iterable[object]]) -> list[list[str]]:
    """Wait until all processes say that they are ready, and let them go with what each is given. What they say then."""
    for worker in given:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    for worker, words in given.items():
        assert worker.stdin is not None
        worker.stdin.write(" ".join(map(str, words)))
        worker.stdin.flush()
    for worker in given:  # a process goes when it has read all
        assert worker.stdin is not None
        worker.stdin.close()
    said = []
    for worker in given:
        assert worker.stdout is not None
        with worker.stdout:
            said.append(worker.stdout.read().split())
        assert worker.wait() == 0
    return said
