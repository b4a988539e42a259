from __future__ import annotations

import os
import runpy
import subprocess
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from django.conf import settings as live
from django.contrib.auth.models import Group
from django.core.management import call_command
from django.db import connection, connections, transaction
from django.test import Client

from adapters import backfill
from botos_project.env import RENAMED, BadSetting
from tests import zygote

PROJECT = Path(__file__).resolve().parents[2]
KEY = "a-key-of-more-than-thirty-two-characters-for-tests"


def load(**values: str) -> dict[str, Any]:
    """The settings that a process with just these variables would have."""
    with mock.patch.dict(os.environ, {"BOTOS_ENV_FILE": "", "SECRET_KEY": KEY, **values}, clear=True):
        return runpy.run_path(str(PROJECT / "botos_project" / "settings.py"))


# --- defaults, and what is refused


def test_it_is_safe_and_small_by_default() -> None:
    found = load()

    assert found["DEBUG"] is False
    assert found["ALLOWED_HOSTS"] == ["localhost", "127.0.0.1", "[::1]"]
    assert found["DATABASES"]["default"]["NAME"] == str(PROJECT / "botos.sqlite3")
    assert found["BOTOS_TURN_SECONDS"] == 120
    assert "django_rq" not in found["INSTALLED_APPS"]


def test_it_refuses_to_start_without_a_key() -> None:
    with pytest.raises(BadSetting, match=r'botos\.E001 SECRET_KEY is not set\. Hint: run "make run" once'):
        load(SECRET_KEY="")


@pytest.mark.parametrize("key", ["hunter2", "django-insecure-" + "x" * 50])
def test_it_refuses_a_key_that_is_easy_to_guess(key: str) -> None:
    with pytest.raises(BadSetting, match=r"botos\.E002 ") as caught:
        load(SECRET_KEY=key)

    assert key not in str(caught.value)


OLD = "an-older-key-of-more-than-fifty-characters-for-the-tests-"


def test_it_takes_older_keys_from_the_variable_or_a_file(tmp_path: Path) -> None:
    file = tmp_path / "older"
    file.write_text(f"{OLD}1\n{OLD}2\n")

    for found in (load(SECRET_KEY_FALLBACKS=f"{OLD}1, {OLD}2"), load(SECRET_KEY_FALLBACKS_FILE=str(file))):
        assert found["SECRET_KEY_FALLBACKS"] == [f"{OLD}1", f"{OLD}2"]
        assert {f"{OLD}1", f"{OLD}2"} <= found["ENV"].secrets


@pytest.mark.parametrize("key", ["hunter2", "django-insecure-" + "x" * 50])
def test_it_refuses_an_older_key_that_is_easy_to_guess(key: str) -> None:
    with pytest.raises(BadSetting, match=r"botos\.E015 One of SECRET_KEY_FALLBACKS ") as caught:
        load(SECRET_KEY_FALLBACKS=f"{OLD} {key}")

    assert key not in str(caught.value)


def test_it_knows_what_it_received_for_longer_than_it_reads_back() -> None:
    assert load(BOTOS_RETENTION_KEYS_DAYS="3")["BOTOS_RETENTION_KEYS_DAYS"] * timedelta(days=1) > backfill.HORIZON

    with pytest.raises(BadSetting, match=r"botos\.E014 .* Hint: write BOTOS_RETENTION_KEYS_DAYS=30"):
        load(BOTOS_RETENTION_KEYS_DAYS="2")


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
@pytest.mark.parametrize("place", ["environment", "file"])
def test_it_reads_each_setting_by_its_old_name(tmp_path: Path, old: str, new: str, place: str) -> None:
    (tmp_path / ".env").write_text(f"{old}=17\n", encoding="utf-8")
    given = {old: "17"} if place == "environment" else {"BOTOS_ENV_FILE": str(tmp_path / ".env")}
    found, usual = load(**given), load()

    assert str(found[new]) in {"17", "17.0"}
    assert found["ENV"].outdated().startswith(f"Settings have new names: {old} is now {new}. ")
    assert found["ENV"].unknown() == usual["ENV"].unknown() == []
    assert usual["ENV"].outdated() == ""


def test_a_proxy_is_believed_by_the_old_name_of_its_setting() -> None:
    assert load(BOTOS_PROXIES="1")["SECURE_PROXY_SSL_HEADER"] == ("HTTP_X_FORWARDED_PROTO", "https")
    assert load(BOTOS_PROXIES="1", BOTOS_TRUSTED_PROXIES="0")["SECURE_PROXY_SSL_HEADER"] is None


def test_it_keeps_its_data_where_it_is_told() -> None:
    assert load(BOTOS_DATA_DIR="/srv/botos")["DATABASES"]["default"]["NAME"] == "/srv/botos/botos.sqlite3"


def test_it_uses_redis_only_when_there_is_one() -> None:
    found = load(REDIS_URL="redis://:hunter2%2Fx@127.0.0.1:6379/3")

    assert "django_rq" in found["INSTALLED_APPS"]
    assert found["RQ_QUEUES"]["turns"]["SERIALIZER"] == "rq.serializers.JSONSerializer"
    assert found["CHANNEL_LAYERS"]["default"]["BACKEND"] == "channels_redis.core.RedisChannelLayer"
    assert "hunter2/x" in found["LOGGING"]["formatters"]["text"]["secrets"]


def test_it_waits_for_redis_without_a_limit_that_loses_cancellations() -> None:
    (host,) = load(REDIS_URL="redis://127.0.0.1:6379")["CHANNEL_LAYERS"]["default"]["CONFIG"]["hosts"]

    assert host["socket_timeout"] is None


def test_it_never_wraps_requests_in_transactions() -> None:
    for url in ("", "postgres://u@h/n"):
        assert "ATOMIC_REQUESTS" not in load(DATABASE_URL=url)["DATABASES"]["default"]


# --- browsers


def test_it_is_strict_when_people_come_by_https() -> None:
    found = load(BOTOS_PUBLIC_URL="https://bots.example.org:8443/")

    assert found["SESSION_COOKIE_SECURE"] is found["CSRF_COOKIE_SECURE"] is found["SECURE_SSL_REDIRECT"] is True
    assert found["SECURE_HSTS_SECONDS"] > 0
    assert "bots.example.org" in found["ALLOWED_HOSTS"]
    assert found["CSRF_TRUSTED_ORIGINS"] == ["https://bots.example.org:8443"]
    assert found["BOTOS_PUBLIC_URL"] == "https://bots.example.org:8443"


def test_it_works_without_https_on_this_machine() -> None:
    found = load(BOTOS_PUBLIC_URL="http://localhost:8000")

    assert found["SESSION_COOKIE_SECURE"] is found["SECURE_SSL_REDIRECT"] is False
    assert found["SECURE_HSTS_SECONDS"] == 0


def test_it_lets_a_proxy_that_ends_https_be_announced_without_an_address() -> None:
    assert load(BOTOS_HTTPS="true")["SESSION_COOKIE_SECURE"] is True


@pytest.mark.django_db
def test_it_tells_browsers_to_load_nothing_from_elsewhere_and_nothing_inline(client: Client) -> None:
    response = client.get("/admin/login/")

    policy = dict(part.split(" ", 1) for part in response["Content-Security-Policy"].split("; "))
    assert policy == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self' data:",
        "connect-src": "'self'",
        "form-action": "'self'",
        "base-uri": "'none'",
        "frame-ancestors": "'none'",
    }
    assert b"<style" not in response.content


# --- the database


sqlite_only = pytest.mark.skipif("sqlite" not in live.DATABASES["default"]["ENGINE"], reason="about SQLite")


@sqlite_only
@pytest.mark.django_db
@pytest.mark.parametrize(
    ("pragma", "value"), [("journal_mode", "wal"), ("synchronous", 2), ("busy_timeout", 20000), ("foreign_keys", 1)]
)
def test_it_sets_up_each_sqlite_connection(pragma: str, value: object) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"PRAGMA {pragma}")

        assert cursor.fetchone() == (value,)


@sqlite_only
@pytest.mark.django_db(transaction=True)
def test_it_loses_no_transaction_that_reads_before_it_writes() -> None:
    counter = Group.objects.create(name="0")
    threads = [threading.Thread(target=_count_up, args=(counter.pk, 25)) for _ in range(4)]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    counter.refresh_from_db()
    assert counter.name == "100"


def _count_up(pk: int, times: int) -> None:
    try:
        for _ in range(times):
            with transaction.atomic():
                group = Group.objects.get(pk=pk)
                group.name = str(int(group.name) + 1)
                group.save()
    finally:
        connections.close_all()


# --- logs


def test_it_logs_without_tokens_passwords_and_request_lines(tmp_path: Path) -> None:
    secrets = {
        "TELEGRAM_BOT_TOKEN": "123:telegram-hunter2",
        "OPENAI_API_KEY": "sk-hunter2",
        "DATABASE_URL": "postgres://u:p%40hunter2@h/n",
    }

    script = python("-c", SAY, "123:telegram-hunter2", "sk-hunter2", "p@hunter2", KEY, folder=tmp_path, **secrets)

    assert script.stdout == ""
    assert [line.split(" ", 2)[2] for line in script.stderr.splitlines()] == [
        *["WARNING adapters.telegram.adapter refused ***"] * 4,
        "ERROR django.request once",
    ]


SAY = """
import logging, sys, django
django.setup()
for secret in sys.argv[1:]:
    logging.getLogger("adapters.telegram.adapter").warning("refused %s", secret)
logging.getLogger("httpx").info("HTTP Request: POST https://api.telegram.org/")
logging.getLogger("django.request").error("once")
"""


# --- plain scripts, and the checks of Django


def python(*arguments: str, folder: Path, **values: str) -> subprocess.CompletedProcess[str]:
    """What Python does in a process with just these variables."""
    basics = {"DJANGO_SETTINGS_MODULE": "botos_project.settings", "BOTOS_ENV_FILE": "", "SECRET_KEY": KEY}
    environment = {**basics, "BOTOS_DATA_DIR": str(folder), **values}
    return zygote.run(arguments, environment=environment)


def test_it_sets_up_a_plain_script_once_the_database_has_its_tables(tmp_path: Path) -> None:
    script = (
        "-c",
        "import botos_project.setup; from django.contrib.auth.models import User; print(User.objects.count())",
    )

    before = python(*script, folder=tmp_path)
    migrated = python("manage.py", "migrate", "--verbosity=0", folder=tmp_path)
    after = python(*script, folder=tmp_path)

    assert (before.returncode, before.stderr) == (2, "The database is missing tables. Hint: run manage.py migrate.\n")
    assert (migrated.returncode, migrated.stderr) == (0, "")
    assert (after.returncode, after.stdout, after.stderr) == (0, "0\n", "")


def test_it_says_that_a_database_cannot_be_opened_and_not_its_password(tmp_path: Path) -> None:
    url = "postgres://u:hunter2@127.0.0.1:1/n?connect_timeout=2"

    script = python("-c", "import botos_project.setup", folder=tmp_path, DATABASE_URL=url)

    assert "PostgreSQL at 127.0.0.1:1 does not answer. Hint: " in script.stderr
    assert "hunter2" not in script.stderr


def test_it_passes_djangos_deployment_checks(settings: Any) -> None:
    found = load(SECRET_KEY="k7Q-" * 15 + "xyzuvw", BOTOS_PUBLIC_URL="https://bots.example.org")
    for name in (
        name for name in found if name.startswith(("SECURE_", "SESSION_", "CSRF_", "X_")) or name == "SECRET_KEY"
    ):
        setattr(settings, name, found[name])

    call_command("check", deploy=True, fail_level="WARNING")


# --- webhooks

TELEGRAM_WEBHOOK = {
    "BOTOS_TELEGRAM_TRANSPORT": "webhook",
    "TELEGRAM_WEBHOOK_SECRET": "s" * 32,
    "BOTOS_PUBLIC_URL": "https://bots.example.org",
}
SLACK_HTTP = {
    "BOTOS_SLACK_TRANSPORT": "http",
    "SLACK_SIGNING_SECRET": "5" * 32,
    "BOTOS_PUBLIC_URL": "https://bots.example.org",
}


@pytest.mark.parametrize("right", [TELEGRAM_WEBHOOK, SLACK_HTTP])
def test_it_takes_a_webhook_that_can_be_called(right: dict[str, str]) -> None:
    load(**right)
    load(
        **right
        | {"BOTOS_PUBLIC_URL": "http://127.0.0.1:8000", "TELEGRAM_API_URL": "http://t", "SLACK_API_URL": "http://s"}
    )


@pytest.mark.parametrize("address", ["", "http://bots.example.org"])
@pytest.mark.parametrize("right", [TELEGRAM_WEBHOOK, SLACK_HTTP])
def test_it_refuses_a_webhook_that_no_platform_can_call(right: dict[str, str], address: str) -> None:
    with pytest.raises(BadSetting, match=r"botos\.E011 BOTOS_\w+_TRANSPORT=\w+ needs .* Hint: set BOTOS_PUBLIC_URL"):
        load(**right | {"BOTOS_PUBLIC_URL": address})


@pytest.mark.parametrize("secret", ["", "s" * 31, "s" * 257, "hunter2 " + "s" * 32, "hunter2é" + "s" * 32])
def test_it_refuses_a_webhook_secret_that_is_easy_to_guess_or_not_telegrams(secret: str) -> None:
    with pytest.raises(BadSetting, match=r"botos\.E012 TELEGRAM_WEBHOOK_SECRET .* Hint: ") as caught:
        load(**TELEGRAM_WEBHOOK | {"TELEGRAM_WEBHOOK_SECRET": secret})

    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("secret", ["", "hunter2"])
def test_it_refuses_a_signing_secret_that_is_none(secret: str) -> None:
    with pytest.raises(BadSetting, match=r"botos\.E013 SLACK_SIGNING_SECRET .* Hint: ") as caught:
        load(**SLACK_HTTP | {"SLACK_SIGNING_SECRET": secret})

    assert "hunter2" not in str(caught.value)


def test_it_takes_the_secrets_of_webhooks_from_files(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("f" * 40)

    found = load(
        **TELEGRAM_WEBHOOK | {"TELEGRAM_WEBHOOK_SECRET": "", "TELEGRAM_WEBHOOK_SECRET_FILE": str(tmp_path / "secret")}
    )

    assert found["TELEGRAM_WEBHOOK_SECRET"] == "f" * 40
    assert "f" * 40 in found["LOGGING"]["formatters"]["text"]["secrets"]
