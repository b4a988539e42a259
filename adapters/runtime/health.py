"""How BotOS is: what waits for how long, what failed, and which connections of this process are up.

Numbers only, of nobody in particular, in as many statements however much there is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from time import monotonic

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor
from django.db.models import Count, Min, Q

from adapters import registry
from adapters.runtime.supervisor import Health, State
from identity.support import clock, db_errors
from sessions_app import agents, counters, db, dead_letters, duties, receiver_leases
from sessions_app.agents.loop import MAX_LEFT_BEHIND
from sessions_app.models import Duty, InboundEvent, OutboundDelivery
from sessions_app.turns import leases

AGENT_KINDS = ("threads", "turns", "loops")
MAX_LAG = 60.0  # seconds that a message may wait
WRITING = "write to the database"  # the duty that shows it
MAX_CALL = 300.0  # and one call to the database: cleaning a big file takes a while

_health: Callable[[], list[Health]] = list
_is_migrated = False
_written: float | None = None  # when a row was last written, by the monotonic clock; None where nobody keeps writing


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits. lag: seconds that the longest waiting message waits although its lane is free."""

    lag: float
    lanes: int
    deliveries: int
    oldest_delivery: float
    ambiguous: int


def watch(health: Callable[[], list[Health]]) -> None:
    """These are the connections of this process from now on."""
    global _health  # noqa: PLW0603 - a process runs one BotOS
    _health = health


def connections() -> list[Health]:
    """How each adapter of this process is; none where only pages are served."""
    return _health()


def receivers() -> dict[str, str]:
    """Which process receives, by configured platform; empty where none does. Not those that call the pages."""
    asked = [name for name in registry.names() if registry.is_configured(name) and not registry.calls(name)]
    tokens = {name: token for name in asked if (token := registry.token_of(name, {}))}
    holders = receiver_leases.holders()
    return {name: holders.get(receiver_leases.key_of(token), "") for name, token in tokens.items()}


def backlog() -> Backlog:
    waiting = leases.overdue().aggregate(oldest=Min("received_at"), lanes=Count("conversation", distinct=True))
    open_ones = OutboundDelivery.objects.filter(settled_at=None)
    ambiguous = Count("pk", filter=Q(may_be_repeat=True))
    going = open_ones.aggregate(oldest=Min("created_at"), count=Count("pk"), ambiguous=ambiguous)
    moment = clock.read()
    return Backlog(
        _age(waiting["oldest"], moment),
        waiting["lanes"],
        going["count"],
        _age(going["oldest"], moment),
        going["ambiguous"],
    )


def _age(since: datetime | None, now: datetime) -> float:
    return max(0.0, (now - since).total_seconds()) if since else 0.0


def dead_deliveries() -> int:
    return dead_letters.dead_deliveries().count()


def quarantined() -> int:
    return dead_letters.unseen_events().filter(status=InboundEvent.Status.QUARANTINED).count()


def given_up() -> int:
    return dead_letters.unseen_events().filter(status=InboundEvent.Status.GIVEN_UP).count()


async def keep_writing() -> None:
    """Write a row three times in the life of a lease, until cancelled: a database may answer and take nothing."""
    global _written  # noqa: PLW0603 - a process runs one BotOS
    seconds = settings.BOTOS_POLLER_SECONDS / 3
    _written = monotonic()
    try:
        while True:
            began = monotonic()
            try:
                await db.call(_write)
                _written = began
            except Exception as error:  # noqa: BLE001 - whatever it is, /readyz says so when it lasts
                duties.failed(WRITING, error, then=f"trying again in {seconds:g} s")
            await asyncio.sleep(seconds)
    finally:
        _written = None


def _write() -> None:
    Duty.objects.update_or_create(name=WRITING, defaults={"succeeded_at": clock.now()})


def seconds_unwritten() -> float:
    """How long this process has written nothing; 0 where it only serves pages."""
    return 0.0 if _written is None else monotonic() - _written


def periodic_duties() -> list[Duty]:
    """When each duty last succeeded and last failed, in all processes together, by name."""
    return list(Duty.objects.order_by("name"))


def agents_left_behind() -> dict[str, int]:
    """What goes on in this process although nobody waits for it: threads, turns and loops of agents."""
    left = agents.left_behind()
    return {kind: left[kind] for kind in AGENT_KINDS}


def agents_ever_left_behind() -> dict[str, int]:
    """How many were left behind in all processes together, some of which may have ended since."""
    written = counters.written("left behind")
    return {kind: written.get(kind, 0) for kind in AGENT_KINDS}


def is_migrated() -> bool:
    """Whether the database has all tables that this program knows. Once it has, it keeps them."""
    global _is_migrated  # noqa: PLW0603 - reading all migrations takes too long to do it at each question
    if not _is_migrated:
        executor = MigrationExecutor(connection)
        _is_migrated = not executor.migration_plan(executor.loader.graph.leaf_nodes())
    return _is_migrated


def check_database() -> None:
    """Raises ImproperlyConfigured with a hint if no process could work on it, for commands to call first."""
    try:
        is_complete = is_migrated()
    except DatabaseError as error:  # not chained: a driver's message may quote the connection string
        kind = type(error).__name__
        problem = f"The database cannot be used ({kind}). Hint: check that it is running and DATABASE_URL is correct."
        raise ImproperlyConfigured(db_errors.sentence_of(error) or problem) from None
    if not is_complete:
        raise ImproperlyConfigured(db_errors.NO_TABLES)


def reasons_against() -> list[str]:
    """Why no work should be expected of this process now, in words that hold no secret.

    One that stands by does all that it is there for.
    """
    down = [f"{one.platform}: {one.state}" for one in connections() if one.state not in (State.UP, State.STANDBY)]
    try:
        if not is_migrated():
            return [*down, "the database is missing tables"]
        lag = backlog().lag
    except DatabaseError as error:
        return [*down, f"the database does not answer: {type(error).__name__}"]
    full = [kind for kind, count in agents_left_behind().items() if count >= MAX_LEFT_BEHIND]
    standing, unwritten = db.longest_wait(), seconds_unwritten()
    return [
        *down,
        *([f"nothing could be written for {unwritten:.0f} s"] if unwritten >= settings.BOTOS_POLLER_SECONDS else []),
        *([f"messages wait for {lag:.0f} s"] if lag >= MAX_LAG else []),
        *(f"{MAX_LEFT_BEHIND} {kind} of agents do not end: start this process again" for kind in full),
        *([f"this process waits for the database for {standing:.0f} s"] if standing >= MAX_CALL else []),
    ]
