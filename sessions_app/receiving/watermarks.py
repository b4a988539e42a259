"""How far each private chat is taken in, so that after a downtime a platform's history tells what is missing."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from identity.support import clock
from sessions_app.messages import InboundMessage
from sessions_app.models import Watermark


@dataclass(frozen=True, slots=True)
class Mark:
    """Everything up to `position` is taken in, and what was said before `since` must not be."""

    position: int = 0
    since: datetime = clock.EPOCH


def known(platform: str) -> dict[str, Mark]:
    """The marks of all private chats of a platform by chat id, the most recently used first."""
    rows = Watermark.objects.filter(platform=platform).order_by("-position")
    return {row.chat_id: Mark(row.position, row.since) for row in rows}


def advance(message: InboundMessage) -> None:
    """Note, in the transaction that stores it, that a message is taken in. A mark never goes back.

    Raises IntegrityError if somebody else makes the mark at the same moment.
    """
    if message.position is None or not message.is_private:
        return
    place = {"platform": message.address.platform, "chat_id": message.address.chat_id}
    marks = Watermark.objects.filter(**place)
    if not marks.filter(position__lt=message.position).update(position=message.position) and not marks.exists():
        Watermark.objects.create(**place, position=message.position)


def forget(*, platform: str, chat_id: str) -> None:
    """Let nothing that was said in a private chat until now be read back, also by who is reading it at this moment.

    Of a chat without a mark nothing is read back anyhow.
    """
    Watermark.objects.filter(platform=platform, chat_id=chat_id).update(since=clock.now())


def is_forgotten(message: InboundMessage) -> bool:
    """Whether a message that was read in a history is from a time that is forgotten."""
    if not message.is_from_history or message.sent_at is None:
        return False
    here = Watermark.objects.filter(platform=message.address.platform, chat_id=message.address.chat_id)
    return here.filter(since__gte=message.sent_at).exists()
