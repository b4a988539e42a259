"""The scene that BotOS is made for: told on one platform, known on another."""

from __future__ import annotations

from itertools import permutations

import pytest

from adapters.playground.server import Person
from identity.resolvers import DatabaseIdentityResolver
from tests.journeys.running import PLATFORMS, Platforms, person, running

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.journey]

TOLD = "My favourite colour is octarine."
ASKED = "What's my favourite colour?"


class Scene:
    """One person for each ordered pair of platforms: who tells on the first and asks on the second."""

    def __init__(self, platforms: Platforms) -> None:
        self._platforms = platforms
        self.pairs = list(permutations(PLATFORMS, 2))
        for number, pair in enumerate(self.pairs):
            for platform in pair:
                DatabaseIdentityResolver().link(platform, self.account(number, platform).id, f"alice-{number}")

    def account(self, number: int, platform: str) -> Person:
        return person(platform, number)

    def tell(self) -> None:
        for number, (first, _) in enumerate(self.pairs):
            self._platforms.say(first, self.account(number, first), TOLD)
        for number, (first, _) in enumerate(self.pairs):
            [reply] = self._platforms.replies(first, self.account(number, first))
            assert reply.startswith("Got it!")

    def ask(self) -> list[list[str]]:
        for number, (_, second) in enumerate(self.pairs):
            self._platforms.say(second, self.account(number, second), ASKED)
        return [
            self._platforms.replies(second, self.account(number, second))
            for number, (_, second) in enumerate(self.pairs)
        ]


def test_it_knows_on_each_platform_what_it_was_told_on_each_other(platforms: Platforms) -> None:
    scene = Scene(platforms)

    with running(platforms):
        scene.tell()
        answers = scene.ask()

    assert answers == [["Octarine."]] * 6


def test_it_still_knows_after_a_restart(platforms: Platforms) -> None:
    scene = Scene(platforms)

    with running(platforms):
        scene.tell()
    with running(platforms):
        answers = scene.ask()

    assert answers == [["Octarine."]] * 6


def test_it_knows_with_each_adapter_in_a_process_of_its_own(platforms: Platforms) -> None:
    scene = Scene(platforms)

    with (
        running(platforms, "--platforms", "telegram", up="telegram"),
        running(platforms, "--platforms", "discord", up="discord"),
        running(platforms, "--platforms", "slack", up="slack"),
    ):
        scene.tell()
        answers = scene.ask()

    assert answers == [["Octarine."]] * 6


def test_it_tells_a_stranger_nothing(platforms: Platforms) -> None:
    alice, mallory = person("telegram", 1), person("discord", 1, "Mallory")

    with running(platforms):
        platforms.say("telegram", alice, TOLD)
        platforms.replies("telegram", alice)
        platforms.say("discord", mallory, ASKED)
        [answer] = platforms.replies("discord", mallory)

    assert "octarine" not in answer.lower()
