"""Every mistake of configuration ends with one sentence that says what to do, with status 2 and without a traceback."""

from __future__ import annotations

import os
import re
import socket
import subprocess
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests import zygote
from tests.botos_project.test_settings import KEY, PROJECT

MANUAL = PROJECT / "docs" / "reference" / "configuration-mistakes.md"
TELEGRAM, DISCORD = "1:" + "A" * 35, "MTIzNDU2.abcdef.c29tZXRoaW5nLWVsc2U"
BOTS, MIGRATE = ("manage.py", "runbots"), ("manage.py", "migrate")
SCRIPT = (
    "-c",
    "import botos_project.setup; from adapters.botos import BotOS; BotOS(platforms=['telegram', 'discord']).run()",
)
PAGES = ("-m", "uvicorn", "botos_project.asgi:application")
PATIENCE = 60.0  # seconds until a program counts as one that started


@dataclass
class Mistake:
    """`what` is the row of the manual. {folder} holds a migrated database; {taken} is a port that is in use."""

    what: str
    program: tuple[str, ...]
    values: dict[str, str] = field(default_factory=dict)


MISTAKES = [
    Mistake("no `SECRET_KEY`", PAGES, {"SECRET_KEY": ""}),
    Mistake("a short `SECRET_KEY`", BOTS, {"SECRET_KEY": "hunter2"}),
    Mistake("`SECRET_KEY` and `SECRET_KEY_FILE`", BOTS, {"SECRET_KEY_FILE": "/run/secrets/key"}),
    Mistake("a secret file that is not there", BOTS, {"SECRET_KEY": "", "SECRET_KEY_FILE": "/run/secrets/none"}),
    Mistake("`BOTOS_ENV_FILE` that names no file", BOTS, {"BOTOS_ENV_FILE": "/etc/none.env"}),
    Mistake("a line in `.env` that is not `KEY=VALUE`", BOTS, {"BOTOS_ENV_FILE": "{folder}/broken.env"}),
    Mistake(
        "an empty `SECRET_KEY=` below a full one, at `make run`",
        ("-m", "botos_project.dotenv"),
        {"SECRET_KEY": "", "BOTOS_ENV_FILE": "{folder}/twice.env"},
    ),
    Mistake("`DEBUG=maybe`", BOTS, {"DEBUG": "maybe"}),
    Mistake("`BOTOS_WORKERS=0`", BOTS, {"BOTOS_WORKERS": "0"}),
    Mistake("`BOTOS_TURN_SECONDS=soon`", BOTS, {"BOTOS_TURN_SECONDS": "soon"}),
    Mistake("`BOTOS_RETENTION_KEYS_DAYS=1`", BOTS, {"BOTOS_RETENTION_KEYS_DAYS": "1"}),
    Mistake("`BOTOS_PUBLIC_URL=bots.example.org`", PAGES, {"BOTOS_PUBLIC_URL": "bots.example.org"}),
    Mistake("`ALLOWED_HOSTS=https://bots.example.org`", PAGES, {"ALLOWED_HOSTS": "https://bots.example.org"}),
    Mistake("`BOTOS_WEB=localhost`", BOTS, {"BOTOS_WEB": "localhost"}),
    Mistake("`BOTOS_TELEGRAM_TRANSPORT=webhook` alone", BOTS, {"BOTOS_TELEGRAM_TRANSPORT": "webhook"}),
    Mistake("`DATABASE_URL=mysql://...`", MIGRATE, {"DATABASE_URL": "mysql://u:hunter2@h/n"}),
    Mistake("`DATABASE_URL` of a server that is down", MIGRATE, {"DATABASE_URL": "postgres://u:hunter2@127.0.0.1:1/n"}),
    Mistake("`BOTOS_DATA_DIR` that does not exist", MIGRATE, {"BOTOS_DATA_DIR": "/srv/none"}),
    Mistake("a database without tables", SCRIPT, {"BOTOS_DATA_DIR": "{folder}/empty"}),
    Mistake("`REDIS_URL=localhost:6379`", BOTS, {"REDIS_URL": "localhost:6379"}),
    Mistake("`rqworker` without `REDIS_URL`", ("manage.py", "rqworker", "turns")),
    Mistake("no token at all", BOTS),
    Mistake("a script without tokens", SCRIPT),
    Mistake("one Slack token of two", BOTS, {"SLACK_BOT_TOKEN": "xoxb-hunter2"}),
    Mistake(
        "an app-level token in `SLACK_BOT_TOKEN`", BOTS, {"SLACK_BOT_TOKEN": "xapp-1", "SLACK_APP_TOKEN": "xapp-1"}
    ),
    Mistake("a Telegram token in `DISCORD_BOT_TOKEN`", BOTS, {"DISCORD_BOT_TOKEN": TELEGRAM}),
    Mistake("`BOTOS_PLATFORMS` that cannot be imported", BOTS, {"BOTOS_PLATFORMS": "my_platform.PLATFORM"}),
    Mistake("an unknown platform", (*BOTS, "--platforms", "icq")),
    Mistake("`BOTOS_MODEL=gpt-5`", BOTS, {"BOTOS_MODEL": "gpt-5"}),
    Mistake("`BOTOS_MODEL` without a key", BOTS, {"BOTOS_MODEL": "openai:gpt-5"}),
    Mistake("`BOTOS_AGENT` that cannot be imported", BOTS, {"BOTOS_AGENT": "my_agnt.agent"}),
    Mistake("`BOTOS_RESOLVER` that cannot be imported", BOTS, {"BOTOS_RESOLVER": "my_resolver.Resolver"}),
    Mistake(
        "`BOTOS_WEB` with a port that is in use", (*BOTS, "--playground", "--web"), {"BOTOS_WEB": "127.0.0.1:{taken}"}
    ),
    Mistake(
        "`--web` with an address of another machine", (*BOTS, "--web", "192.0.2.1:80"), {"DISCORD_BOT_TOKEN": DISCORD}
    ),
    Mistake("the playground open to others", (*BOTS, "--playground", "--web", "0.0.0.0:8000")),
    Mistake("the playground of a platform without a local server", (*BOTS, "--playground", "--platforms", "web")),
    Mistake("`runbots --workers 0` without `REDIS_URL`", (*BOTS, "--workers", "0"), {"DISCORD_BOT_TOKEN": DISCORD}),
]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str]]:
    """By mistake: the status and what stood on stderr, with what differs between machines taken out."""
    folder = tmp_path_factory.mktemp("mistakes")
    (folder / "empty").mkdir()
    (folder / "broken.env").write_text("BOTOS_WINDOW 5\n")
    (folder / "twice.env").write_text(f"SECRET_KEY={KEY}\nSECRET_KEY=\n")
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        taken = server.getsockname()[1]
        assert _told_by(MIGRATE, environment(folder, {})) == (0, "")
        answers = {one.what: _told_by(one.program, environment(folder, one.values, taken)) for one in MISTAKES}
    return {what: (status, _general(text, folder, taken)) for what, (status, text) in answers.items()}


def _told_by(program: Sequence[str], values: dict[str, str]) -> tuple[int, str]:
    """The status and what stood on stderr. A program that starts in spite of the mistake is stopped."""
    try:
        done = zygote.run(program, environment=values, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        return 0, f"it did not end within {PATIENCE:.0f} s"
    return done.returncode, done.stderr


def environment(folder: Path, values: dict[str, str], taken: int = 0) -> dict[str, str]:
    basics = {"PATH": os.environ["PATH"], "BOTOS_ENV_FILE": "", "SECRET_KEY": KEY, "BOTOS_DATA_DIR": str(folder)}
    filled = {name: value.replace("{folder}", str(folder)) for name, value in values.items()}
    return basics | {name: value.replace("{taken}", str(taken)) for name, value in filled.items()}


def _general(text: str, folder: Path, taken: int) -> str:
    return text.replace(str(folder), "/srv/botos").replace(str(taken), "8000").replace(str(taken + 1), "8001")


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.what)
def test_it_tells_a_mistake_in_a_sentence(mistake: Mistake, told: dict[str, tuple[int, str]]) -> None:
    status, text = told[mistake.what]

    assert status == 2, text
    assert text.count("\n") == 1, text
    assert re.search(r"\. Hint: .+\.$", text), text
    assert "hunter2" not in text


def test_it_shows_the_same_sentences_in_the_manual(told: dict[str, tuple[int, str]]) -> None:
    rows = re.findall(r"(?m)^\| (.+?) \| (.+?) \|$", MANUAL.read_text(encoding="utf-8"))[1:]
    ours = [(what, f"`{text.strip()}`") for what, (_, text) in told.items()]

    assert [row for row in rows if not set(row[0]) <= {"-", " "}] == ours


def test_it_can_show_twenty_five_of_them() -> None:
    assert len({one.what for one in MISTAKES}) == len(MISTAKES) >= 25
