"""Every secret is a canary: after a run at the lowest level none of them is in a log, in Redis or in the database."""

from __future__ import annotations

import base64
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote, unquote, urlsplit

import pytest
from django.db import connection

from tests import database_files
from tests.journeys.redis_server import redis_server
from tests.journeys.running import PLATFORMS, Bots, Platforms, database_url, environment, person
from tests.sessions_app.model_server import ModelServer

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.journey]

OURS = ("adapters", "botos_project", "identity", "sessions_app")
OTHERS = ("uvicorn.error", "django.request", "django.security", "asyncio", "rq.worker")
LINE = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} [A-Z]+ (\S+) ")


def canary(length: int = 50) -> str:
    return f"canary{secrets.token_hex(length)}"[:length]


def found_in(text: str, canaries: dict[str, str]) -> set[str]:
    """The names of those that a text holds, by whatever spelling."""
    plain = unquote(text) + re.sub(r"\\[nr]|\s", "", text)
    words = set(re.findall(r"[A-Za-z0-9+/_-]{16,}", text))
    plain += "".join(_decoded(word) for word in words)
    return {name for name, value in canaries.items() if value in plain or quote(value, safe="") in text}


def _decoded(word: str) -> str:
    body = word.replace("-", "+").replace("_", "/")
    body = body[: len(body) - (len(body) % 4 == 1)]
    return base64.b64decode(body + "=" * (-len(body) % 4)).decode("latin-1")


def strangers(lines: list[str]) -> set[str]:
    """Loggers that nobody expects to speak."""
    names = {match[1] for match in map(LINE.match, lines) if match}
    return {name for name in names if name.split(".")[0] not in OURS and name not in OTHERS}


@contextmanager
def database(password: str) -> Iterator[str]:
    """The address of the test's database, with a password where it takes one."""
    if connection.vendor == "sqlite":
        yield database_url()
        return
    role = f"canary_{secrets.token_hex(4)}"
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE ROLE {role} LOGIN SUPERUSER PASSWORD '{password}'")
    try:
        yield urlsplit(database_url())._replace(netloc=_with(role, password, database_url())).geturl()
    finally:
        with connection.cursor() as cursor:
            cursor.execute(f"REASSIGN OWNED BY {role} TO CURRENT_USER")
            cursor.execute(f"DROP ROLE {role}")


def _with(user: str, password: str, url: str) -> str:
    return f"{user}:{password}@{urlsplit(url).netloc.rpartition('@')[2]}"


def everything_stored() -> str:
    if connection.vendor == "sqlite":
        return database_files.read_all().decode("latin-1")
    with connection.cursor() as cursor:
        rows = []
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f'SELECT row::text FROM "{table}" row')
            rows += [row[0] for row in cursor.fetchall()]
    return "\n".join(rows)


PLANTED = """
import logging, os, sys, django
from django.core.management import execute_from_command_line
django.setup()
from django.conf import settings
os.write(2, settings.OPENAI_BASE_URL.encode() + b"\\n")
logging.getLogger("parrot").info("hello")
execute_from_command_line(sys.argv)
"""


class Planted(Bots):
    """A process in which some library writes a secret past the log and past standard error."""

    program = ("-c", PLANTED)


def ran(kind: type[Bots], platforms: Platforms, settings: dict[str, str]) -> list[str]:
    """What a process writes in which somebody on each platform is answered by the model."""
    bots = kind("--web", up=PLATFORMS, **environment(platforms) | settings)
    try:
        for platform in PLATFORMS:
            platforms.say(platform, person(platform, 1), "hello")
            assert "Hello." in platforms.replies(platform, person(platform, 1))[-1]
    finally:
        bots.terminate()
    return bots.lines


@pytest.mark.parametrize(("kind", "level"), [(Bots, "debug"), (Bots, "info"), (Planted, "info")])
def test_it_keeps_every_secret_to_itself(platforms: Platforms, kind: type[Bots], level: str) -> None:
    names = ("SECRET_KEY", "SECRET_KEY_FALLBACKS", "OPENAI_API_KEY", "BOTOS_METRICS_TOKEN", "TELEGRAM_WEBHOOK_SECRET")
    given = {name: canary() for name in (*names, "password of the model", "of Redis", "of the database")}
    given["SLACK_SIGNING_SECRET"] = secrets.token_hex(16)
    tokens = {name: value for name, value in platforms.environment().items() if name.endswith("TOKEN")}
    model = ModelServer()
    serving = model.running()
    platforms.do(serving.__aenter__())
    try:
        with redis_server(given["of Redis"]) as redis, database(given["of the database"]) as url:
            settings = {name: value for name, value in given.items() if name.isupper()} | {
                "BOTOS_LOG_LEVEL": level,
                "BOTOS_WEB": "127.0.0.1:0",
                "BOTOS_MODEL": "openai:tiny",
                "OPENAI_BASE_URL": f"http://{_with('bot', given['password of the model'], model.base_url)}/v1",
                "DATABASE_URL": url,
                "REDIS_URL": redis.url,
            }
            lines = ran(kind, platforms, settings)
            places = {"the log": "\n".join(lines), "Redis": redis.dump(), "the database": everything_stored()}
    finally:
        platforms.do(serving.__aexit__(None, None, None))

    assert len(model.asked) >= len(PLATFORMS)
    found = {place: found_in(text, given | tokens) for place, text in places.items()}
    planted = kind is Planted
    assert found.pop("the log") == ({"password of the model"} if planted else set())
    assert found == {"Redis": set(), "the database": set()}
    assert level == "debug" or strangers(lines) == ({"parrot"} if planted else set())


@pytest.mark.parametrize(
    "write",
    [
        str,
        lambda value: quote(value, safe=""),
        lambda value: base64.b64encode(f"bot:{value}".encode()).decode(),
        lambda value: value[:20] + "\\n   " + value[20:],
    ],
)
def test_it_would_find_one(write: object) -> None:
    value = canary()

    assert callable(write)
    assert found_in(f"GET {write(value)} 200", {"it": value}) == {"it"}
    assert not found_in("GET / 200", {"it": value})
