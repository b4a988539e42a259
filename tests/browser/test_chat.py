"""Talking in the browser: a real one, against a real process with the platforms' SDKs."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser.visitor import HASTE, Visitor

pytestmark = pytest.mark.browser

TOLD, ASKED = "My favourite colour is octarine.", "What's my favourite colour?"
OFFLINE = "ERR_INTERNET_DISCONNECTED"  # what the browser itself says when the test pulls the plug


@pytest.fixture(scope="module")
def settings_of_site() -> dict[str, str]:
    return {"BOTOS_PAIRING": HASTE, "BOTOS_AGENT": "tests.journeys.agents.Spelling"}


def open_chat(visitor: Visitor, page: Page | None = None) -> None:
    page = page or visitor.page
    page.goto("/chat/")
    expect(page.locator("#chat-state")).to_have_text("Answers appear automatically.")


def write(page: Page, text: str) -> None:
    page.fill("#text", text)
    page.get_by_role("button", name="Send").click()


def words(page: Page) -> list[str]:
    return [text.strip() for text in page.locator("#lines .words").all_inner_texts()]


def expect_last(page: Page, text: str | re.Pattern[str]) -> None:
    expect(page.locator("#lines li").last.locator(".words")).to_have_text(text)


def test_it_knows_in_the_browser_what_it_was_told_in_an_app(visitor: Visitor) -> None:
    visitor.page.goto("/chat/")
    visitor.look("chat-begin")
    visitor.phone.send("telegram", TOLD, "Got it!")
    visitor.attach("telegram")
    open_chat(visitor)
    assert TOLD in words(visitor.page)
    second = visitor.tab("/chat/")

    write(visitor.page, ASKED)

    for tab in (visitor.page, second):
        expect_last(tab, "Octarine.")
        assert words(tab).count(ASKED) == 1
    expect(visitor.page.locator("#lines li").last.locator(".badge")).to_have_text("Web")
    expect(visitor.page.locator("#lines li").first.locator(".badge")).to_have_text("Telegram")
    assert words(visitor.page) == words(second)
    visitor.look("chat-open")

    # Nothing about linking is taken here.
    write(visitor.page, "BCDF-GHJK")
    expect(visitor.page.locator("#problem")).to_contain_text("That is about linking")
    expect(visitor.page.locator("#text")).to_have_value("")
    visitor.look("chat-secret")

    # With a keyboard alone.
    visitor.page.locator("#text").press_sequentially("/help")
    visitor.page.keyboard.press("Enter")
    expect_last(visitor.page, re.compile("Write to me and I'll answer"))
    visitor.page.reload()
    expect_last(visitor.page, re.compile("Write to me and I'll answer"))
    assert words(visitor.page).count(ASKED) == 1


def test_it_loses_and_repeats_nothing_when_the_connection_breaks(visitor: Visitor) -> None:
    visitor.attach("telegram")
    open_chat(visitor)
    write(visitor.page, "My cat is Tom.")
    expect(visitor.page.locator("#lines li.assistant")).not_to_have_count(0)
    answers = visitor.page.locator("#lines li.assistant").count()

    visitor.expected = OFFLINE
    visitor.context.set_offline(True)
    expect(visitor.page.locator("#chat-state")).to_have_text(re.compile("Offline"))
    write(visitor.page, "My dog is Rex.")
    expect(visitor.page.locator("#chat-state")).to_have_text(re.compile("Not sent yet"))
    visitor.look("chat-offline")
    visitor.context.set_offline(False)

    expect(visitor.page.locator("#lines li.assistant")).to_have_count(answers + 1)
    expect(visitor.page.locator("#chat-state")).to_have_text("Answers appear automatically.")
    assert words(visitor.page).count("My dog is Rex.") == 1
    before = words(visitor.page)
    visitor.page.reload()
    expect(visitor.page.locator("#chat-state")).to_have_text("Answers appear automatically.")
    assert words(visitor.page) == before


def test_it_shows_an_answer_while_it_is_made(visitor: Visitor) -> None:
    """In both tabs, one of which loses the connection meanwhile."""
    visitor.attach("telegram")
    open_chat(visitor)
    second = visitor.tab("/chat/")
    expect(second.locator("#chat-state")).to_have_text("Answers appear automatically.")
    visitor.expected = OFFLINE
    write(visitor.page, "My snail is Tom.")

    for tab in (visitor.page, second):
        expect(tab.locator("li.draft .words")).to_have_text(re.compile("^G"))
    expect(visitor.page.locator("#answering")).to_have_text("… is answering")
    visitor.look("chat-draft")
    second.reload()
    visitor.context.set_offline(True)
    expect(visitor.page.locator("#chat-state")).to_have_text(re.compile("Offline"))
    visitor.context.set_offline(False)

    for tab in (visitor.page, second):
        expect(tab.locator("li.draft")).to_have_count(0)
        expect_last(tab, re.compile("^Got it!"))
        expect(tab.locator("#answering")).to_have_text("")
        expect(tab.locator("#lines .words", has_text="Got it!")).to_have_count(1)
        assert words(tab).count("My snail is Tom.") == 1


def test_it_stops_an_answer(visitor: Visitor) -> None:
    visitor.attach("telegram")
    open_chat(visitor)
    stop = visitor.page.get_by_role("button", name="Stop")
    expect(stop).to_have_count(0)
    write(visitor.page, "My snail is Tim.")
    expect(visitor.page.locator("li.draft .words")).to_have_text(re.compile("^G"))
    visitor.look("chat-stop")

    stop.click()

    expect_last(visitor.page, "OK, I've stopped.")
    expect(visitor.page.locator("#lines .words", has_text="(stopped)")).to_have_count(1)
    expect(visitor.page.locator("li.draft")).to_have_count(0)
    expect(stop).to_have_count(0)


def test_it_closes_when_somebody_signs_out_elsewhere(visitor: Visitor) -> None:
    visitor.attach("telegram")
    open_chat(visitor)
    write(visitor.page, "hello")
    expect(visitor.page.locator("#lines li.assistant")).not_to_have_count(0)

    visitor.phone.send("telegram", "/signout", "Signed out of 1 browser")

    expect(visitor.page.locator("#say")).to_have_count(0)
    assert words(visitor.page) == []
    visitor.look("chat-signed-out")


def test_it_works_without_scripts(visitor: Visitor) -> None:
    visitor.attach("telegram")
    plain = visitor.another_browser(java_script_enabled=False, storage_state=visitor.context.storage_state())
    page = visitor.tab("/chat/", context=plain)

    write(page, TOLD)

    expect(page.locator("#lines li.user").last.locator(".words")).to_have_text(TOLD)
    for _ in range(100):
        page.get_by_role("link", name="check for answers").click()
        if "Got it!" in words(page)[-1]:
            break
    assert "Got it!" in words(page)[-1]
