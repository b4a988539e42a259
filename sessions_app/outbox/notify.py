"""Telling a person something that they have not asked for: sent where they prefer, and known to the agent."""

from __future__ import annotations

from django.db import transaction

from identity import audit
from identity.models import UnifiedUser
from sessions_app.history import conversations, window
from sessions_app.messages import Address, check_text
from sessions_app.models import Conversation, HistoryEntry
from sessions_app.outbox import queue as outbox_queue


@transaction.atomic
def tell(*, person: UnifiedUser, text: str, label: str, actor: str) -> Conversation:
    """Queue `text` for one private chat of the person and write it into that history, both or neither. Which chat.

    `label` says who speaks, such as "operator". Raises ValueError where there is nothing to say, or no chat to say it
    in, and messages.Unacceptable for what cannot be stored.
    """
    check_text(text)
    if not (text := text.strip()):
        raise ValueError("There is nothing to say.")
    chat = conversations.preferred_of(person.unified_user_id)
    if chat is None or not chat.chat_id:
        raise ValueError(f"{person.unified_user_id} has no private chat with the bot.")
    said = {"role": HistoryEntry.Role.ASSISTANT, "source": HistoryEntry.Source.MIRROR, "text": text}
    entry = window.entry(chat, source_label=label[:80], **said)
    entry.save()
    address = Address(chat.platform, chat.chat_id, chat.thread_id)
    outbox_queue.add(outbox_queue.parts(address, text, limit=outbox_queue.TEXT_LIMIT, entry=entry))
    window.announce([chat])
    audit.record(kind="told", actor=actor, account=chat.account, user=person, label=label[:80])
    return chat
