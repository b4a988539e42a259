"""What travels between the platforms, the inbox, the agent and the outbox: plain frozen values, no SDK objects."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from identity.support.buttons import Button
from identity.support.text import is_storable
from sessions_app.context import SessionContext

MAX_TEXT = 100_000  # characters; no platform lets a person write as much
BROWSER = "web"  # the platform of what is said in a browser
BROWSER_EVENT = "messages"  # what the pages of a browser are told when there is something new to read


class Unacceptable(ValueError):
    """A message that can never be stored: an id is missing or too long, or the text is. Retrying is useless."""


def check_text(text: str) -> None:
    """Raises Unacceptable for a text that can never be stored."""
    if len(text) > MAX_TEXT:
        raise Unacceptable(f"the text is longer than {MAX_TEXT} characters")
    if not is_storable(text):
        raise Unacceptable("the text has a character that no database keeps")


@dataclass(frozen=True, slots=True)
class Address:
    """A place on a platform: where something was said, and where the answer goes. Ids are the platform's own."""

    platform: str
    chat_id: str
    thread_id: str = ""


@dataclass(frozen=True, slots=True)
class Sender:
    """An account as its platform names it. `user_id` is the stable id; the two names are labels and look nothing up."""

    user_id: str
    name: str = ""
    username: str = ""


@dataclass(frozen=True, slots=True)
class InboundMessage:
    """One message that a person wrote, as an adapter hands it to the inbox.

    `native_key` is unique on the platform and the same for every delivery of this message. `is_private` means one to
    one with the bot. `is_addressed` means that the bot is meant: always in private, in a group when mentioned or
    replied to. `is_firsthand` is False for what the person did not type here and now: forwarded, via another bot,
    anonymous. `text` comes without the mention of the bot. `sent_at` is the platform's time, None if it has none.

    `position` is the platform's own order within a private chat whose history can be read: everything up to it was
    handed in before. None where there is no history, and while there is a gap in it. `is_from_history` means that it
    was read there.
    """

    native_key: str
    address: Address
    sender: Sender
    text: str
    message_id: str = ""
    chat_name: str = ""
    is_private: bool = True
    is_addressed: bool = True
    is_firsthand: bool = True
    sent_at: datetime | None = None
    position: int | None = None
    is_from_history: bool = False


@dataclass(frozen=True, slots=True)
class MessageEdit:
    """New words for a message that was received before."""

    address: Address
    message_id: str
    text: str


@dataclass(frozen=True, slots=True)
class Line:
    """One history entry as an agent reads it. `source` is `message`, `reply` or `mirror`; `said_at` is aware, UTC.

    `author` is the name of the person, where several may speak: in a group, or under another resolver's key.
    """

    role: str
    text: str
    said_at: datetime
    source: str = "message"
    source_label: str = ""
    platform: str = ""
    author: str = ""


@dataclass(frozen=True, slots=True)
class Turn:
    """What an agent is asked: the lines before, oldest first, what the person says now, and who they are.

    `key` is stable over retries: a tool that acts on the world uses it to act once.
    """

    key: str
    text: str
    history: tuple[Line, ...]
    context: SessionContext


@dataclass(frozen=True, slots=True)
class Reply:
    """What an agent answers."""

    text: str


@dataclass(frozen=True, slots=True)
class OutgoingMessage:
    """One delivery as an adapter sends it: at most the platform's limit long.

    `nonce` (at most 25 characters) names the delivery over all its attempts. `may_be_repeat` means that an earlier
    attempt may have reached the platform: look first where that is possible, else mark the text. Then `queued_at` says
    since when it is under way, `waited` for how many seconds, both by the database's clock, `follows` is the platform's
    id of the last message before that, where one is known, and `others` are those of messages that were sent there
    since and are not this one. `buttons` and `copy`, the text of a copy button, are shown where the platform has such
    things.
    """

    address: Address
    text: str
    nonce: str
    may_be_repeat: bool = False
    queued_at: datetime | None = None
    waited: float = 0.0
    follows: str = ""
    others: frozenset[str] = frozenset()
    buttons: tuple[Button, ...] = ()
    copy: str = ""


class Agent(Protocol):
    """Answers a turn. Holds no state of any person: the turn is all it knows."""

    async def reply(self, turn: Turn) -> Reply | str | AsyncIterator[str]: ...
