"""The health of BotOS: what waits for how long, what failed, and which connections of this process are up.

These are numbers about no person, read with a constant number of statements.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from time import monotonic
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor
from django.db.models import Count, Exists, Min, OuterRef, Q

from adapters import registry
from adapters.runtime.supervisor import Health, State
from identity.support import clock, db_errors, sql
from sessions_app import agents, counters, db, dead_letters, duties, receiver_leases
from sessions_app.agents.loop import MAX_LEFT_BEHIND
from sessions_app.models import Duty, InboundEvent, Lane, OutboundDelivery
from sessions_app.turns import leases

AGENT_KINDS = ("threads", "turns", "loops")
MAX_LAG = 60.0  # seconds that a message may wait
WRITING = "write to the database"  # the duty that shows whether this works
MAX_CALL = 300.0  # seconds of one call to the database: cleaning a big file takes a while

_health: Callable[[], list[Health]] = list
_is_migrated = False
_written: float | None = (
    None  # when a row was last written, by the monotonic clock; None if `keep_writing` does not run
)


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits. lag: seconds that the oldest message in a free lane has waited."""

    lag: float
    lanes: int
    deliveries: int
    oldest_delivery: float
    ambiguous: int


def watch(health: Callable[[], list[Health]]) -> None:
    """Set the function that returns the health of this process's adapters."""
    global _health  # noqa: PLW0603 - a process runs one BotOS
    _health = health


def connections() -> list[Health]:
    """The health of each adapter of this process; none if it only serves pages."""
    return _health()


def receivers() -> dict[str, str]:
    """The process that receives, by configured platform, "" if none does. Platforms with webhooks are left out."""
    polled = [name for name in registry.names() if registry.is_configured(name) and not registry.calls(name)]
    tokens = {name: token for name in polled if (token := registry.token_of(name, {}))}
    holders = receiver_leases.holders()
    return {name: holders.get(receiver_leases.key_of(token), "") for name, token in tokens.items()}


def backlog() -> Backlog:
    """What waits now: overdue messages, and unsettled deliveries."""
    messages: dict[str, Any] = {"oldest": None, "lanes": 0}
    if _may_be_overdue():
        messages = leases.overdue().aggregate(oldest=Min("received_at"), lanes=Count("conversation", distinct=True))
    unsettled = OutboundDelivery.objects.filter(settled_at=None)
    ambiguous = Count("pk", filter=Q(possibly_sent=True))
    deliveries = unsettled.aggregate(oldest=Min("created_at"), count=Count("pk"), ambiguous=ambiguous)
    now = clock.read()
    return Backlog(
        _age(messages["oldest"], now),
        messages["lanes"],
        deliveries["count"],
        _age(deliveries["oldest"], now),
        deliveries["ambiguous"],
    )


def _may_be_overdue() -> bool:
    """Whether a ready event waits whose conversation's own lane is free: only then can `leases.overdue` have one.

    That statement takes longer to build than all others of `/metrics` together, and mostly there is nothing to find.
    """
    now = clock.now()
    held = Lane.objects.filter(Q(lease_until__gt=now) | Q(not_before__gt=now))
    own = held.filter(conversation=OuterRef("conversation"))
    return InboundEvent.objects.filter(leases.is_ready(), ~Exists(own), done_at=None).exists()


def _age(since: datetime | None, now: datetime) -> float:
    return max(0.0, (now - since).total_seconds()) if since else 0.0


def dead_deliveries() -> int:
    return dead_letters.dead_deliveries().count()


def given_up_messages() -> tuple[int, int]:
    """How many messages that nobody has dismissed are quarantined, and at how many the agent failed at every try."""
    by_status = dead_letters.unseen_events().order_by().values_list("status").annotate(Count("pk"))
    counts = dict(by_status)
    return counts.get(InboundEvent.Status.QUARANTINED, 0), counts.get(InboundEvent.Status.GIVEN_UP, 0)


async def keep_writing() -> None:
    """Write a row three times in the life of a lease, until cancelled: a database may answer but accept no writes."""
    global _written  # noqa: PLW0603 - a process runs one BotOS
    seconds = settings.BOTOS_RECEIVER_LEASE_SECONDS / 3
    _written = monotonic()
    try:
        while True:
            began = monotonic()
            try:
                await db.call(_write)
                _written = began
            except Exception as error:  # noqa: BLE001 - /readyz reports it if it lasts
                duties.failed(WRITING, error, then=f"trying again in {seconds:g} s")
            await asyncio.sleep(seconds)
    finally:
        _written = None


def _write() -> None:
    Duty.objects.update_or_create(name=WRITING, defaults={"succeeded_at": clock.now()})


def seconds_unwritten() -> float:
    """Seconds since this process last wrote a row; 0 if it only serves pages."""
    return 0.0 if _written is None else monotonic() - _written


def periodic_duties() -> list[Duty]:
    """When each duty last succeeded and last failed in any process, by name."""
    return list(Duty.objects.order_by("name"))


def agents_left_behind() -> dict[str, int]:
    """How many threads, turns and loops of agents go on in this process although nobody waits for them."""
    left = agents.left_behind()
    return {kind: left[kind] for kind in AGENT_KINDS}


def agents_ever_left_behind(written: Mapping[str, int] | None = None) -> dict[str, int]:
    """How many were left behind in all processes, including those that have ended since.

    written: the counts of "left behind", if the caller has read them.
    """
    counts = counters.written("left behind") if written is None else written
    return {kind: counts.get(kind, 0) for kind in AGENT_KINDS}


def is_migrated() -> bool:
    """Whether the database has all tables of this program. A positive result is cached."""
    global _is_migrated  # noqa: PLW0603 - reading all migrations takes too long for each call
    if not _is_migrated:
        executor = MigrationExecutor(connection)
        _is_migrated = not executor.migration_plan(executor.loader.graph.leaf_nodes())
    return _is_migrated


def check_database() -> None:
    """Raise ImproperlyConfigured with a hint if the database cannot be used. Commands call it first."""
    try:
        with sql.briefly_connected():
            is_complete = is_migrated()
    except DatabaseError as error:  # not chained: a driver's message may quote the connection string
        kind = type(error).__name__
        problem = f"The database cannot be used ({kind}). Hint: check that it is running and DATABASE_URL is correct."
        raise ImproperlyConfigured(db_errors.sentence_of(error) or problem) from None
    if not is_complete:
        raise ImproperlyConfigured(db_errors.NO_TABLES)


def reasons_against() -> list[str]:
    """Why this process is not ready, without secrets. A standby is ready."""
    is_ready = (State.UP, State.STANDBY)
    down = [f"{adapter.platform}: {adapter.state}" for adapter in connections() if adapter.state not in is_ready]
    try:
        if not is_migrated():
            return [*down, "the database is missing tables"]
        lag = backlog().lag
    except DatabaseError as error:
        return [*down, f"the database does not answer: {type(error).__name__}"]
    full = [kind for kind, count in agents_left_behind().items() if count >= MAX_LEFT_BEHIND]
    longest_call, unwritten = db.longest_wait(), seconds_unwritten()
    return [
        *down,
        *(
            [f"nothing could be written for {unwritten:.0f} s"]
            if unwritten >= settings.BOTOS_RECEIVER_LEASE_SECONDS
            else []
        ),
        *([f"messages wait for {lag:.0f} s"] if lag >= MAX_LAG else []),
        *(f"{MAX_LEFT_BEHIND} {kind} of agents do not end: start this process again" for kind in full),
        *([f"this process waits for the database for {longest_call:.0f} s"] if longest_call >= MAX_CALL else []),
    ]
