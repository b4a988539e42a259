"""Who is talking, for code that runs inside a turn.

It is a context variable, so that concurrent turns, their coroutines and their threads each see their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar, Token
from dataclasses import asdict, dataclass, fields


@dataclass(frozen=True, slots=True)
class SessionContext:
    """The person and place of the running turn; every field is empty outside a turn."""

    platform: str = ""
    chat_id: str = ""
    chat_name: str = ""
    thread_id: str = ""
    user_id: str = ""
    user_name: str = ""
    unified_user_id: str = ""

    def to_dict(self) -> dict[str, str]:
        """All fields by name, for `from_dict`."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> SessionContext:
        """The context with these fields. A missing field or None is empty; other keys are ignored."""
        known = {field.name for field in fields(cls)}
        return cls(**{name: str(value) for name, value in values.items() if name in known and value is not None})


_EMPTY = SessionContext()
_current: ContextVar[SessionContext] = ContextVar("botos_session_context", default=_EMPTY)


def get_session_context() -> SessionContext:
    """The context of the running turn, or an empty one. Never None."""
    return _current.get()


def set_session_context(
    *,
    platform: str = "",
    chat_id: str = "",
    chat_name: str = "",
    thread_id: str = "",
    user_id: str = "",
    user_name: str = "",
    unified_user_id: str = "",
) -> Token[SessionContext]:
    """Replace the whole context; fields not given become empty. Hand the token to `clear_session_context`."""
    return enter(SessionContext(platform, chat_id, chat_name, thread_id, user_id, user_name, unified_user_id))


def enter(context: SessionContext) -> Token[SessionContext]:
    """Make `context` the current one."""
    return _current.set(context)


def clear_session_context(token: Token[SessionContext] | None = None) -> None:
    """Restore the context from before `token`; without a token, or with a foreign one, the empty context."""
    try:
        if token is not None:
            _current.reset(token)
            return
    except (ValueError, RuntimeError):  # from another context, or used already
        pass
    _current.set(_EMPTY)
