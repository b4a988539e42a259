"""What time takes away, and what it leaves."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.conf import LazySettings
from django.db import connection
from django.db.models import Func
from django.test.utils import CaptureQueriesContext

from identity import audit
from identity.flows import linking
from identity.flows import retention as identity_retention
from identity.models import AccountLink, AuditEvent, Browser, BrowserAccount, Pairing, PlatformAccount, UnifiedUser
from identity.support import clock
from sessions_app import dead_letters
from sessions_app.messages import Address
from sessions_app.models import ForgetRequest, ForgottenEvent, HistoryEntry, InboundEvent, OutboundDelivery
from sessions_app.outbox import queue as outbox_queue
from sessions_app.privacy import forgetting, retention
from sessions_app.receiving import tombstones
from tests.sessions_app.talk import receive, say

pytestmark = pytest.mark.django_db

DAY = 86_400


def ago(days: float) -> Func:
    return clock.seconds_from_now(-days * DAY)


def test_it_empties_messages_a_week_after_they_were_answered() -> None:
    say("alice", "old words", answer="ok")
    InboundEvent.objects.update(done_at=ago(7.1), edited="newer words")
    say("alice", "new words", answer="ok")
    receive("alice", "waits")
    InboundEvent.objects.filter(text="waits").update(received_at=ago(90))

    assert (retention.forget_words(), retention.forget_words()) == (1, 0)
    assert list(InboundEvent.objects.order_by("pk").values_list("text", "edited", "chat_name")) == [
        ("", "", ""),
        ("new words", "", "Alice"),
        ("waits", "", "Alice"),
    ]
    assert HistoryEntry.objects.filter(text="old words").exists()


@pytest.mark.parametrize("status", ["given up", "quarantined"])
def test_it_keeps_the_words_of_what_may_still_be_answered(status: str) -> None:
    say("alice", "important words", answer="I could not answer that.")
    InboundEvent.objects.update(done_at=ago(7.1), status=status)

    assert retention.forget_words() == 0
    assert [event.text for event in dead_letters.given_up_events()] == ["important words"]


def test_it_forgets_keys_after_a_month() -> None:
    say("alice", "old", answer="ok")
    tombstones.remember(InboundEvent.objects.all())
    InboundEvent.objects.update(done_at=ago(30.1))
    ForgottenEvent.objects.update(forgotten_at=ago(30.1))
    say("alice", "new", answer="ok")
    receive("alice", "waits")

    retention.forget_keys()

    assert set(InboundEvent.objects.values_list("text", flat=True)) == {"new", "waits"}
    assert not ForgottenEvent.objects.exists()
    assert HistoryEntry.objects.filter(text="old", event=None).exists()


def test_it_forgets_deliveries_after_a_month() -> None:
    say("alice", "old", answer="sent long ago")
    OutboundDelivery.objects.update(status="sent", settled_at=ago(30.1))
    say("alice", "new", answer="sent lately")
    OutboundDelivery.objects.filter(settled_at=None).update(status="sent", settled_at=ago(29))
    say("alice", "newer", answer="waits")

    assert retention.forget_deliveries() == 1
    assert list(OutboundDelivery.objects.order_by("pk").values_list("text", flat=True)) == ["sent lately", "waits"]


@pytest.mark.parametrize(("days", "left"), [(0, 4), (10, 2)])
def test_it_keeps_history_for_ever_unless_it_is_told(settings: LazySettings, days: int, left: int) -> None:
    settings.BOTOS_RETENTION_HISTORY_DAYS = days
    say("alice", "old", answer="ok")
    HistoryEntry.objects.update(said_at=ago(10.1))
    say("alice", "new", answer="ok")

    retention.forget_history()

    assert HistoryEntry.objects.count() == left


def test_it_forgets_requests_and_browsers_after_a_month() -> None:
    say("alice", "hello", answer="ok")
    alice = PlatformAccount.objects.get()
    for days in (31, 29):
        browser = Browser.objects.create(name=f"{days}", ended_at=ago(days))
        times = {"expires_at": ago(days), "last_at": ago(days), "ended_at": ago(days)}
        request = Pairing.objects.create(initiator=alice, responder_browser=browser, state="attached", **times)
        BrowserAccount.objects.create(browser=browser, account=alice, pairing=request, ended_at=ago(days))
        assert forgetting.ask(account=alice)
        ForgetRequest.objects.filter(ended_at=None).update(state="ended", ended_at=ago(days))

    identity_retention.forget_old_requests()
    retention.forget_requests()

    assert [one.name for one in Browser.objects.all()] == ["29"]
    assert (Pairing.objects.count(), BrowserAccount.objects.count(), ForgetRequest.objects.count()) == (1, 1, 1)


def test_it_keeps_the_request_of_a_link_that_may_still_be_undone() -> None:
    say("alice", "hello")
    alice = PlatformAccount.objects.get()
    times = {"expires_at": ago(31), "last_at": ago(31), "ended_at": ago(31)}
    request = Pairing.objects.create(initiator=alice, responder=alice, state="linked", **times)
    person = UnifiedUser.objects.create(unified_user_id="alice")
    AccountLink.objects.create(account=alice, user=person, pairing=request, method="pairing", actor="test")

    assert identity_retention.forget_old_requests() == 0
    assert linking.undo(account=alice, pairing_id=request.pk)
    assert identity_retention.forget_old_requests() == 1


def test_it_keeps_requests_for_as_long_as_they_are_counted(settings: LazySettings) -> None:
    settings.BOTOS_RETENTION_PAIRINGS_DAYS = 0
    say("alice", "hello", answer="ok")
    for days in (1.1, 0.9):
        times = {"expires_at": ago(days), "last_at": ago(days), "ended_at": ago(days)}
        Pairing.objects.create(initiator=PlatformAccount.objects.get(), state="cancelled", **times)

    assert identity_retention.forget_old_requests() == 1


def test_it_forgets_audit_rows_beyond_their_time_alone() -> None:
    for days in (401, 399):
        row = audit.record(kind="linked", actor="test", days=days)
        super(type(AuditEvent.objects.all()), AuditEvent.objects.filter(pk=row.pk)).update(at=ago(days))

    assert identity_retention.forget_old_audit() == 1
    assert [row.details for row in AuditEvent.objects.all()] == [{"days": 399}]


def test_it_is_not_held_up_by_what_never_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a platform that was removed."""
    monkeypatch.setattr(retention, "AT_ONCE", 2)
    for number in range(3):
        receive("mallory", f"waits {number}")
        outbox_queue.queue(Address("telegram", "chat-mallory"), "waits")
    say("alice", "old", answer="sent long ago")
    InboundEvent.objects.filter(text="old").update(done_at=ago(99))
    OutboundDelivery.objects.filter(text="sent long ago").update(status="sent", settled_at=ago(99))

    assert (retention.forget_keys(), retention.forget_deliveries()) == (1, 1)
    assert InboundEvent.objects.count() == OutboundDelivery.objects.count() == 3


@pytest.mark.parametrize(
    ("duty", "index"), [(retention.forget_keys, "events_by_end"), (retention.forget_deliveries, "deliveries_by_end")]
)
def test_it_finds_what_is_due_by_an_index(duty: Callable[[], int], index: str) -> None:
    say("alice", "new", answer="sent lately")
    with CaptureQueriesContext(connection) as asked:
        duty()
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SET LOCAL enable_seqscan = off")  # which it prefers for a single row
        explain = "EXPLAIN QUERY PLAN" if connection.vendor == "sqlite" else "EXPLAIN"
        plans = []
        for query in asked.captured_queries:
            if query["sql"].startswith("SELECT"):
                cursor.execute(f"{explain} {query['sql']}")
                plans.append(str(cursor.fetchall()))

    assert any(index in plan for plan in plans), plans


@pytest.mark.parametrize("duty", retention.DUTIES)
def test_it_looks_at_some_rows_at_a_time(
    duty: Callable[[], int], settings: LazySettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.BOTOS_RETENTION_HISTORY_DAYS = 1
    monkeypatch.setattr(retention, "AT_ONCE", 2)
    for number in range(2):
        say("alice", f"{number}", answer="ok")
        assert forgetting.ask(account=PlatformAccount.objects.get())
    long_ago = ago(99)
    InboundEvent.objects.update(done_at=long_ago)
    OutboundDelivery.objects.update(status="sent", settled_at=long_ago)
    HistoryEntry.objects.update(said_at=long_ago)
    ForgetRequest.objects.update(state="ended", ended_at=long_ago)

    assert duty() == 2
