"""The values that platforms, inbox, agents and outbox exchange: plain and frozen, without SDK objects."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from identity.support.buttons import Button
from identity.support.sanitize import harmless
from identity.support.text import is_storable, storable
from sessions_app import texts
from sessions_app.context import SessionContext

MAX_TEXT = 100_000  # characters, more than any platform lets a person write
BROWSER = "web"  # the platform of messages that are written in a browser
# Colons, their look-alikes, and the brackets around what BotOS itself tells an agent.
_ENDS_NAME = re.compile(r"[:\u02d0\u02f8\u0589\u05c3\u2236\ua789\ufe13\ufe55\uff1a\[\]\uff3b\uff3d]")
BROWSER_EVENT = "messages"  # the live event for pages of a browser with something new to read


class Unacceptable(ValueError):
    """A message that can never be stored, as an id is missing or too long, or the text is. Retrying is useless."""


def check_text(text: str) -> None:
    """Raise Unacceptable for a text that can never be stored."""
    if len(text) > MAX_TEXT:
        raise Unacceptable(f"the text is longer than {MAX_TEXT} characters")
    if not is_storable(text):
        raise Unacceptable("the text has a character that no database keeps")


def label(name: str) -> str:
    """The part of a name that can be stored: a label identifies nobody."""
    return storable(name)[:150]


def speaker_name(label: str) -> str:
    """The name of an account before what it says, from its label: harmless, and without marks that end a name."""
    return harmless(_ENDS_NAME.sub(" ", label)) or str(texts.SOMEONE)


@dataclass(frozen=True, slots=True)
class Address:
    """A chat or thread on a platform, by the platform's own ids."""

    platform: str
    chat_id: str
    thread_id: str = ""


@dataclass(frozen=True, slots=True)
class Sender:
    """The account that wrote a message. user_id: the stable id. The two names are labels, never used for look-ups."""

    user_id: str
    name: str = ""
    username: str = ""


@dataclass(frozen=True, slots=True)
class InboundMessage:
    """One message that a person wrote, as an adapter passes it to the inbox.

    native_key: unique on the platform, and the same for every delivery of this message. is_private: one to one with the
    bot. is_addressed: meant for the bot, as every private message is, and a message in a group that mentions it or
    replies to it. is_firsthand: False if the person did not type it here: forwarded, via another bot, or anonymous.
    more_may_follow: whether the app sends other messages with it, as with an album or a forward. text: without the
    mention of the bot. sent_at: the platform's time, None if it has none.

    position: the place in the platform's own order of a private chat whose history bots can read; the inbox has
    everything before it. None without such a history, and while there is a gap. is_from_history: read back from there.
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
    more_may_follow: bool = False
    sent_at: datetime | None = None
    position: int | None = None
    is_from_history: bool = False


@dataclass(frozen=True, slots=True)
class MessageEdit:
    """The new text of a message that was received before."""

    address: Address
    message_id: str
    text: str


@dataclass(frozen=True, slots=True)
class Line:
    """One history entry as an agent reads it.

    said_at: aware, in UTC. source: `message`, `reply` or `mirror`. author: the name of the person, where several may
    write: in a group, or under another resolver's key. In the window of a group, it is harmless and nobody else's.
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
    """The question for an agent: the earlier lines, oldest first, the person's new text, and who they are.

    key: the same for all attempts, so that a tool with effects can act once. speaker: in a group, the name of the
    person as the author of their lines; empty in a private chat. asked_at: when the text was received, if that is more
    than a day ago; else None. conversation_id: where it is asked, for `agents.search_history`; None where there is no
    history to search.
    """

    key: str
    text: str
    history: tuple[Line, ...]
    context: SessionContext
    speaker: str = ""
    asked_at: datetime | None = None
    conversation_id: int | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer of an agent, and what a model used for it: all requests of the turn together.

    model: its name, empty without one. The numbers are None where the agent does not know them.
    """

    text: str
    model: str = ""
    input_tokens: int | None = None
    output_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class OutgoingMessage:
    """One delivery as an adapter sends it, at most the platform's limit long.

    nonce: at most 25 characters, the same for all attempts. buttons, copy (the text of a copy button): shown where the
    platform has them. possibly_sent: an earlier attempt may have reached the platform; the adapter looks for it where
    that is possible, and marks the text elsewhere.

    reply_to: the platform's id of the message that this one answers, where others may stand between. It may be gone.
    asker: in a group, the name of its author, for platforms where a reply would begin another conversation. late_mark:
    what `text` begins with because it comes late. An earlier attempt may have been without it.

    If it was possibly sent, queued_at: when the delivery was queued, and waited: how many seconds ago, both by the
    database's clock. follows: the platform's id of the last message before that, if known. others: the ids of other
    messages that were sent there since.
    """

    address: Address
    text: str
    nonce: str
    possibly_sent: bool = False
    queued_at: datetime | None = None
    waited: float = 0.0
    follows: str = ""
    others: frozenset[str] = frozenset()
    buttons: tuple[Button, ...] = ()
    copy: str = ""
    reply_to: str = ""
    asker: str = ""
    late_mark: str = ""

    @property
    def may_be_repeat(self) -> bool:
        """The old name of `possibly_sent`, which other people's adapters may still read in this release."""
        return self.possibly_sent


class Agent(Protocol):
    """Answers turns. It keeps no state of a person: the turn is all it knows."""

    async def reply(self, turn: Turn) -> Reply | str | AsyncIterator[str]: ...
