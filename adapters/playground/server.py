"""What the local platform servers have in common, as tests and the playground page see them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import Protocol

from identity.support.buttons import Button


@dataclass(frozen=True, slots=True)
class Person:
    """A person with an account on a local platform server. `id` is the platform's stable user id."""

    id: str
    name: str
    username: str = ""


@dataclass(frozen=True, slots=True)
class Said:
    """One message as it stands in a chat on the server. `author_id` is the person's id, or `bot`.

    reply_to: the id of the message that it answers.
    """

    message_id: str
    chat_id: str
    author_id: str
    text: str
    thread_id: str = ""
    buttons: tuple[Button, ...] = ()
    reply_to: str = ""


@dataclass(frozen=True, slots=True)
class TypingCall:
    """The bot asked for its typing sign in a chat, or took it back. at: by the clock of `Typing`."""

    at: float
    chat_id: str
    thread_id: str = ""
    is_on: bool = True


@dataclass(slots=True)
class Typing:
    """Where the bot's typing sign is seen. A call shows it for `seconds`, unless the bot says something before.

    calls: all that were accepted, in order. clock: seconds.
    """

    seconds: float
    clock: Callable[[], float] = monotonic
    calls: list[TypingCall] = field(default_factory=list)
    _until: dict[tuple[str, str], float] = field(default_factory=dict)

    def show(self, chat_id: str, thread_id: str = "") -> None:
        self.calls.append(TypingCall(self.clock(), chat_id, thread_id))
        self._until[chat_id, thread_id] = self.clock() + self.seconds

    def hide(self, chat_id: str, thread_id: str = "") -> None:
        """The bot took it back."""
        self.calls.append(TypingCall(self.clock(), chat_id, thread_id, is_on=False))
        self.end(chat_id, thread_id)

    def end(self, chat_id: str, thread_id: str = "") -> None:
        """The bot said something."""
        self._until.pop((chat_id, thread_id), None)

    def is_on(self, chat_id: str) -> bool:
        """Whether people see it anywhere in the chat."""
        return any(chat == chat_id and until > self.clock() for (chat, _), until in self._until.items())


class PlatformServer(Protocol):
    """A local server that speaks one platform's protocol to the real SDK. Everything runs on one event loop.

    A server of a platform with a typing sign has a `typing: Typing` too.
    """

    platform: str
    said: list[Said]  # everything in every chat, in order, both sides

    def environment(self) -> dict[str, str]:
        """The environment variables (tokens, addresses) that point BotOS at this server. Valid once started."""

    async def start(self, port: int = 0) -> None: ...

    async def stop(self) -> None: ...

    def private_chat(self, person: Person) -> str:
        """The id of the one-to-one chat of a person with the bot."""

    async def say(
        self, person: Person, text: str, *, group: str = "", thread: str = "", mention: bool = False, reply_to: str = ""
    ) -> str:
        """A person writes, in private or in a group, and the platform tells the bot. Returns the message id.

        Raises ValueError for a group if the platform has none.
        """

    async def edit(self, person: Person, message_id: str, text: str) -> None:
        """A person edits a message. Raises ValueError if the platform does not let them."""

    async def press(self, person: Person, message_id: str, command: str) -> str:
        """A person presses the button with this command under a message of the bot. Returns the platform's id of that.

        Raises ValueError if there is no such button.
        """

    async def wait_for(self, count: int, *, chat: str, timeout: float = 10.0) -> list[Said]:
        """Wait until the bot has said `count` messages in a chat, and return all that it said there, in order."""


def check_button(said: list[Said], message_id: str, command: str) -> None:
    """Raises ValueError if there is no such button under the message."""
    shown = [button.command for message in said if message.message_id == message_id for button in message.buttons]
    if command not in shown:
        raise ValueError("there is no such button")
