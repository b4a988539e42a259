"""A Slack workspace in memory: people, channels, messages. Knows no HTTP and no socket."""

from __future__ import annotations

import asyncio
import html
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import uuid4

from adapters.playground.server import Person, Said
from identity.support.buttons import Button

TEAM = "T0PLAY"
APP = "A0BOTOS"
BOT_USER = "U0BOTOS"
BOT = "B0BOTOS"
KINDS = {"D": "im", "G": "mpim", "C": "channel"}  # by the first letter of an id, unless a channel says otherwise

Message = dict[str, Any]


@dataclass(slots=True)
class Channel:
    """A channel or a chat. `person`: whose private chat with the bot it is; one without is that of two people."""

    id: str
    kind: str
    name: str = ""
    person: str = ""
    is_member: bool = True  # the bot, of a channel or a group chat
    messages: list[Message] = field(default_factory=list)

    @property
    def has_bot(self) -> bool:
        """Whether the bot hears what is written here, and may write."""
        return self.is_member and (self.kind != "im" or bool(self.person))


class Workspace:
    """What people and the bot have said. `teams` tells guests from other workspaces (Slack Connect) by user id.

    enterprise: the id of the organisation that the workspace belongs to, if any. is_org_wide: the bot is installed in
    all workspaces of that, and not in this one alone.
    """

    def __init__(self) -> None:
        self.enterprise = ""
        self.is_org_wide = False
        self.people: dict[str, Person] = {}
        self.teams: dict[str, str] = {}
        self.channels: dict[str, Channel] = {}
        self.said: list[Said] = []
        self.changed = asyncio.Condition()
        self._last = 0

    def meet(self, person: Person) -> None:
        self.people[person.id] = person

    def team_of(self, user_id: str) -> str:
        return self.teams.get(user_id, TEAM)

    def private_chat(self, person: Person) -> Channel:
        self.meet(person)
        channel = self.channel(f"D{person.id}")
        channel.person = person.id
        return channel

    def channel(self, channel_id: str) -> Channel:
        """The channel with this id, opened if there is none."""
        kind = KINDS.get(channel_id[:1], "channel")
        return self.channels.setdefault(channel_id, Channel(channel_id, kind, f"room-{channel_id.lower()}"))

    def message(self, message_id: str) -> tuple[Channel, Message]:
        """The message with this ts and where it stands. Raises KeyError."""
        for channel in self.channels.values():
            for message in channel.messages:
                if message["ts"] == message_id:
                    return channel, message
        raise KeyError(message_id)

    async def write(self, channel: Channel, message: Message, *, author: str) -> Message:
        """Put a message into a channel; it is given its ts."""
        message["ts"] = self.next_ts()
        channel.messages.append(message)
        text, thread = html.unescape(message["text"]), str(message.get("thread_ts") or "")
        self.said.append(Said(message["ts"], channel.id, author, text, thread, buttons_in(message.get("blocks", []))))
        await self.notify()
        return message

    async def rewrite(self, message: Message, text: str, blocks: list[dict[str, Any]] | None = None) -> Message:
        """Give a message new words, and new blocks unless they are None. Returns what it was before."""
        before = dict(message)
        message["text"] = text
        if blocks is not None:
            message["blocks"] = blocks
        message["edited"] = {"user": message["user"], "ts": self.next_ts()}
        for index, said in enumerate(self.said):
            if said.message_id == message["ts"]:
                buttons = buttons_in(message.get("blocks", []))
                self.said[index] = replace(said, text=html.unescape(text), buttons=buttons)
        await self.notify()
        return before

    async def remove(self, channel: Channel, message: Message) -> None:
        """Take a message out of its channel."""
        channel.messages.remove(message)
        self.said[:] = [said for said in self.said if said.message_id != message["ts"]]
        await self.notify()

    async def until(self, true: Callable[[], bool], timeout: float) -> None:
        """Wait until something is true; it is looked at whenever anything happened. Raises TimeoutError."""
        async with asyncio.timeout(timeout), self.changed:
            await self.changed.wait_for(true)

    async def notify(self) -> None:
        """Let those who wait look again."""
        async with self.changed:
            self.changed.notify_all()

    def next_ts(self) -> str:
        """A ts: seconds and microseconds, never the same twice, never backwards."""
        self._last = max(self._last + 1, time.time_ns() // 1000)
        return f"{self._last // 1_000_000}.{self._last % 1_000_000:06d}"


def buttons_in(blocks: list[dict[str, Any]]) -> tuple[Button, ...]:
    """The buttons of a message, in order."""
    elements = [element for block in blocks if block["type"] == "actions" for element in block["elements"]]
    return tuple(Button(one["text"]["text"], _command_of(one)) for one in elements if one["type"] == "button")


def button_of(message: Message, command: str) -> dict[str, Any]:
    """The button of a message that means `command`, as the press of it names it. Raises StopIteration."""
    rows = [block for block in message.get("blocks", []) if block["type"] == "actions"]
    return next(
        {**{key: one[key] for key in ("type", "action_id", "text", "value") if key in one}, "block_id": row["block_id"]}
        for row in rows
        for one in row["elements"]
        if _command_of(one) == command
    )


def with_ids(blocks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The blocks as Slack keeps them: each block and each button has an id, whether the bot gave it one or not."""
    kept = []
    for block in blocks:
        elements = [{"action_id": uuid4().hex[:5], **one} for one in block.get("elements", [])]
        kept.append({"block_id": uuid4().hex[:5], **block, **({"elements": elements} if elements else {})})
    return kept


def _command_of(button: dict[str, Any]) -> str:
    """What tells a button from the others of its message: its value, or its id where it has none."""
    return str(button.get("value") or button["action_id"])
