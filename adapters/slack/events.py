"""From a Slack event, a pressed button or a slash command to a message: pure functions over JSON that a stranger may
have written.
"""

from __future__ import annotations

import hashlib
import html
import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from adapters.protocols import MalformedEvent, pressed
from identity.support.text import storable
from sessions_app.messages import Address, InboundMessage, MessageEdit, Sender

TEXT_CHARACTERS = 100_000  # Slack cuts at 40,000; what is far beyond was not written by a person
ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
TIMESTAMP = re.compile(r"[0-9]{1,10}\.[0-9]{1,6}")
TOKEN = re.compile(r"<([^<>]+)>")  # what Slack adds to a text; `<` and `>` that a person types arrive escaped
WRITTEN = (None, "thread_broadcast", "file_share")  # subtypes that a person typed
POSTED = (*WRITTEN, "bot_message")


@dataclass(frozen=True, slots=True)
class Me:
    """Who the bot is: its platform name and its Slack ids. `teams`: the home workspace and its enterprise, if any."""

    platform: str
    user_id: str
    bot_id: str
    teams: frozenset[str]
    name: str = ""


def parse_event(payload: object, me: Me) -> InboundMessage | MessageEdit | None:
    """The message or edit in the payload of an `events_api` envelope; None for everything that is neither. What another
    bot posts in a channel is addressed to nobody.

    Names are not in the event and stay empty. Raises MalformedEvent, whose text names fields and never shows contents.
    """
    event = _object(payload, "event")
    if _string(event, "type") not in ("message", "app_mention"):
        return None
    subtype = _optional(event, "subtype")
    if subtype == "message_changed":
        return _edit(event, me)
    return _message(event, me) if subtype in POSTED else None


def parse_history(message: object, chat_id: str, me: Me) -> InboundMessage | None:
    """A message in the history of a private chat; None for what no person wrote. Raises MalformedEvent."""
    if not isinstance(message, dict):
        raise MalformedEvent("message is not an object")
    event = parse_event({"event": {**message, "channel": chat_id, "channel_type": "im"}}, me)
    return replace(event, is_from_history=True) if isinstance(event, InboundMessage) else None


def stamp_at(position: int) -> str:
    """The ts of a position: seconds and microseconds."""
    return f"{position // 10**6}.{position % 10**6:06d}"


def _position(stamp: str) -> int:
    seconds, _, fraction = stamp.partition(".")
    return int(seconds) * 10**6 + int(fraction.ljust(6, "0"))


def parse_press(payload: object, me: Me) -> InboundMessage | None:
    """The button in the payload of an `interactive` envelope that was pressed; None for everything else.

    Private is a chat of one person in which the message with the button is the bot's own. Raises MalformedEvent.
    """
    raw = payload if isinstance(payload, dict) else {}
    if _string(raw, "type") != "block_actions":
        return None
    action, message = _first(raw, "actions"), _object(raw, "message")
    if _string(action, "type") != "button":
        return None
    command, stamp = pressed(storable(_string(action, "value"))), _timestamp(action, "action_ts")
    channel, sender = _id(_object(raw, "channel"), "id"), _presser(_object(raw, "user"), me)
    return InboundMessage(
        native_key=f"{channel}:{stamp}:{sender}",
        address=Address(me.platform, channel, _thread(message)),
        sender=Sender(sender),
        text=command,
        is_private=channel.startswith("D") and message.get("bot_id") == me.bot_id,
        sent_at=datetime.fromtimestamp(float(stamp), UTC),
    )


def parse_command(payload: object, me: Me) -> InboundMessage:
    """What was written in the payload of a `slash_commands` envelope. Raises MalformedEvent.

    `is_private` says that it may be private: a D-channel is also the chat of two people, where commands work too.
    """
    raw = payload if isinstance(payload, dict) else {}
    name, words, trigger = _string(raw, "command"), _optional(raw, "text") or "", _string(raw, "trigger_id")
    if not re.fullmatch(r"/[\w-]{1,32}", name) or not trigger:
        raise MalformedEvent("command is not a command, or trigger_id is empty")
    channel, user = _id(raw, "channel_id"), {"id": _id(raw, "user_id"), "team_id": raw.get("team_id")}
    # A trigger opens windows in front of the person, so it is not kept as it is.
    key = hashlib.sha256(trigger.encode("utf-8", "replace")).hexdigest()[:32]
    return InboundMessage(
        native_key=f"{channel}:{key}",
        address=Address(me.platform, channel),
        sender=Sender(_presser(user, me)),
        text=f"{name} {plain(storable(words))}".strip(),
        is_private=channel.startswith("D"),
    )


def plain(text: str) -> str:
    """Slack's mark-up as a person reads it: links by their label, escapes undone, mentions of others kept."""
    return unescape(TOKEN.sub(_readable, text))


def unescape(text: str) -> str:
    """Undo the three escapes that Slack uses, and no other: `&copy;` was typed as such."""
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def escape(text: str) -> str:
    """The reverse, for sending: nothing in an answer can become a mention or a link."""
    return html.escape(text, quote=False)


def _message(event: dict[str, Any], me: Me) -> InboundMessage | None:
    words, channel, stamp = _string(event, "text"), _id(event, "channel"), _timestamp(event, "ts")
    is_bot, private = _by_a_bot(event, me), _is_private(event, channel)
    if _is_ignored(event, me, private=private):
        return None
    sender = Sender(_optional(event, "bot_id") or _id(event, "user") if is_bot else _author(event, me))
    address = Address(me.platform, channel, _thread(event))
    text = _without_mention(words, me)
    if not text.strip():  # a file or a bare mention
        return None
    return InboundMessage(
        native_key=f"{channel}:{stamp}",
        address=address,
        sender=sender,
        text=text,
        message_id=stamp,
        is_private=private,
        is_addressed=private or (not is_bot and _means(event, words, me)),
        is_firsthand=not event.get("edited"),  # a history has the words that it was edited to
        sent_at=datetime.fromtimestamp(float(stamp), UTC),
        position=_position(stamp) if private else None,
    )


def _edit(event: dict[str, Any], me: Me) -> MessageEdit | None:
    message, channel = _object(event, "message"), _id(event, "channel")
    is_ignored = _is_ignored(message, me, private=_is_private(event, channel))
    if is_ignored or _optional(message, "subtype") not in POSTED:
        return None
    words = _string(message, "text")
    before = event.get("previous_message")
    if isinstance(before, dict) and before.get("text") == words:  # a link was unfurled, a reply was counted
        return None
    address = Address(me.platform, channel, _thread(message))
    return MessageEdit(address, _timestamp(message, "ts"), _without_mention(words, me))


def _by_a_bot(message: dict[str, Any], me: Me) -> bool:
    is_posted = bool(message.get("bot_id")) or message.get("subtype") == "bot_message"
    return is_posted or message.get("user") in (me.user_id, "USLACKBOT")


def _is_ignored(message: dict[str, Any], me: Me, *, private: bool) -> bool:
    """What bots post counts only where others read it, and the own posts never do."""
    is_mine = message.get("bot_id") == me.bot_id or message.get("user") == me.user_id
    return _by_a_bot(message, me) and (private or is_mine)


def _author(event: dict[str, Any], me: Me) -> str:
    """A user id is unique in its workspace only: a person from another one (Slack Connect) is keyed `TEAM:USER`."""
    user = _id(event, "user")
    field = "user_team" if event.get("user_team") else "team"
    if not event.get(field):
        return user
    team = _id(event, field)
    return user if team in me.teams else f"{team}:{user}"


def _presser(user: dict[str, Any], me: Me) -> str:
    return _author({"user": user.get("id"), "team": user.get("team_id")}, me)


def _is_private(event: dict[str, Any], channel: str) -> bool:
    kind = _optional(event, "channel_type")
    return kind == "im" if kind else channel.startswith("D")


def _means(event: dict[str, Any], words: str, me: Me) -> bool:
    mentioned = event["type"] == "app_mention" or _mention(me).search(words) is not None
    return mentioned or event.get("parent_user_id") == me.user_id


def _mention(me: Me) -> re.Pattern[str]:
    return re.compile(rf"<@{re.escape(me.user_id)}(?:\|[^<>]*)?>[\s:,]*")


def _without_mention(words: str, me: Me) -> str:
    rest, mentions = _mention(me).subn("", storable(words))
    return plain(rest).strip() if mentions else plain(rest)


def _readable(token: re.Match[str]) -> str:
    target, _, label = token[1].partition("|")
    if target.startswith("@"):
        return token[0]
    if target.startswith("#"):
        return f"#{label or target[1:]}"
    if target.startswith("!"):  # <!here>, <!subteam^S1|@team>, <!date^...|as text>
        return label or f"@{target[1:]}"
    return label or target


def _thread(message: dict[str, Any]) -> str:
    """The thread that a message is in. The parent of a thread carries its own ts there, and is in none."""
    if message.get("thread_ts") in (None, "", message.get("ts")):
        return ""
    return _timestamp(message, "thread_ts")


def _object(holder: object, name: str) -> dict[str, Any]:
    value = holder.get(name) if isinstance(holder, dict) else None
    if not isinstance(value, dict):
        raise MalformedEvent(f"{name} is not an object")
    return value


def _first(holder: dict[str, Any], name: str) -> dict[str, Any]:
    value = holder.get(name)
    if not isinstance(value, list) or not value or not isinstance(value[0], dict):
        raise MalformedEvent(f"{name} is not a list of objects")
    return value[0]


def _optional(holder: dict[str, Any], name: str) -> str | None:
    return None if holder.get(name) is None else _string(holder, name)


def _string(holder: dict[str, Any], name: str) -> str:
    value = holder.get(name)
    if not isinstance(value, str):
        raise MalformedEvent(f"{name} is not a string")
    if len(value) > TEXT_CHARACTERS:
        raise MalformedEvent(f"{name} is longer than {TEXT_CHARACTERS} characters")
    return value


def _matching(holder: dict[str, Any], name: str, pattern: re.Pattern[str], what: str) -> str:
    value = _string(holder, name)
    if not pattern.fullmatch(value):
        raise MalformedEvent(f"{name} is not {what}")
    return value


def _id(holder: dict[str, Any], name: str) -> str:
    return _matching(holder, name, ID, "an id")


def _timestamp(holder: dict[str, Any], name: str) -> str:
    return _matching(holder, name, TIMESTAMP, "a timestamp")
