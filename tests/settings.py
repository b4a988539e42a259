"""The settings of the test run: the project's own, whatever this machine's environment and `.env` say."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

from botos_project.env import RENAMED

_example = (Path(__file__).resolve().parent.parent / ".env.example").read_text(encoding="utf-8")
for _name in [*re.findall(r"^#? ?([A-Z][A-Z_]+)=", _example, re.MULTILINE), *RENAMED]:
    os.environ.pop(_name, None)
    os.environ.pop(f"{_name}_FILE", None)

# Names per process, since two runs, and one run's workers, share the machine. conftest.py makes and removes the folder:
# mypy and the checks load these settings too, and leave without tidying up.
# In memory where there is room: SQLite waits for the disk at each commit, and no test cuts the power.
_memory = Path("/dev/shm")
_has_room = os.access(_memory, os.W_OK) and shutil.disk_usage(_memory).free > 2**29
_folder = Path(_memory if _has_room else tempfile.gettempdir()) / f"botos-test-{os.getpid()}"
_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))


def _redis_of_this_worker(url: str) -> str:
    """The given database for the first worker, the one below it for the second, and so on: Redis has no names."""
    parts = urlsplit(url)
    return parts._replace(path=f"/{int(parts.path.strip('/') or 15) - _worker}").geturl()


os.environ.update(
    BOTOS_ENV_FILE="",
    BOTOS_DATA_DIR=str(_folder),
    SECRET_KEY="only-for-tests-and-therefore-not-a-secret-at-all-but-long",
    DATABASE_URL=os.environ.get("TEST_DATABASE_URL", ""),
    BOTOS_SETTLE_SECONDS="0",  # most tests claim a turn right after its message
    BOTOS_PRIVACY_NOTICE="off",  # what people are told once would stand before whatever a test looks at
    REDIS_URL=_redis_of_this_worker(os.environ["TEST_REDIS_URL"]) if os.environ.get("TEST_REDIS_URL") else "",
)

from botos_project.settings import *  # noqa: E402, F403
from botos_project.settings import CHANNEL_LAYERS, DATABASES  # noqa: E402

DATABASES["default"]["TEST"] = {"NAME": f"test_botos_{os.getpid()}"}
if DATABASES["default"]["ENGINE"].endswith("sqlite3"):
    DATABASES["default"]["NAME"] = ":memory:"  # for commands that look at the models and need no tables
    # A file, so that threads share it: memory belongs to one connection.
    DATABASES["default"]["TEST"] = {"NAME": str(_folder / "test.sqlite3")}
CHANNEL_LAYERS["default"].get("CONFIG", {})["prefix"] = f"botos-test-{os.getpid()}"

LOGGING_CONFIG = "logging.config.dictConfig"  # standard error is pytest's
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # quick
