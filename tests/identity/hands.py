"""Real processes that pair, on the database under test."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.journeys.running import database_url

PROJECT = Path(__file__).resolve().parent.parent.parent
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


def process(script: str, *arguments: object) -> subprocess.Popen[str]:
    """One that runs `script`, which begins with WORKER, under limits that stop nobody."""
    environment = os.environ | {
        "DJANGO_SETTINGS_MODULE": "botos_project.settings",
        "DATABASE_URL": database_url(),
        "BOTOS_PAIRING": ANY_LIMIT,
        "PYTHONWARNINGS": "ignore",
    }
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        cwd=PROJECT,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
