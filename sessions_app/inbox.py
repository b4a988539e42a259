"""Receives messages: each is stored once, before the platform gets its acknowledgement."""

from __future__ import annotations

import functools
import hashlib
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import DataError, IntegrityError, transaction

from identity import labels
from identity.models import PLATFORM_NAME, PlatformAccount
from identity.resolvers import IdentityUnavailable, Resolves, resolve_with
from identity.support import clock, db_errors
from identity.support.sanitize import literal
from identity.support.text import is_storable
from sessions_app import lateness, texts
from sessions_app.commands import linking as linking_commands
from sessions_app.commands import registry as command_registry
from sessions_app.commands.intent import Intent, classify
from sessions_app.commands.registry import Invocation, Unknown
from sessions_app.history import conversations
from sessions_app.messages import Address, InboundMessage, MessageEdit, Sender, Unacceptable, check_text, label
from sessions_app.models import Conversation, HistoryEntry, InboundEvent
from sessions_app.outbox import queue as outbox_queue
from sessions_app.receiving import group, settling, tombstones, watermarks
from sessions_app.receiving.settling import Place
from sessions_app.wakeups import local as local_wakeups

log = logging.getLogger(__name__)
MAX_ID = 190
MAX_PLATFORM = 40
MAX_TOGETHER = 50
MAX_POSITION = 2**63 - 1


class NotStoredTogether(Exception):
    """A group of messages was not stored. Each may still be stored alone."""


def receive(message: InboundMessage, *, resolver: Resolves | None) -> int | None:
    """Store a message once, durably on return. Return the id of the conversation that now waits, or None.

    Raises Unacceptable for what can never be stored. Any error of the database means that the message is not received.
    """
    _check(message)
    intent = classify(message.text)
    if not message.is_addressed:
        linking_commands.burn(intent)
        return None
    is_retry = False
    while True:
        try:
            return _store(message, intent, resolver)
        except IdentityUnavailable:
            if not _is_known(message):
                _ask_to_try_again(message)
            return None
        except IntegrityError:
            if _is_known(message):
                return None
            if is_retry:
                raise
            is_retry = True  # another process made the account or conversation, so the second attempt finds it
        except DataError as error:
            raise Unacceptable(str(error).partition("\n")[0]) from error


def receive_together(messages: Sequence[InboundMessage], *, resolver: Resolves | None) -> list[int | None]:
    """Store messages from the front, durably on return: as many plain ones as possible in one transaction.

    Where the first message is not plain, it is stored alone, as `receive` does. So a message never precedes one that
    stands before it. Returns for each stored message, in order, what `receive` returns.

    Raises NotStoredTogether if nothing is stored, since one message fails or the database does, and what `receive`
    raises for a first message that is not plain.
    """
    plain = _plain(messages, resolver)
    try:
        stored = _store_together(plain) if plain else []
    except Exception as error:
        raise NotStoredTogether(type(error).__name__) from error
    return stored or [receive(messages[0], resolver=resolver)]


def _plain(messages: Sequence[InboundMessage], resolver: Resolves | None) -> list[InboundMessage]:
    """The longest prefix of messages that wait for a turn, and say nothing else that is decided at receipt."""
    platform, is_computed = messages[0].address.platform, conversations.is_computed(resolver)
    plain: dict[str, InboundMessage] = {}
    for message in messages[:MAX_TOGETHER]:
        is_ordinary = message.is_addressed and not message.is_from_history and (is_computed or not message.is_private)
        is_distinct = message.native_key not in plain and message.address.platform == platform
        if not (is_ordinary and is_distinct and _is_acceptable(message) and _is_plain(message.text)):
            break
        plain[message.native_key] = message
    return list(plain.values())


@functools.lru_cache(MAX_TOGETHER)
def _is_plain(text: str) -> bool:
    """Whether a text is for the agent alone.

    Messages behind one that is stored alone are looked at again and again, and a long text takes milliseconds.
    """
    return classify(text).is_plain


@transaction.atomic
def _store_together(messages: Sequence[InboundMessage]) -> list[int | None]:
    prefix = group.store(messages)
    stored: list[InboundMessage] = []
    waiting: list[int | None] = []
    for message, conversation_id, event_id in zip(messages, prefix.conversations, prefix.events, strict=False):
        if message.is_private:
            linking_commands.compare_clocks(message, prefix.now)
        waiting.append(None if event_id is None else conversation_id)
        if event_id is not None:
            stored.append(message)
    watermarks.advance_together(stored)
    transaction.on_commit(lambda: _log_received(prefix.events))
    return waiting


def _log_received(event_ids: Iterable[int | None]) -> None:
    for event_id in filter(None, event_ids):
        log.info("event %s: received", event_id, extra={"event": event_id})


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


def _is_acceptable(message: InboundMessage) -> bool:
    """Whether nothing about the message is too long, too large or impossible to store."""
    try:
        _check(message)
    except Unacceptable:
        return False
    return message.position is None or 0 <= message.position <= MAX_POSITION


@transaction.atomic
def _store(message: InboundMessage, intent: Intent, resolver: Resolves | None) -> int | None:
    address = message.address
    if tombstones.knows(address.platform, message.native_key) or watermarks.is_forgotten(message):
        return None
    key = {"platform": address.platform, "platform_user_id": message.sender.user_id}
    account = PlatformAccount.objects.filter(**key).first()
    is_new = account is None
    account = account or PlatformAccount.objects.create(**key, **_labels(message.sender))
    conversation, is_first = conversations.conversation_for(message, account, resolver)
    is_available = conversations.is_computed(resolver)
    if is_first and message.is_private:
        _send_privacy_notice(address, is_available=is_available)
    is_decided = linking_commands.handle(message, intent, account, is_available=is_available)
    event = InboundEvent(
        platform=address.platform,
        native_key=message.native_key,
        conversation=conversation,
        account=account,
        chat_id=address.chat_id,
        chat_name=label(message.chat_name),
        thread_id=address.thread_id,
        message_id=message.message_id,
        sent_at=message.sent_at if message.is_from_history else None,
    )
    settles = settling.seconds(message)
    waits = store_event(event, None if is_decided else intent, resolver=resolver, settles=settles)
    if not is_new:
        _refresh_labels(account, message.sender)
    watermarks.advance(message)
    return conversation.pk if waits else None


def _send_privacy_notice(address: Address, *, is_available: bool) -> None:
    """Queue the notice that precedes every other message in a private chat."""
    standard = f"{texts.WHAT_IS_KEPT} {texts.WHAT_ABOUT_IT}" if is_available else texts.WHAT_IS_KEPT
    text = settings.BOTOS_PRIVACY_NOTICE or labels.with_commands(str(standard), on=address.platform)
    if text.lower() != "off":
        outbox_queue.queue(address, text)


def store_event(
    event: InboundEvent,
    intent: Intent | None,
    *,
    resolver: Resolves | None,
    limit: int | None = None,
    settles: float = 0.0,
) -> bool:
    """Store a new event. True if something waits for its turn, False if all is done and its answer, if any, is queued.

    intent: that of the text; None for a text about linking, which is decided and not stored. limit: the longest message
    of the place, in UTF-16 code units; by default the platform's. settles: how many seconds words for the agent wait
    for others that belong to them. Everything else is ready at once, and so is what its author wrote before it.
    """
    done = {"status": InboundEvent.Status.DONE, "done_at": clock.now()}
    if intent is None:
        _create(event, kind=InboundEvent.Kind.PAIRING, text="", reason="about linking", **done)
        settling.end(event)
        return False
    unknown = intent.unknown if event.conversation.kind == Conversation.Kind.DM else None
    is_command = bool(unknown or (intent.command and not intent.command.at_receipt))
    event.text, event.kind = intent.text, InboundEvent.Kind.COMMAND if is_command else InboundEvent.Kind.MESSAGE
    # Before the event is inserted, so that a long search holds no row of it.
    answer = _suggestion(unknown, event.platform) if unknown else _answer_at_once(event, intent, resolver)
    if answer is None and not is_command and settles:
        _create(event, ready_at=clock.seconds_from_now(settles))
        settling.postpone({Place.of(event): settles})
        return True
    state = {} if answer is None else done
    if intent.question:
        _create_with_question(event, intent, settles, state)
    else:
        _create(event, **state)
    settling.end(event)
    if answer is None:
        return True
    address = Address(event.platform, event.chat_id, event.thread_id)
    answer = lateness.dated(answer, event.sent_at) if event.sent_at else answer
    outbox_queue.queue(address, answer, limit=limit, event=event)
    if intent.question:  # the caller wakes a turn only
        transaction.on_commit(local_wakeups.notify_delivery_workers, robust=True)
    return bool(intent.question)


def _create(event: InboundEvent, **fields: object) -> None:
    for name, value in fields.items():
        setattr(event, name, value)
    event.save(force_insert=True)
    transaction.on_commit(lambda: _log_received([event.pk]))


def _create_with_question(event: InboundEvent, intent: Intent, settles: float, state: Mapping[str, Any]) -> None:
    """Store a command in this state, and the words behind it as a message that follows it.

    So the command has its effect, whatever becomes of the words, and they are asked like any others. They come later by
    the clock too, as `/new` hides everything up to its own time.
    """
    place = ("platform", "conversation", "account", "chat_id", "chat_name", "thread_id", "message_id", "sent_at")
    question = InboundEvent(**{name: getattr(event, name) for name in place})
    key = f"{event.native_key} words"
    question.native_key = key if len(key) <= MAX_ID else hashlib.sha256(key.encode()).hexdigest()
    _create(event, text=intent.text.strip().removesuffix(intent.question).strip(), **state)
    later = clock.seconds_from_now(0.000_001)
    waits = {"ready_at": clock.seconds_from_now(settles)} if settles else {}
    _create(question, kind=InboundEvent.Kind.MESSAGE, text=intent.question, received_at=later, **waits)


def _suggestion(unknown: Unknown, platform: str) -> str:
    """The answer to an unknown command, which no agent gets: it would make up what the command does."""
    text = texts.DID_YOU_MEAN if unknown.like else texts.UNKNOWN_COMMAND
    values = {"typed": f"/{literal(unknown.name, platform)}", "meant": f"/{unknown.like}"}
    return labels.with_commands(str(text) % values, on=platform)


def _answer_at_once(event: InboundEvent, intent: Intent, resolver: Resolves | None) -> str | None:
    """The answer to a command that waits for no turn; None for anything else.

    A command whose answer fails waits for its turn, where a failure is counted and told: the platform would deliver a
    message that cannot be received again and again.
    """
    if intent.command is None or intent.command.at_once is None:
        return None
    account = event.account

    def person() -> str:
        return str(account) if resolver is None else resolve_with(resolver, account.platform, account.platform_user_id)

    try:
        with transaction.atomic():
            return command_registry.answer(Invocation(event, account, event.conversation, person))
    except Exception as error:
        if db_errors.is_out_of_reach(error):
            raise
        log.warning("answer /%s at once failed: %s; it waits for its turn", intent.command.name, type(error).__name__)
        event.reason = f"not answered at receipt: {type(error).__name__}"
        return None


def _refresh_labels(account: PlatformAccount, sender: Sender) -> None:
    """Store new labels, and once a day that the account is in use.

    This comes last, since deciding takes locks in an order of its own. It skips an account that is locked, as the
    holder may wait for one of those locks; the next message brings the same labels.
    """
    labels_now = _labels(sender)
    is_stale = account.seen_at < clock.read() - timedelta(days=1)
    if is_stale or labels_now != {"display_name": account.display_name, "username": account.username}:
        free = PlatformAccount.objects.select_for_update(no_key=True, skip_locked=True).filter(pk=account.pk)
        locked = list(free.values_list("pk", flat=True))
        PlatformAccount.objects.filter(pk__in=locked).update(seen_at=clock.now(), **labels_now)


def _labels(sender: Sender) -> dict[str, str]:
    return {"display_name": label(sender.name), "username": label(sender.username)}


def _is_known(message: InboundMessage) -> bool:
    known = InboundEvent.objects.filter(platform=message.address.platform, native_key=message.native_key)
    return known.exists()


@transaction.atomic
def _ask_to_try_again(message: InboundMessage) -> None:
    """Ask the author to write again, and store no text: without an identity there is no conversation to store it in.

    The nonce comes from the message's key, so that a redelivery does not ask again.
    """
    key = f"{message.address.platform} {message.native_key}"
    outbox_queue.queue(message.address, texts.IDENTITY_UNKNOWN, nonce=hashlib.sha256(key.encode()).hexdigest()[:24])
    watermarks.advance(message)


@transaction.atomic
def edit(change: MessageEdit) -> None:
    """Replace the text of a message that no turn has taken yet; later, note the new text on its entry.

    An edit starts no turn.
    """
    check_text(change.text)
    text = classify(change.text).question or change.text  # as `_create_with_question` stores it
    place = {"platform": change.address.platform, "chat_id": change.address.chat_id, "message_id": change.message_id}
    message = InboundEvent.objects.filter(**place, kind=InboundEvent.Kind.MESSAGE)
    if linking_commands.handle_edit(change):
        return
    if message.filter(done_at=None, starts=0).update(text=text):
        return
    message.filter(done_at=None).update(edited=text)  # the turn that has the message notes it with the new entry
    for entry in HistoryEntry.objects.filter(event__in=message, role=HistoryEntry.Role.USER).select_for_update():
        entry.metadata |= {"edited": text}
        entry.save(update_fields=["metadata"])
