"""`manage.py runbots` as an operator meets it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.journeys.running import Bots, Platforms, environment, person, running

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.journey]

NOTHING = {"DISCORD_BOT_TOKEN": "", "TELEGRAM_BOT_TOKEN": "", "SLACK_BOT_TOKEN": "", "SLACK_APP_TOKEN": ""}


def test_it_says_what_to_do_when_nothing_is_configured(platforms: Platforms) -> None:
    bots = Bots(up=(), **environment(platforms) | NOTHING)

    assert bots.wait() == 2
    assert "No platform is configured. Hint: set TELEGRAM_BOT_TOKEN" in bots.lines[-1]


def test_it_refuses_a_platform_that_it_does_not_know(platforms: Platforms) -> None:
    bots = Bots("--platforms", "icq", up=(), **environment(platforms))

    assert bots.wait() == 2
    assert "no platform 'icq'. Hint: use one of telegram, discord, slack" in bots.lines[-1]


def test_it_reports_wrong_tokens_in_one_line_and_serves_the_others(platforms: Platforms) -> None:
    wrong = "777001:AAH-this-token-is-not-the-one-the-server-knows"
    with running(platforms, up="discord slack", TELEGRAM_BOT_TOKEN=wrong) as bots:
        bots.wait_for_line("telegram: needs configuration")
        platforms.say("discord", person("discord", 1), "My cat is Tom.")
        assert platforms.replies("discord", person("discord", 1))
        bots.terminate()

    about_telegram = [line for line in bots.lines if "telegram" in line.lower()]
    assert len(about_telegram) == 1
    assert "TELEGRAM_BOT_TOKEN" in about_telegram[0]
    assert wrong not in "".join(bots.lines)


def test_it_ends_when_no_platform_takes_its_token(platforms: Platforms) -> None:
    wrong = {"TELEGRAM_BOT_TOKEN": "777001:AAH-this-token-is-not-the-one-the-server-knows"}
    bots = Bots("--platforms", "telegram", up=(), **environment(platforms) | wrong)

    assert bots.wait() == 2
    assert "No platform could be connected" in bots.lines[-1]


def test_it_finishes_what_is_under_way_when_told_to_stop(platforms: Platforms) -> None:
    alice = person("telegram", 1)
    with running(platforms, BOTOS_AGENT="tests.journeys.agents.SlowEcho") as bots:
        message_id = platforms.say("telegram", alice, "hello")
        platforms.do(platforms.servers["telegram"].acknowledged(message_id))
        status = bots.terminate()

    assert status == 0


def test_it_keeps_an_outage_of_one_platform_from_the_others(platforms: Platforms) -> None:
    platforms.servers["slack"].faults.outage = True
    with running(platforms, up="telegram discord") as bots:
        platforms.say("telegram", person("telegram", 1), "hello")
        assert platforms.replies("telegram", person("telegram", 1))

        platforms.servers["slack"].faults.outage = False
        bots.wait_for_line("slack: up")
        platforms.say("slack", person("slack", 1), "hello")
        assert platforms.replies("slack", person("slack", 1))


def test_it_says_that_the_database_lacks_tables(platforms: Platforms, tmp_path: Path) -> None:
    bots = Bots(up=(), **environment(platforms) | {"DATABASE_URL": f"sqlite:///{tmp_path}/empty.sqlite3"})

    assert bots.wait() == 2
    assert bots.lines[-1].endswith("The database is missing tables. Hint: run manage.py migrate.")


def test_it_says_that_the_database_cannot_be_reached(platforms: Platforms) -> None:
    nowhere = "postgres://botos:hidden@127.0.0.1:9/botos"
    bots = Bots(up=(), **environment(platforms) | {"DATABASE_URL": nowhere})

    assert bots.wait() == 2
    assert "PostgreSQL at 127.0.0.1:9 does not answer. Hint:" in bots.lines[-1]
    assert "hidden" not in "".join(bots.lines)


def test_it_serves_the_browser_where_it_serves_the_pages(platforms: Platforms) -> None:
    with running(platforms, "--platforms", "telegram", "--web", "127.0.0.1:0", up="telegram web"):
        pass


def test_it_needs_a_chat_platform_beside_the_pages(platforms: Platforms) -> None:
    bots = Bots("--web", "127.0.0.1:0", up=(), **environment(platforms) | NOTHING)

    assert bots.wait() == 2
    assert "No platform is configured" in bots.lines[-1]
