"""Outgoing messages: queued with the rows that cause them, claimed, sent by an adapter, and settled."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

from django.conf import settings
from django.db import transaction
from django.db.models import Exists, F, OuterRef, Q, QuerySet, Subquery, Value
from django.db.models.functions import Coalesce, JSONObject, NullIf

from identity import wording
from identity.flows import link_maintenance
from identity.models import PlatformAccount
from identity.notices import STILL_TRUE, Template
from identity.support import clock, platforms, sql
from identity.support.backoff import seconds
from identity.support.buttons import Button
from identity.support.text import utf16_length
from identity.wording import Notice
from sessions_app import lateness, texts
from sessions_app.lateness import LATE
from sessions_app.messages import Address, OutgoingMessage, speaker_name
from sessions_app.models import Conversation, HistoryEntry, InboundEvent, OutboundDelivery, new_nonce
from sessions_app.outbox.splitting import split

Status = OutboundDelivery.Status
MAX_ATTEMPTS = 8
GIVE_UP_AFTER = timedelta(hours=6)
MAX_OTHERS = 1000  # messages that a possible repeat is compared with: more than any platform is asked for
AT_ONCE = 500  # rows in one statement: PostgreSQL takes 65,535 parameters
FIRST_BACKOFF = 1.0
MAX_BACKOFF = 300.0
TEXT_LIMIT = platforms.TEXT_LIMIT
ROOM_FOR_DAY = 60  # UTF-16 code units of a part for the words that it comes late


# Every message runs these, so they are plain SQL.
_OPEN_AT = """
SELECT platform, chat_id, thread_id, status = 'drafting'
FROM sessions_app_outbounddelivery
WHERE settled_at IS NULL AND (platform, chat_id, thread_id) IN (VALUES {places})
GROUP BY platform, chat_id, thread_id, status = 'drafting'
"""
_SENT = """
UPDATE sessions_app_outbounddelivery SET status = 'sent', reason = '', message_id = %s, settled_at = {now}
WHERE id = %s AND owner = %s AND attempts = %s AND status = 'sending'
"""

STOPPABLE = "stoppable"  # the template of a text with a button that stops the turn
# The question that a delivery answers, as one value: PostgreSQL looks it up for each row, and for a join it would read
# the whole table.
_QUESTION = Subquery(
    InboundEvent.objects.filter(pk=OuterRef("event")).values(
        about=JSONObject(
            message_id="message_id",
            chat_id="chat_id",
            failures="failures",
            conversation_kind="conversation__kind",
            author=Coalesce(NullIf("account__display_name", Value("")), "account__username"),
        )
    )
)


class TooOld(Exception):
    """A notice that waited for more than a day, and would mislead now."""


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


@dataclass(frozen=True, slots=True)
class Unsent:
    """The delivery was taken, and no call was made."""

    delivery: OutboundDelivery


Outcome = Sent | Failed | Unsent


@dataclass(frozen=True, slots=True)
class Sender:
    """Who sends deliveries at once: `owner`, on these platforms. since: a moment before the deliveries are taken."""

    owner: str
    platforms: Collection[str]
    since: float


class SendsAtOnce(Protocol):
    """Sends deliveries that the transaction which queues them takes for it."""

    def sender(self) -> Sender | None:
        """Return who would send now; None if nobody can."""

    def take(self, deliveries: Iterable[OutboundDelivery], sender: Sender) -> None:
        """Send these deliveries, which were taken for `sender`. What cannot be sent now is given back."""


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to `event`, in history under the primary key `entry`. limit: as in `parts`."""

    address: Address
    text: str
    limit: int
    event: InboundEvent
    entry: int


@dataclass(frozen=True, slots=True)
class Queued:
    """taken: deliveries that their sender must send now, or give back as Unsent. waits: whether others are due."""

    taken: Sequence[OutboundDelivery] = ()
    waits: bool = False


def queue(
    address: Address,
    text: object,
    *,
    limit: int | None = None,
    event: InboundEvent | None = None,
    nonce: str = "",
    is_stoppable: bool = False,
) -> None:
    """Queue `text` for `address`, in as many deliveries as the limit requires; nothing if the `nonce` was used.

    limit: as in `parts`. is_stoppable: whether a button that stops the turn stands below it.
    """
    rows = list(parts(address, str(text), limit=limit, event=event))
    if is_stoppable:
        rows[-1].template = STOPPABLE
    for number, row in enumerate(rows if nonce else ()):
        row.nonce = hashlib.sha256(f"{nonce} {number}".encode()).hexdigest()[:24] if number else nonce
    OutboundDelivery.objects.bulk_create(rows, AT_ONCE, ignore_conflicts=bool(nonce))


def parts(
    address: Address,
    text: str,
    *,
    limit: int | None = None,
    event: InboundEvent | None = None,
    entry: HistoryEntry | None = None,
) -> Iterable[OutboundDelivery]:
    """Unsaved deliveries that carry `text` to `address`, none longer than `limit` UTF-16 code units.

    By default, that is the platform's limit.
    """
    limit = limit or platforms.of(address.platform).text_limit
    place = {"platform": address.platform, "chat_id": address.chat_id, "thread_id": address.thread_id}
    return (
        OutboundDelivery(**place, text=part, event=event, entry=entry, subject=_part(number))
        for number, part in enumerate(_in_parts(text, limit))
    )


def _in_parts(text: str, limit: int) -> list[str]:
    """The text in parts that leave room for a day before them."""
    return split(text, limit - ROOM_FOR_DAY if limit > 10 * ROOM_FOR_DAY else limit)


def _part(number: int) -> dict[str, int]:
    """What the row of a part says of its place: nothing for the first, which is mostly the only one."""
    return {"part": number} if number else {}


def is_later_part(delivery: OutboundDelivery) -> bool:
    """Whether the delivery continues another one."""
    return "part" in delivery.subject


def add(deliveries: Iterable[OutboundDelivery]) -> None:
    """Queue deliveries."""
    OutboundDelivery.objects.bulk_create(deliveries, AT_ONCE)


def add_replies(replies: Sequence[Reply], *, sender: Sender | None = None) -> Queued:
    """Queue replies, and delete their drafts. The first part of each is taken for the sender.

    It is not taken where anything else waits at the address, or is being sent there.
    """
    events = [reply.event.pk for reply in replies]
    addresses = {reply.address for reply in replies}
    busy, has_drafts = _open_at(addresses) if sender else (addresses, True)
    if has_drafts:
        OutboundDelivery.objects.filter(event__in=events, status=Status.DRAFTING).delete()
    rows: list[dict[str, Any]] = []
    taken: dict[int, Reply] = {}  # by row
    for reply in replies:
        for number, text in enumerate(_in_parts(reply.text, reply.limit)):
            if sender and reply.address not in busy and reply.address.platform in sender.platforms:
                taken[len(rows)] = reply
                rows.append(_row(reply, text, number, sender.owner))
            else:
                rows.append(_row(reply, text, number))
            busy.add(reply.address)
    keys = sql.insert(OutboundDelivery, rows)
    first_parts = [_taken(keys[number], rows[number], reply.event) for number, reply in taken.items()]
    return Queued(first_parts, waits=len(taken) < len(rows))


def _open_at(addresses: Collection[Address]) -> tuple[set[Address], bool]:
    """Which of these addresses have deliveries to be sent, and whether any has drafts."""
    if not addresses:
        return set(), False
    places = [(address.platform, address.chat_id, address.thread_id) for address in addresses]
    rows = ", ".join(["(%s, %s, %s)"] * len(places))
    found = sql.run(_OPEN_AT.format(places=rows), [value for place in places for value in place])
    return {Address(*place) for *place, is_draft in found if not is_draft}, any(row[-1] for row in found)


def _row(reply: Reply, text: str, number: int, owner: str = "") -> dict[str, Any]:
    """The columns of a part: of one that `owner` sends now, or of one that waits."""
    return {
        "platform": reply.address.platform,
        "chat_id": reply.address.chat_id,
        "thread_id": reply.address.thread_id,
        "text": text,
        "template": "",
        "subject": json.dumps(_part(number)),
        "nonce": new_nonce(),
        "event_id": reply.event.pk,
        "entry_id": reply.entry,
        "status": Status.SENDING if owner else Status.PENDING,
        "attempts": int(bool(owner)),
        "may_be_repeat": False,
        "owner": owner,
        "lease_until": clock.seconds_from_now(settings.BOTOS_SEND_SECONDS) if owner else clock.EPOCH,
        "not_before": clock.EPOCH,
        "message_id": "",
        "reason": "",
        "created_at": clock.now(),
    }


def _taken(key: int, row: Mapping[str, Any], event: InboundEvent) -> OutboundDelivery:
    """What a sender needs to know of a row."""
    known = ("platform", "chat_id", "thread_id", "text", "nonce", "entry_id", "status", "attempts", "owner")
    delivery = OutboundDelivery(pk=key, event=event, **{name: row[name] for name in known})
    _tie(
        delivery,
        message_id=event.message_id,
        chat_id=event.chat_id,
        failures=event.failures,
        conversation_kind=event.conversation.kind,
        author=event.account.display_name or event.account.username,
    )
    return delivery


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
    known = free.annotate(question=_QUESTION, read_at=clock.now())
    locked = known.select_for_update(skip_locked=True, of=("self",))
    taken: list[OutboundDelivery] = []
    for delivery in locked[:limit]:
        delivery.possibly_sent = delivery.possibly_sent or delivery.status == Status.SENDING
        delivery.owner, delivery.attempts, delivery.claimed_at = owner, delivery.attempts + 1, delivery.read_at
        if delivery.question and not is_later_part(delivery):
            _tie(delivery, **delivery.question)
        taken.append(delivery)
    ids = [delivery.pk for delivery in taken]
    possibly_sent = [delivery.pk for delivery in taken if delivery.possibly_sent]
    until = clock.seconds_from_now(settings.BOTOS_SEND_SECONDS)
    OutboundDelivery.objects.filter(pk__in=ids).update(
        status=Status.SENDING, owner=owner, lease_until=until, attempts=F("attempts") + 1
    )
    if possibly_sent:
        OutboundDelivery.objects.filter(pk__in=possibly_sent).update(possibly_sent=True)
    return taken


def needs_database(delivery: OutboundDelivery) -> bool:
    """Whether `outgoing` asks the database about the delivery."""
    return bool(delivery.template) or delivery.possibly_sent or _is_late(delivery)


def outgoing(delivery: OutboundDelivery) -> OutgoingMessage:
    """The message that an adapter sends for a claimed delivery. Raises TooOld for a notice that is given up."""
    if delivery.template and delivery.template not in STILL_TRUE and _is_late(delivery, since=delivery.not_before):
        raise TooOld("older than a day")
    if delivery.account is None:
        is_stoppable = delivery.template == STOPPABLE
        notice = Notice(delivery.text, (Button(str(texts.STOP), "/stop"),) if is_stoppable else ())
    elif render := _renderers.get(delivery.template):
        notice = render(delivery.account, delivery.subject)
    else:
        notice = wording.render(Template(delivery.template), delivery.account, delivery.subject)
    known = _known_of_earlier_attempt(delivery) if delivery.possibly_sent else {}
    mark = f"{texts.SENT_LATE % {'day': lateness.day(delivery.created_at)}}\n\n" if _needs_day(delivery) else ""
    if utf16_length(mark + notice.text) > platforms.of(delivery.platform).text_limit:
        mark = ""
    return OutgoingMessage(
        _address(delivery),
        mark + notice.text,
        delivery.nonce,
        buttons=notice.buttons,
        copy=notice.copy,
        reply_to=delivery.reply_to,
        asker=delivery.asker,
        late_mark=mark,
        **known,
    )


def _is_late(delivery: OutboundDelivery, *, since: datetime = clock.EPOCH) -> bool:
    """Whether the delivery has waited for more than a day, and for as long since it was last due."""
    return delivery.claimed_at is not None and delivery.claimed_at - max(delivery.created_at, since) > LATE


def _needs_day(delivery: OutboundDelivery) -> bool:
    """Whether the text must name its day: it is late, and no part of the answer has named it yet."""
    if not _is_late(delivery):
        return False
    if delivery.event is not None and delivery.created_at - delivery.event.asked_at > LATE:
        return False  # the answer begins with the day of its question
    if not is_later_part(delivery):
        return True
    answer = {"entry": delivery.entry_id, "event": delivery.event_id, "chat_id": delivery.chat_id}
    sent_before = OutboundDelivery.objects.filter(**answer, pk__lt=delivery.pk, status=Status.SENT)
    return not sent_before.filter(settled_at__gt=F("created_at") + LATE).exists()


def _address(delivery: OutboundDelivery) -> Address:
    return Address(delivery.platform, delivery.chat_id, delivery.thread_id)


def _tie(
    delivery: OutboundDelivery, *, message_id: str, chat_id: str, failures: int, conversation_kind: str, author: str
) -> None:
    """Note which message the first part of an answer replies to: where others may stand between.

    In a private chat that is where an answer comes late, as the agent failed.
    """
    is_group = conversation_kind == Conversation.Kind.GROUP
    if message_id and chat_id == delivery.chat_id and (is_group or failures):
        delivery.reply_to, delivery.asker = message_id, speaker_name(author) if is_group else ""


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


def settle(outcomes: Collection[Outcome]) -> bool:
    """Store the outcomes of claimed deliveries, except those that another process has taken over.

    Return whether other deliveries may be due now. Accounts that are gone come first, each in a transaction of its own,
    as ending a link takes locks in its own order. If the process crashes in between, the delivery is sent again, and
    the platform reports the same again.
    """
    private = Conversation.objects.filter(kind=Conversation.Kind.DM, account__isnull=False).select_related("account")
    for outcome in outcomes:
        if isinstance(outcome, Failed) and outcome.gone:
            place = {"platform": outcome.delivery.platform, "chat_id": outcome.delivery.chat_id}
            chat = private.filter(**place).first()
            if chat is not None and chat.account is not None:
                link_maintenance.account_is_gone(account=chat.account)
    _store(outcomes)
    if not all(isinstance(outcome, Sent) for outcome in outcomes):
        return True
    # After the commit: what is queued later is looked for by the one who queues it.
    busy, _ = _open_at({_address(outcome.delivery) for outcome in outcomes})
    return bool(busy)


@transaction.atomic
def _store(outcomes: Iterable[Outcome]) -> None:
    now, moment = clock.now().statement()
    sent = [
        (outcome.message_id[:190], moment, outcome.delivery.pk, outcome.delivery.owner, outcome.delivery.attempts)
        for outcome in outcomes
        if isinstance(outcome, Sent)
    ]
    if sent:
        sql.run_many(_SENT.format(now=now), sent)
    for outcome in outcomes:
        if isinstance(outcome, Sent):
            continue
        delivery = outcome.delivery
        leased = OutboundDelivery.objects.filter(
            pk=delivery.pk, owner=delivery.owner, attempts=delivery.attempts, status=Status.SENDING
        )
        if isinstance(outcome, Failed):
            _store_failure(leased, outcome)
        else:
            leased.update(status=Status.PENDING, attempts=F("attempts") - 1, owner="", lease_until=clock.EPOCH)


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


def seconds_until_next(platforms: Collection[str], *, ago: float = 0.0) -> float | None:
    """Seconds until the next delivery becomes due; None if none waits.

    ago: seconds since the caller began to look. A delivery that became due in between is due in 0 seconds.
    """
    pending = OutboundDelivery.objects.filter(settled_at=None, status=Status.PENDING, platform__in=platforms)
    waiting = pending.filter(not_before__gt=clock.seconds_from_now(-ago))
    first = waiting.order_by("not_before").values_list("not_before", flat=True).first()
    return None if first is None else max(0.0, (first - clock.read()).total_seconds())
