"""The playground as a newcomer meets it: the story, a message typed with the keyboard, a code that is copied."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, Route, expect

from tests.browser.test_every_page import AXE, problems_at
from tests.browser.visitor import PICTURES, Visitor, eventually_in
from tests.journeys.test_own_platform import ADDED
from tests.journeys.test_playground import NO_TOKENS

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def settings_of_site() -> dict[str, str]:
    """Notes has no style of its own. The agent takes its time with a snail."""
    agent = {"BOTOS_AGENT": "tests.journeys.agents.Spelling"}
    return {"arguments": "--playground", "up": "telegram discord slack notes", **NO_TOKENS, **ADDED, **agent}


@pytest.fixture
def page(visitor: Visitor) -> Page:
    visitor.context.grant_permissions(["clipboard-read", "clipboard-write"])
    visitor.page.clock.install()  # the newcomer's, so that the tests need not take their time
    visitor.page.goto("/playground/")
    return visitor.page


def write(page: Page, platform: str, text: str) -> None:
    """With the keyboard alone."""
    page.focus(f"#{platform} input[name=text]")
    page.keyboard.type(text)
    page.keyboard.press("Enter")


def test_it_tells_the_story_at_the_newcomers_pace(page: Page) -> None:
    page.get_by_role("button", name="Play the story").click()
    expect(page.locator("#caption")).to_contain_text("Step 1 of 11")
    expect(page.locator("#telegram")).to_have_class(re.compile(r"\bnow\b"))
    expect(page.locator("#window")).to_contain_text("octarine")
    page.clock.fast_forward(8_000)
    expect(page.locator("#caption")).to_contain_text("Step 2 of 11")  # by itself

    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_role("button", name="Continue")).to_be_visible()
    told = page.inner_text("#caption b")
    for _ in range(3):
        with page.expect_response(re.compile("/playground/")):
            page.clock.fast_forward(20_000)
    assert page.inner_text("#caption b") == told

    for step in range(3, 12):
        page.get_by_role("button", name="Next").click()
        expect(page.locator("#caption")).to_contain_text(f"Step {step} of 11")
    expect(page.locator("#slack-lines li.bot").last).to_contain_text("Octarine.")
    expect(page.locator("#state")).to_have_text("Alice has linked Telegram, Discord, Slack.")
    expect(page.locator("#window li").first.locator(".badge")).to_have_text("Telegram")

    page.get_by_role("button", name="Start over").click()
    expect(page.locator(".pane .lines li.bot")).to_have_count(0)


def test_it_is_used_with_the_keyboard_and_copies_codes(page: Page) -> None:
    write(page, "telegram", "/link")
    code = page.locator("#telegram-lines .copy")
    code.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#state")).to_contain_text("Copied")

    page.get_by_role("link", name="as Mallory").click()
    page.focus("#discord input[name=text]")
    page.keyboard.press("Control+V")
    page.keyboard.press("Enter")
    expect(page.locator("#discord-lines li.bot")).to_contain_text('Telegram account "Alice"')
    number = page.locator("#discord-lines .copy").inner_text()
    write(page, "discord", number)  # whoever stole the code cannot finish on the wrong side
    expect(page.locator("#discord-lines li.bot").last).to_contain_text("Type this in your other app")

    page.get_by_role("link", name="as Alice").click()
    page.get_by_role("button", name="Not me").click()
    expect(page.locator("#telegram-lines li.bot").last).to_contain_text("Nothing was linked")


def test_messages_that_are_sent_quickly_arrive_in_their_order(page: Page) -> None:
    """The second one waits in the page until the first one has arrived."""
    posted: list[Route] = []
    page.route("**/playground/say/", lambda route: posted.append(route))  # noqa: PLW0108 - it sets an attribute
    for text in ("First.", "Second."):
        write(page, "slack", text)
    eventually_in(page, lambda: bool(posted))
    for _ in range(3):
        page.evaluate("new Promise(requestAnimationFrame)")
    assert len(posted) == 1

    posted[0].continue_()
    eventually_in(page, lambda: len(posted) == 2)
    posted[1].continue_()

    expect(page.locator("#slack-lines li.me p").last).to_have_text("Second.")


@pytest.mark.parametrize("platform", ["telegram", "discord"])
def test_it_shows_the_typing_sign_until_the_answer(page: Page, platform: str) -> None:
    write(page, platform, "My favourite colour is octarine.")
    said = page.locator(f"#{platform}-lines li.bot")
    expect(said.last).to_contain_text("Got it!")
    expect(page.locator(".typing i")).to_have_count(0)
    before = said.count()

    write(page, platform, "My snail is Tom.")
    expect(page.locator(f"#{platform}-typing")).to_have_text("BotOS is typing")
    expect(page.locator(".typing i")).to_have_count(1)
    if PICTURES:
        page.screenshot(path=f"{PICTURES}/playground-typing-{platform}.png", full_page=True)
    expect(said).to_have_count(before + 1)
    expect(page.locator(".typing i")).to_have_count(0)


ENDS = """() => {
    const ends = {};
    for (const pane of document.querySelectorAll(".pane")) {
        const { top, right } = pane.getBoundingClientRect();
        ends[Math.round(top)] = Math.round(right);  // of the last in its row
    }
    return [Object.values(ends), Math.round(document.querySelector(".story").getBoundingClientRect().right)];
}"""


def test_a_platform_without_a_style_of_its_own_can_be_read(page: Page) -> None:
    write(page, "notes", "My favourite colour is octarine.")
    expect(page.locator("#notes-lines li.bot").last).to_contain_text("Got it!")
    page.get_by_role("link", name="Notes").click()
    expect(page.locator("#window .badge.notes").first).to_have_text("Notes")
    page.evaluate(AXE)

    for scheme in ("light", "dark"):
        for width in (360, 800, 1200, 1536):
            assert problems_at(page, width, scheme, ["color-contrast"]) == []
            ends, edge = page.evaluate(ENDS)
            assert set(ends) == {edge}, f"a row of panes is not full at {width}"


def test_the_pane_of_the_bot_tells_the_speakers_apart(page: Page) -> None:
    write(page, "notes", "hello")
    colours = [page.locator(f"#notes-lines .{who} .who").first for who in ("me", "bot")]
    mine, bots = [one.evaluate("one => getComputedStyle(one).color") for one in colours]

    assert mine != bots
