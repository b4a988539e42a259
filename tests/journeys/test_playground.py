"""The first minute of a newcomer: `runbots --playground --web`, and a message typed in the page."""

from __future__ import annotations

import json
import re
from http.cookiejar import CookieJar
from typing import Any
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
        with self._open(self.base + path, timeout=30) as answer:
            return str(answer.read().decode())

    def status(self, path: str, **fields: str) -> int:
        """Of a GET, or of a POST if there are fields."""
        try:
            with self._open(self.base + path, urlencode(fields).encode() or None, timeout=30) as answer:
                return int(answer.status)
        except HTTPError as error:
            error.close()
            return error.code


def browser_of(bots: Bots) -> Browser:
    line = bots.wait_for_line(r"http://127\.0\.0\.1:\d+/")
    found = re.search(r"http://127\.0\.0\.1:\d+", line)
    assert found
    return Browser(found[0])


def lines(browser: Browser, who: str, platform: str) -> list[dict[str, Any]]:
    panes = json.loads(browser.get(f"/playground/chats/?as={who}"))["panes"]
    return [line for pane in panes if pane["platform"] == platform for line in pane["lines"]]


def lines_of(browser: Browser, who: str, platform: str, count: int) -> list[dict[str, Any]]:
    """The same, once there are so many."""
    eventually(lambda: len(lines(browser, who, platform)) >= count)
    return lines(browser, who, platform)


def chat(browser: Browser, platform: str) -> list[str]:
    return [line["text"] for line in lines(browser, "Alice", platform)]


NO_TOKENS = dict.fromkeys(("TELEGRAM_BOT_TOKEN", "DISCORD_BOT_TOKEN", "SLACK_BOT_TOKEN", "SLACK_APP_TOKEN"), "")


def token_in(page: str) -> str:
    return str(re.findall(r'name="csrfmiddlewaretoken" value="([^"]+)"', page)[0])


def test_it_tells_the_story_and_starts_over(platforms: Platforms) -> None:
    with running(platforms, "--playground", "--web", "127.0.0.1:0", **NO_TOKENS) as bots:
        browser = browser_of(bots)
        page = browser.get("/playground/")
        words = {"csrfmiddlewaretoken": token_in(page)}

        assert all(browser.status(path) == 200 for path in re.findall(r'(?:href|src)="(/static/[^"]+)"', page))
        assert browser.status("/playground/story/", act="begin", **words) == 200
        assert [browser.status("/playground/story/", act="next", **words) for _ in range(10)] == [200] * 10
        eventually(lambda: chat(browser, "slack")[-1] == "Octarine.")
        discord = chat(browser, "discord")
        asked = [place for place, text in enumerate(discord) if text == "What's my favourite colour?"]
        assert discord[asked[0] + 1].startswith("You have not told me that yet.")
        assert "Octarine." in discord[asked[1] :]  # the word about sharing may come in between
        page = browser.get("/playground/?see=slack")
        assert "Alice has linked Telegram, Discord, Slack." in page
        seen = re.findall(r'<span class="badge (\w+)">.*?</b> ([^<]*)</p>', page, re.DOTALL)
        assert seen[0] == ("telegram", "My favourite colour is octarine.")
        assert seen[-1] == ("slack", "Octarine.")

        assert browser.status("/playground/start-over/", **words) == 200
        assert [chat(browser, platform) for platform in ("telegram", "discord", "slack")] == [[], [], []]
        assert "Alice hasn't linked any apps" in browser.get("/playground/")
        assert browser.status("/playground/story/", act="begin", **words) == 200
        assert [browser.status("/playground/story/", act="next", **words) for _ in range(4)] == [200] * 4
        eventually(lambda: "Alice has linked Telegram, Discord." in browser.get("/playground/"))


def test_it_never_starts_over_where_real_bots_write(platforms: Platforms) -> None:
    with running(platforms, "--playground", "--web", "127.0.0.1:0") as bots:
        browser = browser_of(bots)
        page = browser.get("/playground/")
        words = {"csrfmiddlewaretoken": token_in(page)}

        assert "a token is set for telegram, discord, slack" in page
        assert browser.status("/playground/start-over/", **words) == 409
        browser.status("/playground/story/", act="begin", **words)
        eventually(lambda: len(chat(browser, "telegram")) == 2)
        assert browser.status("/playground/story/", act="begin", **words) == 409
        assert len(chat(browser, "telegram")) == 2


def test_it_presses_a_button(platforms: Platforms) -> None:
    with running(platforms, "--playground", "--web", "127.0.0.1:0") as bots:
        browser = browser_of(bots)
        page = browser.get("/playground/?as=Bob")
        token = re.findall(r'name="csrfmiddlewaretoken" value="([^"]+)"', page)[0]
        words = {"as": "Bob", "csrfmiddlewaretoken": token}
        for platform, command in (("telegram", "/link"), ("discord", "/link"), ("slack", "!link")):
            browser.status("/playground/say/", platform=platform, text=command, **words)
            [_, offer] = lines_of(browser, "Bob", platform, 2)
            [button] = offer["buttons"]
            pressed = {"platform": platform, "pressed": f"{offer['id']} {button['command']}", **words}

            assert (button["label"], browser.status("/playground/press/", **pressed)) == ("Cancel", 200)
            assert browser.status("/playground/press/", **pressed | {"pressed": f"{offer['id']} /undo"}) == 400
            assert browser.status("/playground/press/", **pressed | {"pressed": "1 /cancel"}) == 400
            assert browser.status("/playground/press/", **pressed | {"platform": "icq"}) == 400
            assert browser.status("/playground/press/", **pressed | {"as": "Alice"}) == 400  # it is in Bob's chat
            assert lines_of(browser, "Bob", platform, 3)[-1]["text"] == "Cancelled. Nothing was linked."

        page = browser.get("/playground/?as=Bob")
        assert (
            len(re.findall(r'<button form="\w+-press" name="pressed" value="[\d.]+ /cancel">Cancel</button>', page))
            == 3
        )


def test_it_refuses_what_is_typed_by_another_site(platforms: Platforms) -> None:
    with running(platforms, "--playground", "--web", "127.0.0.1:0") as bots:
        browser = browser_of(bots)

        fields = {"as": "Alice", "platform": "telegram", "text": "hello", "message": "1", "command": "/cancel"}
        assert [browser.status(f"/playground/{what}/", **fields) for what in ("say", "press")] == [403, 403]
        assert chat(browser, "telegram") == []


def test_it_has_no_playground_unless_asked_for(platforms: Platforms) -> None:
    with running(platforms, "--web", "127.0.0.1:0") as bots:
        assert browser_of(bots).status("/playground/") == 404


def test_it_keeps_the_playground_on_this_machine(platforms: Platforms) -> None:
    bots = Bots("--playground", "--web", "0.0.0.0:0", up=(), **environment(platforms))

    assert bots.wait() == 2
    assert "The playground would be open to other machines" in bots.lines[-1]
