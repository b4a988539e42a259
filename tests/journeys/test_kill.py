"""A power cut right after a platform was told "received": the answer comes after the restart, once."""

from __future__ import annotations

import pytest

from sessions_app.models import HistoryEntry, InboundEvent, OutboundDelivery
from tests.journeys.running import PLATFORMS, TO_BE_KILLED, Platforms, eventually, person, running

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.journey]

SLOW = {"BOTOS_AGENT": "tests.journeys.agents.SlowEcho", **TO_BE_KILLED}


@pytest.mark.parametrize("platform", PLATFORMS)
def test_it_answers_once_after_a_kill(platforms: Platforms, platform: str) -> None:
    alice, server = person(platform, 1), platforms.servers[platform]
    with running(platforms, **SLOW) as bots:
        message_id = platforms.say(platform, alice, "hello")
        platforms.do(server.acknowledged(message_id))
        eventually(InboundEvent.objects.exists)  # Discord has no acknowledgement; elsewhere it is there already
        bots.kill()
        assert not HistoryEntry.objects.exists()  # the turn was cut short

    with running(platforms, **SLOW) as bots:
        platforms.replies(platform, alice)
        eventually(lambda: not OutboundDelivery.objects.filter(settled_at=None).exists())
        bots.terminate()

    assert platforms.replies(platform, alice) == ["You said: hello"]
    said = HistoryEntry.objects.order_by("id").values_list("role", "text")
    assert list(said) == [("user", "hello"), ("assistant", "You said: hello")]


def test_it_stores_before_it_acknowledges(platforms: Platforms) -> None:
    for platform in ("telegram", "slack"):
        with running(platforms, **SLOW) as bots:
            message_id = platforms.say(platform, person(platform, 1), "hello")
            platforms.do(platforms.servers[platform].acknowledged(message_id))
            assert InboundEvent.objects.filter(platform=platform).exists()
            bots.kill()
