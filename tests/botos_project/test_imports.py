"""Libraries that a process imports without a use for them cost every such process time and memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {
    "BOTOS_ENV_FILE": "",
    "DJANGO_SETTINGS_MODULE": "botos_project.settings",
    "PATH": os.environ["PATH"],
    "SECRET_KEY": "a-key-of-more-than-fifty-characters-for-the-tests-only",
    "TELEGRAM_BOT_TOKEN": f"1:{'a' * 35}",
}
# Of the other platforms, of Redis, of the model, of the web server, of QR codes and of PostgreSQL.
NEEDED_ELSEWHERE = {
    *("aiohttp", "discord", "slack_bolt", "slack_sdk", "telegram.ext"),
    *("channels_redis", "django_rq", "redis", "rq"),
    *("openai", "pydantic", "pydantic_ai"),
    *("uvicorn", "websockets", "wsproto"),
    *("psycopg", "psycopg_pool", "segno"),
}
CHECK = """
from django.core.management import execute_from_command_line
execute_from_command_line(["manage.py", "check"])
"""
# As `runbots --platforms telegram` does, before it connects.
BUILD = """
from django.core.management import call_command, execute_from_command_line
from adapters.management.commands import runbots
call_command("check")
botos = runbots._botos(["telegram"], workers=1)
botos._build_pool()
[adapter] = [botos.get_bot(name).build_adapter() for name in botos.list_bots()]
"""


def modules_after(script: str, folder: Path) -> set[str]:
    """The modules that a fresh process has imported at the end of the script."""
    # Not by the zygote, which has imported all of them.
    done = subprocess.run(
        [sys.executable, "-c", f"{script}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"],
        cwd=PROJECT,
        env=ENVIRONMENT | {"BOTOS_DATA_DIR": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_the_check_imports_no_library_that_it_does_not_use(tmp_path: Path) -> None:
    modules = modules_after(CHECK, tmp_path)

    assert "adapters.checks" in modules
    assert modules & (NEEDED_ELSEWHERE | {"h11", "httpx", "telegram"}) == set()


def test_a_bot_on_telegram_imports_no_library_that_it_does_not_use(tmp_path: Path) -> None:
    modules = modules_after(f"import django\ndjango.setup()\n{BUILD}", tmp_path)

    assert {"adapters.telegram.adapter", "telegram"} <= modules
    assert modules & NEEDED_ELSEWHERE == set()
