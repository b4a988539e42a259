"""What a page opens, it closes."""

from __future__ import annotations

import threading
from collections import deque
from typing import Any, cast

import psycopg
import pytest
from asgiref.testing import ApplicationCommunicator
from django.db import connection, connections
from django.db.utils import OperationalError
from django.http import HttpRequest, HttpResponse
from django.test import override_settings
from django.urls import path

from botos_project.asgi import application
from identity.models import Browser
from identity.support.db_errors import is_away
from sessions_app import db

SCOPE: dict[str, Any] = {"type": "http", "method": "GET", "path": "/look", "query_string": b""}
SCOPE["headers"] = [(b"host", b"localhost")]
seen: list[Any] = []


def look(_request: HttpRequest) -> HttpResponse:
    """Uses the database, and keeps hold of the connection so that only closing it can close it."""
    Browser.objects.exists()
    seen.append(connection.connection if connection.vendor == "sqlite" else connections["default"])
    return HttpResponse("looked")


urlpatterns = [path("look", look)]


async def is_closed(found: Any) -> bool:
    if connection.vendor == "postgresql":
        return found.connection is None
    try:
        found.execute("SELECT 1")
    except Exception as error:  # noqa: BLE001 - a connection of another thread that is open names the thread instead
        return "closed database" in str(error)
    return False


@pytest.mark.django_db(transaction=True)
@pytest.mark.asyncio
@override_settings(ROOT_URLCONF=__name__)
async def test_it_closes_what_a_page_opened() -> None:
    seen.clear()
    caller = cast(Any, ApplicationCommunicator)(application, SCOPE)
    await caller.send_input({"type": "http.request"})
    assert (await caller.receive_output(5))["status"] == 200
    await caller.wait(5)

    assert await is_closed(seen[0])


@pytest.mark.django_db(transaction=True)
@pytest.mark.asyncio
async def test_it_keeps_the_connection_of_the_bots_between_two_calls() -> None:
    if connection.vendor != "sqlite":
        pytest.skip("the pool keeps it")

    def opened() -> Any:
        Browser.objects.exists()
        return connection.connection

    try:
        assert await db.call(opened) is await db.call(opened)
    finally:
        await db.call(connections.close_all)


@pytest.mark.django_db(transaction=True)
def test_it_calls_a_pool_without_a_free_connection_an_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    if connection.vendor != "postgresql":
        pytest.skip("only PostgreSQL has a pool")
    connection.ensure_connection()
    pool = cast(Any, connection).pool
    monkeypatch.setattr(pool, "timeout", 0.01)
    monkeypatch.setattr(pool, "_pool", deque())
    monkeypatch.setattr(pool, "_max_size", 1)
    caught: list[BaseException] = []

    def ask() -> None:
        try:
            Browser.objects.exists()
        except OperationalError as error:
            caught.append(error)
        finally:
            connections.close_all()

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join(10)

    assert is_away(caught[0])
    assert type(caught[0].__cause__).__name__ == "PoolTimeout"


@pytest.mark.django_db(transaction=True)
def test_it_heals_connections_that_the_server_ended() -> None:
    if connection.vendor != "postgresql":
        pytest.skip("only PostgreSQL has a pool")
    connection.ensure_connection()
    pid = connection.connection.info.backend_pid
    connection.close()
    given = connection.settings_dict
    place = {"host": given["HOST"], "port": given["PORT"], "user": given["USER"], "password": given["PASSWORD"]}

    with psycopg.connect(dbname=given["NAME"], **place) as other:
        ended = other.execute("SELECT pg_terminate_backend(%s)", [pid]).fetchone()

    assert ended == (True,)
    assert Browser.objects.exists() is False
