"""How far each private chat is received, so that after a downtime the missing messages can be read back."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from django.db import connection

from identity.support import clock
from sessions_app.messages import InboundMessage
from sessions_app.models import Watermark

# Chats in one order, so that two transactions do not wait in a circle.
_ADVANCE = """
INSERT INTO sessions_app_watermark (platform, since, chat_id, position)
SELECT %s, %s, m.key, {position} FROM {marks} WHERE true ORDER BY m.key
ON CONFLICT (platform, chat_id) DO UPDATE SET position = excluded.position
WHERE sessions_app_watermark.position < excluded.position
"""
_DIALECTS = {
    "postgresql": {"marks": "json_each_text(%s::json) AS m", "position": "m.value::bigint"},
    "sqlite": {"marks": "json_each(%s) AS m", "position": "m.value"},
}


@dataclass(frozen=True, slots=True)
class Mark:
    """Everything up to `position` is received. Messages from before `since` must not be read back."""

    position: int = 0
    since: datetime = clock.EPOCH


def known(platform: str) -> dict[str, Mark]:
    """The marks of all private chats of a platform by chat id, the most recently used first."""
    rows = Watermark.objects.filter(platform=platform).order_by("-position")
    return {row.chat_id: Mark(row.position, row.since) for row in rows}


def advance(message: InboundMessage) -> None:
    """Advance the mark of the message's chat, in the transaction that stores the message. A mark never goes back.

    Raises IntegrityError if another process creates the mark at the same moment.
    """
    if message.position is None or not message.is_private:
        return
    place = {"platform": message.address.platform, "chat_id": message.address.chat_id}
    marks = Watermark.objects.filter(**place)
    if not marks.filter(position__lt=message.position).update(position=message.position) and not marks.exists():
        Watermark.objects.create(**place, position=message.position)


def advance_together(messages: Iterable[InboundMessage]) -> None:
    """Advance the marks of all chats of messages from one platform, in the transaction that stores them."""
    platform, marks = "", dict[str, int]()
    for message in messages:
        if message.position is not None and message.is_private:
            platform, chat_id = message.address.platform, message.address.chat_id
            marks[chat_id] = max(message.position, marks.get(chat_id, 0))
    if marks:
        epoch = connection.ops.adapt_datetimefield_value(clock.EPOCH)
        with connection.cursor() as cursor:
            cursor.execute(_ADVANCE.format(**_DIALECTS[connection.vendor]), [platform, epoch, json.dumps(marks)])


def forget(*, platform: str, chat_id: str) -> None:
    """Keep all messages of a private chat up to now from being read back, also by a running read.

    A chat without a mark is never read back.
    """
    Watermark.objects.filter(platform=platform, chat_id=chat_id).update(since=clock.now())


def is_forgotten(message: InboundMessage) -> bool:
    """Whether a message that was read back is from before the deletion of its author."""
    if not message.is_from_history or message.sent_at is None:
        return False
    marks = Watermark.objects.filter(platform=message.address.platform, chat_id=message.address.chat_id)
    return marks.filter(since__gte=message.sent_at).exists()
