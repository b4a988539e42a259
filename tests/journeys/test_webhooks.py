"""Telegram and Slack call a real server: in the bots' process, and in one of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from django.db import connection

from sessions_app.models import HistoryEntry, InboundEvent, OutboundDelivery
from tests.journeys.chats import Chat, linked
from tests.journeys.redis_server import redis_server
from tests.journeys.running import TO_BE_KILLED, Bots, Platforms, Worker, environment, eventually, person, running
from tests.journeys.webhooks import SECRET, Site, pages, together

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.journey]

CALLED = ("telegram", "slack")
SLOW = {"BOTOS_AGENT": "tests.journeys.agents.SlowEcho"}


@pytest.fixture
def site(platforms: Platforms) -> Site:
    return Site(platforms)


@contextmanager
def one_process(platforms: Platforms, site: Site, **more: str) -> Iterator[Bots]:
    where = ("--platforms", *CALLED, "--web", f"127.0.0.1:{site.port}")
    with running(platforms, *where, **together(site, **more)) as bots:
        yield bots


def test_it_links_and_answers_in_one_process(platforms: Platforms, site: Site) -> None:
    telegram, slack = (Chat(platforms, name) for name in CALLED)
    with one_process(platforms, site) as bots:
        assert platforms.do(site.slack.http.verify("c-1")) == (200, "c-1")
        linked(telegram, slack)
        telegram.asks("My favourite colour is octarine.")
        assert "octarine" in slack.asks("What is my favourite colour?").lower()
        bots.terminate()

    assert set(site.telegram.api.webhook.statuses) == set(site.slack.http.statuses) == {200}
    assert "/bot" not in "".join(bots.lines)
    assert SECRET not in "".join(bots.lines)
    assert site.slack.http.secret not in "".join(bots.lines)


@pytest.mark.parametrize("platform", CALLED)
def test_it_hears_buttons_and_takes_note_of_them(platforms: Platforms, site: Site, platform: str) -> None:
    alice, server = Chat(platforms, platform), platforms.servers[platform]
    with one_process(platforms, site):
        alice.asks("/link")
        label = alice.labels[-1]
        button = next(one for one in alice.replies[-1].buttons if one.label == label)
        pressed = platforms.do(server.press(alice.person, alice.replies[-1].message_id, button.command))
        alice.hears()
        platforms.do(server.answered(pressed))  # type: ignore[attr-defined]


def test_it_hears_slash_commands(platforms: Platforms, site: Site) -> None:
    alice = person("slack", 1)
    with one_process(platforms, site):
        told = platforms.do(site.slack.command(alice, "/help", ""))
        assert "!link" in platforms.replies("slack", alice)[0]
        platforms.do(site.slack.answered(told))


@contextmanager
def closing_worker(worker: Worker) -> Iterator[None]:
    try:
        yield
    finally:
        worker.terminate()


@pytest.mark.parametrize("platform", CALLED)
def test_it_answers_from_another_process_when_it_is_notified(platforms: Platforms, site: Site, platform: str) -> None:
    """With sweeps so far apart, only notifications can have brought the message there; the code is no turn's answer."""
    alice = Chat(platforms, platform)
    with redis_server() as own_redis:
        told = {"REDIS_URL": own_redis.url, "BOTOS_SWEEP_SECONDS": "600"}
        apart = ("--platforms", *CALLED, "--workers", "0")
        with (
            pages(platforms, site, **told),
            running(platforms, *apart, up=" ".join(CALLED), **site.settings(**told)),
            closing_worker(Worker(**environment(platforms) | told)),
        ):
            for words in ("hello", "/link", "hello again"):
                alice.asks(words)


@pytest.mark.parametrize("platform", CALLED)
def test_it_answers_from_another_process_without_redis(platforms: Platforms, site: Site, platform: str) -> None:
    alice = Chat(platforms, platform)
    apart = site.settings(REDIS_URL="")
    with (
        pages(platforms, site, REDIS_URL=""),
        running(platforms, "--platforms", *CALLED, up=" ".join(CALLED), **apart),
    ):
        assert alice.asks("/help")


@pytest.mark.parametrize("platform", CALLED)
def test_it_answers_once_after_a_kill(platforms: Platforms, site: Site, platform: str) -> None:
    alice, server = person(platform, 1), platforms.servers[platform]
    with one_process(platforms, site, **SLOW, **TO_BE_KILLED) as bots:
        message_id = platforms.say(platform, alice, "hello")
        platforms.do(server.acknowledged(message_id))
        bots.kill()
        assert InboundEvent.objects.filter(done_at=None).count() == 1
        assert not HistoryEntry.objects.exists()  # the turn was cut short

    with one_process(platforms, site, **SLOW):
        platforms.replies(platform, alice)
        eventually(lambda: not OutboundDelivery.objects.filter(settled_at=None).exists())

    assert platforms.replies(platform, alice) == ["You said: hello"]
    assert said() == [("user", "hello"), ("assistant", "You said: hello")]


def said() -> list[tuple[str, str]]:
    return list(HistoryEntry.objects.order_by("id").values_list("role", "text"))


@contextmanager
def broken_database() -> Iterator[None]:
    """One in which no event can be stored."""
    name = InboundEvent._meta.db_table
    _rename(name, f"{name}_gone")
    try:
        yield
    finally:
        _rename(f"{name}_gone", name)


def _rename(old: str, new: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {old} RENAME TO {new}")


@pytest.mark.parametrize("platform", CALLED)
def test_it_has_the_platform_repeat_what_the_database_did_not_take(
    platforms: Platforms, site: Site, platform: str
) -> None:
    alice = person(platform, 1)
    statuses = site.telegram.api.webhook.statuses if platform == "telegram" else site.slack.http.statuses
    with one_process(platforms, site, **SLOW) as bots:
        with broken_database():
            platforms.say(platform, alice, "hello")
            eventually(lambda: 503 in statuses)
        assert platforms.replies(platform, alice) == ["You said: hello"]
        bots.terminate()

    assert said() == [("user", "hello"), ("assistant", "You said: hello")]
    assert "hello" not in "".join(bots.lines)


def test_it_goes_back_to_polling(platforms: Platforms, site: Site) -> None:
    """What Telegram still has when the webhook goes is told by polling."""
    alice = person("telegram", 1)
    with one_process(platforms, site):
        platforms.say("telegram", alice, "one")
        platforms.replies("telegram", alice)
    platforms.say("telegram", alice, "two")

    site.slack.http.url = ""
    with running(platforms, "--platforms", "telegram", up="telegram", BOTOS_PUBLIC_URL=site.url):
        assert len(platforms.replies("telegram", alice, 2)) == 2

    assert site.telegram.api.webhook.url == ""
    assert [text for role, text in said() if role == "user"] == ["one", "two"]
