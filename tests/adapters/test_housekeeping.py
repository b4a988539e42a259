"""Duties that time alone brings about, each on its own; and what the doctor and /metrics say of them."""

from __future__ import annotations

import asyncio
import logging

import pytest
from asgiref.sync import async_to_sync

from adapters.monitoring import diagnostics, metrics
from adapters.runtime import housekeeping
from adapters.runtime.housekeeping import DUTIES, Duty
from identity.flows import link_maintenance
from identity.models import AccountLink, PlatformAccount
from identity.support import clock, portions
from sessions_app import duties
from sessions_app.models import Duty as Row
from sessions_app.models import ForgetRequest, InboundEvent, OutboundDelivery
from sessions_app.privacy import confirmation, forgetting, retention
from tests.identity import pairs
from tests.sessions_app.talk import say


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(portions, "_resting", {})
    monkeypatch.setattr(duties, "_notes", {})


def kept(*some: Duty) -> int:
    """Do these duties once; how often it was said that messages may be in line."""
    woken = 0

    def wake() -> None:
        nonlocal woken
        woken += 1

    async def scene() -> None:
        keeping = asyncio.create_task(housekeeping.keep(wake, some))
        while len(duties._notes) < len(some):  # noqa: ASYNC110 - the loop itself has no event
            await asyncio.sleep(0.01)
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)

    async_to_sync(scene)()
    return woken


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("duty", DUTIES, ids=lambda duty: duty.name)
def test_each_duty_says_how_much_it_did(duty: Duty) -> None:
    assert not duty.portion()


@pytest.mark.django_db(transaction=True)
def test_it_does_a_duty_until_nothing_more_is_due() -> None:
    left = [500, 3, 0]

    assert kept(Duty("tidy", lambda: left.pop(0), tells=True)) == 2
    assert left == []


@pytest.mark.django_db(transaction=True)
def test_a_duty_that_fails_holds_up_no_other_and_is_shown(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> int:
        raise ValueError("the PIN is 1234")

    kept(Duty("break", fail), Duty("tidy", lambda: 0))
    duties.write()

    failing, well = Row.objects.order_by("name")
    assert (failing.name, failing.succeeded_at, failing.error) == ("break", None, "ValueError")
    assert (well.name, well.failed_at) == ("tidy", None)
    assert "break failed: ValueError; trying again in 60 s" in caplog.messages
    found = {one.about: one for one in diagnostics._duties()}
    assert found["duty: break"].hint
    assert found["duty: break"].detail.startswith("never done, failed 0 s ago (ValueError)")
    assert not found["duty: tidy"].hint
    text = metrics.exposition()
    assert 'botos_duty_last_failure_timestamp_seconds{duty="break"}' in text
    assert 'botos_duty_last_success_timestamp_seconds{duty="tidy"}' in text
    assert 'botos_duty_last_success_timestamp_seconds{duty="break"}' not in text


@pytest.mark.django_db
def test_it_writes_a_duty_that_goes_on_as_before_once_a_minute() -> None:
    duties.succeeded("sweep")
    duties.write()
    Row.objects.all().delete()
    duties.succeeded("sweep")
    duties.write()
    assert not Row.objects.exists()

    duties.failed("sweep", ValueError(), then="it goes on")
    duties.write()
    assert Row.objects.get().error == "ValueError"


@pytest.mark.django_db
def test_a_row_that_cannot_be_handled_does_not_hold_up_those_behind_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Even if a portion is full of such rows."""
    for number in range(5):
        say(f"person-{number}", "My PIN is 1234.")
    bad = set(PlatformAccount.objects.order_by("pk").values_list("pk", flat=True)[:3])
    handled: list[int] = []

    def step(one: PlatformAccount) -> bool:
        if one.pk in bad:
            raise ValueError("My PIN is 1234.")
        handled.append(one.pk)
        return True

    rows = PlatformAccount.objects.order_by("pk")
    with caplog.at_level(logging.INFO):
        assert portions.handle("greeting", rows, step, most=2) == 1
        assert portions.handle("greeting", rows.exclude(pk__in=handled), step, most=2) == 1
        assert portions.handle("greeting", rows.exclude(pk__in=handled), step, most=2) == 0

    assert len(handled) == 2
    assert [f"greeting failed: row {pk}: ValueError" in caplog.text for pk in bad] == [True] * 3
    assert len(caplog.messages) == 3
    assert "PIN" not in caplog.text

    monkeypatch.setattr(portions, "monotonic", lambda: float("inf"))
    bad.clear()
    assert portions.handle("greeting", rows.exclude(pk__in=handled), step) == 3


@pytest.mark.django_db
def test_a_person_who_cannot_be_erased_does_not_hold_up_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    for who in ("alice", "bob"):
        say(who, "hello")
    for account in PlatformAccount.objects.order_by("pk"):
        request = forgetting.ask(account=account)
        assert request
        forgetting.confirm(account=account, number=confirmation.number_of(request))
    OutboundDelivery.objects.update(status="sent", settled_at=clock.now())
    first = ForgetRequest.objects.order_by("confirmed_at")[0]
    erase = forgetting.erase

    def broken(pk: object) -> bool:
        if pk == first.pk:
            raise ValueError
        return erase(pk)  # type: ignore[arg-type]

    monkeypatch.setattr(forgetting, "erase", broken)
    while forgetting.step():
        pass

    assert sorted(ForgetRequest.objects.values_list("state", flat=True)) == ["cleaning", "confirmed"]


@pytest.mark.django_db
def test_a_row_that_cannot_be_deleted_does_not_hold_up_those_behind_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        say("alice", f"{number}", answer="ok")
    InboundEvent.objects.update(done_at=clock.seconds_from_now(-99 * 86_400))
    bad = InboundEvent.objects.order_by("pk")[0]
    delete = type(InboundEvent.objects.all()).delete

    def refuse(rows: object) -> object:
        if rows.filter(pk=bad.pk).exists():  # type: ignore[attr-defined]
            raise ValueError
        return delete(rows)  # type: ignore[arg-type]

    monkeypatch.setattr("django.db.models.query.QuerySet.delete", refuse)

    assert retention.forget_keys() == 2
    assert InboundEvent.objects.get() == bad


@pytest.mark.django_db
def test_it_ends_silent_links_in_portions_and_looks_at_others_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_maintenance, "ENDED_AT_ONCE", 1)
    alice, work = pairs.account("alice", "telegram"), pairs.account("alice", "discord")
    bob, slack = pairs.account("bob", "telegram"), pairs.account("bob", "slack")
    pairs.linked(alice, work)
    pairs.linked(bob, slack)
    AccountLink.objects.filter(account__in=[alice, work]).update(since=clock.seconds_from_now(-200 * 86_400))
    PlatformAccount.objects.filter(pk__in=[alice.pk, work.pk]).update(seen_at=clock.seconds_from_now(-200 * 86_400))

    portions_done = [link_maintenance.end_silent() for _ in range(4)]

    assert portions_done == [3, 1, 0, 0]  # two are looked at later, and one ended; the other one ended
    live = AccountLink.objects.live()
    assert set(live.values_list("account", flat=True)) == {bob.pk, slack.pk}
    assert live.filter(look_at__gt=clock.seconds_from_now(29 * 86_400)).count() == 2
    assert OutboundDelivery.objects.filter(status="sending").count() == 0
