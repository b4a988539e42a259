"""Turns and lines for the tests of the agents."""

from __future__ import annotations

from datetime import UTC, datetime

from sessions_app.context import SessionContext
from sessions_app.messages import Line, Turn

NOON = datetime(2030, 5, 1, 12, tzinfo=UTC)
ALICE = SessionContext(
    platform="telegram", chat_id="12345", user_id="12345", user_name="Alice", unified_user_id="alice"
)
BOB = SessionContext(platform="discord", chat_id="77", user_id="77", user_name="Bob", unified_user_id="bob")


def user(text: str) -> Line:
    return Line(role="user", text=text, said_at=NOON)


def assistant(text: str) -> Line:
    return Line(role="assistant", text=text, said_at=NOON, source="reply")


def mirror(text: str, label: str = "cron") -> Line:
    return Line(role="assistant", text=text, said_at=NOON, source="mirror", source_label=label)


def a_turn(text: str, *history: Line, context: SessionContext = ALICE) -> Turn:
    return Turn(key="turn-1", text=text, history=history, context=context)
