"""What is done again and again, by time alone. Each duty runs on its own: one that fails holds up no other.

Several processes may run them all: each row is handled once.
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
    """`portion` does a little of what is due and says how many rows that were: it is called until it says 0.

    seconds: from the end of one round to the next. tells: whether it may put messages in line.
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
    # While the files are cleaned nobody could write anyhow: whoever waits here meets no lock that runs out.
    Duty("clean the files", forgetting.clean),
    Duty("drop live events", live.forget_old),
    Duty("drop guesses", rate_limits.forget_old),
    Duty("drop requests", identity_retention.forget_old_requests),
    Duty("drop audit rows", identity_retention.forget_old_audit),
    Duty("drop sessions", identity_retention.forget_sessions),
    *(Duty(one.__name__.replace("_", " "), one) for one in retention.DUTIES),
    Duty("gather statistics", sqlite_vacuum.gather_statistics, seconds=HOUR),
)


async def keep(wake: Callable[[], None], what: Collection[Duty] | None = None) -> None:
    """Do all duties until cancelled. `wake` is called when messages may have been put in line."""
    await asyncio.gather(*(_keep(duty, wake) for duty in (DUTIES if what is None else what)))


async def _keep(duty: Duty, wake: Callable[[], None]) -> None:
    while True:
        try:
            # The database's thread is given back after each portion: others' calls come in between.
            while await db.call(duty.portion):
                if duty.tells:
                    wake()
            duties.succeeded(duty.name)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is noted, and the duty is done again
            duties.failed(duty.name, error, then=f"trying again in {duty.seconds:.0f} s")
        await asyncio.sleep(duty.seconds)
