"""A platform that BOTOS_PLATFORMS adds, from its folder to the answer."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.fakes.notes import NotesUnderTest
from tests.journeys.running import Bots, Platforms, environment, eventually, running
from tests.journeys.test_playground import NO_TOKENS, browser_of, chat, token_in

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


def test_the_playground_shows_it(platforms: Platforms) -> None:
    settings = {"up": "telegram discord slack notes", **NO_TOKENS, **ADDED}
    with running(platforms, "--playground", "--web", "127.0.0.1:0", **settings) as bots:
        browser = browser_of(bots)
        page = browser.get("/playground/")
        words = {"as": "Alice", "csrfmiddlewaretoken": token_in(page)}
        titles = re.findall(r'<h2 id="\w+-title">(\w+) <span>', page)
        assert titles == ["Telegram", "Discord", "Slack", "Notes"]

        browser.status("/playground/say/", platform="notes", text="My favourite colour is octarine.", **words)
        eventually(lambda: any(text.startswith("Got it!") for text in chat(browser, "notes")))
        browser.status("/playground/say/", platform="notes", text="What's my favourite colour?", **words)
        eventually(lambda: chat(browser, "notes")[-1] == "Octarine.")
        pressed = {"platform": "notes", "pressed": "note-0 /cancel"}
        assert browser.status("/playground/press/", **pressed, **words) == 400  # Notes has no buttons
        assert '<span class="badge notes">Notes</span>' in browser.get("/playground/")  # where Alice wrote last

        assert browser.status("/playground/story/", act="begin", **words) == 200
        assert chat(browser, "notes") == []
        assert [browser.status("/playground/story/", act="next", **words) for _ in range(10)] == [200] * 10
        eventually(lambda: chat(browser, "slack")[-1] == "Octarine.")
        assert "Alice has linked Telegram, Discord, Slack." in browser.get("/playground/")
