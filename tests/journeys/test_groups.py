"""A group has a conversation of its own: what is said in private stays out of it, and the other way round."""

from __future__ import annotations

import pytest

from identity.resolvers import DatabaseIdentityResolver
from sessions_app.models import InboundEvent
from tests.journeys.running import PLATFORMS, Platforms, person, running

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.journey]

GROUPS = {"telegram": "-100200300", "discord": "400000000000000001", "slack": "C0GENERAL"}


@pytest.mark.parametrize("platform", PLATFORMS)
def test_it_keeps_a_group_and_a_private_chat_apart(platforms: Platforms, platform: str) -> None:
    alice, group = person(platform, 1), GROUPS[platform]
    DatabaseIdentityResolver().link(platform, alice.id, "alice")
    with running(platforms, "--platforms", platform, up=platform):
        platforms.say(platform, alice, "My favourite colour is octarine.")
        platforms.replies(platform, alice)
        platforms.say(platform, alice, "What's my favourite colour?", group=group)  # to the others, not to the bot
        platforms.say(platform, alice, "What's my favourite colour?", group=group, mention=True)
        [in_group] = platforms.replies_in(platform, group)
        platforms.say(platform, alice, "My favourite number is eight.", group=group, mention=True)
        platforms.replies_in(platform, group, 2)
        platforms.say(platform, alice, "What's my favourite number?")
        in_private = platforms.replies(platform, alice, 2)[-1]

    assert "octarine" not in in_group.lower()
    assert "eight" not in in_private.lower()
    assert InboundEvent.objects.filter(conversation__kind="group").count() == 2


@pytest.mark.parametrize("platform", PLATFORMS)
def test_an_answer_in_a_group_shows_whom_it_answers(platforms: Platforms, platform: str) -> None:
    alice, bob, group = person(platform, 1), person(platform, 2, "Bob"), GROUPS[platform]
    with running(platforms, "--platforms", platform, up=platform):
        platforms.say(platform, alice, "My favourite colour is octarine.", group=group, mention=True)
        platforms.replies_in(platform, group)
        asked = platforms.say(platform, bob, "What's my favourite colour?", group=group, mention=True)
        answer = platforms.replies_in(platform, group, 2)[-1]
        shown = platforms.servers[platform].said[-1]

    assert "You have not told me that yet." in answer  # the words before are Alice's
    if platform == "slack":  # a thread would be another conversation
        assert (answer.startswith("@Bob: "), shown.thread_id) == (True, "")
    else:
        assert shown.reply_to == asked


@pytest.mark.parametrize("platform", PLATFORMS)
def test_the_agent_knows_in_a_group_who_asks(platforms: Platforms, platform: str) -> None:
    alice, bob, group = person(platform, 1), person(platform, 2, "Bob"), GROUPS[platform]
    with running(platforms, "--platforms", platform, up=platform, BOTOS_AGENT="tests.journeys.agents.Speakers"):
        platforms.say(platform, alice, "I am allergic to nuts.", group=group, mention=True)
        assert platforms.replies_in(platform, group)[-1].endswith("Alice after nobody")
        platforms.say(platform, bob, "What may I eat?", group=group, mention=True)
        assert platforms.replies_in(platform, group, 2)[-1].endswith("Bob after Alice")
