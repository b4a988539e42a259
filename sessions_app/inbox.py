"""Messages come in: stored once, before the platform hears "received"."""

from __future__ import annotations

import hashlib
import logging
import re
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import DataError, IntegrityError, transaction

from identity import labels
from identity.models import PLATFORM_NAME, PlatformAccount
from identity.resolvers import IdentityUnavailable, Resolves
from identity.support import clock
from identity.support.text import is_storable, storable
from sessions_app import texts
from sessions_app.commands import linking as linking_commands
from sessions_app.commands import registry as command_registry
from sessions_app.history import conversations
from sessions_app.messages import Address, InboundMessage, MessageEdit, Sender, Unacceptable, check_text
from sessions_app.models import HistoryEntry, InboundEvent
from sessions_app.outbox import queue as outbox_queue
from sessions_app.receiving import tombstones, watermarks

log = logging.getLogger(__name__)
MAX_ID = 190
MAX_PLATFORM = 40


def receive(message: InboundMessage, *, resolver: Resolves | None) -> int | None:
    """Store a message once. Durable on return. Gives the id of the conversation that now waits, None if none does.

    Raises Unacceptable for what can never be stored. Whatever the database raises means: not received.
    """
    _check(message)
    if not message.is_addressed:
        linking_commands.burn_in(message.text)
        return None
    try:
        return _store(message, resolver)
    except IdentityUnavailable:
        if not _is_known(message):
            _ask_to_try_again(message)
        return None
    except DataError as error:
        raise Unacceptable(str(error).partition("\n")[0]) from error
    except IntegrityError:
        # Somebody else stored it, or made its account or conversation just now, which then are there the second time.
        return None if _is_known(message) else _store_again(message, resolver)


def _store_again(message: InboundMessage, resolver: Resolves | None) -> int | None:
    try:
        return _store(message, resolver)
    except IntegrityError:
        if _is_known(message):
            return None
        raise


def _check(message: InboundMessage) -> None:
    needed = (message.native_key, message.address.chat_id, message.sender.user_id)
    ids = (*needed, message.address.thread_id, message.message_id)
    if not all(needed):
        raise Unacceptable("an id is empty")
    if max(map(len, ids)) > MAX_ID:
        raise Unacceptable(f"an id is longer than {MAX_ID} characters")
    if not re.fullmatch(PLATFORM_NAME, message.address.platform) or len(message.address.platform) > MAX_PLATFORM:
        raise Unacceptable("the platform has no proper name")
    check_text(message.text)
    if not all(map(is_storable, ids)):
        raise Unacceptable("an id has a character that no database keeps")


@transaction.atomic
def _store(message: InboundMessage, resolver: Resolves | None) -> int | None:
    if tombstones.knows(message.address.platform, message.native_key) or watermarks.is_forgotten(message):
        return None
    account, is_new = _account_of(message)
    conversation, is_first = conversations.conversation_for(message, account, resolver)
    if is_first and message.is_private:
        _say_what_is_kept(message.address, resolver)
    is_decided = linking_commands.hear(message, account, is_available=conversations.is_computed(resolver))
    event = InboundEvent.objects.create(
        platform=message.address.platform,
        native_key=message.native_key,
        conversation=conversation,
        account=account,
        chat_id=message.address.chat_id,
        chat_name=_label(message.chat_name),
        thread_id=message.address.thread_id,
        message_id=message.message_id,
        **decided() if is_decided else to_be_answered(message.text),
    )
    transaction.on_commit(lambda: log.info("event %s: received", event.pk, extra={"event": event.pk}))
    if not is_new:
        _see(account, message.sender)
    watermarks.advance(message)
    return None if is_decided else conversation.pk


def _say_what_is_kept(address: Address, resolver: Resolves | None) -> None:
    """Before anything else is said in a private chat."""
    own = f"{texts.WHAT_IS_KEPT} {texts.WHAT_ABOUT_IT}" if conversations.is_computed(resolver) else texts.WHAT_IS_KEPT
    text = settings.BOTOS_NOTICE or labels.with_commands(str(own), on=address.platform)
    if text.lower() != "off":
        outbox_queue.queue(address, text)


def decided() -> dict[str, Any]:
    """The fields of an event about linking: done already, and its words are not kept."""
    return {"kind": InboundEvent.Kind.PAIRING, "text": "", "status": InboundEvent.Status.DONE, "done_at": clock.now()}


def to_be_answered(text: str) -> dict[str, Any]:
    """The fields of an event that waits for its turn."""
    kind = InboundEvent.Kind.COMMAND if command_registry.is_in_turn(text) else InboundEvent.Kind.MESSAGE
    return {"kind": kind, "text": text}


def _account_of(message: InboundMessage) -> tuple[PlatformAccount, bool]:
    """The account that wrote it, and whether this was its first message."""
    key = {"platform": message.address.platform, "platform_user_id": message.sender.user_id}
    account = PlatformAccount.objects.filter(**key).first()
    if account is not None:
        return account, False
    return PlatformAccount.objects.create(**key, **_labels(message.sender)), True


def _see(account: PlatformAccount, sender: Sender) -> None:
    """Note new labels, and that the account is in use. Last of all, since deciding takes locks in an order of its own;
    and not while somebody else holds the account, as they may wait for one of those. The next message brings the same.
    """
    fresh = _labels(sender)
    is_stale = account.seen_at < clock.read() - timedelta(days=1)
    if is_stale or fresh != {"display_name": account.display_name, "username": account.username}:
        free = PlatformAccount.objects.select_for_update(no_key=True, skip_locked=True).filter(pk=account.pk)
        held = list(free.values_list("pk", flat=True))
        PlatformAccount.objects.filter(pk__in=held).update(seen_at=clock.now(), **fresh)


def _labels(sender: Sender) -> dict[str, str]:
    return {"display_name": _label(sender.name), "username": _label(sender.username)}


def _label(name: str) -> str:
    """A name as it can be stored: it is a label and identifies nobody."""
    return storable(name)[:150]


def _is_known(message: InboundMessage) -> bool:
    known = InboundEvent.objects.filter(platform=message.address.platform, native_key=message.native_key)
    return known.exists()


@transaction.atomic
def _ask_to_try_again(message: InboundMessage) -> None:
    """Fail closed: the words are not kept, nor read back later. With a nonce made of the message's key, a redelivery
    asks no second time.
    """
    key = f"{message.address.platform} {message.native_key}"
    outbox_queue.queue(message.address, texts.IDENTITY_UNKNOWN, nonce=hashlib.sha256(key.encode()).hexdigest()[:24])
    watermarks.advance(message)


@transaction.atomic
def edit(change: MessageEdit) -> None:
    """Replace the words of a message that no turn has taken; later, note them on its entry. Starts no turn."""
    check_text(change.text)
    place = {"platform": change.address.platform, "chat_id": change.address.chat_id, "message_id": change.message_id}
    message = InboundEvent.objects.filter(**place, kind=InboundEvent.Kind.MESSAGE)
    if linking_commands.hear_edit(change):
        return  # a code or number is kept nowhere
    if message.filter(done_at=None, starts=0).update(text=change.text):
        return
    if message.filter(done_at=None).update(edited=change.text):
        return  # the turn that has it notes it when it ends
    for entry in HistoryEntry.objects.filter(event__in=message, role=HistoryEntry.Role.USER).select_for_update():
        entry.metadata |= {"edited": change.text}
        entry.save(update_fields=["metadata"])
