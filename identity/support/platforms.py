"""What the words for people need to know of a platform. Identity knows no platform by name: the adapters describe them.

A platform that nobody describes gets defaults. `slack-acme`, a second workspace under a name of its own, is like
`slack` where it has no description of its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from django.utils.functional import Promise

NAME = r"^[a-z][a-z0-9-]*$"
MAX_NAME = 40  # characters
TEXT_LIMIT = 2000  # UTF-16 code units, where a platform does not say


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformTraits:
    """A platform as people meet it.

    name: as in `telegram:12345`. title: what people call it. command_prefix: stands before a command there.
    handle_prefix: stands before a user name there. markup: the characters that its app reads as mark-up in what a bot
    writes. privacy_note: what people must know before they trust a private chat there. start_link: what is added to
    the bot's address so that opening it sends `{token}`. private_chat: a pattern of the ids of chats one to one with
    the bot, where an id tells that. text_limit: the longest message in UTF-16 code units. cut_at: the lengths at which
    its app cuts a longer text that a person sends, in the same units.
    """

    name: str
    title: str = ""
    command_prefix: str = "/"
    handle_prefix: str = ""
    markup: str = ""
    privacy_note: str | Promise = ""
    start_link: str = ""
    private_chat: str = ""
    text_limit: int = TEXT_LIMIT
    cut_at: tuple[int, ...] = ()


T = TypeVar("T", bound=PlatformTraits)

_source: Callable[[], Mapping[str, PlatformTraits]] = dict


def read_from(source: Callable[[], Mapping[str, PlatformTraits]]) -> None:
    """Take the descriptions from `source`, which gives them by name, from now on."""
    global _source  # noqa: PLW0603 - set once, when the apps are ready
    _source = source


def described() -> list[str]:
    """The names of the platforms that are described."""
    return list(_source())


def of(name: str) -> PlatformTraits:
    """What is known of the platform."""
    known = _source()
    return known.get(name) or named(known.get(name.partition("-")[0], PlatformTraits(name=name)), name)


def named(platform: T, name: str) -> T:
    """The same under another name, by which it is also called."""
    return replace(platform, name=name, title="")


def title(name: str) -> str:
    """How people call the platform."""
    return of(name).title or name.title()


def with_start(name: str, url: str, token: str) -> str:
    """The bot's address, with the token where opening it can send one. Empty where that is no way."""
    link = of(name).start_link
    return url + link.format(token=token) if url and link else ""


def escaped(text: str, name: str) -> str:
    """The text, with a backslash before each character that the platform's app would read as mark-up."""
    markup = of(name).markup
    return re.sub(f"[{re.escape(markup)}]", r"\\\g<0>", text) if markup else text
