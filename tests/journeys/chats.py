"""People who type and press, each in a private chat with the bot, and read what it says."""

from __future__ import annotations

import re
from time import perf_counter
from typing import Any

from adapters.playground.server import Said
from tests.journeys.running import PATIENCE, Platforms, person


class Chat:
    """The private chat of one person on one platform. `replies` is what the bot said there and was read already."""

    def __init__(self, platforms: Platforms, platform: str, number: int = 1, name: str = "Alice") -> None:
        self.platform = platform
        self.person = person(platform, number, name)
        self.replies: list[Said] = []
        self.waits: list[float] = []  # seconds from each `asks` to its answer
        self._platforms = platforms
        self._server: Any = platforms.servers[platform]

    def says(self, text: str, **place: Any) -> str:
        """Type something. A command as the platform lets people type it."""
        if self.platform == "slack":
            text = re.sub(r"^/", "!", text)
        return self._platforms.say(self.platform, self.person, text, **place)

    def hears(self) -> str:
        """The next thing that the bot says here."""
        chat = self._server.private_chat(self.person)
        said = self._platforms.do(self._server.wait_for(len(self.replies) + 1, chat=chat, timeout=PATIENCE))
        self.replies.append(said[len(self.replies)])
        return self.replies[-1].text

    def asks(self, text: str) -> str:
        """Type something, and wait for the answer."""
        began = perf_counter()
        self.says(text)
        answer = self.hears()
        self.waits.append(perf_counter() - began)
        return answer

    def press(self, label: str, *, under: str = "") -> None:
        """Press the button with this label, under what was said last, or last began with `under`."""
        said = next(said for said in reversed(self.replies) if said.text.startswith(under))
        [button] = [button for button in said.buttons if button.label == label]
        self._platforms.do(self._server.press(self.person, said.message_id, button.command))

    def presses(self, label: str, *, under: str = "") -> str:
        """The same, and wait for the answer."""
        self.press(label, under=under)
        return self.hears()

    def said_by_bot_in(self, group: str) -> list[str]:
        """What the bot has said in a group so far."""
        return [said.text for said in self._server.said if said.chat_id == group and said.author_id == "bot"]

    @property
    def labels(self) -> list[str]:
        """Of the buttons under what was said last."""
        return [button.label for button in self.replies[-1].buttons]


def code_in(text: str) -> str:
    [code] = re.findall(r"\b[A-Z]{4}-[A-Z]{4}\b", text)
    return str(code)


def number_in(text: str) -> str:
    [number] = re.findall(r"\b\d{3} \d{3}\b", text)
    return str(number)


def linked(initiator: Chat, responder: Chat) -> None:
    """The whole handshake, typed; both have read everything."""
    number = claimed(initiator, responder)
    assert initiator.asks(number).startswith("Linked. ")
    assert responder.hears().startswith("Linked. ")


def claimed(initiator: Chat, responder: Chat) -> str:
    """The handshake until the number is shown, which is the answer."""
    number = number_in(responder.asks(code_in(initiator.asks("/link"))))
    assert " used your code. " in initiator.hears()
    return number
