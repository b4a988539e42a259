"""The first minute of a newcomer: `runbots --playground --web`, and a message typed in the page."""

from __future__ import annotations

import json
import re
from http.cookiejar import CookieJar
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, build_opener

import pytest

from tests.journeys.running import Bots, Platforms, environment, eventually, running

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.journey]


class Browser:
    """Opens pages and sends their forms, with cookies."""

    def __init__(self, base: str) -> None:
        self.base = base
        self._open = build_opener(HTTPCookieProcessor(CookieJar())).open

    def get(self, path: str) -> str:
        with self._open(self.base + path, timeout=10) as answer:
            return str(answer.read().decode())

    def status(self, path: str, **fields: str) -> int:
        """Of a GET, or of a POST if there are fields."""
        try:
            with self._open(self.base + path, urlencode(fields).encode() or None, timeout=10) as answer:
                return int(answer.status)
        except HTTPError as error:
            error.close()
            return error.code


def browser_of(bots: Bots) -> Browser:
    line = bots.wait_for_line(r"http://127\.0\.0\.1:\d+/")
    found = re.search(r"http://127\.0\.0\.1:\d+", line)
    assert found
    return Browser(found[0])


def chat(browser: Browser, platform: str) -> list[str]:
    panes = json.loads(browser.get("/playground/chats/?as=Alice"))["panes"]
    return [line["text"] for pane in panes if pane["platform"] == platform for line in pane["lines"]]


def test_it_answers_on_slack_what_was_typed_on_telegram(platforms: Platforms) -> None:
    with running(platforms, "--playground", "--web", "127.0.0.1:0") as bots:
        browser = browser_of(bots)
        page = browser.get("/playground/")
        token = re.findall(r'name="csrfmiddlewaretoken" value="([^"]+)"', page)[0]
        words = {"as": "Alice", "csrfmiddlewaretoken": token}

        assert all(browser.status(path) == 200 for path in re.findall(r'(?:href|src)="(/static/[^"]+)"', page))
        browser.status("/playground/say/", platform="telegram", text="My favourite colour is octarine.", **words)
        eventually(lambda: len(chat(browser, "telegram")) == 2)
        browser.status("/playground/say/", platform="slack", text="What's my favourite colour?", **words)
        eventually(lambda: len(chat(browser, "slack")) == 2)

        assert chat(browser, "slack")[-1] == "Octarine."


def test_it_refuses_what_is_typed_by_another_site(platforms: Platforms) -> None:
    with running(platforms, "--playground", "--web", "127.0.0.1:0") as bots:
        browser = browser_of(bots)

        status = browser.status("/playground/say/", platform="telegram", text="hello", **{"as": "Alice"})

        assert status == 403
        assert chat(browser, "telegram") == []


def test_it_has_no_playground_unless_asked_for(platforms: Platforms) -> None:
    with running(platforms, "--web", "127.0.0.1:0") as bots:
        assert browser_of(bots).status("/playground/") == 404


def test_it_keeps_the_playground_on_this_machine(platforms: Platforms) -> None:
    bots = Bots("--playground", "--web", "0.0.0.0:0", up=(), **environment(platforms))

    assert bots.wait() == 1
    assert "The playground is for this machine alone" in bots.lines[-1]
