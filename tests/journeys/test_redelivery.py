"""What a platform tells three times is said once."""

from __future__ import annotations

import pytest

from sessions_app.models import HistoryEntry
from tests.journeys.running import PLATFORMS, Platforms, person, running

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.journey]


def test_it_gives_one_history_pair_for_a_message_told_three_times(platforms: Platforms) -> None:
    with running(platforms, BOTOS_AGENT="tests.journeys.agents.SlowEcho"):
        for platform in PLATFORMS:
            alice, server = person(platform, 1), platforms.servers[platform]
            message_id = platforms.say(platform, alice, "one")
            platforms.do(server.redeliver(message_id))
            platforms.replies(platform, alice)
            platforms.do(server.redeliver(message_id))
            platforms.say(platform, alice, "two")  # is heard after the redelivery
            assert platforms.replies(platform, alice, 2) == ["You said: one", "You said: two"]

    for platform in PLATFORMS:
        said = HistoryEntry.objects.filter(platform=platform).order_by("said_at", "id").values_list("text", flat=True)
        assert list(said) == ["one", "You said: one", "two", "You said: two"]
