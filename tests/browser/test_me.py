"""My page in a real browser: read, search, export, unlink and undo, and be forgotten."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from tests.browser.visitor import CODE, HASTE, NUMBER, Ear, Visitor, code_in, eventually_in, notice, number_in

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def settings_of_site() -> dict[str, str]:
    return {"BOTOS_PAIRING": HASTE}


MOVED = """() => {
  const top = () => document.querySelector("#mine").getBoundingClientRect().top, before = top();
  document.querySelector("#live-state").textContent = "";
  return top() - before;
}"""


def test_it_shows_and_does_what_a_person_may(visitor: Visitor) -> None:
    page = visitor.page
    page.goto("/me/")
    expect(page.locator("main")).to_contain_text("verify that it's you")
    visitor.look("me-confirm")
    visitor.phone.send("telegram", "My favourite colour is octarine", "Got it")
    visitor.link_two()

    page.get_by_role("link", name="My page").click()
    expect(page.locator(".cards li")).to_have_count(2)
    expect(page.locator("#live-state")).to_have_text("This page updates automatically.")
    assert abs(page.evaluate(MOVED)) < 1  # pixel, or a click that comes with these words would miss its button
    visitor.phone.send("discord", "What is my favourite colour?", "You have not told me that yet")
    expect(page.locator(".talk .badge.discord").first).to_be_visible()  # by itself
    visitor.phone.send("telegram", "My favourite number is eight.", "Got it", group="-100200300")
    expect(page.get_by_role("link", name="What you wrote in")).to_be_visible()
    visitor.look("me")
    page.get_by_role("link", name="What you wrote in").click()
    expect(page.locator(".talk .words")).to_have_text(["My favourite number is eight."])
    visitor.look("me-group")
    page.goto("/me/")

    page.get_by_role("link", name=re.compile("All messages|Telegram account")).last.click()
    expect(page.locator(".talk .badge.telegram").first).to_be_visible()
    visitor.look("me-history")
    page.goto("/me/")

    page.get_by_label("Search your messages").fill("OCTARINE")
    page.keyboard.press("Enter")
    expect(page.locator(".talk .words").last).to_contain_text("octarine")
    visitor.look("me-search")

    page.goto("/me/")
    with page.expect_download() as download:
        page.get_by_role("button", name="Export as JSON").click()
    file = json.loads(download.value.path().read_text())
    assert "My favourite colour is octarine" in [one["text"] for one in file["entries"]]

    page.select_option("#prefer", label="on Discord")
    page.get_by_role("button", name="Save").click()
    expect(notice(page)).to_contain_text("Saved.")
    visitor.phone.send("telegram", "/prefer", "I use Discord")

    page.goto("/pair/")
    page.get_by_role("button", name="Undo").click()
    expect(notice(page)).to_contain_text("Undone.")
    visitor.link_two()
    page.goto("/me/")
    page.get_by_role("button", name="Unlink Discord").click()
    expect(notice(page)).to_contain_text("no longer linked")
    expect(page.locator(".cards li")).to_have_count(1)

    page.get_by_role("button", name="Forget me").click()
    page.get_by_role("button", name="Send a number").click()
    expect(page.locator("#number")).to_be_visible()
    visitor.look("me-forget")
    page.fill("#number", visitor.phone.wait_for("telegram", r"If you want that, type (\d{3} \d{3})"))
    page.get_by_role("button", name="Forget me permanently").click()
    expect(notice(page)).to_contain_text(re.compile("Deleted:|goes on by itself"))
    visitor.look("me-forgotten")

    visitor.phone.send("telegram", "/history", "There are no messages here yet")


def sign_out(visitor: Visitor) -> None:
    visitor.page.goto("/me/")
    visitor.page.get_by_role("button", name="Sign out", exact=True).click()


def sign_out_in_the_chat(visitor: Visitor) -> None:
    visitor.phone.send("discord", "/signout", "Signed out of 1 browser")


def unlink_in_the_other_chat(visitor: Visitor) -> None:
    visitor.phone.send("telegram", "/unlink discord", "no longer shares this conversation")


@pytest.mark.parametrize("end", [sign_out, sign_out_in_the_chat, unlink_in_the_other_chat])
def test_an_open_page_hears_nothing_more(visitor: Visitor, end: Callable[[Visitor], None]) -> None:
    code = code_in(visitor.phone.send("telegram", "/link", CODE))
    visitor.phone.send("telegram", number_in(visitor.phone.send("discord", code, NUMBER)), "Linked.")
    visitor.attach("discord")
    other = visitor.tab()
    ear = Ear(other)
    other.goto("/me/")
    expect(other.locator("#live-state")).to_have_text("This page updates automatically.")
    visitor.phone.send("discord", "My favourite colour is octarine.", "Got it!")
    expect(other.locator(".talk .words").last).to_contain_text("Got it!")
    assert ear.heard_of("messages")
    [socket] = ear.sockets

    end(visitor)

    expect(other.get_by_role("heading", name="First verify that it's you")).to_be_visible()
    assert "octarine" not in other.content()
    eventually_in(other, socket.is_closed)
    ear.heard.clear()
    visitor.phone.send("discord", "What's my favourite colour?", "ctarine")
    if end is unlink_in_the_other_chat:  # it is still a browser, and hears of what it does itself
        visitor.page.goto("/pair/")
        visitor.begin()
        eventually_in(other, lambda: ear.heard_of("pairing"))
    else:
        assert all(one.is_closed() for one in ear.sockets)
    assert not ear.heard_of("messages")
