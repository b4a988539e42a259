"""What the local Discord knows: users, channels and messages, in the JSON that the API speaks."""

from __future__ import annotations

import asyncio
import itertools
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from adapters.playground.server import Person, Said
from identity.support.buttons import Button

ALL_PERMISSIONS = str((1 << 50) - 1)
EPOCH = 1_420_070_400_000  # Discord's, in ms since 1970
GUILD_TEXT, DIRECT_MESSAGE, PUBLIC_THREAD = 0, 1, 11
DEFAULT, REPLY = 0, 19
ACTION_ROW, BUTTON = 1, 2  # component types

Json = dict[str, Any]

# What a guild has whose owner changed no setting.
GUILD_DEFAULTS: Json = {
    **dict.fromkeys(("afk_channel_id", "application_id", "system_channel_id", "rules_channel_id"), None),
    **dict.fromkeys(("public_updates_channel_id", "safety_alerts_channel_id", "vanity_url_code"), None),
    **dict.fromkeys(("icon", "splash", "discovery_splash", "description", "banner"), None),
    **dict.fromkeys(("default_message_notifications", "explicit_content_filter", "mfa_level", "nsfw_level"), 0),
    **dict.fromkeys(("verification_level", "premium_tier", "premium_subscription_count", "system_channel_flags"), 0),
    "afk_timeout": 300,
    "preferred_locale": "en-US",
    "large": False,
    "nsfw": False,
    "premium_progress_bar_enabled": False,
    "max_members": 500_000,
    "max_video_channel_users": 25,
}


@dataclass(slots=True)
class Channel:
    """A private chat with `person`, a channel of the guild, or a thread of such a channel: `parent` is the id of that.

    Messages by id, oldest first.
    """

    id: str
    name: str = ""
    person: Person | None = None
    parent: str = ""
    messages: dict[str, Json] = field(default_factory=dict)

    def as_json(self) -> Json:
        if self.person is not None:
            return {"id": self.id, "type": DIRECT_MESSAGE, "recipients": [user_json(self.person)]}
        if self.parent:
            dates = {"archive_timestamp": _now(), "create_timestamp": _now()}
            metadata = {"archived": False, "auto_archive_duration": 1440, "locked": False, **dates}
            counts = {"message_count": len(self.messages), "member_count": 1, "rate_limit_per_user": 0, "flags": 0}
            about = {"id": self.id, "type": PUBLIC_THREAD, "name": self.name, "parent_id": self.parent, **counts}
            return {**about, "owner_id": "1", "last_message_id": None, "thread_metadata": metadata}
        fields = {"position": 0, "permission_overwrites": [], "nsfw": False, "parent_id": None, "topic": None}
        return {"id": self.id, "type": GUILD_TEXT, "name": self.name, **fields}


class Changes:
    """Lets many wait for whatever condition may hold after the next change."""

    def __init__(self) -> None:
        self._next = asyncio.Event()

    def announce(self) -> None:
        self._next.set()
        self._next = asyncio.Event()

    async def until(self, holds: Callable[[], bool], timeout: float) -> None:
        """Raises TimeoutError."""
        async with asyncio.timeout(timeout):
            while not holds():
                await self._next.wait()


class World:
    """One bot, one guild, and everybody's chats with the bot."""

    def __init__(self) -> None:
        self._last_id = 0
        self.guild_id = self.snowflake()
        self.bot: Json = {**_user(self.snowflake(), "botos", "BotOS"), "bot": True, "mfa_enabled": False}
        self.bot_role = self.snowflake()  # Discord makes one for each bot, and people mention it by mistake
        self.users: dict[str, Json] = {self.bot["id"]: self.bot}  # those that can be mentioned
        self.channels: dict[str, Channel] = {}
        self.said: list[Said] = []
        self.heard: set[str] = set()  # ids of messages that the bot was told of, or read in a history
        self.changes = Changes()

    def snowflake(self) -> str:
        """Ids grow: 42 bits of time, then a counter."""
        now = (int(time.time() * 1000) - EPOCH) << 22
        self._last_id = max(self._last_id + 1, now)
        return str(self._last_id)

    def private_channel(self, person: Person) -> Channel:
        if not person.id.isdecimal():
            raise ValueError("a Discord user id is a number")
        known = (channel for channel in self.channels.values() if channel.person and channel.person.id == person.id)
        return next(known, None) or self._open(Channel(self.snowflake(), person=person))

    def guild_channel(self, name: str) -> Channel:
        """By id or by name; made when it does not exist, with the name as its id if that is a number."""
        known = (channel for channel in self.guild_channels() if name in (channel.id, channel.name))
        return next(known, None) or self._open(Channel(name if name.isdecimal() else self.snowflake(), name))

    def guild_channels(self) -> list[Channel]:
        """All of the guild, but no threads."""
        return [channel for channel in self.channels.values() if channel.person is None and not channel.parent]

    def thread(self, thread_id: str, parent: Channel) -> Channel:
        """The thread with this id, made in the parent when it does not exist."""
        return self.channels.get(thread_id) or self._open(Channel(thread_id, f"thread {thread_id}", parent=parent.id))

    def _open(self, channel: Channel) -> Channel:
        self.channels[channel.id] = channel
        return channel

    def write(self, channel: Channel, author: Json, content: str, **more: object) -> Json:
        """Store a message; fields of `more` replace the defaults."""
        message = self.compose(channel, author, content, **more)
        channel.messages[message["id"]] = message
        buttons = buttons_in(message["components"])
        answered = (message.get("message_reference") or {}).get("message_id", "")
        who = self._author_of(message)
        self.said.append(Said(message["id"], channel.id, who, content, buttons=buttons, reply_to=answered))
        self.changes.announce()
        return message

    def compose(self, channel: Channel, author: Json, content: str, **more: object) -> Json:
        """A message as it would stand in the channel."""
        self.users[author["id"]] = author
        named = {"mentions": self._mentioned(content), "mention_roles": self._mentioned_roles(content)}
        message = {**_message(self.snowflake(), channel.id, author, content), **named, **more}
        return {**message, "components": numbered(message["components"])}

    def _mentioned(self, content: str) -> list[Json]:
        """The users whose mention stands in a text. An unknown id mentions nobody."""
        ids = dict.fromkeys(re.findall(r"<@!?([0-9]+)>", content))
        return [self.users[user_id] for user_id in ids if user_id in self.users]

    def _mentioned_roles(self, content: str) -> list[str]:
        return [self.bot_role] if f"<@&{self.bot_role}>" in content else []

    def bot_heard(self, *messages: object) -> None:
        """Any events; those with an id count."""
        ids = [message.get("id") for message in messages if isinstance(message, dict)]
        self.heard.update(key for key in ids if isinstance(key, str))
        self.changes.announce()

    def rewrite(self, message: Json, content: str, components: list[Json] | None = None) -> None:
        """Give a message new words, and new components unless they are None."""
        message.update(content=content, edited_timestamp=_now())
        if components is not None:
            message["components"] = numbered(components)
        for place, said in enumerate(self.said):
            if said.message_id == message["id"]:
                self.said[place] = replace(said, text=content, buttons=buttons_in(message["components"]))

    def find(self, message_id: str) -> Json:
        """Raises KeyError."""
        holder = next((c for c in self.channels.values() if message_id in c.messages), None)
        if holder is None:
            raise KeyError(message_id)
        return holder.messages[message_id]

    def _author_of(self, message: Json) -> str:
        return "bot" if message["author"]["id"] == self.bot["id"] else str(message["author"]["id"])

    def as_bot_sees(self, message: Json) -> Json:
        """Without the privileged intent, guild text is empty unless it is the bot's, or mentions or answers it."""
        answered = (message.get("referenced_message") or {}).get("author") or {}
        people = [message["author"], answered, *message["mentions"]]
        private = self.channels[message["channel_id"]].person is not None
        if private or self.bot["id"] in [person.get("id") for person in people]:
            return dict(message)
        return {**message, "content": ""}

    def as_event(self, message: Json) -> Json:
        """What the gateway adds to a message."""
        seen = self.as_bot_sees(message)
        if self.channels[message["channel_id"]].person is not None:
            return {**seen, "channel_type": DIRECT_MESSAGE}
        member = self.member_json(message["author"])
        del member["user"]
        kind = PUBLIC_THREAD if self.channels[message["channel_id"]].parent else GUILD_TEXT
        return {**seen, "channel_type": kind, "guild_id": self.guild_id, "member": member}

    def member_json(self, user: Json) -> Json:
        """A user as a member of the guild."""
        names: Json = {"nick": None, "avatar": None, "premium_since": None, "communication_disabled_until": None}
        states = {"joined_at": _now(), "deaf": False, "mute": False, "pending": False, "flags": 0}
        return {"user": user, "roles": [self.bot_role] if user["id"] == self.bot["id"] else [], **names, **states}

    def guild_json(self) -> Json:
        empty = ("emojis", "stickers", "features", "voice_states", "presences")
        channels = [channel.as_json() for channel in self.guild_channels()]
        threads = [channel.as_json() for channel in self.channels.values() if channel.parent]
        everyone = _role(self.guild_id, "@everyone")  # whose id is the guild's
        roles = [everyone, {**_role(self.bot_role, "BotOS"), "managed": True, "tags": {"bot_id": self.bot["id"]}}]
        lists = {"channels": channels, "threads": threads, "roles": roles, "members": [self.member_json(self.bot)]}
        fields = {"name": "Playground", "owner_id": self.bot["id"], "member_count": 2, "unavailable": False}
        return {"id": self.guild_id, **GUILD_DEFAULTS, **fields, **lists, **{name: [] for name in empty}}


def numbered(rows: list[Json]) -> list[Json]:
    """The components of a message as Discord keeps them: each has a number, also where the bot gave it none."""
    numbers = itertools.count(1)
    return [
        {"id": next(numbers), **row, "components": [{"id": next(numbers), **one} for one in row["components"]]}
        for row in rows
    ]


def buttons_in(rows: list[Json]) -> tuple[Button, ...]:
    shown = [component for row in rows for component in row["components"] if component["type"] == BUTTON]
    return tuple(Button(component["label"], component["custom_id"]) for component in shown)


def user_json(person: Person) -> Json:
    return _user(person.id, person.username or person.name.lower(), person.name)


def _user(user_id: str, username: str, name: str) -> Json:
    looks = {"avatar": None, "banner": None, "accent_color": None, "flags": 0, "public_flags": 0}
    return {"id": user_id, "username": username, "global_name": name, "discriminator": "0", **looks}


def _role(role_id: str, name: str) -> Json:
    looks = {"color": 0, "hoist": False, "icon": None, "unicode_emoji": None, "position": 0, "flags": 0}
    return {"id": role_id, "name": name, "permissions": ALL_PERMISSIONS, "managed": False, "mentionable": True, **looks}


def _message(message_id: str, channel_id: str, author: Json, content: str) -> Json:
    empty = ("mentions", "mention_roles", "attachments", "embeds", "components")
    flags = {"tts": False, "mention_everyone": False, "pinned": False, "type": DEFAULT, "flags": 0}
    times = {"timestamp": _now(), "edited_timestamp": None}
    words = {"id": message_id, "channel_id": channel_id, "author": author, "content": content}
    return {**words, **flags, **times, **{name: [] for name in empty}}


def _now() -> str:
    return datetime.now(UTC).isoformat()
