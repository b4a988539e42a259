"""/healthz, /readyz and /metrics."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from time import monotonic

import pytest
from asgiref.sync import async_to_sync
from django.conf import LazySettings
from django.db import DatabaseError, OperationalError, connection
from django.test import Client, override_settings
from pytest_django import DjangoAssertNumQueries

from adapters.runtime import health
from adapters.runtime.supervisor import Health, State
from identity.support import clock
from sessions_app import agents, counters, duties, receiver_leases
from sessions_app.agents.loop import MAX_LEFT_BEHIND
from sessions_app.messages import Address
from sessions_app.models import Duty, InboundEvent, Lane, OutboundDelivery
from sessions_app.outbox import queue as outbox_queue
from tests.sessions_app.talk import claim, receive

pytestmark = pytest.mark.django_db

TOKEN = "only-for-tests"


@pytest.fixture(autouse=True)
def connections() -> Iterator[list[Health]]:
    """What the process under test is connected to."""
    found = [Health("telegram", State.UP)]
    health.watch(lambda: found)
    yield found
    health.watch(list)


def wait(who: str, seconds: float) -> int:
    """A message that came so long ago."""
    conversation = receive(who, "My PIN is 1234.")
    received_at = clock.read() - timedelta(seconds=seconds)
    InboundEvent.objects.filter(conversation=conversation).update(received_at=received_at)
    return conversation


def test_it_lives_without_a_database(client: Client, django_assert_num_queries: DjangoAssertNumQueries) -> None:
    with django_assert_num_queries(0):
        assert client.get("/healthz").json() == {"alive": True}


def test_it_is_ready(client: Client) -> None:
    wait("alice", 50)
    answer = client.get("/readyz")

    assert (answer.status_code, answer.json()) == (200, {"ready": True, "reasons": []})
    assert not answer.cookies
    assert "no-store" in answer["Cache-Control"]


def test_it_is_not_ready_when_messages_wait_for_a_minute(client: Client) -> None:
    wait("alice", 75)
    answer = client.get("/readyz")

    assert answer.status_code == 503
    assert answer.json()["reasons"] == ["messages wait for 75 s"]


def test_it_is_not_ready_when_its_own_database_thread_stands_still(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sessions_app.db.longest_wait", lambda: 305.0)

    assert client.get("/readyz").json()["reasons"] == ["this process waits for the database for 305 s"]


def test_it_is_not_ready_when_nothing_could_be_written_for_longer_than_a_lease(
    client: Client, monkeypatch: pytest.MonkeyPatch, settings: LazySettings
) -> None:
    monkeypatch.setattr(health, "_written", monotonic() - settings.BOTOS_RECEIVER_LEASE_SECONDS + 5)
    assert client.get("/readyz").status_code == 200

    monkeypatch.setattr(health, "_written", monotonic() - settings.BOTOS_RECEIVER_LEASE_SECONDS - 5)
    assert "nothing could be written for" in client.get("/readyz").json()["reasons"][0]


@pytest.mark.django_db(transaction=True)
def test_it_keeps_writing_and_forgets_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a database that can be read and not written: the time of the last row stays where it was."""

    async def scene() -> None:
        for write in (health._write, _refuse):
            monkeypatch.setattr(health, "_write", write)
            tried = asyncio.Event()
            monkeypatch.setattr("adapters.runtime.health.asyncio.sleep", partial(_ended, tried))
            keeping = asyncio.create_task(health.keep_writing())
            await tried.wait()
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)

    monkeypatch.setattr(duties, "_notes", {})
    async_to_sync(scene)()

    assert Duty.objects.get().succeeded_at
    assert duties._notes[health.WRITING].is_failing
    assert health.seconds_unwritten() == 0


def _refuse() -> None:
    raise OperationalError("attempt to write a readonly database")


async def _ended(tried: asyncio.Event, _seconds: float) -> None:
    tried.set()
    await asyncio.Event().wait()


def test_it_does_not_count_what_is_being_answered_as_waiting(client: Client) -> None:
    claim(wait("alice", 75))

    assert client.get("/readyz").status_code == 200


def test_it_is_ready_while_it_stands_by(client: Client, connections: list[Health]) -> None:
    connections.append(Health("slack", State.STANDBY, "another process is connected for this bot"))

    assert client.get("/readyz").json() == {"ready": True, "reasons": []}


@pytest.mark.parametrize("state", [state for state in State if state not in (State.UP, State.STANDBY)])
def test_it_is_not_ready_while_an_adapter_is_not_up(client: Client, connections: list[Health], state: State) -> None:
    connections.append(Health("slack", state, "xoxb-token refused"))

    assert client.get("/readyz").json()["reasons"] == [f"slack: {state}"]


def test_it_is_not_ready_without_a_database(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise DatabaseError("postgres://botos:hunter2@db")

    monkeypatch.setattr(health, "backlog", refuse)
    answer = client.get("/readyz")

    assert answer.status_code == 503
    assert answer.json()["reasons"] == ["the database does not answer: DatabaseError"]


def test_it_is_not_ready_without_all_tables(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "is_migrated", lambda: False)

    assert client.get("/readyz").json()["reasons"] == ["the database is missing tables"]


@override_settings(SECURE_SSL_REDIRECT=True)
def test_it_answers_without_tls_to_who_asks_whether_it_works(client: Client) -> None:
    assert client.get("/healthz").status_code == client.get("/readyz").status_code == 200
    assert client.get("/metrics").status_code == 301


def test_it_asks_as_often_however_much_waits(client: Client, django_assert_num_queries: DjangoAssertNumQueries) -> None:
    client.get("/readyz")  # which remembers that the tables are there
    for number in range(10):
        wait(f"person-{number}", number)
    with django_assert_num_queries(4 if connection.vendor == "postgresql" else 3):
        client.get("/readyz")


@override_settings(BOTOS_METRICS_TOKEN=TOKEN)
def test_it_reads_its_numbers_with_few_statements(
    client: Client, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    receive("alice", "in a turn that is being answered")
    Lane.objects.update(lease_until=clock.seconds_from_now(60))
    for what in ("turns", "failures", "left behind", "interrupted", "rate limits"):
        counters.up(what, "telegram")
    counters.write()

    with django_assert_num_queries(8 if connection.vendor == "postgresql" else 7):
        client.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"})


def test_it_has_no_numbers_without_a_token(client: Client) -> None:
    assert client.get("/metrics", headers={"Authorization": "Bearer "}).status_code == 404


@override_settings(BOTOS_METRICS_TOKEN=TOKEN)
@pytest.mark.parametrize("sent", ["", TOKEN, f"Bearer {TOKEN}x", "Bearer"])
def test_it_shows_its_numbers_to_nobody_else(client: Client, sent: str) -> None:
    assert client.get("/metrics", headers={"Authorization": sent} if sent else {}).status_code == 401


@override_settings(BOTOS_METRICS_TOKEN=TOKEN, TELEGRAM_BOT_TOKEN="1:here", DISCORD_BOT_TOKEN="nowhere")
def test_it_shows_in_every_process_whether_some_process_receives(client: Client, connections: list[Health]) -> None:
    connections.clear()  # it serves pages and nothing else
    receiver_leases.take(receiver_leases.key_of("1:here"), "town/4711/3f2a")
    text = client.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"}).content.decode()

    assert {'botos_receiving{platform="telegram"} 1', 'botos_receiving{platform="discord"} 0'} <= set(text.splitlines())
    assert 'botos_receiving{platform="slack"}' not in text
    assert "1:here" not in text


@override_settings(BOTOS_METRICS_TOKEN=TOKEN)
def test_it_shows_its_numbers(client: Client, connections: list[Health]) -> None:
    wait("alice", 75)
    wait("bob", 5)
    connections.append(Health("slack", State.RESTARTING))
    outbox_queue.queue(Address("telegram", "chat-alice"), "hello")
    outbox_queue.queue(Address("telegram", "chat-bob"), "hello")
    OutboundDelivery.objects.filter(chat_id="chat-bob").update(status="dead", settled_at=clock.now())
    failed = receive("carol", "hard question")
    InboundEvent.objects.filter(conversation=failed).update(status="given up", done_at=clock.now())
    counters.up("rate limits", "telegram")
    counters.write()

    text = client.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"}).content.decode()

    assert {
        "botos_lanes_waiting 2",
        "botos_deliveries_pending 1",
        "botos_deliveries_ambiguous 0",
        "botos_dead_letters 1",
        "botos_quarantined 0",
        "botos_given_up 1",
        'botos_adapter_up{platform="telegram"} 1',
        'botos_adapter_up{platform="slack"} 0',
    } <= set(text.splitlines())
    assert "botos_inbound_lag_seconds 75" in text
    assert 'botos_rate_limited_total{platform="telegram"}' in text
    assert "alice" not in text
    assert "PIN" not in text


def test_it_is_not_ready_when_too_much_of_agents_does_not_end(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agents, "left_behind", lambda: Counter(threads=MAX_LEFT_BEHIND, turns=MAX_LEFT_BEHIND - 1))
    answer = client.get("/readyz")

    assert answer.status_code == 503
    assert answer.json()["reasons"] == [f"{MAX_LEFT_BEHIND} threads of agents do not end: start this process again"]


@override_settings(BOTOS_METRICS_TOKEN=TOKEN)
def test_it_shows_what_of_agents_does_not_end(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counters, "_counts", Counter())
    monkeypatch.setattr(agents, "left_behind", lambda: Counter(threads=2))
    counters.up("left behind", "threads")
    counters.up("left behind", "loops")
    counters.write()
    shown = client.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"}).content.decode()

    assert 'botos_agents_left_behind{kind="threads"} 2' in shown
    assert 'botos_agents_left_behind_total{kind="loops"} 1' in shown
    assert 'botos_agents_left_behind_total{kind="turns"} 0' in shown
