"""Leases of lanes: waiting events are claimed lane by lane, and each lane has one holder at a time.

The lane of a private chat is the person: the conversations of all accounts that are linked to them. The lane of a group
is the group.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import takewhile

from django.conf import settings
from django.db import transaction
from django.db.models import Exists, F, OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Greatest

from identity.links import locks
from identity.models import PlatformAccount
from identity.support import clock
from sessions_app.history import conversations
from sessions_app.models import CRASHES_BEFORE_QUARANTINE, Conversation, InboundEvent, Lane

MAX_IN_A_TURN = 20


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to write turns of one conversation until it runs out. A person has one lease at a time."""

    owner: str
    fence: int
    conversation: Conversation
    user_id: int | None  # of the person that the conversation's account is linked to
    together: tuple[int, ...]  # ids of all conversations of the person


@dataclass(frozen=True, slots=True)
class Claim:
    """A lease and the events to answer under it: in order, of one author in one place.

    more: whether others may wait behind them.
    """

    lease: Lease
    events: tuple[InboundEvent, ...]
    more: bool

    @property
    def head(self) -> InboundEvent:
        return self.events[0]

    @property
    def account(self) -> PlatformAccount:
        return self.head.account

    @property
    def crashed_before(self) -> bool:
        return _crashed_before(self.head)


@dataclass(frozen=True, slots=True)
class Claimed:
    """The claims that could be had, and the ids of conversations without one.

    busy: the lane is held. again: ask once more. put_off: ask when the turn with a message that crashed before ends.
    """

    claims: tuple[Claim, ...] = ()
    busy: frozenset[int] = frozenset()
    again: frozenset[int] = frozenset()
    put_off: frozenset[int] = frozenset()


class Busy(Exception):
    """A conversation of the same person is leased or backing off."""


def waiting(platforms: Collection[str], *, longer_than: float = 0.0) -> list[int]:
    """Ids of conversations whose own row is free and where an event of `platforms` waits, the oldest event first.

    longer_than: seconds that the event has waited at least. This is a hint: `claim` decides whether a lane can be had.
    """
    # A subquery for each waiting event: for a join, PostgreSQL expects most lanes to be held, and reads all of them.
    turn_lease = Lane.objects.filter(pk=OuterRef("conversation_id"))
    free_from = Subquery(turn_lease.values(free_from=Greatest("lease_until", "not_before")))
    waits = InboundEvent.objects.filter(done_at=None, platform__in=platforms).order_by("id")
    events = waits.annotate(free_from=free_from).filter(free_from__lte=clock.now())
    if longer_than:
        events = events.filter(received_at__lte=clock.seconds_from_now(-longer_than))
    return list(dict.fromkeys(events.values_list("conversation_id", flat=True)))


def overdue() -> QuerySet[InboundEvent]:
    """The events that wait in a free lane: no conversation of the person is leased or backing off."""
    now = clock.now()
    held = Lane.objects.filter(Q(lease_until__gt=now) | Q(not_before__gt=now))
    served = PlatformAccount.objects.filter(
        Exists(held.filter(conversation__account=OuterRef("pk")))
        | Exists(held.filter(conversation__in=conversations.before_resolvers_of_accounts()))
    )
    same_person = served.filter(
        links__ended_at=None, links__user__links__ended_at=None, links__user__links__account=OuterRef("owner")
    )
    own = held.filter(conversation=OuterRef("conversation"))
    waits = InboundEvent.objects.filter(~Exists(own), done_at=None).annotate(owner=conversations.owner_of_event())
    return waits.filter(~Exists(served.filter(pk=OuterRef("owner"))), ~Exists(same_person))


@transaction.atomic
def claim(
    conversation_ids: Collection[int], *, owner: str, platforms: Collection[str], has_crashed_before: bool = False
) -> Claimed:
    """Lease the lanes of these conversations to `owner`, each with the first turn that waits there.

    platforms: those that the caller can answer on. has_crashed_before: whether the caller works on a message that
    crashed before. The starts are counted in this transaction, so that they are on disk before an agent is called.
    """
    asked = _lock_lanes(conversation_ids)
    free = _free_among(asked)
    limit = (MAX_IN_A_TURN + 1) * len(free)
    members = [pk for lane in free for pk in lane.together]
    waiting = InboundEvent.objects.filter(conversation__in=members, done_at=None, platform__in=platforms)
    # Locked until the commit, so that an edit comes either before the words are taken or after.
    locked = waiting.select_related("conversation", "account").select_for_update(of=("self",)).order_by("id")
    events = list(locked[:limit])
    planned = plan(free, events, is_cut_short=len(events) == limit, has_crashed_before=has_crashed_before)
    leases = _take({lane: turn[0].conversation for lane, turn in planned.turns.items()}, owner)
    started = [event.pk for lane in leases for event in planned.turns[lane]]
    InboundEvent.objects.filter(pk__in=started).update(starts=F("starts") + 1)
    busy = (asked.keys() - free) | (planned.turns.keys() - leases.keys())
    return Claimed(
        tuple(Claim(lease, tuple(planned.turns[lane]), lane in planned.more) for lane, lease in leases.items()),
        busy=frozenset(pk for lane in busy for pk in asked[lane]),
        again=frozenset(pk for lane in planned.again for pk in asked[lane]),
        put_off=frozenset(pk for lane in planned.put_off for pk in asked[lane]),
    )


@transaction.atomic
def hold(conversation: Conversation, *, owner: str) -> Lease:
    """Lease the lane that a conversation is in now, for a turn without an event. Raises Busy."""
    free = _free_among(_lock_lanes([conversation.pk]))
    leases = _take(dict.fromkeys(free, conversation), owner)
    if not leases:
        raise Busy
    return next(iter(leases.values()))


@dataclass(frozen=True, slots=True)
class LaneKey:
    """Identifies a lane: the person, if the lane is a linked person's, and the ids of its conversations."""

    user_id: int | None
    together: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """Which lanes to lease.

    turns: the events of one turn, by lane. more: lanes where events may wait behind that turn. again: free lanes whose
    events were cut off. put_off: lanes that wait until a turn with a message that crashed before ends.
    """

    turns: Mapping[LaneKey, list[InboundEvent]]
    more: Collection[LaneKey]
    again: Collection[LaneKey]
    put_off: Collection[LaneKey]


def plan(
    lanes: Collection[LaneKey], events: Iterable[InboundEvent], *, is_cut_short: bool, has_crashed_before: bool
) -> Plan:
    """Decide which of these free lanes to lease, for which turn each.

    events: what waits in them, oldest first. is_cut_short: whether there may be more, since the flood of one lane may
    leave no room for the events of others. At most one turn has a message that crashed before, and none with
    `has_crashed_before`: when that turn ends the process, its message is known, and no other is quarantined with it.
    """
    lane_of = {pk: lane for lane in lanes for pk in lane.together}
    waiting: dict[LaneKey, list[InboundEvent]] = defaultdict(list)
    for event in events:
        waiting[lane_of[event.conversation_id]].append(event)
    turns = {lane: _first_turn(queue) for lane, queue in waiting.items()}
    crashed = [lane for lane, turn in turns.items() if _crashed_before(turn[0])]
    put_off = crashed[0 if has_crashed_before else 1 :]
    return Plan(
        turns={lane: turn for lane, turn in turns.items() if lane not in put_off},
        more=[lane for lane, queue in waiting.items() if is_cut_short or len(queue) > len(turns[lane])],
        again=[lane for lane in lanes if is_cut_short and lane not in waiting],
        put_off=put_off,
    )


def _first_turn(waiting: list[InboundEvent]) -> list[InboundEvent]:
    """The oldest event, and what its author wrote right after it in the same place.

    A command is a turn of its own, and so is every event whose turn was started before, as it may be what crashed it.
    """
    first = waiting[0]
    if _stands_alone(first):
        return [first]
    turn = takewhile(lambda event: not _stands_alone(event) and _place(event) == _place(first), waiting)
    return list(turn)[:MAX_IN_A_TURN]


def _crashed_before(event: InboundEvent) -> bool:
    """Whether one more crash puts the event into quarantine."""
    return event.starts - event.failures >= CRASHES_BEFORE_QUARANTINE - 1


def _stands_alone(event: InboundEvent) -> bool:
    return event.kind == InboundEvent.Kind.COMMAND or event.starts > 0


def _place(event: InboundEvent) -> tuple[object, ...]:
    return (event.conversation_id, event.account_id, event.chat_id, event.thread_id)


def _lock_lanes(conversation_ids: Collection[int]) -> dict[LaneKey, list[int]]:
    """The lanes of these conversations, each with those of the ids that are in it. A deleted conversation is in none.

    Locks accounts and people in the order that linking uses, so that no link changes until the commit.
    """
    places = conversations.places_of(conversation_ids)
    accounts = {pk: account_id for pk, (account_id, _) in places.items()}
    people = locks.lock_people(filter(None, accounts.values()))
    together_by_person = conversations.of_people(people.values())
    lanes: dict[LaneKey, list[int]] = defaultdict(list)
    for pk in filter(accounts.__contains__, conversation_ids):
        account_id = accounts[pk]
        user_id = people.get(account_id) if account_id else None
        lanes[LaneKey(user_id, places[pk][1] if user_id is None else together_by_person[user_id])].append(pk)
    return lanes


def _free_among(lanes: Iterable[LaneKey]) -> list[LaneKey]:
    """The lanes without a conversation that is held or backing off. Nobody else leases a lane of a locked person."""
    now = clock.now()
    lanes = list(lanes)
    rows = Lane.objects.filter(pk__in=[pk for lane in lanes for pk in lane.together])
    held = set(rows.filter(Q(lease_until__gt=now) | Q(not_before__gt=now)).values_list("pk", flat=True))
    return [lane for lane in lanes if held.isdisjoint(lane.together)]


def _take(wanted: Mapping[LaneKey, Conversation], owner: str) -> dict[LaneKey, Lease]:
    """Lease one conversation of each of these free lanes to `owner`. Return the leases that could be had.

    Of several processes that try at once, one locks all rows of a lane. It waits for no row: a process that ends a turn
    there may wait for events that this transaction has locked.
    """
    now = clock.now()
    rows = Lane.objects.filter(pk__in={pk for lane in wanted for pk in lane.together}).order_by("pk")
    free = rows.filter(lease_until__lte=now, not_before__lte=now).select_for_update(skip_locked=True)
    fences = dict(free.values_list("pk", "fence"))
    taken = {lane: conversation for lane, conversation in wanted.items() if fences.keys() >= {*lane.together}}
    leased = [conversation.pk for conversation in taken.values()]
    until = clock.seconds_from_now(settings.BOTOS_LEASE_SECONDS)
    Lane.objects.filter(pk__in=leased).update(owner=owner, fence=F("fence") + 1, lease_until=until)
    # An earlier holder of another row of these lanes must not write any more: the fence is that of the whole lane.
    others = {pk for lane in taken for pk in lane.together}.difference(leased)
    stale = Lane.objects.filter(pk__in=others).exclude(owner="")
    stale.update(owner="", fence=F("fence") + 1, lease_until=clock.EPOCH)
    return {
        lane: Lease(owner, fences[conversation.pk] + 1, conversation, lane.user_id, lane.together)
        for lane, conversation in taken.items()
    }


def renew(leases: Collection[Lease]) -> None:
    """Extend these leases. All others run out, as nobody works under them."""
    for_whom = {"owner__in": {lease.owner for lease in leases}, "pk__in": [lease.conversation.pk for lease in leases]}
    Lane.objects.filter(**for_whom).update(lease_until=clock.seconds_from_now(settings.BOTOS_LEASE_SECONDS))
