"""Messages go out: queued with the rows that cause them, claimed, sent by an adapter, settled."""

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
MAX_OTHERS = 1000  # messages around a repeat that are told apart from it: more than any platform is asked for
AT_ONCE = 500  # rows in one statement: PostgreSQL takes 65,535 parameters
FIRST_BACKOFF = 1.0
MAX_BACKOFF = 300.0
TEXT_LIMIT = 2000  # UTF-16 code units, where a platform does not say


Renderer = Callable[[PlatformAccount, Mapping[str, Any]], Notice]
_renderers: dict[str, Renderer] = {}


def render_by(template: str, renderer: Renderer) -> None:
    """Register what makes the words of a template that is none of identity's."""
    _renderers[template] = renderer


@dataclass(frozen=True, slots=True)
class Sent:
    """The platform took the delivery and calls it `message_id`."""

    delivery: OutboundDelivery
    message_id: str


@dataclass(frozen=True, slots=True)
class Failed:
    """The platform did not take the delivery, or did not say. As adapters.protocols.DeliveryError."""

    delivery: OutboundDelivery
    reason: str
    permanent: bool = False
    retry_after: float | None = None
    ambiguous: bool = False
    gone: bool = False


def queue(
    address: Address, text: object, *, limit: int = TEXT_LIMIT, event: InboundEvent | None = None, nonce: str = ""
) -> None:
    """Put `text` in line at `address`, in as many deliveries as the limit asks for; nothing if the `nonce` was used."""
    rows = list(parts(address, str(text), limit=limit, event=event))
    for number, row in enumerate(rows if nonce else ()):
        row.nonce = _nonce_of_part(nonce, number)
    OutboundDelivery.objects.bulk_create(rows, AT_ONCE, ignore_conflicts=bool(nonce))


def parts(
    address: Address, text: str, *, limit: int, event: InboundEvent | None = None, entry: HistoryEntry | None = None
) -> Iterable[OutboundDelivery]:
    """The deliveries, not yet in line, that carry `text` to `address`, none longer than `limit`."""
    place = {"platform": address.platform, "chat_id": address.chat_id, "thread_id": address.thread_id}
    return (OutboundDelivery(**place, text=part, event=event, entry=entry) for part in split(text, limit))


def add(deliveries: Iterable[OutboundDelivery]) -> None:
    """Put deliveries in line."""
    OutboundDelivery.objects.bulk_create(deliveries, AT_ONCE)


def _nonce_of_part(nonce: str, number: int) -> str:
    return hashlib.sha256(f"{nonce} {number}".encode()).hexdigest()[:24] if number else nonce


def queue_notice(account: PlatformAccount, template: str, subject: Mapping[str, Any]) -> None:
    """Put what must be said about linking in line for an account's private chat, as ids; nothing if it has no chat.

    It makes no history entry, and its words are made when it is sent.
    """
    known = Conversation.objects.filter(account=account).exclude(chat_id="")
    chat = known.values("platform", "chat_id", "thread_id").first()
    if chat is not None:
        OutboundDelivery.objects.create(**chat, account=account, template=template, subject=dict(subject))


def due(platforms: Collection[str]) -> QuerySet[OutboundDelivery]:
    """What may be sent now: its time has come, nobody is at it, and nothing stands before it at the same address."""
    now = clock.now()
    before = OutboundDelivery.objects.filter(
        platform=OuterRef("platform"),
        chat_id=OuterRef("chat_id"),
        thread_id=OuterRef("thread_id"),
        id__lt=OuterRef("id"),
        settled_at=None,
    ).exclude(status=Status.DRAFTING)
    is_due = Q(status=Status.PENDING, not_before__lte=now) | Q(status=Status.SENDING, lease_until__lte=now)
    open_ones = OutboundDelivery.objects.filter(settled_at=None, platform__in=platforms)
    return open_ones.filter(is_due).exclude(Exists(before)).order_by("id")


@transaction.atomic
def claim(
    *, owner: str, platforms: Collection[str], besides: Collection[int] = (), most: int = 100
) -> list[OutboundDelivery]:
    """Take up to `most` due deliveries, marked as being sent, none of those with the ids `besides`.

    If the sender before vanished, it may be a repeat.
    """
    open_to_me = due(platforms).exclude(pk__in=besides).select_related("account")
    taken = list(open_to_me.select_for_update(skip_locked=True, of=("self",))[:most])
    for delivery in taken:
        delivery.may_be_repeat = delivery.may_be_repeat or delivery.status == Status.SENDING
        delivery.owner, delivery.attempts = owner, delivery.attempts + 1
    ids = [delivery.pk for delivery in taken]
    repeats = [delivery.pk for delivery in taken if delivery.may_be_repeat]
    until = clock.seconds_from_now(settings.BOTOS_SEND_SECONDS)
    mine = OutboundDelivery.objects.filter(pk__in=ids)
    mine.update(status=Status.SENDING, owner=owner, lease_until=until, attempts=F("attempts") + 1)
    if repeats:
        OutboundDelivery.objects.filter(pk__in=repeats).update(may_be_repeat=True)
    return taken


def outgoing(delivery: OutboundDelivery) -> OutgoingMessage:
    """The delivery as an adapter is given it. Notices and possible repeats need the database: call this where it is."""
    address = Address(delivery.platform, delivery.chat_id, delivery.thread_id)
    notice = _notice_of(delivery)
    known = _known_of_repeat(delivery) if delivery.may_be_repeat else {}
    return OutgoingMessage(address, notice.text, delivery.nonce, buttons=notice.buttons, copy=notice.copy, **known)


def _known_of_repeat(delivery: OutboundDelivery) -> dict[str, Any]:
    """What helps to find an earlier attempt, as in `OutgoingMessage`."""
    place = {"platform": delivery.platform, "chat_id": delivery.chat_id, "thread_id": delivery.thread_id}
    sent = OutboundDelivery.objects.filter(**place, status=Status.SENT)
    # By time, not by id: a dead letter that was sent again stands behind what was queued after it.
    earlier = sent.filter(pk__lt=delivery.pk, settled_at__lte=delivery.created_at).order_by("-pk")
    before, follows = earlier.values_list("pk", "message_id").first() or (0, "")
    around = sent.filter(pk__gt=before, settled_at__gt=delivery.created_at)
    return {
        "may_be_repeat": True,
        "queued_at": delivery.created_at,
        "waited": (clock.read() - delivery.created_at).total_seconds(),
        "follows": follows,
        "others": frozenset(around.order_by("pk").values_list("message_id", flat=True)[:MAX_OTHERS]),
    }


def _notice_of(delivery: OutboundDelivery) -> Notice:
    """What is said about linking gets its words now."""
    if delivery.account is None:
        return Notice(delivery.text)
    if render := _renderers.get(delivery.template):
        return render(delivery.account, delivery.subject)
    return wording.render(Template(delivery.template), delivery.account, delivery.subject)


def settle(outcomes: Collection[Sent | Failed]) -> None:
    """Write down what became of claimed deliveries. One that somebody else has taken over by now is left to them.

    Accounts that are gone come first and one by one: ending a link takes locks, in an order of its own. If the process
    dies in between, the delivery is tried again, and the platform says so again.
    """
    for outcome in outcomes:
        if isinstance(outcome, Failed) and outcome.gone:
            _leave_behind(outcome.delivery)
    _write_down(outcomes)


def _leave_behind(delivery: OutboundDelivery) -> None:
    """There is nobody any more in the private chat that this was for."""
    chats = Conversation.objects.filter(kind=Conversation.Kind.DM, account__isnull=False)
    here = chats.filter(platform=delivery.platform, chat_id=delivery.chat_id).select_related("account").first()
    if here is not None and here.account is not None:
        link_maintenance.account_is_gone(account=here.account)


@transaction.atomic
def _write_down(outcomes: Iterable[Sent | Failed]) -> None:
    for outcome in outcomes:
        delivery = outcome.delivery
        mine = OutboundDelivery.objects.filter(
            pk=delivery.pk, owner=delivery.owner, attempts=delivery.attempts, status=Status.SENDING
        )
        if isinstance(outcome, Sent):
            mine.update(status=Status.SENT, message_id=outcome.message_id[:190], settled_at=clock.now(), reason="")
        else:
            _settle_failure(mine, outcome)


def _settle_failure(mine: QuerySet[OutboundDelivery], failed: Failed) -> None:
    reason = failed.reason[:300]
    may_be_repeat = failed.delivery.may_be_repeat or failed.ambiguous
    too_old = mine.filter(created_at__lte=clock.seconds_from_now(-GIVE_UP_AFTER.total_seconds()))
    if failed.permanent or (failed.delivery.attempts >= MAX_ATTEMPTS and too_old.exists()):
        mine.update(status=Status.DEAD, reason=reason, settled_at=clock.now(), may_be_repeat=may_be_repeat)
        return
    wait = backoff(failed.delivery.attempts) if failed.retry_after is None else failed.retry_after
    next_time = clock.seconds_from_now(wait)
    mine.update(status=Status.PENDING, not_before=next_time, reason=reason, may_be_repeat=may_be_repeat)


def backoff(attempts: int) -> float:
    """Seconds to wait after the `attempts`-th failure: full jitter under a ceiling that doubles."""
    return seconds(attempts, first=FIRST_BACKOFF, longest=MAX_BACKOFF)


def seconds_until_next(platforms: Collection[str]) -> float | None:
    """How long until a delivery that waits for its time becomes due; None if none does."""
    open_ones = OutboundDelivery.objects.filter(settled_at=None, status=Status.PENDING, platform__in=platforms)
    waits = open_ones.filter(not_before__gt=clock.now())
    first = waits.order_by("not_before").values_list("not_before", flat=True).first()
    return None if first is None else max(0.0, (first - clock.read()).total_seconds())
