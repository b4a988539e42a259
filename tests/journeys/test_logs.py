"""One message in the log, from receipt to delivery."""

from __future__ import annotations

import json

import pytest

from sessions_app.models import InboundEvent, OutboundDelivery
from tests.journeys.running import Platforms, eventually, person, running

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.journey]


def test_it_follows_one_message_through_the_log(platforms: Platforms) -> None:
    alice, bob = person("telegram", 1), person("telegram", 2, "Bob")
    with running(platforms, up="telegram", BOTOS_LOG_FORMAT="json") as bots:
        for who in (alice, bob):
            platforms.say("telegram", who, "My favourite colour is octarine.")
            platforms.replies("telegram", who)
        eventually(lambda: OutboundDelivery.objects.filter(status="sent").count() == 2)
        bots.terminate()

    event = InboundEvent.objects.get(account__platform_user_id=alice.id)
    lines = [json.loads(line) for line in bots.lines]
    about = [line for line in lines if line.get("event") == event.pk]
    [delivery] = event.deliveries.all()
    assert [line["message"] for line in about] == [
        f"event {event.pk}: received",
        f"event {event.pk}: answered",
        f"event {event.pk}: delivery {delivery.pk}: sent",
    ]
    assert about[-1]["delivery"] == delivery.pk
    assert "octarine" not in "".join(bots.lines)
