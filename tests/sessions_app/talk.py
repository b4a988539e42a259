"""How the tests talk: messages as an adapter would hand them in, and turns without a platform."""

from __future__ import annotations

import asyncio
import itertools
from concurrent.futures import Future

from identity.resolvers import DatabaseIdentityResolver, Resolves
from identity.support import clock
from sessions_app import inbox
from sessions_app.history import window as history_window
from sessions_app.messages import Address, InboundMessage, Line, Sender
from sessions_app.models import Conversation, InboundEvent, OutboundDelivery
from sessions_app.outbox import queue as outbox_queue
from sessions_app.turns import leases, lifecycle
from sessions_app.turns.leases import Claim

PLATFORMS = ("telegram", "discord", "slack")
DATABASE = DatabaseIdentityResolver()
_keys = itertools.count(1)


class Signal:
    """An event that is set on one event loop, or in a thread, and awaited on others."""

    def __init__(self) -> None:
        self._future: Future[None] = Future()

    def set(self) -> None:
        if not self._future.done():
            self._future.set_result(None)

    def is_set(self) -> bool:
        return self._future.done()

    async def wait(self) -> None:
        await asyncio.shield(asyncio.wrap_future(self._future))


def message(who: str, text: str, *, platform: str = "telegram", group: str = "", key: str = "") -> InboundMessage:
    """What `who` writes, in private or to a group."""
    return InboundMessage(
        native_key=key or f"key-{next(_keys)}",
        address=Address(platform, group or f"chat-{who}"),
        sender=Sender(who, who.title()),
        text=text,
        message_id=f"m-{next(_keys)}",
        chat_name=group or who.title(),
        is_private=not group,
    )


def receive(
    who: str,
    text: str,
    *,
    platform: str = "telegram",
    group: str = "",
    key: str = "",
    resolver: Resolves | None = DATABASE,
) -> int:
    """Store a message and give the id of its conversation."""
    conversation = inbox.receive(message(who, text, platform=platform, group=group, key=key), resolver=resolver)
    assert conversation is not None
    return conversation


def command(
    who: str, text: str, *, platform: str = "telegram", group: str = "", resolver: Resolves | None = DATABASE
) -> str:
    """The answer to a command, at receipt or in its turn."""
    conversation = inbox.receive(message(who, text, platform=platform, group=group), resolver=resolver)
    if conversation is not None:
        answer_in_turn(conversation, resolver=resolver)
    return OutboundDelivery.objects.latest("pk").text


def answer_in_turn(conversation: int, *, resolver: Resolves | None = DATABASE) -> None:
    """Claim and answer a command that waits."""
    claimed = claim(conversation)
    turn = lifecycle.begin(claimed, resolver=resolver)
    lifecycle.answer_command(claimed, turn, limit=outbox_queue.TEXT_LIMIT)


def claim(conversation: int, *, owner: str = "test") -> Claim:
    """Claim a lane where something must be waiting."""
    (claimed,) = leases.claim([conversation], owner=owner, platforms=PLATFORMS).claims
    return claimed


def time_passes() -> None:
    """What settles or steps aside is ready from now on."""
    InboundEvent.objects.filter(done_at=None).update(ready_at=clock.now())


def is_busy(conversation: int) -> bool:
    """Whether another worker that asks for the lane is refused."""
    claimed = leases.claim([conversation], owner="other", platforms=PLATFORMS)
    assert not claimed.claims
    return conversation in claimed.busy


def say(who: str, text: str, *, platform: str = "telegram", group: str = "", answer: str = "") -> int:
    """A whole turn: a message comes in and is answered. The id of its conversation."""
    conversation = receive(who, text, platform=platform, group=group)
    lifecycle.finish(claim(conversation), answer or f"re: {text}", limit=outbox_queue.TEXT_LIMIT)
    return conversation


def window(conversation: int, *, limit: int = 100) -> tuple[Line, ...]:
    return history_window.window_for(Conversation.objects.get(pk=conversation), limit=limit)


def texts(conversation: int, *, limit: int = 100) -> list[str]:
    """The words of an agent's window."""
    return [line.text for line in window(conversation, limit=limit)]
