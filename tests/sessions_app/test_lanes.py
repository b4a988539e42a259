from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.db import DatabaseError, connection, connections, transaction

from identity.flows import linking
from identity.models import AccountLink
from identity.resolvers import DatabaseIdentityResolver
from identity.support import clock
from identity.support.db_errors import is_away
from sessions_app import inbox
from sessions_app.history import window
from sessions_app.messages import MessageEdit
from sessions_app.models import Conversation, HistoryEntry, InboundEvent, Lane
from sessions_app.outbox import queue as outbox_queue
from sessions_app.turns import leases, lifecycle
from tests.sessions_app.racing import at_once
from tests.sessions_app.talk import DATABASE, PLATFORMS, claim, is_busy, message, receive, say, time_passes

pytestmark = pytest.mark.django_db


def link(who: str, platform: str, person: str = "alice") -> None:
    linking.link(platform=platform, platform_user_id=who, unified_user_id=person, method="pairing", actor="test")


def ask(*conversations: int, owner: str = "test") -> leases.Claimed:
    return leases.claim(conversations, owner=owner, platforms=PLATFORMS)


def said(claimed: leases.Claimed) -> list[list[str]]:
    return [[event.text for event in claim.events] for claim in claimed.claims]


# --- What waits


def test_it_names_what_waits_the_longest_first_and_once() -> None:
    bob, alice = receive("bob", "a"), receive("alice", "b")
    receive("bob", "c")

    assert leases.waiting(PLATFORMS) == [bob, alice]


def test_it_names_only_what_can_be_worked_on() -> None:
    held, aside, free = receive("alice", "a"), receive("bob", "b"), receive("carol", "c")
    receive("dave", "d", platform="discord")
    claim(held)
    lifecycle.fail(claim(aside))
    done = receive("erin", "e")
    lifecycle.finish(claim(done), "ok", limit=outbox_queue.TEXT_LIMIT)

    assert leases.waiting(["telegram"]) == [free]

    Lane.objects.update(lease_until=clock.EPOCH)
    time_passes()
    assert leases.waiting(["telegram"]) == [held, aside, free]


def test_it_asks_the_same_number_of_questions_however_much_waits(
    django_assert_max_num_queries: Callable[[int], Any],
) -> None:
    link("alice", "telegram")
    conversation = receive("alice", "first")
    for number in range(60):
        receive("alice", f"{number}")
    with django_assert_max_num_queries(1):
        leases.waiting(PLATFORMS)
    with django_assert_max_num_queries(14):
        claimed = claim(conversation)

    assert len(claimed.events) == leases.MAX_IN_A_TURN
    assert claimed.more


def ready_in(seconds: float, *conversations: int, **fields: int) -> None:
    events = InboundEvent.objects.filter(conversation__in=conversations, done_at=None)
    events.update(ready_at=clock.seconds_from_now(seconds), **fields)


def test_it_names_no_lane_where_everything_settles_or_steps_aside() -> None:
    settling, aside, ready = receive("alice", "a"), receive("bob", "b"), receive("carol", "c")
    ready_in(30, settling)
    ready_in(30, aside, starts=1, failures=1)
    ready_in(-0.1, ready)
    InboundEvent.objects.update(received_at=clock.seconds_from_now(-1))
    assert leases.waiting(PLATFORMS) == [ready]
    assert [event.conversation_id for event in leases.overdue()] == [ready]
    assert leases.waiting(PLATFORMS, longer_than=0.5) == []

    receive("bob", "another")
    assert leases.waiting(PLATFORMS) == [ready, aside]


def test_it_leaves_a_lane_alone_while_its_oldest_message_settles() -> None:
    conversation, bob = receive("alice", "one"), receive("bob", "b")
    receive("alice", "two")
    ready_in(30, conversation)

    claimed = ask(conversation, bob)
    assert said(claimed) == [["b"]]
    assert (claimed.busy, claimed.again) == (frozenset(), frozenset())
    assert 20 < claimed.settling[conversation] <= 30
    assert set(InboundEvent.objects.filter(conversation=conversation).values_list("starts", flat=True)) == {0}

    InboundEvent.objects.filter(text="one").update(ready_at=clock.now())
    assert said(ask(conversation)) == [["one", "two"]]


def test_later_messages_pass_one_that_stepped_aside() -> None:
    conversation = receive("alice", "hard question")
    ready_in(30, conversation, starts=1, failures=1)
    assert ask(conversation) == leases.Claimed()
    receive("alice", "two")
    receive("alice", "three")

    later = claim(conversation)
    assert [event.text for event in later.events] == ["two", "three"]
    assert not later.more
    lifecycle.finish(later, "ok", limit=outbox_queue.TEXT_LIMIT)

    ready_in(0, conversation)
    receive("alice", "four")
    assert said(ask(conversation)) == [["hard question"]]


def test_messages_that_stepped_aside_use_up_no_room() -> None:
    conversation, *_ = [receive("alice", f"{number}") for number in range(2 * leases.MAX_IN_A_TURN)]
    ready_in(30, conversation, starts=1, failures=1)
    receive("alice", "one more")

    assert said(ask(conversation)) == [["one more"]]


# --- Many at once


def test_it_takes_many_lanes_at_once_each_with_its_own_words() -> None:
    alice, bob, group = receive("alice", "a"), receive("bob", "b"), receive("carol", "c", group="g")
    receive("alice", "more of a")

    claimed = ask(alice, bob, group)

    assert said(claimed) == [["a", "more of a"], ["b"], ["c"]]
    assert [one.lease.conversation.pk for one in claimed.claims] == [alice, bob, group]
    assert set(InboundEvent.objects.values_list("starts", flat=True)) == {1}
    assert all(map(is_busy, [alice, bob, group]))


def test_it_takes_a_person_once_whoever_of_their_chats_is_asked_for() -> None:
    link("alice", "telegram")
    link("alice", "discord")
    telegram, discord = receive("alice", "one"), receive("alice", "two", platform="discord")

    claimed = ask(discord, telegram)

    assert said(claimed) == [["one"]]
    assert (claimed.busy, claimed.again) == (frozenset(), frozenset())
    assert claimed.claims[0].more
    assert set(claimed.claims[0].lease.together) == {telegram, discord}
    assert is_busy(discord)


def test_it_leaves_out_what_is_held_and_where_nothing_waits() -> None:
    held, free, silent = receive("alice", "a"), receive("bob", "b"), say("carol", "c")
    claim(held)
    receive("alice", "behind")

    claimed = ask(held, free, silent, 12345)

    assert said(claimed) == [["b"]]
    assert (claimed.busy, claimed.again) == (frozenset([held]), frozenset())


def test_it_leaves_a_lane_alone_where_a_process_of_an_earlier_version_backs_off() -> None:
    link("alice", "telegram")
    link("alice", "discord")
    backing_off = receive("alice", "one")
    Lane.objects.filter(pk=backing_off).update(not_before=clock.seconds_from_now(30))
    discord, bob = receive("alice", "two", platform="discord"), receive("bob", "b")

    claimed = ask(discord, bob)

    assert said(claimed) == [["b"]]
    assert claimed.busy == frozenset([discord])


def test_it_reads_on_where_a_flood_hides_what_was_written_after() -> None:
    alice = receive("alice", "before")
    flood, *_ = [receive("mallory", f"{number}") for number in range(3 * leases.MAX_IN_A_TURN)]
    receive("alice", "after")

    claimed = ask(alice, flood)

    assert said(claimed)[0] == ["before"]
    assert claimed.claims[0].more


def test_it_asks_anew_for_those_whom_a_flood_hides() -> None:
    flood, *_ = [receive("mallory", f"{number}") for number in range(3 * leases.MAX_IN_A_TURN)]
    quiet, other = receive("alice", "a"), receive("bob", "b")

    first = ask(flood, quiet)
    second = ask(*first.again, other)

    assert said(first) == [[f"{number}" for number in range(leases.MAX_IN_A_TURN)]]
    assert first.claims[0].more
    assert first.again == frozenset([quiet])
    assert sorted(said(second)) == [["a"], ["b"]]


def test_it_waits_for_a_sibling_that_is_held_where_another_process_answers() -> None:
    link("alice", "telegram")
    link("alice", "discord")
    telegram, discord = receive("alice", "one"), receive("alice", "two", platform="discord")

    lifecycle.fail(claim(telegram))
    (claimed,) = leases.claim([discord], owner="other", platforms=["discord"]).claims
    assert leases.claim([telegram], owner="test", platforms=["telegram"]).busy == frozenset([telegram])
    lifecycle.finish(claimed, "ok", limit=outbox_queue.TEXT_LIMIT)
    time_passes()
    assert claim(telegram).head.text == "one"


def test_it_asks_the_same_number_of_questions_for_one_lane_as_for_many(
    django_assert_num_queries: Callable[[int], Any],
) -> None:
    for number in range(10):
        link(f"{number}", "telegram", person=f"person-{number}")
        link(f"{number}", "discord", person=f"person-{number}")
    asked = [receive(f"{number}", "hello") for number in range(10)]
    statements = 8 if connection.vendor == "postgresql" else 6  # with BEGIN and COMMIT
    with django_assert_num_queries(statements):
        assert len(ask(asked[0]).claims) == 1
    with django_assert_num_queries(statements):
        assert len(ask(*asked[1:]).claims) == 9


def crash(*conversations: int) -> None:
    """A process that has these lanes ends in the middle."""
    ask(*conversations)
    Lane.objects.update(lease_until=clock.EPOCH)


def test_it_takes_one_message_at_a_time_that_crashed_before_so_that_a_crash_tells_which_it_was() -> None:
    harmful, innocent, fresh = receive("mallory", "harmful"), receive("alice", "a"), receive("bob", "b")
    crash(harmful, innocent)
    crash(harmful, innocent)

    claimed = ask(harmful, innocent, fresh)
    others = leases.claim([innocent], owner="test", platforms=PLATFORMS, has_crashed_before=True)

    assert said(claimed) == [["harmful"], ["b"]]
    assert [claim.crashed_before for claim in claimed.claims] == [True, False]
    assert (claimed.put_off, claimed.busy, claimed.again) == (frozenset([innocent]), frozenset(), frozenset())
    assert (others.claims, others.put_off) == ((), frozenset([innocent]))
    Lane.objects.update(lease_until=clock.EPOCH)
    assert lifecycle.should_quarantine(claim(harmful))
    assert not lifecycle.should_quarantine(claim(innocent))


def test_it_puts_off_no_message_whose_turns_failed_and_did_not_crash() -> None:
    alice, bob = receive("alice", "a"), receive("bob", "b")
    for _ in range(3):
        for conversation in (alice, bob):
            lifecycle.fail(claim(conversation))
        time_passes()

    assert len(ask(alice, bob).claims) == 2


@pytest.mark.parametrize("group", ["", "g"], ids=["person", "group"])
def test_it_holds_a_lane_for_a_turn_that_comes_by_no_event(group: str) -> None:
    conversation = Conversation.objects.get(pk=say("alice", "hello", group=group))

    leases.hold(conversation, owner="test")

    with pytest.raises(leases.Busy):
        leases.hold(conversation, owner="other")
    receive("alice", "again", group=group)
    assert is_busy(conversation.pk)


# --- At the same time


@pytest.mark.django_db(transaction=True)
def test_it_gives_a_lane_to_one_of_eight() -> None:
    link("alice", "telegram")
    link("alice", "discord")
    chats = [receive("alice", "one"), receive("alice", "two", platform="discord")]

    returned, raised = at_once(*[lambda n=n: ask(chats[n % 2], owner=f"worker-{n}") for n in range(8)])

    assert raised == []
    assert sorted(len(claimed.claims) for claimed in returned) == [0] * 7 + [1]  # type: ignore[attr-defined]
    assert Lane.objects.exclude(owner="").count() == 1


@pytest.mark.django_db(transaction=True)
def test_it_gives_each_of_many_lanes_to_one_of_eight_who_want_all_in_another_order() -> None:
    chats = [receive(f"person-{n}", "hello") for n in range(6)]
    chats += [receive("carol", "hello", group=f"group-{n}") for n in range(6)]

    for _ in range(5):
        returned, raised = at_once(
            *[lambda n=n: ask(*(chats[::-1] if n % 2 else chats), owner=f"worker-{n}") for n in range(8)]
        )

        assert raised == []
        taken = [claim.lease.conversation.pk for claimed in returned for claim in claimed.claims]  # type: ignore[attr-defined]
        assert sorted(taken) == sorted(chats)
        assert set(InboundEvent.objects.values_list("starts", flat=True)) == {1}
        Lane.objects.update(lease_until=clock.EPOCH)
        InboundEvent.objects.update(starts=0)


def in_a_thread(job: Callable[[], None]) -> threading.Thread:
    def run() -> None:
        try:
            job()
        finally:
            connections.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


@pytest.mark.skipif(connection.vendor == "sqlite", reason="SQLite has one writer at a time")
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("is_leased", [True, False])
def test_it_waits_for_no_lane_that_is_just_being_taken(is_leased: bool) -> None:
    conversation = receive("carol", "hello", group="g")
    held, done = threading.Event(), threading.Event()

    @transaction.atomic
    def hold() -> None:
        Lane.objects.filter(pk=conversation).update(lease_until=clock.seconds_from_now(30 if is_leased else 0))
        held.set()
        done.wait(10)

    thread = in_a_thread(hold)
    assert held.wait(10)
    assert is_busy(conversation)
    assert InboundEvent.objects.get().starts == 0
    done.set()
    thread.join(10)


@pytest.mark.skipif(connection.vendor == "sqlite", reason="SQLite has one writer at a time")
@pytest.mark.django_db(transaction=True)
def test_it_sees_that_a_lane_was_taken_while_it_waited_for_the_messages() -> None:
    conversation = receive("carol", "hello", group="g")
    outcomes: list[leases.Claimed] = []

    with transaction.atomic():
        (first,) = ask(conversation).claims
        thread = in_a_thread(lambda: outcomes.append(ask(conversation, owner="other")))
        while thread.is_alive() and not keeps_somebody_waiting():
            thread.join(0.01)
    thread.join(10)

    assert outcomes[0].busy == frozenset([conversation])
    assert Lane.objects.get().fence == first.lease.fence
    assert InboundEvent.objects.get().starts == 1


@pytest.mark.skipif(connection.vendor == "sqlite", reason="SQLite has one writer at a time")
@pytest.mark.django_db(transaction=True)
def test_it_notes_the_edits_that_it_waited_for_when_it_ends_a_turn() -> None:
    typed = [message("alice", f"{nth}") for nth in range(3)]
    for one in typed:
        inbox.receive(one, resolver=DATABASE)
    (claimed,) = ask(Conversation.objects.get().pk).claims

    with transaction.atomic():
        for one in typed:
            inbox.edit(MessageEdit(one.address, one.message_id, f"new {one.text}"))
        thread = in_a_thread(lambda: lifecycle.finish(claimed, "hi", limit=2000))
        while thread.is_alive() and not keeps_somebody_waiting():
            thread.join(0.01)
        assert thread.is_alive()
    thread.join(10)

    entries = HistoryEntry.objects.filter(role="user").order_by("pk").values_list("text", "metadata")
    assert list(entries) == [(f"{nth}", {"edited": f"new {nth}"}) for nth in range(3)]


def keeps_somebody_waiting() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY (pg_blocking_pids(pid))")
        return cursor.fetchone() is not None


def test_it_leaves_to_others_what_they_have_just_been_told_of() -> None:
    old, new = receive("alice", "hello"), receive("bob", "hello")
    InboundEvent.objects.filter(conversation=old).update(received_at=clock.seconds_from_now(-1))

    assert leases.waiting(PLATFORMS, longer_than=0.5) == [old]
    assert leases.waiting(PLATFORMS) == [old, new]


def test_it_shuts_out_whoever_stood_still_in_another_conversation_of_the_person() -> None:
    """Its lease was of the account alone, when the two were not linked yet."""
    there, here = receive("alice", "first", platform="discord"), receive("alice", "second")
    stood_still = claim(here, owner="stood still")
    link("alice", "telegram")
    link("alice", "discord")
    Lane.objects.filter(pk=here).update(lease_until=clock.EPOCH)

    assert claim(there).head.text == "first"

    leases.renew([stood_still.lease])
    assert Lane.objects.filter(lease_until__gt=clock.now()).count() == 1
    with pytest.raises(lifecycle.LeaseLost):
        lifecycle.finish(stood_still, "second, too late", limit=2000)


def test_it_shuts_out_a_program_that_stood_still() -> None:
    say("alice", "hi")
    say("alice", "hi", platform="discord")
    link("alice", "telegram")
    link("alice", "discord")
    here = Conversation.objects.get(platform="telegram")
    lease = leases.hold(here, owner="program")
    Lane.objects.filter(pk=here.pk).update(lease_until=clock.EPOCH)

    claim(receive("alice", "hello?", platform="discord"))

    with pytest.raises(lifecycle.LeaseLost):
        lifecycle.record(lease, question=window.entry(here, text="x", author=here.account), answered="y")


def test_it_is_not_overdue_while_its_person_is_served() -> None:
    say("alice", "hi")
    say("alice", "hi", platform="discord")
    link("alice", "telegram")
    link("alice", "discord")
    running = claim(receive("alice", "a long question"))
    waits = receive("alice", "are you there?", platform="discord")
    receive("bob", "hello")

    assert [event.text for event in leases.overdue()] == ["hello"]
    lifecycle.abandon(running.lease)
    assert {event.conversation_id for event in leases.overdue()} > {waits}
    Lane.objects.filter(pk=running.lease.conversation.pk).update(not_before=clock.seconds_from_now(30))
    assert [event.text for event in leases.overdue()] == ["hello"]


@pytest.mark.parametrize("unlinked", ["telegram", "discord"])
def test_it_is_overdue_while_an_account_is_served_that_was_linked_once(unlinked: str) -> None:
    for platform in ("telegram", "discord"):
        say("alice", "hi", platform=platform)
        link("alice", platform)
    claim(receive("alice", "a long question", platform="discord"))
    receive("alice", "hello")
    assert not leases.overdue().exists()

    AccountLink.objects.filter(account__platform=unlinked).update(ended_at=clock.now())

    assert [event.text for event in leases.overdue()] == ["hello"]


@pytest.mark.parametrize("is_linked", [False, True])
@pytest.mark.parametrize("first", [None, DATABASE])
def test_it_is_not_overdue_while_the_other_chat_of_its_account_is_served(
    is_linked: bool, first: DatabaseIdentityResolver | None
) -> None:
    """The one from before a resolver was configured, or since."""
    say("alice", "hi")
    if is_linked:
        link("alice", "telegram")
    running = claim(receive("alice", "a long question", resolver=first))
    waits = receive("alice", "are you there?", resolver=None if first else DATABASE)
    for one in (None, DATABASE):
        receive("bob", "hello", resolver=one)
        receive("alice", "hello", group="room", resolver=one)
    assert running.lease.conversation.pk != waits

    assert [event.text for event in leases.overdue()] == ["hello"] * 4
    lifecycle.abandon(running.lease)
    assert waits in {event.conversation_id for event in leases.overdue()}
    Lane.objects.filter(pk=running.lease.conversation.pk).update(not_before=clock.seconds_from_now(30))
    assert [event.text for event in leases.overdue()] == ["hello"] * 4


def test_it_is_not_overdue_while_the_older_chat_of_another_account_of_the_person_is_served() -> None:
    for platform in ("telegram", "discord"):
        say("alice", "hi", platform=platform)
        link("alice", platform)
    running = claim(receive("alice", "a long question", platform="discord", resolver=None))
    receive("alice", "are you there?")
    receive("alice", "still there?", resolver=None)
    receive("alice", "hello", platform="slack", resolver=None)

    assert [event.text for event in leases.overdue()] == ["hello"]
    lifecycle.abandon(running.lease)
    assert {event.text for event in leases.overdue()} > {"hello", "are you there?", "still there?"}


@pytest.mark.django_db(transaction=True)
def test_a_process_that_is_frozen_within_a_transaction_holds_nobody_up() -> None:
    if connection.vendor == "sqlite":
        pytest.skip("SQLite's lock goes with its process, and nobody else can take it away")
    bob = receive("bob", "a")
    frozen = connections.create_connection("default")
    try:
        with frozen.cursor() as cursor:
            assert cursor.execute("SHOW idle_in_transaction_session_timeout").fetchone() == ("10s",)
            cursor.execute("SET idle_in_transaction_session_timeout = '100ms'")
            cursor.execute("BEGIN")
            cursor.execute("SELECT id FROM identity_platformaccount FOR UPDATE")

            [claimed] = ask(bob).claims
            with pytest.raises(DatabaseError) as thawed:
                cursor.execute("SELECT 1")
    finally:
        frozen.close()

    assert claimed.lease.conversation.pk == bob
    assert is_away(thawed.value)
