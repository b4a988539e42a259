"""Messages that a person did not ask for: sent to the app that they prefer, and stored in history for the agent."""

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
    """Queue `text` for one private chat of the person, and store it in that chat's history. Return the conversation.

    label: who speaks, such as "operator". Raises ValueError if the text is empty or the person has no private chat, and
    messages.Unacceptable for a text that cannot be stored.
    """
    check_text(text)
    if not (text := text.strip()):
        raise ValueError("There is nothing to say.")
    chat = conversations.preferred_of(person.unified_user_id)
    if chat is None or not chat.chat_id:
        raise ValueError(f"{person.unified_user_id} has no private chat with the bot.")
    fields = {"role": HistoryEntry.Role.ASSISTANT, "source": HistoryEntry.Source.MIRROR, "text": text}
    entry = window.entry(chat, source_label=label[:80], **fields)
    entry.save()
    address = Address(chat.platform, chat.chat_id, chat.thread_id)
    outbox_queue.add(outbox_queue.parts(address, text, entry=entry))
    window.announce([chat])
    audit.record(kind="told", actor=actor, account=chat.account, user=person, label=label[:80])
    return chat
