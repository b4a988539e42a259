"""Commands beside a turn that runs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sessions_app.models import HistoryEntry, InboundEvent
from tests.journeys.chats import Chat
from tests.journeys.running import PLATFORMS, Platforms, eventually, running

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.journey]


@pytest.mark.parametrize("platform", PLATFORMS)
def test_it_answers_what_only_reads_while_the_agent_works(platforms: Platforms, tmp_path: Path, platform: str) -> None:
    alice, gate = Chat(platforms, platform), tmp_path / "gate"
    os.mkfifo(gate)
    settings = {"BOTOS_AGENT": "tests.journeys.agents.UntilTold", "SNAIL_GATE": str(gate)}
    with running(platforms, "--platforms", platform, up=platform, BOTOS_PRIVACY_NOTICE="off", **settings):
        assert alice.asks("My colour is octarine.") == "You said: My colour is octarine."
        alice.says("Ask a snail.")
        eventually(lambda: InboundEvent.objects.filter(text="Ask a snail.", starts=1).exists())

        assert alice.asks("/help").startswith("Write to me and I'll answer.")
        assert alice.asks("/whoami").startswith('You are "Alice"')
        assert "You: My colour is octarine." in alice.asks("/history")
        assert "My colour is octarine." in alice.asks("/search octarine")
        alice.says("/new")
        assert not InboundEvent.objects.get(text="Ask a snail.").done_at

        gate.write_text("go")
        assert alice.hears() == "You said: Ask a snail."
        assert alice.hears().startswith("A new conversation starts here, ")

    said = HistoryEntry.objects.filter(role="user").order_by("id").values_list("text", flat=True)
    assert list(said) == ["My colour is octarine.", "Ask a snail."]
