"""Discord's raw events, parsed field by field: the SDK would build objects from whatever the socket says.

https://discord.com/developers/docs/resources/message#message-object
https://discord.com/developers/docs/interactions/receiving-and-responding#interaction-object
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from adapters.protocols import MalformedEvent, pressed
from identity.support.text import storable
from sessions_app.messages import Address, InboundMessage, MessageEdit, Sender

MAX_TEXT = 100_000  # characters; a person can write 4000 at most
MAX_NAME = 100
WRITTEN_BY_PEOPLE = (0, 19)  # message types: default and reply; the others tell of joins, pins, calls, commands
DIRECT_MESSAGE = 1  # channel type; 3 is a direct message of a group
FORWARD = 1  # message reference type; 0 is a reply
COMMAND, COMPONENT = 2, 3  # interaction types; the others are pings, completions and forms
BOT_DM = 1  # interaction context; 0 is a guild, 2 a direct message of other people
FIRST_SECOND = 1_420_070_400  # of Discord's ids, since 1970
MAX_ID = 2**63

Raw = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Interaction:
    """A button that was pressed, or a registered command: what that means, and what Discord wants answered.

    The token lets anybody answer in the bot's name for a quarter of an hour: it stays in memory, until then.
    """

    id: str
    kind: int
    message: InboundMessage
    token: str = field(repr=False)


def parse_message(data: object, me: str, *, platform: str = "discord") -> InboundMessage | None:
    """A MESSAGE_CREATE event, or a message of a channel's history. `me` is the bot's user id.

    None for what no person wrote, and for a message without words: in a guild Discord leaves out the words of a message
    that does not mention the bot. What another bot posts there is addressed to nobody. Raises MalformedEvent.
    `chat_name` stays empty, since the event does not carry it.
    """
    raw = _object(data, "message")
    author = _object(raw.get("author"), "author")
    sender, address = _sender(author), Address(platform, _snowflake(raw, "channel_id"))
    kind, private, addressed = _integer(raw, "type"), _is_private(raw), _is_addressed(raw, me)
    message_id, sent_at, text = _snowflake(raw, "id"), _sent_at(raw), _words(raw, me)
    if kind not in WRITTEN_BY_PEOPLE or not text.strip() or _is_unheard(raw, author, me):
        return None
    return InboundMessage(
        native_key=message_id,
        address=address,
        sender=sender,
        text=text,
        message_id=message_id,
        is_private=private,
        is_addressed=private or (addressed and _is_person(raw, author)),
        is_firsthand=_is_firsthand(raw),
        more_may_follow=_is_forward(raw),  # its comment comes behind it, as a message of its own
        sent_at=sent_at,
        position=int(message_id) if private and int(message_id) < MAX_ID else None,
    )


def position_at(moment: datetime) -> int:
    """Where a message of this moment stands: the first 42 bits of an id are its milliseconds."""
    return max(0, int((moment.timestamp() - FIRST_SECOND) * 1000)) << 22


def parse_edit(data: object, me: str, *, platform: str = "discord") -> MessageEdit | None:
    """A MESSAGE_UPDATE event. None when nobody changed any words: a link got its preview, a message was pinned."""
    raw = _object(data, "message")
    address, message_id = Address(platform, _snowflake(raw, "channel_id")), _snowflake(raw, "id")
    author = _object(raw.get("author", {}), "author")
    if not raw.get("edited_timestamp") or _is_unheard(raw, author, me):
        return None
    text = _words(raw, me) if "content" in raw else ""
    return MessageEdit(address, message_id, text) if text.strip() else None


def parse_interaction(data: object, me: str, *, platform: str = "discord") -> Interaction | None:
    """An INTERACTION_CREATE event. None for what is neither a button nor a command of a person. Raises MalformedEvent.

    Private is the bot's own direct message alone: a user may take an app's commands along into those of others.
    """
    raw = _object(data, "interaction")
    kind, key, token = _integer(raw, "type"), _snowflake(raw, "id"), _text(raw, "token")
    if kind not in (COMMAND, COMPONENT):
        return None
    about = _object(raw.get("data"), "data")
    text = pressed(_text(about, "custom_id")) if kind == COMPONENT else _typed_command(about)
    person = _object(_object(raw.get("member") or raw, "member").get("user"), "user")
    message = InboundMessage(
        native_key=key,
        address=Address(platform, _snowflake(raw, "channel_id")),
        sender=_sender(person),
        text=text,
        is_private=_is_with_bot(raw),
        sent_at=datetime.fromtimestamp(FIRST_SECOND + (int(key) >> 22) / 1000, UTC),
    )
    return None if person.get("bot") else Interaction(key, kind, message, token)


def _is_with_bot(raw: Raw) -> bool:
    channel = _object(raw.get("channel") or {}, "channel")
    in_direct_message = channel.get("type", DIRECT_MESSAGE) == DIRECT_MESSAGE and raw.get("context") == BOT_DM
    return in_direct_message and raw.get("guild_id") is None and raw.get("member") is None


def _typed_command(about: Raw) -> str:
    """`/name words`, as a person would write it."""
    name, options = _text(about, "name"), about.get("options") or []
    if not re.fullmatch(r"[a-z]{1,32}", name):
        raise MalformedEvent("name is no command of ours")
    if not isinstance(options, list) or len(options) > 1:
        raise MalformedEvent("options is not a list of one")
    words = [_text(_object(option, "an option"), "value") for option in options]
    return " ".join([f"/{name}", *words]).strip()


def _text(raw: Raw, key: str) -> str:
    value = raw.get(key)
    if not isinstance(value, str) or not value:
        raise MalformedEvent(f"{key} is not a text")
    if len(value) > MAX_TEXT:
        raise MalformedEvent(f"{key} is too long")
    return storable(value)


def _is_person(raw: Raw, author: Raw) -> bool:
    return not (author.get("bot") or author.get("system") or raw.get("webhook_id"))


def _is_unheard(raw: Raw, author: Raw, me: str) -> bool:
    """What bots post counts only where others read it, and the own posts never do."""
    return not _is_person(raw, author) and (_is_private(raw) or author.get("id") == me)


def _is_private(raw: Raw) -> bool:
    """History carries neither field, and is only ever read for private chats."""
    return raw.get("guild_id") is None and raw.get("channel_type", DIRECT_MESSAGE) == DIRECT_MESSAGE


def _is_addressed(raw: Raw, me: str) -> bool:
    mentions = raw.get("mentions", [])
    if not isinstance(mentions, list):
        raise MalformedEvent("mentions is not a list")
    replied_to = _object(raw.get("referenced_message") or {}, "referenced_message")
    people = [*mentions, replied_to.get("author") or {}]
    return me in [_object(person, "a mention").get("id") for person in people]


def _is_firsthand(raw: Raw) -> bool:
    """An application id means that a command of some application made the message in the person's name. A history has
    the words that a message was edited to.
    """
    was_changed = raw.get("application_id") or raw.get("edited_timestamp")
    return not (_is_forward(raw) or was_changed)


def _is_forward(raw: Raw) -> bool:
    reference = _object(raw.get("message_reference") or {}, "message_reference")
    return bool(reference.get("type") == FORWARD)


def _sender(author: Raw) -> Sender:
    username = _name(author, "username")
    return Sender(_snowflake(author, "id"), _name(author, "global_name") or username, username)


def _words(raw: Raw, me: str) -> str:
    text = raw.get("content")
    if not isinstance(text, str):
        raise MalformedEvent("content is not a text")
    if len(text) > MAX_TEXT:
        raise MalformedEvent("content is too long")
    words, mentions = re.subn(rf"[ \t]*<@!?{me}>[ \t]*", " ", storable(text))
    return words.strip() if mentions else words


def _name(author: Raw, key: str) -> str:
    value = author.get(key) or ""
    if not isinstance(value, str):
        raise MalformedEvent(f"{key} is not a text")
    return storable(value[:MAX_NAME])


def _sent_at(raw: Raw) -> datetime | None:
    value = raw.get("timestamp")
    if value is None:
        return None
    try:
        return datetime.fromisoformat(value).astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        raise MalformedEvent("timestamp is not a time") from None


def _object(value: object, name: str) -> Raw:
    if not isinstance(value, dict):
        raise MalformedEvent(f"{name} is not an object")
    return value


def _integer(raw: Raw, key: str) -> int:
    value = raw.get(key)
    if type(value) is not int:  # a bool is an int too
        raise MalformedEvent(f"{key} is not an integer")
    return value


def _snowflake(raw: Raw, key: str) -> str:
    """Ids are texts of decimal digits, 64 bits wide."""
    value = raw.get(key)
    if not isinstance(value, str) or not re.fullmatch(r"[0-9]{1,20}", value):
        raise MalformedEvent(f"{key} is not an id")
    return value
