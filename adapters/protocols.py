"""The seam between a chat platform and the rest: what an adapter is given, and what it must do."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from sessions_app.messages import Address, InboundMessage, MessageEdit, OutgoingMessage
from sessions_app.receiving.watermarks import Mark

MAX_COMMAND = 64  # bytes of identity.support.buttons.Button.command


class NeedsConfiguration(Exception):
    """The platform refused the credentials, or there are none. Retrying is useless; the text says what to set."""


class Superseded(Exception):
    """Another process or program receives for this bot, and may continue."""


class MalformedEvent(ValueError):
    """An event from the platform that cannot be a message: a field is missing or has the wrong type."""


def pressed(command: str) -> str:
    """The command that a button holds. Raises MalformedEvent for what no button of ours holds."""
    if not command.startswith("/") or len(command.encode()) > MAX_COMMAND:
        raise MalformedEvent("the button holds no command")
    return command


class DeliveryError(Exception):
    """A message was not, or may not have been, delivered.

    permanent: the platform will never take it (blocked, chat gone, refused text).
    gone: and that is because the account it is for does not exist any more, in the platform's own words.
    retry_after: seconds that the platform asked to wait, honoured exactly.
    ambiguous: the request may have been carried out although no answer came.
    """

    def __init__(
        self,
        reason: str,
        *,
        permanent: bool = False,
        gone: bool = False,
        retry_after: float | None = None,
        ambiguous: bool = False,
    ) -> None:
        super().__init__(reason)
        self.permanent = permanent or gone
        self.gone = gone
        self.retry_after = retry_after
        self.ambiguous = ambiguous


class Inbox(Protocol):
    """Where an adapter hands in what it hears.

    Calls of `receive` and `edit` that overlap take effect in the order in which they began. What an adapter hands in
    without waiting is stored together.
    """

    def connected(self, *, name: str = "", url: str = "") -> None:
        """Say that the platform accepted the credentials and messages can now be sent and received.

        `name` is what the bot is called there, and `url` opens a private chat with it, where there is such a thing.
        """

    async def marks(self) -> Mapping[str, Mark]:
        """How far each private chat was taken in, by chat id, the most recently used first."""
        ...

    async def receive(self, message: InboundMessage) -> None:
        """Store a message. It is durable when this returns: acknowledge then, and only then.

        If it raises, hand the message in again. What waited behind it in the same chat fails too, so that nothing there
        is stored before it.
        """

    async def edit(self, edit: MessageEdit) -> None:
        """Take note of an edited message. Durable when this returns."""


@runtime_checkable
class PlatformAdapter(Protocol):
    """One connection to one platform. `run` builds fresh SDK objects, and may be called again after it ended."""

    platform: str
    text_limit: int  # of one message, in UTF-16 code units

    async def run(self, inbox: Inbox, stop: asyncio.Event) -> None:
        """Receive until `stop` is set, then disconnect and return.

        Raises NeedsConfiguration when the credentials are refused, anything else when the connection is beyond repair.
        """

    async def send(self, message: OutgoingMessage) -> str:
        """Send a message and return the platform's id of it. Raises DeliveryError."""
        ...


@runtime_checkable
class Checkable(Protocol):
    """An adapter that can say whether its credentials would do, without receiving anything."""

    async def check(self) -> str:
        """Ask the platform; what the bot is called there.

        Raises NeedsConfiguration when the credentials are refused, anything else when the platform does not serve.
        """
        ...


@runtime_checkable
class ShowsTyping(Protocol):
    """An adapter that can show the typing sign of its platform.

    typing_seconds: after so many seconds the sign is shown again while it is on. It is also the least time between two
    calls for one chat in which the bot has said nothing meanwhile.
    """

    typing_seconds: float

    async def show_typing(self, address: Address) -> None:
        """Show the sign once, or do nothing where the platform has none.

        Raises DeliveryError; whatever it raises harms nothing. With `retry_after` the sign rests there for so long, and
        with `permanent` it is not shown for this message again.
        """


@runtime_checkable
class HidesTyping(Protocol):
    """An adapter whose platform keeps the sign until the bot says something, so that it must be taken back without."""

    async def hide_typing(self, address: Address) -> None:
        """Take the sign back. Raises as `show_typing` does."""
