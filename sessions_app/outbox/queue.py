"""Outgoing messages: queued with the rows that cause them, claimed, sent by an adapter, and settled."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Exists, F, OuterRef, Q, QuerySet

from identity import wording
from identity.flows import link_maintenance
from identity.models import PlatformAccount
from identity.notices import Template
from identity.support import clock
from identity.support.backoff import seconds
from identity.wording import Notice
from sessions_app.messages import Address, OutgoingMessage
from sessions_app.models import Conversation, HistoryEntry, InboundEvent, OutboundDelivery
from sessions_app.outbox.splitting import split

Status = OutboundDelivery.Status
MAX_ATTEMPTS = 8
GIVE_UP_AFTER = timedelta(hours=6)
MAX_OTHERS = 1000  # messages that a possible repeat is compared with: more than any platform is asked for
AT_ONCE = 500  # rows in one statement: PostgreSQL takes 65,535 parameters
FIRST_BACKOFF = 1.0
MAX_BACKOFF = 300.0
TEXT_LIMIT = 2000  # UTF-16 code units, where a platform does not say


Renderer = Callable[[PlatformAccount, Mapping[str, Any]], Notice]
_renderers: dict[str, Renderer] = {}


def render_by(template: str, renderer: Renderer) -> None:
    """Register the function that renders a template which identity does not define."""
    _renderers[template] = renderer


@dataclass(frozen=True, slots=True)
class Sent:
    """The platform accepted the delivery. message_id: the platform's id of the message."""

    delivery: OutboundDelivery
    message_id: str


@dataclass(frozen=True, slots=True)
class Failed:
    """The platform did not accept the delivery, or did not say. Fields as in adapters.protocols.DeliveryError."""

    delivery: OutboundDelivery
    reason: str
    permanent: bool = False
    retry_after: float | None = None
    ambiguous: bool = False
    gone: bool = False


def queue(
    address: Address, text: object, *, limit: int = TEXT_LIMIT, event: InboundEvent | None = None, nonce: str = ""
) -> None:
    """Queue `text` for `address`, in as many deliveries as the limit requires; nothing if the `nonce` was used."""
    rows = list(parts(address, str(text), limit=limit, event=event))
    for number, row in enumerate(rows if nonce else ()):
        row.nonce = hashlib.sha256(f"{nonce} {number}".encode()).hexdigest()[:24] if number else nonce
    OutboundDelivery.objects.bulk_create(rows, AT_ONCE, ignore_conflicts=bool(nonce))


def parts(
    address: Address, text: str, *, limit: int, event: InboundEvent | None = None, entry: HistoryEntry | None = None
) -> Iterable[OutboundDelivery]:
    """Unsaved deliveries that carry `text` to `address`, none longer than `limit` UTF-16 code units."""
    place = {"platform": address.platform, "chat_id": address.chat_id, "thread_id": address.thread_id}
    return (OutboundDelivery(**place, text=part, event=event, entry=entry) for part in split(text, limit))


def add(deliveries: Iterable[OutboundDelivery]) -> None:
    """Queue deliveries."""
    OutboundDelivery.objects.bulk_create(deliveries, AT_ONCE)


def queue_notice(account: PlatformAccount, template: str, subject: Mapping[str, Any]) -> None:
    """Queue a notice for an account's private chat; nothing if it has no chat.

    The row holds the template and ids. The text is rendered when it is sent, and makes no history entry.
    """
    chats = Conversation.objects.filter(account=account).exclude(chat_id="")
    chat = chats.values("platform", "chat_id", "thread_id").first()
    if chat is not None:
        OutboundDelivery.objects.create(**chat, account=account, template=template, subject=dict(subject))


def due(platforms: Collection[str]) -> QuerySet[OutboundDelivery]:
    """Deliveries that may be sent now: due, not being sent, and the first of their address."""
    now = clock.now()
    before = OutboundDelivery.objects.filter(
        platform=OuterRef("platform"),
        chat_id=OuterRef("chat_id"),
        thread_id=OuterRef("thread_id"),
        id__lt=OuterRef("id"),
        settled_at=None,
    ).exclude(status=Status.DRAFTING)
    is_due = Q(status=Status.PENDING, not_before__lte=now) | Q(status=Status.SENDING, lease_until__lte=now)
    unsettled = OutboundDelivery.objects.filter(settled_at=None, platform__in=platforms)
    return unsettled.filter(is_due).exclude(Exists(before)).order_by("id")


@transaction.atomic
def claim(
    *, owner: str, platforms: Collection[str], besides: Collection[int] = (), limit: int = 100
) -> list[OutboundDelivery]:
    """Lease up to `limit` due deliveries to `owner`, except those with the ids `besides`.

    A delivery whose last sender vanished was possibly sent.
    """
    free = due(platforms).exclude(pk__in=besides).select_related("account")
    taken = list(free.select_for_update(skip_locked=True, of=("self",))[:limit])
    for delivery in taken:
        delivery.possibly_sent = delivery.possibly_sent or delivery.status == Status.SENDING
        delivery.owner, delivery.attempts = owner, delivery.attempts + 1
    ids = [delivery.pk for delivery in taken]
    possibly_sent = [delivery.pk for delivery in taken if delivery.possibly_sent]
    until = clock.seconds_from_now(settings.BOTOS_SEND_SECONDS)
    OutboundDelivery.objects.filter(pk__in=ids).update(
        status=Status.SENDING, owner=owner, lease_until=until, attempts=F("attempts") + 1
    )
    if possibly_sent:
        OutboundDelivery.objects.filter(pk__in=possibly_sent).update(possibly_sent=True)
    return taken


def outgoing(delivery: OutboundDelivery) -> OutgoingMessage:
    """The message that an adapter sends for a delivery. Notices and what was possibly sent need the database."""
    address = Address(delivery.platform, delivery.chat_id, delivery.thread_id)
    if delivery.account is None:
        notice = Notice(delivery.text)
    elif render := _renderers.get(delivery.template):
        notice = render(delivery.account, delivery.subject)
    else:
        notice = wording.render(Template(delivery.template), delivery.account, delivery.subject)
    known = _known_of_earlier_attempt(delivery) if delivery.possibly_sent else {}
    return OutgoingMessage(address, notice.text, delivery.nonce, buttons=notice.buttons, copy=notice.copy, **known)


def _known_of_earlier_attempt(delivery: OutboundDelivery) -> dict[str, Any]:
    """The fields of `OutgoingMessage` that help to find an earlier attempt."""
    place = {"platform": delivery.platform, "chat_id": delivery.chat_id, "thread_id": delivery.thread_id}
    sent = OutboundDelivery.objects.filter(**place, status=Status.SENT)
    # By time, not by id: a dead letter that is sent again comes after messages that were queued after it.
    earlier = sent.filter(pk__lt=delivery.pk, settled_at__lte=delivery.created_at).order_by("-pk")
    before, follows = earlier.values_list("pk", "message_id").first() or (0, "")
    around = sent.filter(pk__gt=before, settled_at__gt=delivery.created_at)
    return {
        "possibly_sent": True,
        "queued_at": delivery.created_at,
        "waited": (clock.read() - delivery.created_at).total_seconds(),
        "follows": follows,
        "others": frozenset(around.order_by("pk").values_list("message_id", flat=True)[:MAX_OTHERS]),
    }


def settle(outcomes: Collection[Sent | Failed]) -> None:
    """Store the outcomes of claimed deliveries, except those that another process has taken over.

    Accounts that are gone come first, each in a transaction of its own, as ending a link takes locks in its own order.
    If the process crashes in between, the delivery is sent again, and the platform reports the same again.
    """
    private = Conversation.objects.filter(kind=Conversation.Kind.DM, account__isnull=False).select_related("account")
    for outcome in outcomes:
        if isinstance(outcome, Failed) and outcome.gone:
            place = {"platform": outcome.delivery.platform, "chat_id": outcome.delivery.chat_id}
            chat = private.filter(**place).first()
            if chat is not None and chat.account is not None:
                link_maintenance.account_is_gone(account=chat.account)
    _store(outcomes)


@transaction.atomic
def _store(outcomes: Iterable[Sent | Failed]) -> None:
    for outcome in outcomes:
        delivery = outcome.delivery
        leased = OutboundDelivery.objects.filter(
            pk=delivery.pk, owner=delivery.owner, attempts=delivery.attempts, status=Status.SENDING
        )
        if isinstance(outcome, Sent):
            leased.update(status=Status.SENT, message_id=outcome.message_id[:190], settled_at=clock.now(), reason="")
        else:
            _store_failure(leased, outcome)


def _store_failure(leased: QuerySet[OutboundDelivery], failed: Failed) -> None:
    reason = failed.reason[:300]
    possibly_sent = failed.delivery.possibly_sent or failed.ambiguous
    too_old = leased.filter(created_at__lte=clock.seconds_from_now(-GIVE_UP_AFTER.total_seconds()))
    if failed.permanent or (failed.delivery.attempts >= MAX_ATTEMPTS and too_old.exists()):
        leased.update(status=Status.DEAD, reason=reason, settled_at=clock.now(), possibly_sent=possibly_sent)
        return
    wait = backoff(failed.delivery.attempts) if failed.retry_after is None else failed.retry_after
    next_time = clock.seconds_from_now(wait)
    leased.update(status=Status.PENDING, not_before=next_time, reason=reason, possibly_sent=possibly_sent)


def backoff(attempts: int) -> float:
    """Seconds to wait after so many failed attempts: full jitter under a ceiling that doubles."""
    return seconds(attempts, first=FIRST_BACKOFF, longest=MAX_BACKOFF)


def seconds_until_next(platforms: Collection[str]) -> float | None:
    """Seconds until the next delivery becomes due; None if none waits."""
    pending = OutboundDelivery.objects.filter(settled_at=None, status=Status.PENDING, platform__in=platforms)
    waiting = pending.filter(not_before__gt=clock.now())
    first = waiting.order_by("not_before").values_list("not_before", flat=True).first()
    return None if first is None else max(0.0, (first - clock.read()).total_seconds())
