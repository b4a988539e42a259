"""Whose turn it is: what waits is claimed lane by lane, and a lane is worked on by one holder at a time.

The lane of a private chat is the person: the conversations of all accounts that are linked to them. That of a group is
the group.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
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

    @property
    def crashed_before(self) -> bool:
        return _crashed_before(self.head)


@dataclass(frozen=True, slots=True)
class Claimed:
    """What came of asking for lanes: claims, and ids of conversations for which there is none although something waits.

    `busy`: somebody holds the lane. `again`: ask for it anew. `put_off`: ask when the suspect's turn has ended.
    """

    claims: tuple[Claim, ...] = ()
    busy: frozenset[int] = frozenset()
    again: frozenset[int] = frozenset()
    put_off: frozenset[int] = frozenset()


class Busy(Exception):
    """A conversation of the same person is being worked on, or is waiting to be tried again."""


def waiting(platforms: Collection[str], *, longer_than: float = 0.0) -> list[int]:
    """Ids of the conversations whose lane is free and where an event of `platforms` waits, the longest waiting first.
    `longer_than`: only what waits for more than so many seconds.

    A hint: whether a lane can be had is decided by `claim` alone.
    """
    # A subquery for each waiting event: of a join PostgreSQL reads all lanes, since it takes most of them for held.
    lane = Lane.objects.filter(pk=OuterRef("conversation_id"))
    free_from = Subquery(lane.values(free_from=Greatest("lease_until", "not_before")))
    waits = InboundEvent.objects.filter(done_at=None, platform__in=platforms).order_by("id")
    events = waits.annotate(free_from=free_from).filter(free_from__lte=clock.now())
    if longer_than:
        events = events.filter(received_at__lte=clock.seconds_from_now(-longer_than))
    return list(dict.fromkeys(events.values_list("conversation_id", flat=True)))


def overdue() -> QuerySet[InboundEvent]:
    """What waits although its lane is free: nobody works on any conversation of the person, nor is to try one later."""
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
    conversation_ids: Collection[int], *, owner: str, platforms: Collection[str], has_suspect: bool = False
) -> Claimed:
    """Take the lanes that these conversations are in now, each with the events that wait there longest.

    `platforms` are those that the caller can answer on. The starts are counted here, so that they are on disk before an
    agent is called. At most one claim is a suspect, and none if the caller works on one already (`has_suspect`): when
    it ends the process, that tells which message did, and no other is quarantined with it.
    """
    asked = _look(conversation_ids)
    free = _free_among(asked)
    most = (MAX_IN_A_TURN + 1) * len(free)
    found = _oldest_waiting(free, platforms, most)
    # One lane's flood may leave no room for the events of the others: these are asked for anew, without it.
    is_cut_short = sum(map(len, found.values())) == most
    oldest = {lane: _one_turn_of(events) for lane, events in found.items()}
    suspects = [lane for lane, events in oldest.items() if _crashed_before(events[0])]
    put_off = suspects[0 if has_suspect else 1 :]
    turns = {lane: events for lane, events in oldest.items() if lane not in put_off}
    leases = _take({lane: events[0].conversation for lane, events in turns.items()}, owner)
    _count_starts(event for lane in leases for event in turns[lane])
    return Claimed(
        tuple(
            Claim(lease, tuple(turns[lane]), more=is_cut_short or len(found[lane]) > len(turns[lane]))
            for lane, lease in leases.items()
        ),
        busy=_asked_for(asked, lambda lane: lane not in free or (lane in turns and lane not in leases)),
        again=_asked_for(asked, lambda lane: is_cut_short and lane in free and lane not in found),
        put_off=_asked_for(asked, put_off.__contains__),
    )


@transaction.atomic
def hold(conversation: Conversation, *, owner: str) -> Lease:
    """Take the lane that a conversation is in now, for a turn that comes by no event. Raises Busy."""
    leases = _take(dict.fromkeys(_free_among(_look([conversation.pk])), conversation), owner)
    if not leases:
        raise Busy
    return next(iter(leases.values()))


@dataclass(frozen=True, slots=True)
class _Lane:
    user_id: int | None
    together: tuple[int, ...]


def _look(conversation_ids: Collection[int]) -> dict[_Lane, list[int]]:
    """The lanes of these conversations, locked, and who of them is in which: accounts and people are held in the order
    of linking, so that no link changes until commit. A conversation that is gone is in none.
    """
    places = conversations.places_of(conversation_ids)
    accounts = {pk: account_id for pk, (account_id, _) in places.items()}
    people = locks.lock_people(filter(None, accounts.values()))
    theirs = conversations.of_people(people.values())
    lanes: dict[_Lane, list[int]] = defaultdict(list)
    for pk in filter(accounts.__contains__, conversation_ids):
        account_id = accounts[pk]
        user_id = people.get(account_id) if account_id else None
        lanes[_Lane(user_id, places[pk][1] if user_id is None else theirs[user_id])].append(pk)
    return lanes


def _free_among(lanes: Iterable[_Lane]) -> list[_Lane]:
    """Those of which no conversation is held or backing off. Of a locked person nobody else takes one."""
    now = clock.now()
    lanes = list(lanes)
    rows = Lane.objects.filter(pk__in=[pk for lane in lanes for pk in lane.together])
    held = set(rows.filter(Q(lease_until__gt=now) | Q(not_before__gt=now)).values_list("pk", flat=True))
    return [lane for lane in lanes if held.isdisjoint(lane.together)]


def _oldest_waiting(lanes: Collection[_Lane], platforms: Collection[str], most: int) -> dict[_Lane, list[InboundEvent]]:
    """Held until the claim commits, so that an edit comes either before the words are taken or after."""
    lane_of = {pk: lane for lane in lanes for pk in lane.together}
    waits = InboundEvent.objects.filter(conversation__in=lane_of, done_at=None, platform__in=platforms)
    held = waits.select_related("conversation", "account").select_for_update(of=("self",)).order_by("id")
    found: dict[_Lane, list[InboundEvent]] = defaultdict(list)
    for event in held[:most]:
        found[lane_of[event.conversation_id]].append(event)
    return found


def _one_turn_of(waiting: list[InboundEvent]) -> list[InboundEvent]:
    """The longest waiting event, and what its author wrote right after it in the same place.

    A command is a turn of its own, and so is every event that a turn was started for before: one of them may be what
    crashed it.
    """
    first = waiting[0]
    if _stands_alone(first):
        return [first]
    together = takewhile(lambda event: not _stands_alone(event) and _place(event) == _place(first), waiting)
    return list(together)[:MAX_IN_A_TURN]


def _crashed_before(event: InboundEvent) -> bool:
    """Whether the process ended so often while a turn of it ran that once more would put it aside."""
    return event.starts - event.failures >= CRASHES_BEFORE_QUARANTINE - 1


def _stands_alone(event: InboundEvent) -> bool:
    return event.kind == InboundEvent.Kind.COMMAND or event.starts > 0


def _place(event: InboundEvent) -> tuple[object, ...]:
    return (event.conversation_id, event.account_id, event.chat_id, event.thread_id)


def _take(wanted: Mapping[_Lane, Conversation], owner: str) -> dict[_Lane, Lease]:
    """Lease one conversation of each of these free lanes. Of all who try at once, one locks the rows: all of a lane's,
    and waiting for none, since whoever ends a turn there may wait for its events.
    """
    now = clock.now()
    rows = Lane.objects.filter(pk__in={pk for lane in wanted for pk in lane.together}).order_by("pk")
    free = rows.filter(lease_until__lte=now, not_before__lte=now).select_for_update(skip_locked=True)
    fences = dict(free.values_list("pk", "fence"))
    taken = {lane: conversation for lane, conversation in wanted.items() if fences.keys() >= {*lane.together}}
    leased = [conversation.pk for conversation in taken.values()]
    until = clock.seconds_from_now(settings.BOTOS_LEASE_SECONDS)
    Lane.objects.filter(pk__in=leased).update(owner=owner, fence=F("fence") + 1, lease_until=until)
    _shut_out({pk for lane in taken for pk in lane.together}.difference(leased))
    return {
        lane: Lease(owner, fences[conversation.pk] + 1, conversation, lane.user_id, lane.together)
        for lane, conversation in taken.items()
    }


def _shut_out(conversation_ids: Collection[int]) -> None:
    """Whoever stood still for longer than a lease of another conversation of these people must not go on under it: the
    fence is that of the lane, whichever of its rows is leased.
    """
    left = Lane.objects.filter(pk__in=conversation_ids).exclude(owner="")
    left.update(owner="", fence=F("fence") + 1, lease_until=clock.EPOCH)


def _count_starts(events: Iterable[InboundEvent]) -> None:
    InboundEvent.objects.filter(pk__in=[event.pk for event in events]).update(starts=F("starts") + 1)


def _asked_for(asked: Mapping[_Lane, list[int]], is_wanted: Callable[[_Lane], bool]) -> frozenset[int]:
    return frozenset(pk for lane, pks in asked.items() if is_wanted(lane) for pk in pks)


def renew(leases: Collection[Lease]) -> None:
    """Extend these leases of one owner, and no other: one that nobody works under must run out."""
    for_whom = {"owner__in": {lease.owner for lease in leases}, "pk__in": [lease.conversation.pk for lease in leases]}
    Lane.objects.filter(**for_whom).update(lease_until=clock.seconds_from_now(settings.BOTOS_LEASE_SECONDS))
