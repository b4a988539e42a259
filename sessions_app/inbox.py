"""Messages come in: stored once, before the platform hears "received", then handed out one lane at a time."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta
from itertools import takewhile
from typing import Any

from django.conf import settings
from django.db import DataError, IntegrityError, transaction
from django.db.models import F, Q

from identity import clock, linking
from identity.models import PLATFORM_NAME, PlatformAccount
from identity.resolvers import IdentityUnavailable, Resolves
from sessions_app import commands, conversations, outbox, pairing_chat, texts
from sessions_app.messages import InboundMessage, MessageEdit, Sender
from sessions_app.models import Conversation, HistoryEntry, InboundEvent, Lane

LONGEST_TEXT = 100_000  # characters; no platform lets a person write as much
LONGEST_ID = 190
LONGEST_PLATFORM = 40
_HALF_PAIR = re.compile("[\ud800-\udfff]")
MOST_IN_A_TURN = 20
CRASHES_BEFORE_QUARANTINE = 3


class Unacceptable(ValueError):
    """A message that can never be stored: an id is missing or too long, or the text is. Retrying is useless."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to write turns of `conversation`, and of no other of the same person, until it runs out."""

    owner: str
    fence: int
    conversation: Conversation
    user_id: int | None  # of the person that the conversation's account is linked to
    together: tuple[int, ...]  # ids of all conversations of the person


@dataclass(frozen=True, slots=True)
class Claim:
    """A lease, and the events to be answered under it: in order, of one author in one place. `more`: others wait."""

    lease: Lease
    events: tuple[InboundEvent, ...]
    more: bool

    @property
    def head(self) -> InboundEvent:
        return self.events[0]

    @property
    def account(self) -> PlatformAccount:
        return self.head.account


class Busy(Exception):
    """A conversation of the same person is being worked on, or is waiting to be tried again."""


def receive(message: InboundMessage, *, resolver: Resolves | None) -> int | None:
    """Store a message once. Durable on return. Gives the id of the conversation that now waits, None if none does.

    Raises Unacceptable for what can never be stored. Whatever the database raises means: not received.
    """
    _check(message)
    if not message.is_addressed:
        pairing_chat.burn_in(message.text)
        return None
    try:
        return _store(message, resolver)
    except IdentityUnavailable:
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
    if max(map(len, ids)) > LONGEST_ID:
        raise Unacceptable(f"an id is longer than {LONGEST_ID} characters")
    if not re.fullmatch(PLATFORM_NAME, message.address.platform) or len(message.address.platform) > LONGEST_PLATFORM:
        raise Unacceptable("the platform has no proper name")
    _check_text(message.text)
    if not all(map(_is_storable, ids)):
        raise Unacceptable("an id has a character that no database keeps")


def _check_text(text: str) -> None:
    if len(text) > LONGEST_TEXT:
        raise Unacceptable(f"the text is longer than {LONGEST_TEXT} characters")
    if not _is_storable(text):
        raise Unacceptable("the text has a character that no database keeps")


def _is_storable(text: str) -> bool:
    """PostgreSQL has no NUL in text, and neither engine half a surrogate pair."""
    return "\x00" not in text and not _HALF_PAIR.search(text)


@transaction.atomic
def _store(message: InboundMessage, resolver: Resolves | None) -> int | None:
    account, is_new = _account_of(message)
    conversation = conversations.conversation_for(message, account, resolver)
    is_decided = pairing_chat.hear(message, account, is_available=conversations.is_computed(resolver))
    InboundEvent.objects.create(
        platform=message.address.platform,
        native_key=message.native_key,
        conversation=conversation,
        account=account,
        chat_id=message.address.chat_id,
        chat_name=_label(message.chat_name),
        thread_id=message.address.thread_id,
        message_id=message.message_id,
        **_decided() if is_decided else _to_be_answered(message.text),
    )
    if not is_new:
        _see(account, message.sender)
    return None if is_decided else conversation.pk


def _decided() -> dict[str, Any]:
    """About linking: done already, and its words are not kept."""
    return {"kind": InboundEvent.Kind.PAIRING, "text": "", "status": InboundEvent.Status.DONE, "done_at": clock.now()}


def _to_be_answered(text: str) -> dict[str, Any]:
    kind = InboundEvent.Kind.COMMAND if commands.is_command(text) else InboundEvent.Kind.MESSAGE
    return {"kind": kind, "text": text}


def _account_of(message: InboundMessage) -> tuple[PlatformAccount, bool]:
    """The account that wrote it, and whether this was its first message."""
    key = {"platform": message.address.platform, "platform_user_id": message.sender.user_id}
    account = PlatformAccount.objects.filter(**key).first()
    if account is not None:
        return account, False
    return PlatformAccount.objects.create(**key, **_labels(message.sender)), True


def _see(account: PlatformAccount, sender: Sender) -> None:
    """Note new labels, and that the account is in use. Last of all, since deciding takes locks in an order of its
    own.
    """
    labels = _labels(sender)
    is_stale = account.seen_at < clock.read() - timedelta(days=1)
    if is_stale or labels != {"display_name": account.display_name, "username": account.username}:
        PlatformAccount.objects.filter(pk=account.pk).update(seen_at=clock.now(), **labels)


def _labels(sender: Sender) -> dict[str, str]:
    return {"display_name": _label(sender.name), "username": _label(sender.username)}


def _label(name: str) -> str:
    """A name as it can be stored. It identifies nobody, so what no database keeps is left out of it."""
    return _HALF_PAIR.sub("", name.replace("\x00", ""))[:150]


def _is_known(message: InboundMessage) -> bool:
    known = InboundEvent.objects.filter(platform=message.address.platform, native_key=message.native_key)
    return known.exists()


def _ask_to_try_again(message: InboundMessage) -> None:
    """Fail closed: the words are not kept. With a nonce made of the message's key, a redelivery asks no second time."""
    key = f"{message.address.platform} {message.native_key}"
    outbox.queue(message.address, texts.IDENTITY_UNKNOWN, nonce=hashlib.sha256(key.encode()).hexdigest()[:24])


@transaction.atomic
def edit(change: MessageEdit) -> None:
    """Replace the words of a message that no turn has taken; later, note them on its entry. Starts no turn."""
    _check_text(change.text)
    place = {"platform": change.address.platform, "chat_id": change.address.chat_id, "message_id": change.message_id}
    message = InboundEvent.objects.filter(**place, kind=InboundEvent.Kind.MESSAGE)
    if pairing_chat.is_secret(change.text, PlatformAccount.objects.filter(events__in=message).first()):
        pairing_chat.burn_in(change.text)
        return  # what is edited does not count as typed, and a code or number is kept nowhere
    if message.filter(done_at=None, starts=0).update(text=change.text):
        return
    if message.filter(done_at=None).update(edited=change.text):
        return  # the turn that has it notes it when it ends
    for entry in HistoryEntry.objects.filter(event__in=message, role=HistoryEntry.Role.USER).select_for_update():
        entry.metadata |= {"edited": change.text}
        entry.save(update_fields=["metadata"])


def waiting(platforms: Collection[str]) -> list[int]:
    """Ids of the conversations whose lane is free and where an event of `platforms` waits, the longest waiting first.

    A hint: whether a lane can be had is decided by `claim` alone.
    """
    now = clock.now()
    free = Q(conversation__lane__lease_until__lte=now, conversation__lane__not_before__lte=now)
    events = InboundEvent.objects.filter(free, done_at=None, platform__in=platforms).order_by("id")
    return list(dict.fromkeys(events.values_list("conversation_id", flat=True)))


@transaction.atomic
def claim(conversation_id: int, *, owner: str, platforms: Collection[str]) -> Claim | None:
    """Take the lane that the conversation is in now, with the events that wait there longest. None if none waits.

    `platforms` are those that the caller can answer on. The start is counted here, so that it is on disk before the
    agent is called. Raises Busy.
    """
    lane = _look(conversation_id)
    waiting = _oldest_waiting(lane.together, platforms)
    if not waiting:
        return None
    events = _one_turn_of(waiting)
    lease = _take(lane, events[0].conversation, owner)
    InboundEvent.objects.filter(pk__in=[event.pk for event in events]).update(starts=F("starts") + 1)
    return Claim(lease, tuple(events), more=len(waiting) > len(events))


@transaction.atomic
def hold(conversation: Conversation, *, owner: str) -> Lease:
    """Take the lane that a conversation is in now, for a turn that comes by no event. Raises Busy."""
    return _take(_look(conversation.pk), conversation, owner)


@dataclass(frozen=True, slots=True)
class _Lane:
    """The lane of a private chat is the person: the conversations of all linked accounts, one turn at a time."""

    user_id: int | None
    together: tuple[int, ...]


def _look(conversation_id: int) -> _Lane:
    """The lane, locked: account and person are held in the order of linking, so that no link changes until commit."""
    account_id = Conversation.objects.values_list("account_id", flat=True).get(pk=conversation_id)
    user_id = linking.lock_person(account_id) if account_id else None
    return _Lane(user_id, conversations.shared_with(conversation_id, user_id))


def _oldest_waiting(together: Collection[int], platforms: Collection[str]) -> list[InboundEvent]:
    """Held until the claim commits, so that an edit comes either before the words are taken or after."""
    waits = InboundEvent.objects.filter(conversation__in=together, done_at=None, platform__in=platforms)
    held = waits.select_related("conversation", "account").select_for_update(of=("self",)).order_by("id")
    return list(held[: MOST_IN_A_TURN + 1])


def _one_turn_of(waiting: list[InboundEvent]) -> list[InboundEvent]:
    """The longest waiting event, and what its author wrote right after it in the same place.

    A command is a turn of its own, and so is every event that a turn was started for before: one of them may be what
    crashed it.
    """
    first = waiting[0]
    if _stands_alone(first):
        return [first]
    together = takewhile(lambda event: not _stands_alone(event) and _place(event) == _place(first), waiting)
    return list(together)[:MOST_IN_A_TURN]


def _stands_alone(event: InboundEvent) -> bool:
    return event.kind == InboundEvent.Kind.COMMAND or event.starts > 0


def _place(event: InboundEvent) -> tuple[object, ...]:
    return (event.conversation_id, event.account_id, event.chat_id, event.thread_id)


def _take(lane: _Lane, conversation: Conversation, owner: str) -> Lease:
    """Lease one conversation, provided that no other of the person is held. The fence decides between two who try."""
    now = clock.now()
    rows = Lane.objects.filter(pk__in=lane.together)
    if rows.filter(Q(lease_until__gt=now) | Q(not_before__gt=now)).exists():
        raise Busy
    fence = rows.values_list("fence", flat=True).get(pk=conversation.pk)
    until = clock.seconds_from_now(settings.BOTOS_LEASE_SECONDS)
    free = rows.filter(pk=conversation.pk, fence=fence, lease_until__lte=now)
    if not free.update(owner=owner, fence=fence + 1, lease_until=until):
        raise Busy
    return Lease(owner, fence + 1, conversation, lane.user_id, lane.together)


def renew(leases: Collection[Lease]) -> None:
    """Extend these leases of one owner, and no other: one that nobody works under must run out."""
    for_whom = {"owner__in": {lease.owner for lease in leases}, "pk__in": [lease.conversation.pk for lease in leases]}
    Lane.objects.filter(**for_whom).update(lease_until=clock.seconds_from_now(settings.BOTOS_LEASE_SECONDS))
