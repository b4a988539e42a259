"""What all tests lean on: processes from the zygote, tables as they were, and what is left out on another engine."""

from __future__ import annotations

import os
import select
import signal
import subprocess
from typing import Any

import pytest
from django.contrib.auth.models import Group, Permission
from django.contrib.contenttypes.models import ContentType
from django.db import connection

from identity.models import AccountLink, PlatformAccount, UnifiedUser
from tests import zygote
from tests.conftest import wait_for_other_sessions
from tests.empty import Emptied
from tests.journeys.running import database_url


def test_a_forked_program_has_its_own_arguments_environment_streams_and_exit() -> None:
    script = "import os, sys; print(sys.argv[1:], input(), os.environ['OWN']); sys.stderr.write('oh'); sys.exit(3)"
    done = zygote.run(["-c", script, "one", 2], environment={**os.environ, "OWN": "mine"}, told="told\n")

    assert (done.returncode, done.stdout, done.stderr) == (3, "['one', '2'] told mine\n", "oh")
    assert "OWN" not in os.environ


def test_a_forked_program_ends_as_python_does() -> None:
    """What is to happen at the exit happens, and what nobody catches is told."""
    at_exit = "import atexit; atexit.register(print, 'bye'); raise ValueError('octarine')"
    done = zygote.run(["-c", at_exit], environment=os.environ)

    assert (done.returncode, done.stdout) == (1, "bye\n")
    assert done.stderr.endswith("ValueError: octarine\n")


def test_a_forked_program_takes_signals_and_knows_nothing_of_others() -> None:
    script = "import sys; print('up', flush=True); sys.stdin.read()"
    first, other = (
        zygote.start(["-c", script], environment=os.environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(2)
    )
    for process in (first, other):
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        assert process.poll() is None
    first.send_signal(signal.SIGTERM)
    assert first.wait(60) == -signal.SIGTERM
    assert first.stdout is not None
    assert select.select([first.stdout], [], [], 60)[0]  # nobody else holds its end open
    assert first.stdout.read() == ""
    assert other.poll() is None

    assert other.stdin is not None
    other.stdin.close()
    assert other.wait(60) == 0
    for stream in (first.stdin, first.stdout, other.stdout):
        assert stream is not None
        stream.close()


@pytest.mark.django_db
def test_the_tables_are_brought_back_to_what_they_held() -> None:
    types, permissions = (list(model.objects.order_by("pk").values()) for model in (ContentType, Permission))
    emptied = Emptied()
    account = PlatformAccount.objects.create(platform="telegram", platform_user_id="1")
    AccountLink.objects.create(account=account, user=UnifiedUser.objects.create(unified_user_id="alice"))
    Group.objects.create(name="friends").permissions.set(Permission.objects.all()[:3])
    Permission.objects.order_by("pk")[0].delete()
    Permission.objects.filter(pk=permissions[1]["id"]).update(name="May do anything")

    emptied.bring_back()

    assert not PlatformAccount.objects.exists()
    assert not AccountLink.objects.exists()
    assert not UnifiedUser.objects.exists()
    assert not Group.objects.filter(name="friends").exists()
    assert list(ContentType.objects.order_by("pk").values()) == types
    assert list(Permission.objects.order_by("pk").values()) == permissions


def test_what_uses_no_database_is_marked(request: pytest.FixtureRequest) -> None:
    assert request.node.get_closest_marker("anywhere")


@pytest.mark.django_db
def test_what_uses_the_database_is_not(request: pytest.FixtureRequest) -> None:
    assert not request.node.get_closest_marker("anywhere")


def test_what_asks_for_the_database_is_not_either(db: Any, request: pytest.FixtureRequest) -> None:
    assert not request.node.get_closest_marker("anywhere")


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite has no sessions")
def test_the_database_is_dropped_when_nobody_else_uses_it() -> None:
    holding = (
        "import sys, django; django.setup(); from django.db import connection; connection.ensure_connection();"
        "print('up', flush=True); sys.stdin.read()"
    )
    environment = {**os.environ, "DATABASE_URL": database_url(), "DJANGO_SETTINGS_MODULE": "botos_project.settings"}
    process = zygote.start(["-c", holding], environment=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"

    with pytest.raises(AssertionError, match="client backend"):
        wait_for_other_sessions(0.5)
    process.kill()
    process.wait()
    wait_for_other_sessions()

    for stream in (process.stdin, process.stdout):
        assert stream is not None
        stream.close()
