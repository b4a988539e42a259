"""The lease on a token, with a database that can be played: `Leases` takes its place."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any
from unittest import mock

import pytest

from adapters.protocols import NeedsConfiguration, Superseded
from adapters.runtime.polling_lease import PollingLease
from adapters.runtime.supervisor import State, Supervisor
from sessions_app import receiver_leases
from tests.adapters.recording import RecordingInbox

LEASE = 0.6


class Leases:
    """One lease, as the database has it."""

    def __init__(self) -> None:
        self.owner, self.until, self.is_down = "", 0.0, False

    def take(self, key: str, owner: str) -> bool:
        return self._give(owner) if self.until < time.monotonic() or self.owner == owner else False

    def renew(self, key: str, owner: str) -> bool:
        return self._give(owner) if self.owner == owner else False

    def release(self, key: str, owner: str) -> None:
        if self.owner == owner:
            self.until = 0.0

    def _give(self, owner: str) -> bool:
        if self.is_down:
            raise ConnectionError("the database is away")
        self.owner, self.until = owner, time.monotonic() + LEASE
        return True


@pytest.fixture(autouse=True)
def leases(monkeypatch: pytest.MonkeyPatch, settings: Any, db: None) -> Leases:
    settings.BOTOS_RECEIVER_LEASE_SECONDS = LEASE
    made = Leases()
    for name in ("take", "renew", "release"):
        monkeypatch.setattr(receiver_leases, name, getattr(made, name))
    return made


class Work:
    """Goes on until it is told to stop; then takes `closing` seconds."""

    def __init__(self, closing: float = 0.0) -> None:
        self.began, self.ended, self.closing = asyncio.Event(), 0.0, closing

    async def __call__(self, stop: asyncio.Event) -> None:
        self.began.set()
        try:
            await stop.wait()
            await asyncio.sleep(self.closing)
        finally:
            self.ended = time.monotonic()


def nothing() -> None:
    pass


def test_it_says_whose_it_is() -> None:
    with mock.patch("socket.gethostname", return_value="a-machine-with-a-long-name.example.org"):
        first, second = PollingLease("t").owner, PollingLease("t").owner

    assert first.startswith(f"a-machine-with-/{os.getpid()}/")
    assert first != second
    assert len(first) <= 40  # what its column takes


@pytest.mark.asyncio
async def test_it_goes_on_for_longer_than_a_lease_and_gives_it_back(leases: Leases) -> None:
    stop, work, other = asyncio.Event(), Work(), Work()
    holding = asyncio.create_task(PollingLease("t").hold(work, stop, on_wait=nothing))
    await work.began.wait()
    waiting = asyncio.create_task(PollingLease("t").hold(other, asyncio.Event(), on_wait=nothing))
    await asyncio.sleep(LEASE * 2)
    assert not other.began.is_set()
    first = leases.owner
    stop.set()
    await holding
    assert leases.until == 0.0 or leases.owner != first  # given back, and not left to run out
    await asyncio.wait_for(other.began.wait(), 30)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


@pytest.mark.asyncio
@pytest.mark.parametrize("closing", [0.0, 60.0])
async def test_it_is_gone_before_its_lease_runs_out_when_the_database_is_away(leases: Leases, closing: float) -> None:
    work = Work(closing)
    holding = asyncio.create_task(PollingLease("t").hold(work, asyncio.Event(), on_wait=nothing))
    await work.began.wait()
    leases.is_down = True
    with pytest.raises(Superseded):
        await asyncio.wait_for(holding, LEASE * 2)

    assert work.ended < leases.until or leases.until == 0.0
    assert work.ended


@pytest.mark.asyncio
async def test_it_stops_as_soon_as_it_learns_that_somebody_else_has_it(leases: Leases) -> None:
    work = Work()
    holding = asyncio.create_task(PollingLease("t").hold(work, asyncio.Event(), on_wait=nothing))
    await work.began.wait()
    leases.owner = "somebody else"
    with pytest.raises(Superseded):
        await asyncio.wait_for(holding, LEASE / 3 + 0.15)


@pytest.mark.asyncio
async def test_its_fence_falls_in_a_process_that_stood_still() -> None:
    fences: list[asyncio.Event] = []

    async def work(stop: asyncio.Event) -> None:
        fences.append(stop)
        assert not stop.is_set()
        time.sleep(LEASE)  # noqa: ASYNC251 - as a stopped process does
        assert stop.is_set()
        await stop.wait()

    with pytest.raises(Superseded):
        await PollingLease("t").hold(work, asyncio.Event(), on_wait=nothing)
    assert fences


@pytest.mark.asyncio
async def test_a_refusal_counts_although_the_lease_ran_out_meanwhile() -> None:
    """Or a supervisor would try a refused token again."""

    async def work(stop: asyncio.Event) -> None:
        time.sleep(LEASE)  # noqa: ASYNC251 - as a stopped process does
        raise NeedsConfiguration("no")

    with pytest.raises(NeedsConfiguration):
        await PollingLease("t").hold(work, asyncio.Event(), on_wait=nothing)


class Adapter:
    """Raises what it is given."""

    platform, text_limit = "telegram", 4096

    def __init__(self, *errors: Exception) -> None:
        self._errors = list(errors)

    async def run(self, inbox: object, stop: asyncio.Event) -> None:
        if self._errors:
            raise self._errors.pop(0)
        await stop.wait()

    async def send(self, message: object) -> str:
        return ""


@pytest.mark.asyncio
async def test_a_supervisor_stands_by_and_says_so(leases: Leases) -> None:
    leases.owner, leases.until = "somebody else", time.monotonic() + LEASE
    stop, states = asyncio.Event(), []
    supervisor = Supervisor(
        "telegram", Adapter, lease=PollingLease("t"), on_change=lambda: states.append(supervisor.health.state)
    )
    running = asyncio.create_task(supervisor.run(RecordingInbox(), stop))
    await asyncio.sleep(LEASE / 3)
    assert not supervisor.is_up
    await asyncio.sleep(LEASE)
    assert leases.owner != "somebody else"
    stop.set()
    await running

    assert states == [State.STANDBY, State.STOPPED]


@pytest.mark.asyncio
async def test_a_supervisor_takes_a_database_that_is_away_for_nobodys_lease(
    leases: Leases, caplog: pytest.LogCaptureFixture
) -> None:
    """That it stands by would send an operator to look for another process. One line says what it is."""
    leases.is_down = True
    stop, states = asyncio.Event(), []
    supervisor = Supervisor(
        "telegram", Adapter, lease=PollingLease("t"), on_change=lambda: states.append(supervisor.health.state)
    )
    running = asyncio.create_task(supervisor.run(RecordingInbox(), stop))
    await asyncio.sleep(LEASE / 3)
    lines = [record.getMessage() for record in caplog.records]
    stop.set()
    await running

    assert states == [State.STOPPED]
    assert lines == ["ask for a token's lease failed: ConnectionError: the database is away; trying again"]


@pytest.mark.asyncio
async def test_a_refused_token_gives_the_lease_back(leases: Leases) -> None:
    supervisor = Supervisor("telegram", lambda: Adapter(NeedsConfiguration("no")), lease=PollingLease("t"))
    await supervisor.run(RecordingInbox(), asyncio.Event())

    assert leases.until == 0.0


@pytest.mark.asyncio
async def test_a_supervisor_asks_again_after_a_refusal_of_what_had_been_accepted(
    leases: Leases, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapters.runtime.supervisor.REFUSED_PAUSE", 0.01)
    stop, is_back, states = asyncio.Event(), asyncio.Event(), []

    class Recovering(Adapter):
        async def run(self, inbox: object, stop: asyncio.Event) -> None:
            supervisor.connected()
            if not self._errors:
                is_back.set()
            await super().run(inbox, stop)

    adapter = Recovering(NeedsConfiguration("no"))
    supervisor = Supervisor("telegram", lambda: adapter, on_change=lambda: states.append(supervisor.health.state))
    running = asyncio.create_task(supervisor.run(RecordingInbox(), stop))
    await asyncio.wait_for(is_back.wait(), 5)
    stop.set()
    await running

    assert states == [State.UP, State.NEEDS_CONFIGURATION, State.UP, State.STOPPED]


@pytest.mark.asyncio
async def test_a_poller_elsewhere_is_reported_and_frees_the_lease(
    leases: Leases, caplog: pytest.LogCaptureFixture
) -> None:
    stop = asyncio.Event()
    adapter = Adapter(Superseded("another poller is active"))
    supervisor = Supervisor("telegram", lambda: adapter, lease=PollingLease("t"))
    running = asyncio.create_task(supervisor.run(RecordingInbox(), stop))
    await asyncio.sleep(0.2)

    assert leases.until == 0.0
    assert [r.getMessage() for r in caplog.records if r.levelname == "ERROR"] == ["telegram: another poller is active"]
    stop.set()
    await running
