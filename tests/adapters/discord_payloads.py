"""Discord's raw message events, good and malformed."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from adapters.discord.events import parse_message
from adapters.playground.server import Person
from sessions_app.messages import InboundMessage

ALICE = Person("1001", "Alice Liddell", "alice")
BOB = Person("1002", "Bob", "bob")
ME = "42"


def event(**changed: object) -> dict[str, Any]:
    """A message of Alice in private, as the gateway tells it, with some fields replaced or (by `...`) left out."""
    author = {"id": ALICE.id, "username": "alice", "global_name": "Alice Liddell"}
    words = {"id": "900", "channel_id": "800", "author": author, "content": "hello", "type": 0, "mentions": []}
    raw = {**words, "channel_type": 1, "timestamp": "2026-01-02T03:04:05.678000+00:00", **changed}
    return {key: value for key, value in raw.items() if value is not ...}


def parsed(**changed: object) -> InboundMessage:
    message = parse_message(event(**changed), ME)
    assert message is not None
    return message


def hostile_events(count: int) -> list[object]:
    """Malformed in one way each: a field missing, of the wrong type, too long, or no object at all."""
    dice = random.Random(7)
    junk: list[object] = [None, -1, 1.5, True, "\0\x1b[2J", [], ["x"], {"a": {}}, "9" * 5000, 10**40]
    wrong = {"id": junk, "channel_id": junk, "author": junk, "type": ["0", *junk[5:8]], "timestamp": [*junk[1:8]]}
    makers: list[Callable[[], object]] = [
        lambda: event(**{dice.choice(["id", "channel_id", "author", "content", "type"]): ...}),
        lambda: event(**{(field := dice.choice(list(wrong))): dice.choice(wrong[field])}),
        lambda: event(content="\x07" * 1_000_000),
        lambda: dice.choice([None, 5, "event", [event()], True, {"unknown": "kind"}, {}]),
        lambda: event(mentions=dice.choice(["all", 5, ["me"], [[]]]), author={"id": "1", "username": "\x00"}),
    ]
    weights = [10, 10, 1, 3, 5]
    return [dice.choices(makers, weights)[0]() for _ in range(count)]
