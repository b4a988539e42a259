"""A platform that BOTOS_PLATFORMS adds, from its folder to the answer."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fakes.notes import NotesUnderTest
from tests.journeys.running import Bots, Platforms, environment

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.journey]

ADDED = {"BOTOS_PLATFORMS": "tests.example_platform.PLATFORM"}


@pytest.fixture
def notes(platforms: Platforms) -> Iterator[NotesUnderTest]:
    notes = NotesUnderTest()
    platforms.do(notes.start())
    yield notes
    platforms.do(notes.stop())


def test_it_answers_there(platforms: Platforms, notes: NotesUnderTest) -> None:
    settings = environment(platforms) | ADDED | notes.settings()
    bots = Bots("--platforms", "notes", up=("notes",), **settings)
    try:
        platforms.do(notes.say("My favourite colour is octarine."))
        platforms.do(notes.answers(1))
        platforms.do(notes.say("!help"))
        said = platforms.do(notes.answers(2))
    finally:
        status = bots.terminate()

    assert status == 0
    assert said[0].startswith("Got it!")
    assert "!link" in said[1]
    assert "notes-s3cret" not in "".join(bots.lines)


def test_it_says_that_its_token_is_refused(platforms: Platforms, notes: NotesUnderTest) -> None:
    settings = environment(platforms) | ADDED | notes.refused_settings()
    bots = Bots("--platforms", "notes", up=(), **settings)

    assert bots.wait() == 2
    assert any("NOTES_TOKEN is refused" in line for line in bots.lines)
