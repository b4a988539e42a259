"""`manage.py` for processes that must fail: takes a guard away, or ends the process at a named point.

FAULTS_WITHOUT: names of guards that are taken away, see GUARDS. FAULTS_CRASH: `point:n` ends the process, as a power
cut does, the n-th time that it comes to the point, see POINTS; FAULTS_STALL stops it in its tracks there. FAULTS_CLOCK:
seconds by which its clock is off. FAULTS_PAUSES: seconds for which a message steps aside after each failure.
"""

from __future__ import annotations

import asyncio
import ctypes
import functools
import itertools
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

PR_SET_PDEATHSIG = 1  # of prctl(2)
CRASHED = 66  # exit status at a named point


def without_commit_before_acknowledgement() -> None:
    """The platform is told "received" while the message is still on its way to the disk."""
    from adapters.runtime import bot_inbox

    receive, under_way = bot_inbox.BotInbox.receive, set()

    async def promise(inbox: Any, message: Any) -> None:
        async def later() -> None:
            await asyncio.sleep(0.5)
            await receive(inbox, message)

        task = asyncio.create_task(later())
        under_way.add(task)
        task.add_done_callback(under_way.discard)

    setattr(bot_inbox.BotInbox, "receive", promise)  # noqa: B010 - a method, which mypy guards


def without_fence() -> None:
    """A turn is written whoever has the lane by now."""
    from identity.support import clock
    from sessions_app.models import Lane
    from sessions_app.turns import lifecycle

    def give_back(held: Any, *, even_stopped: bool = False) -> None:
        Lane.objects.filter(pk__in=[lease.conversation.pk for lease in held]).update(owner="", lease_until=clock.EPOCH)

    lifecycle._give_back = give_back


def without_end_check() -> None:
    """A turn is written whether or not its events have been answered meanwhile."""
    from identity.support import clock
    from sessions_app.models import InboundEvent
    from sessions_app.turns import lifecycle

    def end(claims: Any, status: str, reason: str = "", *, used: Any = ()) -> dict[int, str]:
        ended = [event.pk for claim in claims for event in claim.events]
        InboundEvent.objects.filter(pk__in=ended).update(status=status, done_at=clock.now(), reason=reason)
        return dict.fromkeys(ended, "")

    lifecycle._end = end


def without_stepping_aside() -> None:
    """A message that the agent failed at holds its lane until it is tried again."""
    from identity.support import clock
    from sessions_app.models import InboundEvent, Lane
    from sessions_app.turns import lifecycle

    fail = lifecycle.fail

    def hold(claim: Any, error: Exception | None = None) -> float | None:
        seconds = fail(claim, error)
        if seconds is not None:
            Lane.objects.filter(pk=claim.lease.conversation.pk).update(not_before=clock.seconds_from_now(seconds))
            InboundEvent.objects.filter(pk__in=[event.pk for event in claim.events]).update(ready_at=None)
        return seconds

    lifecycle.fail = hold


def without_database_clock() -> None:
    """Times are compared by the clock of whoever asks."""
    from datetime import UTC, datetime, timedelta

    from identity.support import clock

    clock.Moment.statement = lambda self: ("%s", datetime.now(tz=UTC) + timedelta(seconds=self.seconds))  # type: ignore[method-assign]
    clock.read = lambda: datetime.now(tz=UTC)


GUARDS: dict[str, Callable[[], None]] = {
    "commit-before-ack": without_commit_before_acknowledgement,
    "fence": without_fence,
    "end-check": without_end_check,
    "stepping-aside": without_stepping_aside,
    "database-clock": without_database_clock,
}


class Harm:
    """Does something to the process the n-th time that it is called."""

    def __init__(self, nth: int, act: Callable[[], None]) -> None:
        self._nth = nth
        self._act = act
        self._count = itertools.count(1)

    def __call__(self, *_: object, **__: object) -> None:
        if next(self._count) == self._nth:
            self._act()


def crash() -> None:
    os._exit(CRASHED)


def stall() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def before(owner: Any, name: str, harm: Harm) -> None:
    function = getattr(owner, name)

    @functools.wraps(function)
    def faulty(*args: Any, **kwargs: Any) -> Any:
        harm()
        return function(*args, **kwargs)

    setattr(owner, name, faulty)


def after(owner: Any, name: str, harm: Harm) -> None:
    """Once it has returned something that is not empty, or nothing."""
    function = getattr(owner, name)

    @functools.wraps(function)
    def faulty(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        if result != []:
            harm()
        return result

    setattr(owner, name, faulty)


def after_awaiting(owner: Any, name: str, harm: Harm) -> None:
    function = getattr(owner, name)

    @functools.wraps(function)
    async def faulty(*args: Any, **kwargs: Any) -> Any:
        result = await function(*args, **kwargs)
        harm()
        return result

    setattr(owner, name, faulty)


def in_receive(harm: Harm) -> None:
    """Between the insertion of messages and their commit, of one alone or of a group."""
    from django.db.models.signals import post_save

    from sessions_app.models import InboundEvent
    from sessions_app.receiving import group

    post_save.connect(harm, sender=InboundEvent, weak=False)
    after(group, "store", harm)


def before_taking(harm: Harm) -> None:
    """Between the commit that takes beginnings of answers for this process and the first call for one."""
    from adapters.runtime.delivery_worker import DeliveryWorker

    take = DeliveryWorker.take

    def faulty(self: Any, deliveries: Any, sender: Any) -> None:
        if deliveries:
            harm()
        take(self, deliveries, sender)

    DeliveryWorker.take = faulty  # type: ignore[method-assign]


def after_claiming(harm: Harm) -> None:
    """Between the claim of deliveries and the first call. All are claimed here, as those of other processes are."""
    from adapters.runtime.delivery_worker import DeliveryWorker
    from sessions_app.outbox import queue

    DeliveryWorker.sender = lambda self: None  # type: ignore[method-assign]
    after(queue, "claim", harm)


def _place(module: str, name: str, how: Callable[[Any, str, Harm], None]) -> Callable[[Harm], None]:
    def spoil(harm: Harm) -> None:
        from importlib import import_module

        how(import_module(module), name, harm)

    return spoil


POINTS: dict[str, Callable[[Harm], None]] = {
    "fetched-not-committed": _place("sessions_app.inbox", "receive_together", before),
    "in-receive-transaction": in_receive,
    "committed-not-acked": _place("sessions_app.inbox", "receive_together", after),
    "after-agent": _place("sessions_app.agents", "reply_to", after_awaiting),
    "mid-turn-transaction": _place("sessions_app.outbox.queue", "add_replies", before),
    "after-turn-commit": _place("sessions_app.turns.lifecycle", "finish_together", after),
    "taken-not-called": before_taking,
    "marked-sending": after_claiming,
    "sent-not-marked": _place("sessions_app.outbox.queue", "settle", before),
}


def end_with_parent() -> None:
    """However the harness ends: nothing that it started may go on without it. Linux alone knows how."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def shift_clock(seconds: float) -> None:
    """The process's clock is off by so much from here on. The monotonic one is right, as it is on any machine."""
    from datetime import UTC, datetime, timedelta

    import time_machine

    time_machine.travel(datetime.now(tz=UTC) + timedelta(seconds=seconds), tick=True).start()


def main() -> None:
    import django
    from django.core.management import execute_from_command_line

    end_with_parent()
    if off := os.environ.get("FAULTS_CLOCK"):
        shift_clock(float(off))
    django.setup()
    for name in os.environ.get("FAULTS_WITHOUT", "").split():
        GUARDS[name]()
    if pauses := os.environ.get("FAULTS_PAUSES"):
        from sessions_app.turns import lifecycle

        setattr(lifecycle, "RETRY_AFTER", tuple(map(float, pauses.split())))  # noqa: B010 - a constant, which mypy guards
    for variable, act in (("FAULTS_CRASH", crash), ("FAULTS_STALL", stall)):
        name, _, nth = os.environ.get(variable, "").partition(":")
        if name:
            POINTS[name](Harm(int(nth), act))
    execute_from_command_line(["manage.py", *sys.argv[1:]])


if __name__ == "__main__":
    main()
