"""Periodic duties. Each runs on its own, so that one that fails does not delay the others.

Several processes may run all duties: each row is handled once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass

from identity import live
from identity.browsers import sessions as browser_sessions
from identity.flows import link_maintenance, pair_in_chat
from identity.flows import retention as identity_retention
from identity.pairing import rate_limits
from sessions_app import db, duties
from sessions_app.privacy import forgetting, retention, sqlite_vacuum

ROUND_SECONDS = 60.0
HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class Duty:
    """A periodic duty.

    portion: handles some due rows and returns how many; it is called until it returns 0. seconds: from the end of one
    round to the next. tells: whether it may queue messages.
    """

    name: str
    portion: Callable[[], int]
    seconds: float = ROUND_SECONDS
    tells: bool = False


DUTIES = (
    Duty("end requests", pair_in_chat.expire, tells=True),
    Duty("remind of links", link_maintenance.remind, tells=True),
    Duty("end silent links", link_maintenance.end_silent, tells=True),
    Duty("end browsers", browser_sessions.end_old, tells=True),
    Duty("erase the forgotten", forgetting.step, tells=True),
    # Nobody can write while the files are cleaned, and a writer that waits in this thread meets no lock timeout.
    Duty("clean the files", forgetting.clean),
    Duty("drop live events", live.forget_old),
    Duty("drop guesses", rate_limits.forget_old),
    Duty("drop requests", identity_retention.forget_old_requests),
    Duty("drop audit rows", identity_retention.forget_old_audit),
    Duty("drop sessions", identity_retention.forget_sessions),
    *(Duty(portion.__name__.replace("_", " "), portion) for portion in retention.DUTIES),
    Duty("gather statistics", sqlite_vacuum.gather_statistics, seconds=HOUR),
)


async def keep(wake: Callable[[], None], what: Collection[Duty] | None = None) -> None:
    """Run all duties until cancelled. Call `wake` when one may have queued messages."""
    await asyncio.gather(*(_keep(duty, wake) for duty in (DUTIES if what is None else what)))


async def _keep(duty: Duty, wake: Callable[[], None]) -> None:
    while True:
        try:
            # Other calls use the database's thread between two portions.
            while await db.call(duty.portion):
                if duty.tells:
                    wake()
            duties.succeeded(duty.name)
        except Exception as error:  # noqa: BLE001 - any error is noted, and the duty is repeated
            duties.failed(duty.name, error, then=f"trying again in {duty.seconds:.0f} s")
        await asyncio.sleep(duty.seconds)
