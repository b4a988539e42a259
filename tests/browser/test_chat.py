"""Talking in the browser: a real one, against a real process with the platforms' SDKs."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser.desk import HASTE, Desk

pytestmark = pytest.mark.browser

TOLD, ASKED = "My favourite colour is octarine.", "What's my favourite colour?"
OFFLINE = "ERR_INTERNET_DISCONNECTED"  # what the browser itself says when the test pulls the plug


@pytest.fixture(scope="module")
def settings_of_site() -> dict[str, str]:
    return {"BOTOS_PAIRING": HASTE, "BOTOS_AGENT": "tests.journeys.agents.Spelling"}


def open_chat(desk: Desk, page: Page | None = None) -> None:
    page = page or desk.page
    page.goto("/chat/")
    expect(page.locator("#chat-state")).to_have_text("Answers appear automatically.")


def write(page: Page, text: str) -> None:
    page.fill("#text", text)
    page.get_by_role("button", name="Send").click()


def words(page: Page) -> list[str]:
    return [text.strip() for text in page.locator("#lines .words").all_inner_texts()]


def expect_last(page: Page, text: str | re.Pattern[str]) -> None:
    expect(page.locator("#lines li").last.locator(".words")).to_have_text(text)


def test_it_knows_in_the_browser_what_it_was_told_in_an_app(desk: Desk) -> None:
    desk.page.goto("/chat/")
    desk.look("chat-begin")
    desk.phone.send("telegram", TOLD, "Got it!")
    desk.attach("telegram")
    open_chat(desk)
    assert TOLD in words(desk.page)
    second = desk.tab("/chat/")

    write(desk.page, ASKED)

    for tab in (desk.page, second):
        expect_last(tab, "Octarine.")
        assert words(tab).count(ASKED) == 1
    expect(desk.page.locator("#lines li").last.locator(".badge")).to_have_text("Web")
    expect(desk.page.locator("#lines li").first.locator(".badge")).to_have_text("Telegram")
    assert words(desk.page) == words(second)
    desk.look("chat-open")

    # Nothing about linking is taken here.
    write(desk.page, "BCDF-GHJK")
    expect(desk.page.locator("#problem")).to_contain_text("That is about linking")
    expect(desk.page.locator("#text")).to_have_value("")
    desk.look("chat-secret")

    # With a keyboard alone.
    desk.page.locator("#text").press_sequentially("/help")
    desk.page.keyboard.press("Enter")
    expect_last(desk.page, re.compile("Write to me and I'll answer"))
    desk.page.reload()
    expect_last(desk.page, re.compile("Write to me and I'll answer"))
    assert words(desk.page).count(ASKED) == 1


def test_it_loses_and_repeats_nothing_when_the_connection_breaks(desk: Desk) -> None:
    desk.attach("telegram")
    open_chat(desk)
    write(desk.page, "My cat is Tom.")
    expect(desk.page.locator("#lines li.assistant")).not_to_have_count(0)
    answers = desk.page.locator("#lines li.assistant").count()

    desk.expected = OFFLINE
    desk.context.set_offline(True)
    expect(desk.page.locator("#chat-state")).to_have_text(re.compile("Offline"))
    write(desk.page, "My dog is Rex.")
    expect(desk.page.locator("#chat-state")).to_have_text(re.compile("Not sent yet"))
    desk.look("chat-offline")
    desk.context.set_offline(False)

    expect(desk.page.locator("#lines li.assistant")).to_have_count(answers + 1)
    expect(desk.page.locator("#chat-state")).to_have_text("Answers appear automatically.")
    assert words(desk.page).count("My dog is Rex.") == 1
    before = words(desk.page)
    desk.page.reload()
    expect(desk.page.locator("#chat-state")).to_have_text("Answers appear automatically.")
    assert words(desk.page) == before


def test_it_shows_an_answer_while_it_is_made(desk: Desk) -> None:
    """In both tabs, one of which loses the connection meanwhile."""
    desk.attach("telegram")
    open_chat(desk)
    second = desk.tab("/chat/")
    expect(second.locator("#chat-state")).to_have_text("Answers appear automatically.")
    desk.expected = OFFLINE
    write(desk.page, "My snail is Tom.")

    for tab in (desk.page, second):
        expect(tab.locator("li.draft .words")).to_have_text(re.compile("^G"))
    expect(desk.page.locator("#answering")).to_have_text("… is answering")
    desk.look("chat-draft")
    second.reload()
    desk.context.set_offline(True)
    expect(desk.page.locator("#chat-state")).to_have_text(re.compile("Offline"))
    desk.context.set_offline(False)

    for tab in (desk.page, second):
        expect(tab.locator("li.draft")).to_have_count(0)
        expect_last(tab, re.compile("^Got it!"))
        expect(tab.locator("#answering")).to_have_text("")
        expect(tab.locator("#lines .words", has_text="Got it!")).to_have_count(1)
        assert words(tab).count("My snail is Tom.") == 1


def test_it_closes_when_somebody_signs_out_elsewhere(desk: Desk) -> None:
    desk.attach("telegram")
    open_chat(desk)
    write(desk.page, "hello")
    expect(desk.page.locator("#lines li.assistant")).not_to_have_count(0)

    desk.phone.send("telegram", "/signout", "Signed out of 1 browser")

    expect(desk.page.locator("#say")).to_have_count(0)
    assert words(desk.page) == []
    desk.look("chat-signed-out")


def test_it_works_without_scripts(desk: Desk) -> None:
    desk.attach("telegram")
    plain = desk.another_browser(java_script_enabled=False, storage_state=desk.context.storage_state())
    page = desk.tab("/chat/", context=plain)

    write(page, TOLD)

    expect(page.locator("#lines li.user").last.locator(".words")).to_have_text(TOLD)
    for _ in range(100):
        page.get_by_role("link", name="check for answers").click()
        if "Got it!" in words(page)[-1]:
            break
    assert "Got it!" in words(page)[-1]
