"""Leases of lanes: waiting events are claimed lane by lane, and each lane has one holder at a time.

The lane of a private chat is the person: the conversations of all accounts that are linked to them. The lane of a group
is the group.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import takewhile

from django.conf import settings
from django.db import connection, transaction
from django.db.models import Exists, F, OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Greatest

from identity.models import PlatformAccount
from identity.support import clock, sql
from sessions_app.history import conversations, window
from sessions_app.models import CRASHES_BEFORE_QUARANTINE, Conversation, InboundEvent, Lane
from sessions_app.receiving import settling

MAX_IN_A_TURN = 20
SET_BACK = 60.0  # seconds: nothing settles for so long, unless the clock was set back

# Every message runs these, so they are plain SQL. The lane of a conversation: with a person, all conversations of the
# accounts that are linked to the person; else those of its own account. An account has up to two, one of them from the
# time when no resolver was configured.
_OWNER = """COALESCE(c.account_id, (
    SELECT a.id FROM identity_platformaccount a
    WHERE a.platform = c.platform AND a.platform_user_id = SUBSTR(c.key, LENGTH(c.platform) + 6)
      AND c.key = 'bot_' || a.platform || '_' || a.platform_user_id))"""
_LANES = """
WITH asked AS (
    SELECT c.id, {owner} AS account_id FROM sessions_app_conversation c WHERE {asked}
),
owned AS (
    SELECT asked.id, asked.account_id, l.user_id
    FROM asked LEFT JOIN identity_accountlink l ON l.account_id = asked.account_id AND l.ended_at IS NULL
),
accounts AS (
    SELECT owned.id, owned.account_id FROM owned WHERE owned.user_id IS NULL
    UNION ALL
    SELECT owned.id, l.account_id
    FROM owned JOIN identity_accountlink l ON l.user_id = owned.user_id AND l.ended_at IS NULL
),
members AS (
    SELECT owned.id AS asked, owned.id FROM owned
    UNION
    SELECT accounts.id, c.id FROM accounts JOIN sessions_app_conversation c ON c.account_id = accounts.account_id
    UNION
    SELECT accounts.id, c.id FROM accounts JOIN identity_platformaccount a ON a.id = accounts.account_id
    JOIN sessions_app_conversation c ON c.kind = 'dm' AND c.account_id IS NULL AND c.platform = a.platform
        AND c.key = 'bot_' || a.platform || '_' || a.platform_user_id
)
SELECT owned.id, owned.user_id, u.unified_user_id, lane.conversation_id,
       lane.lease_until > {now} OR lane.not_before > {now}
FROM owned JOIN members ON members.asked = owned.id JOIN sessions_app_lane lane ON lane.conversation_id = members.id
LEFT JOIN identity_unifieduser u ON u.id = owned.user_id
"""
_LOCK_ACCOUNTS = """
SELECT account.id FROM identity_platformaccount account
WHERE account.id IN (SELECT {owner} FROM sessions_app_conversation c WHERE {asked})
ORDER BY account.id FOR NO KEY UPDATE
"""
_LOCK_PEOPLE = """
SELECT u.id FROM identity_unifieduser u
WHERE u.id IN (SELECT l.user_id FROM identity_accountlink l WHERE l.account_id = ANY(%s) AND l.ended_at IS NULL)
ORDER BY u.id FOR NO KEY UPDATE
"""
# Locked until the commit, so that an edit comes either before the words are taken or after. A message that steps aside
# after a failure is left out until it is ready: it neither holds back later ones nor uses up the limit.
_WAITING = f"""
SELECT {{now}}, {sql.columns(InboundEvent, "e")}, {sql.columns(Conversation, "c")}, {sql.columns(PlatformAccount, "a")}
FROM sessions_app_inboundevent e
JOIN sessions_app_conversation c ON c.id = e.conversation_id JOIN identity_platformaccount a ON a.id = e.account_id
WHERE {{members}} AND {{platforms}} AND e.done_at IS NULL
  AND (e.ready_at IS NULL OR e.failures = 0 OR e.ready_at <= {{now}})
ORDER BY e.id LIMIT %s {{locking}}
"""  # noqa: S608 - names of our own
# Of several processes that try at once, one locks all rows of a lane. It waits for no row: a process that ends a turn
# there may wait for events that this transaction has locked. The lease is on one row of the lane. An earlier holder of
# another row must not write any more: the fence is that of the whole lane.
_TAKE = """
WITH wanted (lane, id, is_leased) AS (VALUES {rows}),
free AS (
    SELECT wanted.lane, wanted.id, wanted.is_leased
    FROM wanted JOIN sessions_app_lane lane ON lane.conversation_id = wanted.id
    WHERE lane.lease_until <= {now} AND lane.not_before <= {now} {locking}
),
taken AS (
    SELECT wanted.lane FROM wanted LEFT JOIN free ON free.id = wanted.id
    GROUP BY wanted.lane HAVING COUNT(free.id) = COUNT(wanted.id)
)
UPDATE sessions_app_lane
SET fence = fence + 1, owner = CASE free.is_leased WHEN 1 THEN %s ELSE '' END,
    lease_until = CASE free.is_leased WHEN 1 THEN {until} ELSE %s END
FROM free
WHERE sessions_app_lane.conversation_id = free.id AND free.lane IN (SELECT lane FROM taken)
  AND (free.is_leased = 1 OR sessions_app_lane.owner <> '')
RETURNING sessions_app_lane.conversation_id, sessions_app_lane.fence
"""
_START = "UPDATE sessions_app_inboundevent SET starts = starts + 1 WHERE {started}"


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to write turns of one conversation until it runs out. A person has one lease at a time."""

    owner: str
    fence: int
    conversation: Conversation
    user_id: int | None  # of the person that the conversation's account is linked to
    together: tuple[int, ...]  # ids of all conversations of the person
    person: str | None = None  # the person's unified id


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
    settling: ask in so many seconds, since more words may belong to the oldest message.
    """

    claims: tuple[Claim, ...] = ()
    busy: frozenset[int] = frozenset()
    again: frozenset[int] = frozenset()
    put_off: frozenset[int] = frozenset()
    settling: Mapping[int, float] = field(default_factory=dict)


class Busy(Exception):
    """A conversation of the same person is leased or backing off."""


def waiting(platforms: Collection[str], *, longer_than: float = 0.0) -> list[int]:
    """Ids of conversations whose own row is free and where an event of `platforms` is ready, the oldest event first.

    longer_than: seconds for which the event has been ready at least. This is a hint: `claim` decides.
    """
    # A subquery for each waiting event: for a join, PostgreSQL expects most lanes to be held, and reads all of them.
    turn_lease = Lane.objects.filter(pk=OuterRef("conversation_id"))
    free_from = Subquery(turn_lease.values(free_from=Greatest("lease_until", "not_before")))
    waits = InboundEvent.objects.filter(is_ready(-longer_than), done_at=None, platform__in=platforms).order_by("id")
    events = waits.annotate(free_from=free_from).filter(free_from__lte=clock.now())
    if longer_than:
        events = events.filter(received_at__lte=clock.seconds_from_now(-longer_than))
    return list(dict.fromkeys(events.values_list("conversation_id", flat=True)))


def is_ready(seconds: float = 0.0) -> Q:
    """The condition that a waiting event neither settles nor steps aside, `seconds` from now."""
    return Q(ready_at=None) | Q(ready_at__lte=clock.seconds_from_now(seconds))


def overdue() -> QuerySet[InboundEvent]:
    """The ready events that wait in a free lane: no conversation of the person is leased or backing off."""
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
    waits = InboundEvent.objects.filter(is_ready(), ~Exists(own), done_at=None).annotate(
        owner=conversations.owner_of_event()
    )
    return waits.filter(~Exists(served.filter(pk=OuterRef("owner"))), ~Exists(same_person))


@transaction.atomic
def claim(
    conversation_ids: Collection[int], *, owner: str, platforms: Collection[str], has_crashed_before: bool = False
) -> Claimed:
    """Lease the lanes of these conversations to `owner`, each with the first turn that waits there.

    platforms: those that the caller can answer on. has_crashed_before: whether the caller works on a message that
    crashed before. The starts are counted in this transaction, so that they are on disk before an agent is called.
    """
    asked, held = _lock_lanes(conversation_ids)
    free = [lane for lane in asked if lane not in held]
    limit = (MAX_IN_A_TURN + 1) * len(free)
    events, now = _waiting_in([pk for lane in free for pk in lane.together], platforms, limit)
    planned = plan(free, events, now=now, is_cut_short=len(events) == limit, has_crashed_before=has_crashed_before)
    leases = _take({lane: turn[0].conversation for lane, turn in planned.turns.items()}, owner)
    if started := [event.pk for lane in leases for event in planned.turns[lane]]:
        condition, values = sql.among("id", started)
        sql.run(_START.format(started=condition), values)
    busy = held | (planned.turns.keys() - leases.keys())
    return Claimed(
        tuple(Claim(lease, tuple(planned.turns[lane]), lane in planned.more) for lane, lease in leases.items()),
        busy=frozenset(pk for lane in busy for pk in asked[lane]),
        again=frozenset(pk for lane in planned.again for pk in asked[lane]),
        put_off=frozenset(pk for lane in planned.put_off for pk in asked[lane]),
        settling={pk: seconds for lane, seconds in planned.settling.items() for pk in asked[lane]},
    )


@transaction.atomic
def hold(conversation: Conversation, *, owner: str) -> Lease:
    """Lease the lane that a conversation is in now, for a turn without an event. Raises Busy."""
    asked, held = _lock_lanes([conversation.pk])
    leases = _take({lane: conversation for lane in asked if lane not in held}, owner)
    if not leases:
        raise Busy
    return next(iter(leases.values()))


def together(conversation: Conversation) -> tuple[int, ...]:
    """The ids of the conversations in the lane that a conversation is in now. It locks nothing."""
    condition, ids = sql.among("c.id", [conversation.pk])
    now, moment = clock.now().statement()
    rows = sql.run(_LANES.format(owner=_OWNER, asked=condition, now=now), [*ids, moment, moment])
    return tuple(sorted(member for _, _, _, member, _ in rows))


@dataclass(frozen=True, slots=True)
class LaneKey:
    """Identifies a lane: the person, if the lane is a linked person's, and the ids of its conversations."""

    user_id: int | None
    together: tuple[int, ...]
    person: str | None = None  # the unified id of the person


@dataclass(frozen=True, slots=True)
class Plan:
    """Which lanes to lease.

    turns: the events of one turn, by lane. more: lanes where events may wait behind that turn. again: free lanes whose
    events were cut off. put_off: lanes that wait until a turn with a message that crashed before ends. settling: lanes
    whose oldest event settles, and for how many seconds.
    """

    turns: Mapping[LaneKey, list[InboundEvent]]
    more: Collection[LaneKey]
    again: Collection[LaneKey]
    put_off: Collection[LaneKey]
    settling: Mapping[LaneKey, float]


def plan(
    lanes: Collection[LaneKey],
    events: Iterable[InboundEvent],
    *,
    now: datetime,
    is_cut_short: bool,
    has_crashed_before: bool,
) -> Plan:
    """Decide which of these free lanes to lease, for which turn each.

    events: what waits in them, oldest first, without those that step aside. is_cut_short: whether there may be more,
    since the flood of one lane may leave no room for the events of others. At most one turn has a message that crashed
    before, and none with `has_crashed_before`: when that turn ends the process, its message is known, and no other is
    quarantined with it.

    While the oldest event of a lane settles, the lane waits, so that turns start in order of arrival. When it is ready,
    later ones that belong to its turn come with it, whether they settle or not.
    """
    lane_of = {pk: lane for lane in lanes for pk in lane.together}
    waiting: dict[LaneKey, list[InboundEvent]] = defaultdict(list)
    for event in events:
        waiting[lane_of[event.conversation_id]].append(event)
    settling = {lane: seconds for lane, queue in waiting.items() if (seconds := _settles_for(queue[0], now)) > 0}
    turns = {lane: _first_turn(queue) for lane, queue in waiting.items() if lane not in settling}
    crashed = [lane for lane, turn in turns.items() if _crashed_before(turn[0])]
    put_off = crashed[0 if has_crashed_before else 1 :]
    return Plan(
        turns={lane: turn for lane, turn in turns.items() if lane not in put_off},
        more=[lane for lane, turn in turns.items() if is_cut_short or len(waiting[lane]) > len(turn)],
        again=[lane for lane in lanes if is_cut_short and lane not in waiting],
        put_off=put_off,
        settling=settling,
    )


def _settles_for(event: InboundEvent, now: datetime) -> float:
    """Seconds until the event is ready, 0 or negative if it is."""
    seconds = 0.0 if event.ready_at is None else (event.ready_at - now).total_seconds()
    return seconds if seconds < SET_BACK else 0.0


def _first_turn(waiting: list[InboundEvent]) -> list[InboundEvent]:
    """The oldest event, and what its author wrote right after it in the same place.

    A command is a turn of its own, and so is every message whose turn was started before, as it may be what crashed it
    or what the agent failed at. What may be the parts of a text that the app cut counts as one message.
    """
    first = waiting[0]
    if not _stands_alone(first):
        together = takewhile(lambda event: not _stands_alone(event) and _place(event) == _place(first), waiting)
        return list(together)[:MAX_IN_A_TURN]
    turn = [first]
    for event in waiting[1:MAX_IN_A_TURN]:
        if _attempt(event) != _attempt(first) or not settling.may_be_cut(turn[-1].text, first.platform):
            break
        turn.append(event)
    return turn


def _crashed_before(event: InboundEvent) -> bool:
    """Whether one more crash puts the event into quarantine."""
    return event.starts - event.failures >= CRASHES_BEFORE_QUARANTINE - 1


def _stands_alone(event: InboundEvent) -> bool:
    return event.kind == InboundEvent.Kind.COMMAND or event.starts > 0 or event.failures > 0


def _attempt(event: InboundEvent) -> tuple[object, ...]:
    """The same for messages that were in one turn."""
    return (event.kind, event.starts, event.failures, *_place(event))


def _place(event: InboundEvent) -> tuple[object, ...]:
    return (event.conversation_id, event.account_id, event.chat_id, event.thread_id)


def _lock_lanes(conversation_ids: Collection[int]) -> tuple[dict[LaneKey, list[int]], set[LaneKey]]:
    """The lanes of these conversations, each with those of the ids that are in it, and which lanes are not free.

    Locks accounts and people in the order that linking uses, so that no link changes until the commit and nobody else
    leases these lanes. A deleted conversation is in no lane.
    """
    condition, ids = sql.among("c.id", conversation_ids)
    if connection.features.has_select_for_update and ids:
        accounts = [pk for (pk,) in sql.run(_LOCK_ACCOUNTS.format(owner=_OWNER, asked=condition), ids)]
        sql.run(_LOCK_PEOPLE, [accounts])
    now, value = clock.now().statement()
    rows = sql.run(_LANES.format(owner=_OWNER, asked=condition, now=now), [*ids, value, value]) if ids else []
    together: dict[int, list[int]] = defaultdict(list)
    for asked, _, _, member, _ in rows:
        together[asked].append(member)
    keys = {row[0]: LaneKey(row[1], tuple(sorted(together[row[0]])), row[2]) for row in rows}
    lanes: dict[LaneKey, list[int]] = defaultdict(list)
    for pk in filter(keys.__contains__, conversation_ids):
        lanes[keys[pk]].append(pk)
    return lanes, {keys[asked] for asked, _, _, _, is_held in rows if is_held}


def _waiting_in(
    conversation_ids: Collection[int], platforms: Collection[str], limit: int
) -> tuple[list[InboundEvent], datetime]:
    """The oldest waiting events in these conversations, at most `limit`, each with its conversation and account.

    Without those that step aside. Also returns the moment at which the database read them.
    """
    if not conversation_ids or not platforms:
        return [], clock.EPOCH
    members, ids = sql.among("e.conversation_id", conversation_ids)
    on, names = sql.among("e.platform", platforms)
    now, moment = clock.now().statement()
    statement = _WAITING.format(members=members, platforms=on, now=now, locking=sql.locking("FOR UPDATE OF e"))
    rows = sql.run(statement, [moment, *ids, *names, moment, limit])
    events = []
    for row in rows:
        event, event.conversation, event.account = sql.load(row[1:], InboundEvent, Conversation, PlatformAccount)
        events.append(event)
    return events, window.moment(rows[0][0]) if rows else clock.EPOCH


def _take(wanted: Mapping[LaneKey, Conversation], owner: str) -> dict[LaneKey, Lease]:
    """Lease one conversation of each of these free lanes to `owner`. Return the leases that could be had."""
    rows = [
        value
        for number, (lane, conversation) in enumerate(wanted.items())
        for pk in lane.together
        for value in (number, pk, int(pk == conversation.pk))
    ]
    if not rows:
        return {}
    now, moment = clock.now().statement()
    until, end = clock.seconds_from_now(settings.BOTOS_LEASE_SECONDS).statement()
    statement = _TAKE.format(
        rows=", ".join(["(%s, %s, %s)"] * (len(rows) // 3)),
        now=now,
        until=until,
        locking=sql.locking("FOR UPDATE OF lane SKIP LOCKED"),
    )
    values = [*rows, moment, moment, owner, end, sql.moment(clock.EPOCH)]
    fences = dict(sql.run(statement, values))
    return {
        lane: Lease(owner, fences[conversation.pk], conversation, lane.user_id, lane.together, lane.person)
        for lane, conversation in wanted.items()
        if conversation.pk in fences
    }


def stopped(leases: Collection[Lease]) -> set[Lease]:
    """Those of these leases whose turn a person has stopped."""
    rows = Lane.objects.filter(pk__in=[lease.conversation.pk for lease in leases], stop_fence=F("fence"))
    fences = set(rows.values_list("pk", "fence"))
    return {lease for lease in leases if (lease.conversation.pk, lease.fence) in fences}


def renew(leases: Collection[Lease]) -> None:
    """Extend these leases. All others run out, as nobody works under them."""
    for_whom = {"owner__in": {lease.owner for lease in leases}, "pk__in": [lease.conversation.pk for lease in leases]}
    Lane.objects.filter(**for_whom).update(lease_until=clock.seconds_from_now(settings.BOTOS_LEASE_SECONDS))
