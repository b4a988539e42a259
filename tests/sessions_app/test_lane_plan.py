"""Which lanes are leased for which turns, as a table: no database."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from identity.support import clock
from sessions_app.models import CRASHES_BEFORE_QUARANTINE, InboundEvent
from sessions_app.turns import leases
from sessions_app.turns.leases import LaneKey, Plan

COMMAND = InboundEvent.Kind.COMMAND
PART = "x" * 4000  # of a text that the app cut
FAILED = {"starts": 1, "failures": 1}
CRASHED = {"starts": CRASHES_BEFORE_QUARANTINE - 1}
NOW = clock.EPOCH + timedelta(days=20_000)
ALICE, BOB, CAROL = LaneKey(1, (10, 11)), LaneKey(2, (20,)), LaneKey(None, (30,))


def event(pk: int, conversation: int, **fields: Any) -> InboundEvent:
    place = {"platform": "telegram", "conversation_id": conversation, "account_id": conversation}
    return InboundEvent(**{"pk": pk, **place, **fields})


def plan(*events: InboundEvent, is_cut_short: bool = False, has_crashed_before: bool = False) -> Plan:
    return leases.plan(
        [ALICE, BOB, CAROL], events, now=NOW, is_cut_short=is_cut_short, has_crashed_before=has_crashed_before
    )


def ready_in(seconds: float) -> dict[str, Any]:
    return {"ready_at": NOW + timedelta(seconds=seconds)}


def turns(planned: Plan) -> dict[LaneKey, list[int]]:
    return {lane: [event.pk for event in turn] for lane, turn in planned.turns.items()}


@pytest.mark.parametrize(
    ("waiting", "turn"),
    [
        ([event(1, 10), event(2, 10)], [1, 2]),
        ([event(1, 10), event(2, 11)], [1]),
        ([event(1, 10), event(2, 11), event(3, 10)], [1]),
        ([event(1, 10), event(2, 10, account_id=5)], [1]),
        ([event(1, 10, chat_id="a"), event(2, 10, chat_id="b")], [1]),
        ([event(1, 10), event(2, 10, thread_id="t")], [1]),
        ([event(1, 10, kind=COMMAND), event(2, 10)], [1]),
        ([event(1, 10), event(2, 10, kind=COMMAND), event(3, 10)], [1]),
        ([event(1, 10, starts=1), event(2, 10)], [1]),
        ([event(1, 10), event(2, 10, starts=1)], [1]),
        ([event(1, 10, **ready_in(0)), event(2, 10, **ready_in(3)), event(3, 10)], [1, 2, 3]),
        ([event(1, 10), event(2, 10, starts=1, failures=1, **ready_in(-1))], [1]),
        ([event(1, 10, starts=1, failures=1, **ready_in(-1)), event(2, 10, **ready_in(3))], [1]),
        ([event(1, 10, failures=1), event(2, 10)], [1]),  # by a process that took the start back
        ([event(1, 10, **FAILED, text=PART), event(2, 10, **FAILED, text=PART), event(3, 10, **FAILED)], [1, 2, 3]),
        ([event(1, 10, starts=1, text=PART), event(2, 10, starts=1)], [1, 2]),
        ([event(1, 10, **FAILED, text=PART[:3700]), event(2, 10, **FAILED)], [1]),
        ([event(1, 10, **FAILED, text=PART), event(2, 10)], [1]),
        ([event(1, 10, **FAILED, text=PART), event(2, 10, **FAILED | {"failures": 2})], [1]),
        ([event(1, 10, **FAILED, text=PART), event(2, 10, **FAILED, thread_id="t")], [1]),
        ([event(1, 10, **FAILED, text=PART), event(2, 10, **FAILED, kind=COMMAND)], [1]),
        ([event(pk, 10, **FAILED, text=PART) for pk in range(22)], list(range(leases.MAX_IN_A_TURN))),
        ([event(pk, 10) for pk in range(leases.MAX_IN_A_TURN + 2)], list(range(leases.MAX_IN_A_TURN))),
    ],
)
def test_it_takes_what_one_author_wrote_in_one_place(waiting: list[InboundEvent], turn: list[int]) -> None:
    planned = plan(*waiting)

    assert turns(planned) == {ALICE: turn}
    assert list(planned.more) == ([ALICE] if len(waiting) > len(turn) else [])
    assert not planned.again
    assert not planned.put_off


def test_it_takes_one_turn_of_each_lane() -> None:
    planned = plan(event(1, 20), event(2, 11), event(3, 30), event(4, 20, kind=COMMAND))

    assert turns(planned) == {BOB: [1], ALICE: [2], CAROL: [3]}
    assert list(planned.more) == [BOB]


@pytest.mark.parametrize(
    ("has_crashed_before", "taken", "put_off"),
    [(False, {BOB: [1], CAROL: [3]}, [ALICE]), (True, {CAROL: [3]}, [BOB, ALICE])],
)
def test_it_takes_one_message_at_a_time_that_crashed_before(
    has_crashed_before: bool, taken: dict[LaneKey, list[int]], put_off: list[LaneKey]
) -> None:
    planned = plan(
        event(1, 20, **CRASHED), event(2, 10, **CRASHED), event(3, 30), has_crashed_before=has_crashed_before
    )

    assert turns(planned) == taken
    assert list(planned.put_off) == put_off


def test_it_puts_off_no_message_that_the_agent_has_failed_at() -> None:
    failed = {"starts": CRASHES_BEFORE_QUARANTINE, "failures": 2}

    assert turns(plan(event(1, 10, **failed), has_crashed_before=True)) == {ALICE: [1]}


def test_it_asks_again_for_lanes_whose_events_were_cut_off() -> None:
    planned = plan(event(1, 10), event(2, 10), is_cut_short=True)

    assert turns(planned) == {ALICE: [1, 2]}
    assert list(planned.more) == [ALICE]
    assert list(planned.again) == [BOB, CAROL]


def test_no_lane_waits_for_an_hour_after_the_clock_was_set_back() -> None:
    planned = plan(event(1, 20, **ready_in(3600)))

    assert turns(planned) == {BOB: [1]}
    assert not planned.settling


def test_a_lane_waits_while_its_oldest_event_settles() -> None:
    planned = plan(event(1, 20, **ready_in(0.3)), event(2, 10), event(3, 20), event(4, 20, **ready_in(0)))

    assert turns(planned) == {ALICE: [2]}
    assert planned.settling == {BOB: pytest.approx(0.3)}
    assert not planned.more
    assert not planned.again
