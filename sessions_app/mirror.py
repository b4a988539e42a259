"""Stores messages that were sent by other means in history, so that the agent knows them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from django.db import transaction

from identity.support.text import storable
from sessions_app import db
from sessions_app.history import window
from sessions_app.models import HistoryEntry

if TYPE_CHECKING:
    from sessions_app.manager import BotSessionManager

log = logging.getLogger(__name__)

_RESERVED = frozenset({"role", "content", "timestamp", "mirror", "mirror_source"})


def mirror_to_session(
    session_mgr: BotSessionManager,
    user_id: str,
    message_text: str,
    source_label: str = "",
    metadata: Mapping[str, Any] | None = None,
    lock: AbstractContextManager[Any] | None = None,
) -> bool:
    """Store in history that the caller has sent `message_text` to a person. It sends nothing and never raises.

    user_id: a platform user id, or a unified user id (then the private chat that the person used last). The person may
    never have written before. source_label: who sent it, such as "cron". lock: held around the write.

    Thread-safe. On a running event loop it does not block, and True means accepted; elsewhere True means stored. False:
    an empty text, a person without accounts, or an error, which is logged.
    """
    try:
        if not db.is_in_event_loop():
            return db.call_from_any_thread(_write, session_mgr, user_id, message_text, source_label, metadata, lock)
        if not _is_text(message_text):
            return False
        db.call_soon(_write_or_log, session_mgr, user_id, message_text, source_label, metadata, lock)
    except Exception as error:  # noqa: BLE001 - a mirror must never break the delivery that it follows
        return _failed(error)
    return True


async def amirror_to_session(
    session_mgr: BotSessionManager,
    user_id: str,
    message_text: str,
    source_label: str = "",
    metadata: Mapping[str, Any] | None = None,
    lock: AbstractContextManager[Any] | None = None,
) -> bool:
    """As `mirror_to_session`, but wait until the entry is stored."""
    # In the thread of `call_soon`, as waiting for the lock in the other one would block all calls.
    write = db.call_soon(_write_or_log, session_mgr, user_id, message_text, source_label, metadata, lock)
    return await asyncio.shield(asyncio.wrap_future(write))


def _write_or_log(*args: Any) -> bool:
    try:
        return _write(*args)
    except Exception as error:  # noqa: BLE001 - a mirror must never break the delivery that it follows
        return _failed(error)


def _write(
    session_mgr: BotSessionManager,
    user_id: str,
    text: str,
    label: str,
    metadata: Mapping[str, Any] | None,
    lock: AbstractContextManager[Any] | None,
) -> bool:
    if not _is_text(text):
        return False
    with lock or nullcontext(), transaction.atomic():
        conversation = session_mgr.conversation_to_mirror(str(user_id))
        if conversation is None:
            return False
        extra = _storable({key: value for key, value in (metadata or {}).items() if key not in _RESERVED})
        fields = {
            "role": HistoryEntry.Role.ASSISTANT,
            "source": HistoryEntry.Source.MIRROR,
            "text": storable(text),
        }
        window.entry(conversation, source_label=storable(label)[:80], metadata=extra, **fields).save()
        window.announce([conversation])
    return True


def _is_text(text: object) -> bool:
    return isinstance(text, str) and bool(storable(text).strip())


def _storable(value: Any) -> Any:
    """The metadata with `storable` applied to each text."""
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, Mapping):
        return {_storable(key): _storable(item) for key, item in value.items()}
    return [_storable(item) for item in value] if isinstance(value, list | tuple) else value


def _failed(error: Exception) -> bool:
    # Without a traceback, which may quote the message.
    log.error("mirror a message failed: %s; the agent will not know it", type(error).__name__)
    return False
