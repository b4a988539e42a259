"""Linking that begins in a browser: a real one, against a real process with the platforms' SDKs."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser.visitor import (
    CODE,
    HASTE,
    NUMBER,
    Visitor,
    another_number,
    code_in,
    let_pass,
    notice,
    number_in,
    press,
)

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def settings_of_site() -> dict[str, str]:
    return {"BOTOS_PAIRING": HASTE}


def test_it_links_two_apps_from_a_page(visitor: Visitor) -> None:
    page = visitor.page
    page.goto("/")
    visitor.look("home")
    page.get_by_role("main").get_by_role("button", name="Link my accounts").click()
    visitor.look("pair-begin")
    for platform in ("telegram", "discord"):
        code = visitor.begin()
        visitor.look(f"pair-code-{platform}")
        number = number_in(visitor.phone.send(platform, code, NUMBER))
        expect(page.locator("#number")).to_be_visible()
        visitor.look(f"pair-number-{platform}")
        visitor.type_number(number)
        expect(page.locator(f".cards .badge.{platform}")).to_be_visible()
    visitor.look("pair-two")
    page.get_by_role("button", name="Link these two").click()
    expect(notice(page)).to_contain_text("Linked.")
    visitor.look("pair-linked")
    expect(page.locator(".cards li", has_text="Shares one conversation with")).to_have_count(2)
    visitor.phone.send("discord", "/accounts", "These accounts share one conversation")

    page.get_by_role("button", name="Undo").click()

    expect(notice(page)).to_contain_text("Undone.")
    expect(page.locator(".cards")).to_have_count(0)
    visitor.phone.send("discord", "/accounts", "isn't linked to any other")


def enter_code(page: Page, code: str) -> None:
    page.goto("/pair/")
    page.get_by_text("I have a code").click()
    page.get_by_label("Code", exact=True).fill(code)
    page.get_by_role("button", name="Continue").click()


def test_it_signs_in_with_a_code_that_a_chat_was_given(visitor: Visitor) -> None:
    enter_code(visitor.page, code_in(visitor.phone.send("telegram", "/link", CODE)))
    expect(visitor.page.locator("#step")).to_have_text("Step 2: type this number in the chat")
    expect(visitor.page.locator("section")).to_contain_text('Telegram account "Bob"')
    visitor.look("pair-show")

    visitor.phone.send("telegram", visitor.page.inner_text("#code"), "can now read and write here")

    expect(visitor.page.locator(".cards .badge.telegram")).to_be_visible()  # by itself
    visitor.page.get_by_role("link", name="My page").click()
    expect(visitor.page.locator(".cards li")).to_contain_text('Telegram account "Bob"')


def same_as_anew(visitor: Visitor) -> None:
    """What stands here is what a page would show that is opened now."""
    fresh = visitor.tab("/pair/")
    expect(visitor.page.locator("#now")).to_have_attribute("data-version", str(version(fresh)))
    assert visitor.page.locator("#now #step").all_inner_texts() == fresh.locator("#now #step").all_inner_texts()
    assert visitor.page.locator("#code").all_inner_texts() == fresh.locator("#code").all_inner_texts()
    fresh.close()


def version(page: Page) -> str | None:
    return page.locator("#now").get_attribute("data-version")


def test_the_back_button_shows_nothing_old_and_does_nothing_again(visitor: Visitor) -> None:
    page = visitor.page
    page.goto("/")
    page.goto("/pair/")
    code = visitor.begin()
    page.go_back()
    if page.url.endswith("/pair/"):
        same_as_anew(visitor)
    page.goto("/pair/")
    assert page.inner_text("#code") == code
    number = number_in(visitor.phone.send("telegram", code, NUMBER))
    expect(page.locator("#number")).to_be_visible()
    visitor.type_number(another_number(number))
    expect(notice(page, "error")).to_contain_text("2 tries left")
    page.go_back()
    same_as_anew(visitor)
    assert "2 tries left" in page.inner_text("section")  # no try was used up
    visitor.type_number(number)
    expect(page.locator(".cards .badge.telegram")).to_be_visible()
    page.go_back()
    same_as_anew(visitor)
    assert page.locator("#number").count() == 0

    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="One conversation")).to_be_visible()
    page.go_back()
    expect(page.locator("main")).not_to_contain_text("Bob")
    expect(page.locator(".cards .badge.telegram")).to_have_count(0)


def test_a_code_runs_out_before_ones_eyes(visitor: Visitor) -> None:
    visitor.page.goto("/pair/")
    code = visitor.begin()
    let_pass(596)
    visitor.page.reload()

    expect(visitor.page.locator(".notice")).to_have_text("The last code has expired. Nothing was linked.")

    assert visitor.page.get_by_role("button", name="Show me a code").is_visible()
    visitor.phone.send("telegram", code, r"^That code doesn't work\. Codes work once, for 10 minutes\.")
    visitor.look("pair-expired")


def test_three_wrong_numbers_end_it(visitor: Visitor) -> None:
    visitor.page.goto("/pair/")
    number = number_in(visitor.phone.send("telegram", visitor.begin(), NUMBER))
    expect(visitor.page.locator("#number")).to_be_visible()
    storage = visitor.context.storage_state()
    left = visitor.tab("/pair/", context=visitor.another_browser(java_script_enabled=False, storage_state=storage))

    for told in ("2 tries left.", "1 try left."):
        visitor.type_number(another_number(number))
        expect(notice(visitor.page, "error")).to_have_text(f"That's not the right number. {told}")
        visitor.look(f"pair-wrong-{told[0]}")
    visitor.type_number(another_number(number))

    expect(notice(visitor.page, "error")).to_have_text(
        "Too many wrong numbers, so nothing was linked. You need a new code."
    )
    assert visitor.page.locator("#number").count() == 0
    visitor.look("pair-locked")
    left.fill("#number", number)  # the right one, in a tab that was left open
    left.get_by_role("button", name="Continue").click()
    expect(left.locator("main")).to_contain_text("Nothing was changed")
    expect(left.locator(".cards")).to_have_count(0)


def test_whoever_guesses_codes_is_locked_out(visitor: Visitor) -> None:
    code = code_in(visitor.phone.send("telegram", "/link", CODE))
    for _ in range(5):
        enter_code(visitor.page, "BBBB-BBBB")
        expect(notice(visitor.page, "error")).to_contain_text("That code doesn't work.")

    enter_code(visitor.page, code)  # the right one

    expect(notice(visitor.page, "error")).to_have_text("You've tried too often. Try again in 15 minutes.")
    visitor.look("pair-guessed")
    let_pass(901)
    enter_code(visitor.page, code_in(visitor.phone.send("telegram", "/link", CODE)))
    expect(visitor.page.locator("#step")).to_have_text("Step 2: type this number in the chat")


def test_two_tabs_go_through_it_together(visitor: Visitor) -> None:
    one = visitor.page
    one.goto("/pair/")
    other = visitor.tab("/pair/")
    code = visitor.begin()
    expect(other.locator("#code")).to_have_text(code)

    number = number_in(visitor.phone.send("telegram", code, NUMBER))
    for tab in (one, other):
        expect(tab.locator("#number")).to_be_visible()
    other.fill("#number", number)
    other.get_by_role("button", name="Continue").click()

    for tab in (other, one):
        expect(tab.locator(".cards .badge.telegram")).to_have_count(1)
        expect(tab.locator("#number")).to_have_count(0)
        expect(tab.locator("#live-state")).to_have_text("This page updates automatically.")
    assert version(one) == version(other)
    visitor.begin()
    expect(other.locator("#code")).to_have_text(one.inner_text("#code"))
    one.get_by_role("button", name="Cancel").click()
    expect(other.locator("#now .notice")).to_have_text("Cancelled. Nothing was linked.")


def test_it_is_used_with_a_keyboard_alone(visitor: Visitor) -> None:
    page = visitor.page
    page.goto("/")
    press(page, "Link my accounts")
    page.wait_for_url("**/pair/")
    for platform in ("telegram", "discord"):
        press(page, "Show me a code")
        number = number_in(visitor.phone.send(platform, page.inner_text("#code"), NUMBER))
        expect(page.locator("#number")).to_be_visible()
        press(page, "Number", key=number[0])
        page.keyboard.type(number[1:])
        page.keyboard.press("Enter")
        expect(page.locator(f".cards .badge.{platform}")).to_be_visible()
    press(page, "Link these two")
    expect(notice(page)).to_contain_text("Linked.")
    press(page, "My page")
    page.wait_for_url("**/me/")
    press(page, "Search your messages", key="b")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_contain_text("messages contain these words")
    press(page, "← My page")
    page.wait_for_url(re.compile(r"/me/\?as="))
    press(page, "Unlink Discord")
    expect(notice(page)).to_contain_text("no longer linked")
    press(page, "Sign out")
    page.wait_for_url(f"{visitor.base}/")


def test_it_works_without_scripts(visitor: Visitor) -> None:
    visitor.page = page = visitor.tab("/pair/", context=visitor.another_browser(java_script_enabled=False))
    assert "Without scripts, this page doesn't update automatically" in page.inner_text("#live-state")
    for platform in ("telegram", "discord"):
        number = number_in(visitor.phone.send(platform, visitor.begin(), NUMBER))
        page.reload()
        visitor.look(f"pair-plain-{platform}")
        visitor.type_number(number)
        expect(page.locator(f".cards .badge.{platform}")).to_be_visible()
    page.get_by_role("button", name="Link these two").click()
    expect(notice(page)).to_contain_text("Linked.")

    page.get_by_role("link", name="My page").click()
    visitor.phone.send("telegram", "My favourite colour is octarine.", "Got it!")
    page.reload()
    expect(page.locator(".talk .words").last).to_contain_text("Got it!")
    visitor.look("me-plain")
    page.get_by_role("button", name="Unlink Discord").click()
    expect(notice(page)).to_contain_text("no longer linked")
