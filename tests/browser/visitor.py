"""A visitor of the pages: a browser with any number of tabs, and a phone with the three apps."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import monotonic
from typing import Any

from django.db import connections
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Locator, Page, WebSocket, expect

from tests.identity import pairs
from tests.journeys.running import PATIENCE, Bots, Platforms, eventually, person

PICTURES = os.environ.get("BROWSER_PICTURES", "")  # a folder for pictures of the pages, to be looked at
# The pauses of pairing are for people; tests of them are in tests/identity.
HASTE = "start_pause_seconds=0 starts_an_hour=20 address_starts_an_hour=1000"
NUMBER = r"\d{3} \d{3}"
CODE = r"\b[A-Z]{4}-[A-Z]{4}\b"

_people = itertools.count(1)


@dataclass(frozen=True)
class Site:
    """A running BotOS, its address, and what was put there before."""

    platforms: Platforms
    base: str
    furnished: Any


def address_of(bots: Bots) -> str:
    found = re.search(r"http://127\.0\.0\.1:\d+", bots.wait_for_line(r"http://127\.0\.0\.1:\d+/"))
    assert found
    return found[0]


class Phone:
    """The apps of Bob, who is somebody else each time."""

    def __init__(self, platforms: Platforms) -> None:
        self._platforms, self._number = platforms, next(_people)

    def said(self, platform: str) -> list[str]:
        """By the bot to Bob."""
        return self._platforms.replies(platform, person(platform, self._number, "Bob"), 0)

    def send(self, platform: str, text: str, answer: str, *, group: str = "") -> str:
        """The first message of the bot after `text` that matches the pattern `answer`.

        The pattern is required: a notice of something else may come before the answer.
        """
        bob = person(platform, self._number, "Bob")
        place = {"group": group, "mention": True} if group else {}
        chat = group or self._platforms.servers[platform].private_chat(bob)
        before = len(self._platforms.replies_in(platform, chat, 0))
        self._platforms.say(platform, bob, text, **place)

        def told() -> list[str]:
            return self._platforms.replies_in(platform, chat, 0)[before:]

        matching = re.compile(answer).search
        return str(eventually(lambda: next(filter(matching, told()), None), lambda: f"{told()} has no {answer!r}"))

    def wait_for(self, platform: str, pattern: str) -> str:
        """What the bot says of its own accord, as far as it matches, the last time that it does."""
        return str(eventually(lambda: re.findall(pattern, "\n".join(self.said(platform)))[-1:])[0])


class Visitor:
    def __init__(self, browser: Browser, site: Site) -> None:
        self.browser, self.base, self.phone = browser, site.base, Phone(site.platforms)
        self.complaints: list[str] = []
        self.expected = "(nothing)"  # a part of what the browser may say: of a plug that the test itself pulls
        self._contexts: list[BrowserContext] = []
        self.context = self.another_browser()
        self.page = self.tab()

    def close(self) -> None:
        for context in self._contexts:
            context.close()

    def another_browser(self, **how: Any) -> BrowserContext:
        """Without reduced motion colours would fade in while a picture is taken."""
        size: Any = {"width": 1200, "height": 900}
        made = self.browser.new_context(viewport=size, reduced_motion="reduce", base_url=self.base, **how)
        made.set_default_timeout(PATIENCE * 1000)
        self._contexts.append(made)
        return made

    def tab(self, path: str = "", *, context: BrowserContext | None = None) -> Page:
        """Another one of the same browser, with that page."""
        tab = (context or self.context).new_page()
        tab.on("console", self._note)
        tab.on("pageerror", lambda error: self.complaints.append(str(error)))
        if path:
            tab.goto(path)
        return tab

    def _note(self, message: ConsoleMessage) -> None:
        if message.type == "error" and self.expected not in message.text:
            self.complaints.append(message.text)

    def look(self, name: str, page: Page | None = None) -> None:
        """Nothing may stick out at the side. Pictures of both widths, light and dark, where they are asked for."""
        page = page or self.page
        for width in (360, 1200):
            page.set_viewport_size({"width": width, "height": 900})
            for scheme in ("dark", "light") if PICTURES else ():
                page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
                page.screenshot(path=f"{PICTURES}/{name}-{width}-{scheme}.png", full_page=True)
            assert page.evaluate("document.documentElement.scrollWidth") <= width

    def begin(self) -> str:
        """A code."""
        self.page.get_by_role("button", name="Show me a code").click()
        return self.page.inner_text("#code")

    def type_number(self, number: str) -> None:
        self.page.fill("#number", number)
        self.page.get_by_role("button", name="Continue").click()

    def attach(self, platform: str) -> None:
        """A whole handshake, begun on the page for linking."""
        self.page.goto("/pair/")
        answer = self.phone.send(platform, self.begin(), NUMBER)
        expect(self.page.locator("#number")).to_be_visible()  # the page has seen the claim by itself
        self.type_number(number_in(answer))
        expect(self.page.locator(f".cards .badge.{platform}")).to_be_visible()

    def link_two(self) -> None:
        for platform in ("telegram", "discord"):
            self.attach(platform)
        self.page.get_by_role("button", name="Link these two").click()
        expect(notice(self.page)).to_contain_text("Linked.")


def notice(page: Page, tone: str = "success") -> Locator:
    return page.locator(f".notice.{tone}")


def number_in(text: str) -> str:
    [number] = re.findall(NUMBER, text)
    return str(number)


def another_number(number: str) -> str:
    return "000 000" if number != "000 000" else "111 111"


def let_pass(seconds: float) -> None:
    """As if that much time had passed, for everything that is stored. Not in this thread (see conftest)."""

    def work() -> None:
        try:
            pairs.everything_later(seconds)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(work).result()


def code_in(text: str) -> str:
    [code] = re.findall(CODE, text)
    return str(code)


FOCUSED = """() => {
    const one = document.activeElement;
    return one.getAttribute('aria-label') || one.labels?.[0]?.textContent || one.textContent.trim() || one.tagName;
}"""


def press(page: Page, name: str, key: str = "Enter") -> None:
    """Go to a control by its name with the keyboard alone, and press a key there."""
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate(FOCUSED).startswith(name):
            page.keyboard.press(key)
            return
    raise AssertionError(f"no Tab leads to {name!r}")


class Ear:
    """What a tab hears over its sockets."""

    def __init__(self, tab: Page) -> None:
        self.heard: list[str] = []
        self.sockets: list[WebSocket] = []
        tab.on("websocket", self._listen)

    def _listen(self, socket: WebSocket) -> None:
        self.sockets.append(socket)
        socket.on("framereceived", lambda frame: self.heard.append(str(frame)))

    def heard_of(self, kind: str) -> bool:
        return any(f'"{kind}"' in one for one in self.heard)


def eventually_in(page: Page, holds: Callable[[], bool]) -> None:
    """Wait for what the browser tells, which it does only while something is asked of it."""
    deadline = monotonic() + PATIENCE
    while not holds():
        assert monotonic() < deadline, "it never happened"
        page.evaluate("new Promise(requestAnimationFrame)")
