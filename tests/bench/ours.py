"""A turn by BotOS: the calls of an adapter, the pool and the delivery worker, in their order, one after another."""

from __future__ import annotations

from collections.abc import Callable

from django.conf import settings
from django.db import connection, transaction

from identity.resolvers import DatabaseIdentityResolver
from sessions_app import inbox
from sessions_app.messages import InboundMessage
from sessions_app.outbox import queue as outbox_queue
from sessions_app.outbox.queue import Sent
from sessions_app.turns import leases, lifecycle

ANSWER = "About four hours: leave at 7:12, change once, and you arrive a little after eleven. Shall I remind you?"
PLATFORMS = ("telegram", "discord", "slack", "slack-acme")
RESOLVER = DatabaseIdentityResolver()
STEPS = ("receive", "claim", "begin", "finish", "take delivery", "settle it")


class Ours:
    """Runs turns on the connection in use."""

    def turn(self, message: InboundMessage, lap: Callable[[], None]) -> list[str]:
        """Take a message through all STEPS, calling `lap` after each. What the agent was shown, oldest first."""
        conversation = inbox.receive(message, resolver=RESOLVER)
        lap()
        assert conversation is not None
        (claim,) = leases.claim([conversation], owner="bench", platforms=PLATFORMS).claims
        lap()
        turn = lifecycle.begin(claim, resolver=RESOLVER)
        lap()
        lifecycle.finish(claim, ANSWER, limit=outbox_queue.TEXT_LIMIT)
        lap()
        due = outbox_queue.claim(owner="bench", platforms=PLATFORMS)
        lap()
        outbox_queue.settle([Sent(delivery, "sent") for delivery in due])
        lap()
        assert len(due) == 1
        return [line.text for line in turn.history]

    def forget(self, statements: tuple[str, ...]) -> None:
        with transaction.atomic(), connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    def show(self, lines: int) -> None:
        """Show the agent this many lines of history from now on."""
        settings.BOTOS_WINDOW = lines
