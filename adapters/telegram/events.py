"""What Telegram tells the bot: one raw update in, one plain value out. Nothing here touches the network.

An update is read alone and field by field: the SDK's own parser gives up on a whole batch for one bad update.
Field names and their meaning: https://core.telegram.org/bots/api#update
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from adapters.protocols import MalformedEvent, pressed
from identity.support.text import storable
from sessions_app.messages import Address, InboundMessage, MessageEdit, Sender

JSON = dict[str, Any]
T = TypeVar("T")

TEXT_BOUND = 100_000  # characters; Telegram itself stops at 4096
LABEL_BOUND = 255  # characters of a name or title; Telegram's own are shorter
ID_BOUND = 2**63  # what a database's integer and a person's patience hold
TIME_BOUND = 2**32  # seconds, the year 2106

GROUPS = ("group", "supergroup")
# What a person did not type here and now. `is_from_offline` is a scheduled or automatic message, `forward_date` is
# what Bot API servers before 7.0 sent in place of `forward_origin`.
SECONDHAND = ("forward_origin", "forward_date", "via_bot", "sender_chat", "is_automatic_forward", "is_from_offline")

# Other messages come with it: those of an album, and with a forward its comment or more forwards.
WITH_OTHERS = ("media_group_id", "forward_origin", "forward_date")


@dataclass(frozen=True, slots=True)
class BotIdentity:
    """Who the bot is on Telegram, as `getMe` says, and the platform name that it runs under."""

    id: int
    username: str
    platform: str = "telegram"


@dataclass(frozen=True, slots=True)
class Press:
    """A button was pressed: what that means, and the query that Telegram wants answered once it is stored."""

    query_id: str
    message: InboundMessage


def update_id(raw: object) -> int:
    """The positive id of a raw update, by which it is confirmed. Raises MalformedEvent."""
    number = _id(_object(raw, "update"), "update_id")
    if number <= 0:  # a negative offset means something else to getUpdates
        raise MalformedEvent("update_id is not positive")
    return number


def parse_update(raw: object, me: BotIdentity) -> InboundMessage | MessageEdit | Press | None:
    """Read one raw update; None for what no person wrote or pressed. Raises MalformedEvent, whose reason names
    fields and never holds what a person wrote.

    What a bot posts in a group is addressed to nobody. Others read it all the same, and it may hold a code.
    """
    native_key = f"{me.id}:{update_id(raw)}"
    update = _object(raw, "update")
    if (message := _maybe(update, "message", dict)) is not None:
        return _read_message(message, native_key, me)
    if (message := _maybe(update, "edited_message", dict)) is not None:
        return _read_edit(message, me)
    if (query := _maybe(update, "callback_query", dict)) is not None:
        return _read_press(query, native_key, me)
    return None


def _read_message(message: JSON, native_key: str, me: BotIdentity) -> InboundMessage | None:
    address, author = _address(message, me), _author(message)
    text, mentioned = _words(message, me)
    if author is None or not text.strip():
        return None
    private = _is_private(message)
    return InboundMessage(
        native_key=native_key,
        address=address,
        sender=Sender(str(_id(author, "id")), _full_name(author), _label(author, "username")),
        text=text,
        message_id=str(_id(message, "message_id")),
        chat_name=_chat_name(message),
        is_private=private,
        is_addressed=private or (not author["is_bot"] and (mentioned or _replies_to(message, me))),
        is_firsthand=not any(message.get(mark) for mark in SECONDHAND),
        more_may_follow=any(message.get(mark) for mark in WITH_OTHERS),
        sent_at=_time(message),
    )


def _read_edit(message: JSON, me: BotIdentity) -> MessageEdit | None:
    address, author = _address(message, me), _author(message)
    text, _mentioned = _words(message, me)
    if author is None or not text.strip():
        return None
    return MessageEdit(address=address, message_id=str(_id(message, "message_id")), text=text)


def _read_press(query: JSON, native_key: str, me: BotIdentity) -> Press | None:
    """The message is the bot's, with the buttons: where it stands is where they were pressed."""
    message, person = _need(query, "message", dict), _need(query, "from", dict)
    address, kind = _address(message, me), _kind_of_chat(message)
    command, query_id = pressed(storable(_need(query, "data", str))), _need(query, "id", str)
    if kind == "channel" or _need(person, "is_bot", bool):
        return None
    private = kind == "private" and message["chat"]["id"] == _id(person, "id")
    press = InboundMessage(
        native_key=native_key,
        address=address,
        sender=Sender(str(_id(person, "id")), _full_name(person), _label(person, "username")),
        text=command,
        chat_name=_full_name(person) if kind == "private" else _label(message["chat"], "title"),
        is_private=private,
        is_firsthand=not any(message.get(mark) for mark in SECONDHAND),
    )
    return Press(query_id[:LABEL_BOUND], press)


def _address(message: JSON, me: BotIdentity) -> Address:
    """Only a topic of a forum is a thread: elsewhere `message_thread_id` is just the first message of a reply chain."""
    chat = _need(message, "chat", dict)
    thread = str(_id(message, "message_thread_id")) if _maybe(message, "is_topic_message", bool) else ""
    return Address(platform=me.platform, chat_id=str(_id(chat, "id")), thread_id=thread)


def _author(message: JSON) -> JSON | None:
    """Who wrote it; None for a channel, and for a bot that is not in a group. There everybody reads what it posts, and
    an anonymous administrator is called a bot too.
    """
    kind = _kind_of_chat(message)
    if kind == "channel":
        return None
    author: JSON = _need(message, "from", dict)
    return None if _need(author, "is_bot", bool) and kind not in GROUPS else author


def _kind_of_chat(message: JSON) -> str:
    kind = _need(_need(message, "chat", dict), "type", str)
    if kind not in ("private", "channel", *GROUPS):
        raise MalformedEvent("chat type is unknown")
    return kind


def _is_private(message: JSON) -> bool:
    chat: JSON = message["chat"]
    return bool(chat["type"] == "private" and chat["id"] == _id(message["from"], "id"))


def _chat_name(message: JSON) -> str:
    chat: JSON = message["chat"]
    return _label(chat, "title") if chat["type"] in GROUPS else _full_name(message["from"])


def _replies_to(message: JSON, me: BotIdentity) -> bool:
    original = _maybe(message, "reply_to_message", dict)
    # In a topic every message points at the message that opened the topic; that is no answer to its author.
    if original is None or "forum_topic_created" in original:
        return False
    author = _maybe(original, "from", dict)
    return author is not None and author.get("id") == me.id


def _time(message: JSON) -> datetime:
    seconds = _need(message, "date", int)
    if not 0 <= seconds < TIME_BOUND:
        raise MalformedEvent("date is out of range")
    return datetime.fromtimestamp(seconds, UTC)


def _full_name(person: JSON) -> str:
    _need(person, "first_name", str)
    return f"{_label(person, 'first_name')} {_label(person, 'last_name')}".strip()


def _label(holder: JSON, name: str) -> str:
    return storable(_maybe(holder, name, str) or "")[:LABEL_BOUND]


# -- words and mentions


def _words(message: JSON, me: BotIdentity) -> tuple[str, bool]:
    """The text or caption without the mention of the bot, empty when there is none, and whether there was a mention."""
    for text_field, entities_field in (("text", "entities"), ("caption", "caption_entities")):
        if (text := _maybe(message, text_field, str)) is not None:
            return _without_mention(text, _maybe(message, entities_field, list) or [], me)
    return "", False


def _without_mention(text: str, entities: list[object], me: BotIdentity) -> tuple[str, bool]:
    if len(text) > TEXT_BOUND:
        raise MalformedEvent("text is too long")
    units = text.encode("utf-16-le", "surrogatepass")  # entities count UTF-16 code units, two bytes each
    cuts = {cut for entity in entities if (cut := _mention(units, _object(entity, "entity"), me))}
    rest = storable(_cut_out(units, cuts))
    return (rest.strip() if cuts else rest), bool(cuts)


def _mention(units: bytes, entity: JSON, me: BotIdentity) -> tuple[int, int] | None:
    """The bytes of `units` in which this entity names the bot, as (start, end)."""
    kind = _need(entity, "type", str)
    if kind not in ("mention", "text_mention", "bot_command"):
        return None
    start, end = _span(units, entity)
    command, _at, name = units[start:end].decode("utf-16-le", "surrogatepass").partition("@")
    if kind == "text_mention":
        return (start, end) if _id(_need(entity, "user", dict), "id") == me.id else None
    if not name or name.casefold() != me.username.casefold() or (kind == "mention" and command):
        return None
    return (start + len(command.encode("utf-16-le", "surrogatepass")), end)


def _span(units: bytes, entity: JSON) -> tuple[int, int]:
    offset, length = _id(entity, "offset"), _id(entity, "length")
    if offset < 0 or length <= 0 or 2 * (offset + length) > len(units):
        raise MalformedEvent("entity is outside of its text")
    return 2 * offset, 2 * (offset + length)


def _cut_out(units: bytes, cuts: set[tuple[int, int]]) -> str:
    """Without the cuts, last one first so that the others keep their places; with one of the two spaces around each."""
    space, floor = " ".encode("utf-16-le"), len(units)
    for start, end in sorted(cuts, reverse=True):
        if end > floor:  # overlaps one that is cut already
            continue
        before, after, floor = units[:start], units[end:], start
        units = before + (after.removeprefix(space) if not before or before.endswith(space) else after)
    return units.decode("utf-16-le", "surrogatepass")


# -- fields


def _object(value: object, what: str) -> JSON:
    if not isinstance(value, dict):
        raise MalformedEvent(f"{what} is not an object")
    return value


def _need(holder: JSON, name: str, kind: type[T]) -> T:
    value = _maybe(holder, name, kind)
    if value is None:
        raise MalformedEvent(f"{name} is missing")
    return value


def _maybe(holder: JSON, name: str, kind: type[T]) -> T | None:
    value = holder.get(name)
    if value is None:
        return None
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise MalformedEvent(f"{name} is not of type {kind.__name__}")
    return value


def _id(holder: JSON, name: str) -> int:
    number = _need(holder, name, int)
    if not -ID_BOUND < number < ID_BOUND:
        raise MalformedEvent(f"{name} is out of range")
    return number
