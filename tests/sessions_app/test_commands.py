"""Commands about one's own data, as they are answered in a chat."""

from __future__ import annotations

import pytest
from django.conf import LazySettings

from identity.flows import linking
from identity.models import AccountLink, PlatformAccount
from identity.support import clock
from sessions_app.history import conversations
from sessions_app.models import OutboundDelivery
from sessions_app.outbox import queue as outbox_queue
from sessions_app.turns import lifecycle
from tests.sessions_app.talk import DATABASE, claim, receive, say

pytestmark = pytest.mark.django_db


def answer(text: str, *, who: str = "alice", platform: str = "telegram") -> str:
    claimed = claim(receive(who, text, platform=platform))
    lifecycle.answer_command(claimed, lifecycle.begin(claimed, resolver=DATABASE), limit=outbox_queue.TEXT_LIMIT)
    return OutboundDelivery.objects.latest("pk").text


def link(who: str, platform: str, person: str = "alice") -> None:
    linking.link(platform=platform, platform_user_id=who, unified_user_id=person, method="pairing", actor="test")


@pytest.fixture
def alice() -> tuple[int, int]:
    """Her private chats on Telegram and Discord, linked; she wrote on Discord last."""
    chats = say("alice", "here"), say("alice", "there", platform="discord")
    link("alice", "telegram")
    link("alice", "discord")
    AccountLink.objects.update(since=clock.read())
    return chats


def preferred() -> int | None:
    found = conversations.preferred_of("alice")
    return found.pk if found else None


def test_it_writes_where_it_is_preferred(alice: tuple[int, int]) -> None:
    assert preferred() == alice[1]

    assert "I use Telegram" in answer("/prefer telegram", platform="discord")
    say("alice", "later", platform="discord")
    assert preferred() == alice[0]
    assert "I use Telegram" in answer("/prefer")

    assert "the app where you wrote last" in answer("/prefer last")
    assert preferred() == alice[1]


def test_it_writes_to_no_account_that_has_left(alice: tuple[int, int]) -> None:
    answer("/prefer telegram")
    AccountLink.objects.filter(account__platform="telegram").update(ended_at=clock.now())

    assert preferred() == alice[1]
    assert "the app where you wrote last" in answer("/prefer", platform="discord")


@pytest.mark.parametrize("wanted", ["slack", "x y", "%s", "'"])
def test_it_prefers_no_app_that_is_not_there(alice: tuple[int, int], wanted: str) -> None:
    assert "telegram, discord, last" in answer(f"/prefer {wanted}")
    assert preferred() == alice[1]


def test_it_refuses_the_wish_of_a_new_link(alice: tuple[int, int]) -> None:
    answer("/prefer telegram")
    AccountLink.objects.filter(account__platform="telegram").update(since=clock.seconds_from_now(-3600))

    assert "linked less than a day ago" in answer("/prefer discord", platform="discord")
    assert preferred() == alice[0]


def test_it_knows_a_stranger_in_one_place_alone() -> None:
    assert "I only know you here" in answer("/prefer discord", who="bob")


def test_it_says_where_an_export_is_to_be_had(settings: LazySettings) -> None:
    settings.BOTOS_PUBLIC_URL = "https://bots.example.org"

    assert answer("/export").startswith("Open https://bots.example.org/me/, verify")
    assert answer("/export", platform="slack").startswith("Open https://bots.example.org/me/, verify")

    settings.BOTOS_PUBLIC_URL = ""
    assert answer("/export").startswith('Open "My page" on')


def test_it_asks_which_words_and_says_when_there_are_none() -> None:
    assert "Which words should I look for?" in answer("/search")
    assert "I found no messages" in answer("/search octarine")


@pytest.mark.parametrize(("platform", "shown"), [("telegram", "*[Al](x)*"), ("discord", r"\*\[Al\]\(x\)\*")])
def test_it_says_names_as_they_are(platform: str, shown: str) -> None:
    say("alice", "octarine", platform=platform, group="pub")
    asked = [
        receive("alice", "/whoami", platform=platform),
        receive("bob", "/search octarine", platform=platform, group="pub"),
    ]
    PlatformAccount.objects.update(display_name="*[Al](x)*")

    told = []
    for claimed in map(claim, asked):
        lifecycle.answer_command(claimed, lifecycle.begin(claimed, resolver=DATABASE), limit=outbox_queue.TEXT_LIMIT)
        told.append(OutboundDelivery.objects.latest("pk").text)

    assert f'You are "{shown}"' in told[0]
    assert f" {shown}, on" in told[1]


@pytest.mark.parametrize(("platform", "mark"), [("telegram", "/"), ("slack", "!")])
def test_it_names_commands_as_they_are_typed_there(platform: str, mark: str) -> None:
    said = [answer(command, platform=platform) for command in ("/help", "/start", "/prefer", "/search", "/export")]

    assert f"\n{mark}link code - " in said[0]
    names = ("help", "link", "search", "link")
    assert [f"{mark}{name}" in one for one, name in zip(said[1:], names, strict=True)] == [True] * 4
    assert not any(f"{'/!'.replace(mark, '')}{name}" in one for one, name in zip(said[1:], names, strict=True))


def test_it_repeats_what_people_said_as_they_said_it() -> None:
    say("alice", "it is in /etc/octarine", platform="slack")

    assert "in /etc/octarine" in answer("!history", platform="slack")
    assert "in /etc/octarine" in answer("!search octarine", platform="slack")
