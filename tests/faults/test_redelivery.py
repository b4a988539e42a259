"""R-04: every message is told three times: by polling, socket and gateway, by webhook, and by a history."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Sequence

import pytest

from tests.faults.fault_cluster import FaultCluster
from tests.faults.judge import Message
from tests.journeys.webhooks import SECRET, Pages, free_port

pytestmark = pytest.mark.faults


def test_it_keeps_one_of_each_message_that_is_told_three_times(place: FaultCluster) -> None:
    load = place.people(30, 600, linked=6, copies=2, again=0.0)
    place.start()
    place.population.do(load.run(), 300)
    place.quiet()

    verdict = place.verdict("R-04 told 3 times")
    assert verdict.is_clean, verdict
    assert not verdict.missed


BACK = "UPDATE sessions_app_watermark SET position = 0"


def test_it_keeps_one_of_each_message_that_comes_by_polling_webhook_and_backfill(place: FaultCluster) -> None:
    """Processes that poll and have sockets, and beside them pages that are called with the same; then all marks of
    private chats are put back, so that new processes read everything in the histories again.
    """
    load = place.people(15, 150, linked=3, copies=1, again=0.0)
    place.start(BOTOS_RECEIVER_LEASE_SECONDS="30")  # nobody stands by, and reading all histories at once is work
    caller = Beside(place)
    try:
        place.population.do(load.run(), 300)
        caller.call_with(load.said)
    finally:
        caller.close()
    place.database.execute(BACK)
    for number in range(len(place.fleet.processes)):
        place.fleet.processes[number].terminate()
        place.fleet.replace(number)
    place.quiet()

    verdict = place.verdict("R-04 polling, webhook, backfill")
    assert verdict.is_clean, verdict
    assert not verdict.missed
    assert set(caller.statuses) == {200}


class Beside:
    """A process of pages, which is called with what the bots hear in another way."""

    def __init__(self, place: FaultCluster) -> None:
        self.statuses: list[int] = []
        self._town = place.population
        self._port = free_port()
        where = {"BOTOS_PUBLIC_URL": self._url(""), "BOTOS_TELEGRAM_TRANSPORT": "webhook"}
        secrets = {"TELEGRAM_WEBHOOK_SECRET": SECRET, "BOTOS_SLACK_TRANSPORT": "http"}
        self._pages = Pages(self._port, **place.environment() | where | secrets)

    def _url(self, path: str) -> str:
        return f"http://127.0.0.1:{self._port}{path}"

    def call_with(self, said: Sequence[Message]) -> None:
        """Tell of every message, on Telegram and Slack."""
        for message in said:
            if message.platform == "telegram":
                update = self._town.telegram.api.updates.update_of[message.id]
                self._post("telegram", json.dumps(update), {"X-Telegram-Bot-Api-Secret-Token": SECRET})
            elif message.platform == "slack":
                body = json.dumps(self._town.slack._told[message.id][0])
                self._post("slack", body, self._town.slack.http.signed(body, "application/json"))

    def _post(self, platform: str, body: str, headers: dict[str, str]) -> None:
        about = {"Content-Type": "application/json", **headers}
        call = urllib.request.Request(self._url(f"/hooks/{platform}"), body.encode(), about)
        with urllib.request.urlopen(call, timeout=30) as answer:
            self.statuses.append(answer.status)

    def close(self) -> None:
        self._pages.terminate()
