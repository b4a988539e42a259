from __future__ import annotations

import json
from collections import Counter
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.core.management import call_command
from django.db import OperationalError, connection
from django.test import override_settings

from adapters import registry
from adapters.monitoring import diagnostics
from adapters.runtime import health
from botos_project.env import Environment
from identity.models import PlatformAccount
from identity.support import clock
from sessions_app import counters, receiver_leases
from sessions_app.messages import Address
from sessions_app.models import ForgetRequest, InboundEvent, Lane, OutboundDelivery, ReceiverLease
from sessions_app.outbox import queue as outbox_queue
from sessions_app.privacy import confirmation, forgetting
from tests.sessions_app.talk import receive, say

pytestmark = pytest.mark.django_db

GOOD = {
    "TELEGRAM_BOT_TOKEN": "777001:AAH-this-token-is-not-the-one-the-server-knows",
    "DISCORD_BOT_TOKEN": "MTIzNDU2.abcdef.c29tZXRoaW5nLWVsc2U",
    "SLACK_BOT_TOKEN": "xoxb-1-secret",
    "SLACK_APP_TOKEN": "xapp-1-secret",
    "REDIS_URL": "",
}
TOKENS = [name for name, setting in registry.settings_by_name().items() if setting.kind]


def doctor(**settings: Any) -> tuple[int, dict[str, Any], str]:
    """The exit status, what was found by what it is about, and all that was printed."""
    out, status = StringIO(), 0
    with override_settings(**GOOD | settings):
        try:
            call_command("doctor", "--json", stdout=out)
        except SystemExit as ended:
            status = int(ended.code or 0)
    report = json.loads(out.getvalue())
    assert report["healthy"] is (status == 0)
    return status, {one["about"]: one for one in report["findings"]}, out.getvalue()


@pytest.fixture(autouse=True)
def _receiving() -> None:
    """One process receives on all platforms."""
    for name in ("TELEGRAM_BOT_TOKEN", "DISCORD_BOT_TOKEN", "SLACK_BOT_TOKEN"):
        receiver_leases.take(receiver_leases.key_of(GOOD[name]), "town/4711/3f2a")


def test_it_finds_nothing_wrong() -> None:
    status, found, printed = doctor()

    assert status == 0, printed
    assert {"configuration", "telegram", "database", "clock", "leases", "dead letters"} <= found.keys()
    assert not any(GOOD[key] in printed for key in GOOD if GOOD[key])


def test_it_says_it_to_people_too() -> None:
    out = StringIO()
    with override_settings(**GOOD):
        call_command("doctor", stdout=out)

    assert "ok      dead letters: 0\n" in out.getvalue()


@pytest.mark.parametrize("key", TOKENS)
def test_it_sees_a_token_that_cannot_be_right_and_does_not_show_it(key: str) -> None:
    status, _, printed = doctor(**{key: "hunter2"})

    assert status == 1
    assert f"not valid: {key}" in printed
    assert "hunter2" not in printed


def test_it_sees_that_half_of_the_tokens_are_missing() -> None:
    status, found, _ = doctor(SLACK_APP_TOKEN="")

    assert status == 1
    assert found["slack"]["hint"] == "set SLACK_APP_TOKEN."


def test_it_takes_a_platform_without_tokens_for_not_wanted() -> None:
    assert doctor(TELEGRAM_BOT_TOKEN="")[0] == 0


def test_it_says_what_is_missing_where_no_platform_is_configured() -> None:
    status, found, _ = doctor(**dict.fromkeys(TOKENS, ""))

    assert status == 1
    assert "set TELEGRAM_BOT_TOKEN, DISCORD_BOT_TOKEN" in found["platforms"]["hint"]


def test_it_names_a_setting_that_is_misspelt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(django_settings, "ENV", Environment({"BOTOS_WEBB": "x"}))
    django_settings.ENV.text("BOTOS_WEB")
    status, found, _ = doctor()

    assert status == 1
    assert found["configuration"]["hint"] == "did you mean BOTOS_WEB?"


def test_it_names_a_setting_with_a_new_name_and_takes_it_for_no_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(django_settings, "ENV", Environment({"BOTOS_OLD": "x"}, renamed={"BOTOS_OLD": "BOTOS_WEB"}))
    django_settings.ENV.text("BOTOS_WEB")
    status, found, _ = doctor()

    assert status == 0
    assert found["names of settings"]["detail"] == django_settings.ENV.outdated() != ""


def test_it_sees_that_redis_is_away() -> None:
    status, found, printed = doctor(REDIS_URL="redis://:hunter2@127.0.0.1:9/0")

    assert status == 1
    assert "does not answer" in found["Redis"]["detail"]
    assert "hunter2" not in printed


def test_it_sees_that_the_database_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise OperationalError("postgres://botos:hunter2@db")

    monkeypatch.setattr(connection, "ensure_connection", refuse)
    status, found, printed = doctor()

    assert status == 1
    assert "hunter2" not in printed
    assert "leases" not in found


def test_it_sees_missing_migrations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "is_migrated", lambda: False)

    assert doctor()[1]["migrations"]["hint"] == "run manage.py migrate."


def test_it_sees_what_waits_too_long() -> None:
    receive("alice", "hello")
    InboundEvent.objects.update(received_at=clock.read() - timedelta(seconds=75))
    status, found, _ = doctor()

    assert status == 1
    assert found["messages"]["hint"]


def test_it_sees_what_was_given_up_until_it_is_dismissed() -> None:
    outbox_queue.queue(Address("telegram", "chat-alice"), "hello")
    OutboundDelivery.objects.update(status="dead", settled_at=clock.now())
    for who, end in (("alice", "quarantined"), ("bob", "given up")):
        chat = receive(who, "hello")
        InboundEvent.objects.filter(conversation=chat).update(status=end, done_at=clock.now())
    status, found, _ = doctor()

    assert status == 1
    hints = {"dead letters": "manage.py deliveries", "put aside": "manage.py events", "given up": "manage.py events"}
    for about, command in hints.items():
        assert found[about]["detail"] == "1"
        assert command in found[about]["hint"]
    for command in ("deliveries", "events"):
        call_command(command, "dismiss", "--all", stdout=StringIO())
    assert doctor()[0] == 0


def test_it_says_who_receives() -> None:
    detail = doctor()[1]["receiving"]["detail"]

    assert detail == "telegram by town/4711/3f2a, discord by town/4711/3f2a, slack by town/4711/3f2a"


@pytest.mark.parametrize("was_taken", [True, False])
def test_it_sees_that_nobody_receives(was_taken: bool) -> None:
    lease = ReceiverLease.objects.filter(key=receiver_leases.key_of(GOOD["DISCORD_BOT_TOKEN"]))
    if was_taken:
        lease.update(lease_until=clock.seconds_from_now(-1))
    else:
        lease.delete()
    status, found, _ = doctor()

    assert status == 1
    assert "discord by nobody" in found["receiving"]["detail"]
    assert "runbots" in found["receiving"]["hint"]


def test_it_misses_nobody_where_the_platform_calls() -> None:
    ReceiverLease.objects.all().delete()
    called = {"BOTOS_TELEGRAM_TRANSPORT": "webhook", "TELEGRAM_WEBHOOK_SECRET": "s" * 32, "DISCORD_BOT_TOKEN": ""}
    status, found, _ = doctor(**called, BOTOS_SLACK_TRANSPORT="http", SLACK_SIGNING_SECRET="s" * 32)

    assert (status, found["receiving"]["detail"]) == (0, "no platform needs a receiver")


def test_it_sees_a_lane_that_nobody_takes_over() -> None:
    receive("alice", "hello")
    Lane.objects.update(owner="gone", lease_until=clock.seconds_from_now(-10))

    assert doctor()[1]["leases"]["hint"]


def test_it_does_not_miss_a_worker_where_nothing_waits() -> None:
    say("alice", "hello")
    Lane.objects.update(owner="gone", lease_until=clock.seconds_from_now(-10))
    status, found, _ = doctor()

    assert status == 0
    assert "0 expired" in found["leases"]["detail"]


@pytest.mark.skipif("connection.vendor != 'sqlite'", reason="elsewhere the room is the server's")
def test_it_sees_that_there_is_hardly_any_room(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "db").touch()
    monkeypatch.setitem(connection.settings_dict, "NAME", tmp_path / "db")
    assert not doctor()[1]["disk"]["hint"]
    monkeypatch.setattr(diagnostics, "MIN_ROOM", 10**18)

    assert doctor()[1]["disk"]["hint"]


def test_it_knows_that_the_pages_need_no_token() -> None:
    assert doctor()[1]["web"]["detail"] == "needs no tokens"


def test_it_sees_a_clock_that_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    now = clock.read()
    monkeypatch.setattr(clock, "read", lambda: now - timedelta(minutes=10))

    assert doctor()[1]["clock"]["hint"]


def test_it_sees_that_somebody_is_not_forgotten() -> None:
    say("alice", "hello")
    alice = PlatformAccount.objects.get()
    request = forgetting.ask(account=alice)
    assert request
    forgetting.confirm(account=alice, number=confirmation.number_of(request))
    assert not doctor()[1]["forgetting"]["hint"]

    ForgetRequest.objects.update(confirmed_at=clock.seconds_from_now(-3601))

    assert doctor()[1]["forgetting"]["detail"] == "1 waiting for longer than an hour"
    assert "more space" in doctor()[1]["forgetting"]["hint"]


def test_it_tells_what_of_agents_was_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counters, "_counts", Counter())
    assert doctor()[1]["agents"]["detail"] == "all ended in time"
    counters.up("left behind", "threads")
    counters.write()

    assert doctor()[1]["agents"]["detail"].startswith(
        "left running because they did not end in time: 1 threads, 0 turns"
    )
