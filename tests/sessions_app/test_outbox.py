from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from django.conf import settings
from django.db import connection, transaction
from hypothesis import example, given
from hypothesis import strategies as st

from identity.support.text import utf16_length
from sessions_app import dead_letters
from sessions_app.messages import Address
from sessions_app.models import OutboundDelivery
from sessions_app.outbox import queue as outbox_queue
from sessions_app.outbox import splitting
from sessions_app.outbox.queue import Failed, Sent
from tests.sessions_app.moments import StillClock

Status = OutboundDelivery.Status
PLATFORMS = ("telegram", "discord", "slack")
ALICE, BOB = Address("telegram", "alice"), Address("telegram", "bob")
HOUR = 3600.0


def texts(deliveries: Iterable[OutboundDelivery]) -> list[str]:
    return [delivery.text for delivery in deliveries]


def claim(owner: str = "worker") -> list[OutboundDelivery]:
    return outbox_queue.claim(owner=owner, platforms=PLATFORMS)


def claim_one(owner: str = "worker") -> OutboundDelivery:
    (delivery,) = claim(owner)
    return delivery


def stored() -> OutboundDelivery:
    return OutboundDelivery.objects.get()


# --- Splitting


def bare(texts: Iterable[str]) -> str:
    return "".join("".join(texts).split())


def test_it_leaves_a_text_alone_that_fits() -> None:
    assert splitting.split("  as it is\n", 12) == ["  as it is\n"]
    assert splitting.split("", 10) == []


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("one two three.\n\nfour five. six", ["one two three.", "four five. six"]),
        ("one two three four\nfive. six", ["one two three four", "five. six"]),
        ("one two three. four five six", ["one two three.", "four five six"]),
        ("one two three four five six", ["one two three four", "five six"]),
        ("onetwothreefourfivesix", ["onetwothreefourfives", "ix"]),
        ("a. " + "b" * 25, ["a. " + "b" * 17, "b" * 8]),  # a border near the beginning would waste a part
    ],
)
def test_it_cuts_at_the_best_border_that_leaves_half_a_part(text: str, parts: list[str]) -> None:
    assert splitting.split(text, 20) == parts


def test_it_counts_as_the_platforms_do_and_cuts_no_character_in_two() -> None:
    assert splitting.split("😀" * 5, 4) == ["😀😀", "😀😀", "😀"]
    assert splitting.split("😀" * 5, 5) == ["😀😀", "😀😀", "😀"]


def test_it_makes_no_empty_part_of_blanks() -> None:
    assert splitting.split(" " * 50 + "end", 20) == ["end"]


def test_it_closes_a_block_of_code_at_a_cut_and_opens_it_again() -> None:
    text = "Look:\n```python\nfirst = 1\n  second = 2\nthird = 3\n```\nThat is all."

    parts = splitting.split(text, 40)

    assert parts == [
        "Look:\n```python\nfirst = 1\n```",
        "```python\n  second = 2\nthird = 3\n```",
        "That is all.",
    ]


def test_it_rather_cuts_beside_a_block_of_code_than_in_it() -> None:
    text = "Some words before it.\n```\na\n\nb\n```\nSome words behind it."

    assert splitting.split(text, 40) == ["Some words before it.\n```\na\n\nb\n```", "Some words behind it."]


def test_it_does_not_take_a_fence_in_a_block_for_its_end() -> None:
    text = "````markdown\n```python\ncode = 1\n```\nmore words in it\n````"

    assert splitting.split(text, 46) == [
        "````markdown\n```python\ncode = 1\n```\n````",
        "````markdown\nmore words in it\n````",
    ]


def test_it_cuts_no_fence_in_two_and_leaves_no_empty_block() -> None:
    assert splitting.split("Look at this:\n```\n\nabcdefgh\n```", 29) == [
        "Look at this:\n```\n\nabcdef\n```",
        "```\ngh\n```",
    ]
    assert splitting.split("```\nabcdefghijkl\n```````` ", 24) == ["```\nabcdefghijkl\n```"]


def test_it_cuts_a_block_whose_fences_alone_would_fill_a_part() -> None:
    text = "```" + "x" * 30 + "\ncode\n```"

    parts = splitting.split(text, 12)

    assert bare(parts) == bare([text])
    assert max(map(utf16_length, parts)) <= 12


@given(st.text(st.characters(codec="utf-8", exclude_characters="`"), max_size=200), st.integers(2, 60))
@example(" " * 30 + "x", 10)
def test_it_loses_nothing_but_blanks_at_the_cuts(text: str, limit: int) -> None:
    parts = splitting.split(text, limit)

    assert bare(parts) == bare([text])
    assert all(0 < utf16_length(part) <= limit for part in parts)


_line = st.text(st.sampled_from("ab😀 .(\t"), max_size=12)
_info = st.sampled_from(["", "python", "c++"])
_prose = st.lists(_line, min_size=1, max_size=4).map(lambda lines: ("\n".join(lines), ""))
_code = st.tuples(st.lists(_line, max_size=6), _info).map(lambda one: ("\n".join(one[0]), f"```{one[1]}"))


@given(st.lists(_prose | _code, max_size=8), st.integers(40, 80))
def test_it_keeps_code_code_and_prose_prose(pieces: list[tuple[str, str]], limit: int) -> None:
    text = "\n".join(f"{fence}\n{words}\n```" if fence else words for words, fence in pieces)

    parts = splitting.split(text, limit)

    assert all(utf16_length(part) <= limit for part in parts)
    assert all(len(re.findall("^```", part, re.MULTILINE)) % 2 == 0 for part in parts)
    assert _as_read(parts) == _as_read([text])


def _as_read(parts: list[str]) -> list[tuple[str, str]]:
    """Each visible character with the fence it stands behind, "" for prose."""
    read = []
    for part in parts:
        fence = ""
        for line in part.split("\n"):
            if line.startswith("```"):
                fence = "" if fence else line
            else:
                read += [(character, fence) for character in "".join(line.split())]
    return read


# --- Queueing


@pytest.mark.django_db
def test_it_queues_as_many_deliveries_as_the_limit_asks_for() -> None:
    outbox_queue.queue(ALICE, "one two three four", limit=10)

    assert texts(OutboundDelivery.objects.order_by("id")) == ["one two", "three four"]
    assert len(set(OutboundDelivery.objects.values_list("nonce", flat=True))) == 2


@pytest.mark.django_db
def test_it_queues_a_nonce_once_however_long_the_text() -> None:
    for _ in range(2):
        outbox_queue.queue(ALICE, "one two three four", limit=10, nonce="n" * 24)

    assert texts(OutboundDelivery.objects.order_by("id")) == ["one two", "three four"]


@pytest.mark.django_db
@pytest.mark.parametrize("nonce", ["", "n"])
def test_it_queues_nothing_for_no_text(nonce: str) -> None:
    outbox_queue.queue(ALICE, "", nonce=nonce)

    assert not OutboundDelivery.objects.exists()


# --- Claiming


@pytest.mark.django_db
def test_it_hands_out_one_delivery_an_address_in_order() -> None:
    for text in ("one", "two"):
        outbox_queue.queue(ALICE, text)
    outbox_queue.queue(BOB, "for bob")

    first = claim()
    assert texts(first) == ["one", "for bob"]
    assert claim() == []
    outbox_queue.settle([Sent(first[0], "m-1")])
    assert texts(claim()) == ["two"]


@pytest.mark.django_db
def test_it_takes_threads_and_platforms_for_addresses_of_their_own() -> None:
    outbox_queue.queue(ALICE, "one")
    outbox_queue.queue(Address("telegram", "alice", "thread"), "two")
    outbox_queue.queue(Address("slack", "alice"), "three")

    assert texts(claim()) == ["one", "two", "three"]


@pytest.mark.django_db
def test_it_leaves_platforms_alone_that_are_not_up() -> None:
    outbox_queue.queue(ALICE, "one")

    assert outbox_queue.claim(owner="worker", platforms=["slack"]) == []


@pytest.mark.django_db
def test_it_keeps_what_stands_behind_a_retry_waiting_and_nobody_else(still: StillClock) -> None:
    outbox_queue.queue(ALICE, "one")
    outbox_queue.queue(ALICE, "two")
    outbox_queue.settle([Failed(claim_one(), "busy", retry_after=20.0)])
    outbox_queue.queue(BOB, "for bob")

    assert texts(claim()) == ["for bob"]
    still.move(20)
    assert texts(claim()) == ["one"]


@pytest.mark.django_db
@pytest.mark.parametrize("seconds", [0.25, 30.0, 4000.0])
def test_it_honours_retry_after_exactly(still: StillClock, seconds: float) -> None:
    outbox_queue.queue(ALICE, "one")
    outbox_queue.settle([Failed(claim_one(), "busy", retry_after=seconds)])

    assert outbox_queue.seconds_until_next(PLATFORMS) == seconds
    still.move(seconds - 0.001)
    assert claim() == []
    still.move(0.001)
    assert texts(claim()) == ["one"]


@pytest.mark.django_db
def test_it_says_how_long_until_the_next_is_due_whatever_stands_behind_it(still: StillClock) -> None:
    outbox_queue.queue(ALICE, "one")
    outbox_queue.queue(ALICE, "two")
    assert outbox_queue.seconds_until_next(PLATFORMS) is None

    outbox_queue.settle([Failed(claim_one(), "busy", retry_after=5.0)])

    assert outbox_queue.seconds_until_next(PLATFORMS) == 5.0


@pytest.mark.django_db
@pytest.mark.parametrize(("attempts", "most"), [(1, 1.0), (4, 8.0), (9, 256.0), (10, 300.0), (1000, 300.0)])
def test_it_backs_off_up_to_a_ceiling_that_doubles(attempts: int, most: float) -> None:
    waits = [outbox_queue.backoff(attempts) for _ in range(200)]

    assert 0 <= min(waits) < most / 4
    assert most * 3 / 4 < max(waits) <= most


@pytest.mark.django_db
def test_it_repeats_what_a_vanished_sender_may_have_sent(still: StillClock) -> None:
    outbox_queue.queue(ALICE, "one")
    first = claim_one()
    assert not first.possibly_sent
    still.move(settings.BOTOS_SEND_SECONDS - 0.001)
    assert claim("other") == []
    still.move(0.001)

    second = claim_one("other")

    assert (second.possibly_sent, second.attempts, second.nonce) == (True, 2, first.nonce)
    assert stored().possibly_sent
    again = outbox_queue.outgoing(second)
    assert again.possibly_sent
    assert again.may_be_repeat  # the old name, for adapters that other people have written
    assert again.waited >= settings.BOTOS_SEND_SECONDS  # by the same clock as the lease that ran out


def send(*dead: str) -> None:
    """All that is due, under its own words; the `dead` die, and nobody knows whether they arrived."""
    while due := claim():
        for delivery in due:
            lost = Failed(delivery, "no answer", permanent=True, ambiguous=True)
            outbox_queue.settle([lost if delivery.text in dead else Sent(delivery, delivery.text)])


@pytest.mark.django_db
def test_it_tells_a_repeat_what_was_sent_around_it() -> None:
    outbox_queue.queue(ALICE, "before")
    send()
    for address, text in ((ALICE, "lost"), (BOB, "for bob"), (ALICE, "later")):
        outbox_queue.queue(address, text)
    send("lost")

    again = outbox_queue.outgoing(OutboundDelivery.objects.get(text="lost"))

    assert (again.follows, again.others) == ("before", frozenset({"later"}))


@pytest.mark.django_db
def test_it_tells_a_repeat_that_a_dead_letter_before_it_was_sent_behind_it() -> None:
    """What came before it is where to look for it, and that was not before it."""
    for text in ("before", "dead"):
        outbox_queue.queue(ALICE, text)
    send("dead")
    outbox_queue.queue(ALICE, "lost")
    send("lost")
    dead_letters.delivery(OutboundDelivery.objects.get(text="dead").pk, operator="carol")
    send()

    again = outbox_queue.outgoing(OutboundDelivery.objects.get(text="lost"))

    assert (again.follows, again.others) == ("before", frozenset({"dead"}))


@pytest.mark.django_db
@pytest.mark.parametrize("late", [Sent, Failed])
@pytest.mark.parametrize("other", ["worker", "other"])
def test_it_ignores_a_sender_that_comes_late(still: StillClock, late: Callable[..., Sent | Failed], other: str) -> None:
    outbox_queue.queue(ALICE, "one")
    vanished = claim_one("worker")
    still.move(settings.BOTOS_SEND_SECONDS)
    second = claim_one(other)

    outbox_queue.settle([late(vanished, "late")])
    delivery = stored()
    assert (delivery.status, delivery.owner, delivery.reason, delivery.message_id) == (Status.SENDING, other, "", "")

    outbox_queue.settle([Sent(second, "m-1")])
    outbox_queue.settle([late(vanished, "late")])
    assert (stored().status, stored().message_id) == (Status.SENT, "m-1")


@pytest.mark.django_db
def test_it_remembers_that_an_attempt_ended_without_an_answer(still: StillClock) -> None:
    outbox_queue.queue(ALICE, "one")
    outbox_queue.settle([Failed(claim_one(), "timeout", ambiguous=True, retry_after=0.0)])
    again = claim_one()
    assert again.possibly_sent

    outbox_queue.settle([Failed(again, "busy", retry_after=0.0)])

    assert claim_one().possibly_sent


@pytest.mark.django_db
def test_it_does_not_mark_what_was_plainly_refused(still: StillClock) -> None:
    outbox_queue.queue(ALICE, "one")
    outbox_queue.settle([Failed(claim_one(), "busy", retry_after=0.0)])

    assert not claim_one().possibly_sent


@pytest.mark.django_db
def test_it_gives_up_on_a_permanent_failure_and_lets_the_next_through() -> None:
    outbox_queue.queue(ALICE, "one")
    outbox_queue.queue(ALICE, "two")

    outbox_queue.settle([Failed(claim_one(), "blocked by the person", permanent=True, retry_after=5.0)])

    dead = OutboundDelivery.objects.get(text="one")
    assert (dead.status, dead.reason) == (Status.DEAD, "blocked by the person")
    assert dead.settled_at is not None
    assert texts(claim()) == ["two"]


@pytest.mark.django_db
def test_it_gives_up_only_after_eight_attempts_and_six_hours(still: StillClock) -> None:
    outbox_queue.queue(ALICE, "young")
    for _ in range(outbox_queue.MAX_ATTEMPTS + 2):
        outbox_queue.settle([Failed(claim_one(), "down", retry_after=0.0)])
    assert stored().status == Status.PENDING

    still.move(6 * HOUR - 0.001)
    outbox_queue.settle([Failed(claim_one(), "down", retry_after=0.0)])
    assert stored().status == Status.PENDING
    still.move(0.001)
    outbox_queue.settle([Failed(claim_one(), "down", retry_after=0.0)])
    assert (stored().status, stored().reason) == (Status.DEAD, "down")


@pytest.mark.django_db
@pytest.mark.parametrize("ambiguous", [False, True])
def test_it_remembers_of_a_dead_letter_that_it_may_have_arrived(still: StillClock, ambiguous: bool) -> None:
    outbox_queue.queue(ALICE, "one")
    still.move(7 * HOUR)
    for _ in range(outbox_queue.MAX_ATTEMPTS - 1):
        outbox_queue.settle([Failed(claim_one(), "down", retry_after=0.0)])

    outbox_queue.settle([Failed(claim_one(), "the last", ambiguous=ambiguous)])

    assert (stored().status, stored().possibly_sent) == (Status.DEAD, ambiguous)


@pytest.mark.django_db
def test_it_tries_an_old_delivery_eight_times(still: StillClock) -> None:
    outbox_queue.queue(ALICE, "old")
    still.move(7 * HOUR)

    for attempt in range(outbox_queue.MAX_ATTEMPTS):
        assert stored().status == Status.PENDING, attempt
        outbox_queue.settle([Failed(claim_one(), "down", retry_after=0.0)])

    assert stored().status == Status.DEAD


@pytest.mark.django_db
def test_it_keeps_what_the_platform_calls_the_message() -> None:
    outbox_queue.queue(ALICE, "one")
    outbox_queue.settle([Failed(claim_one(), "busy", retry_after=0.0)])

    outbox_queue.settle([Sent(claim_one(), "m-1")])

    assert (stored().status, stored().message_id, stored().reason) == (Status.SENT, "m-1", "")


@pytest.mark.django_db
def test_it_settles_once() -> None:
    outbox_queue.queue(ALICE, "one")
    delivery = claim_one()

    outbox_queue.settle([Sent(delivery, "m-1"), Failed(delivery, "too late"), Sent(delivery, "m-2")])

    assert (stored().status, stored().message_id, stored().reason) == (Status.SENT, "m-1", "")


@pytest.mark.django_db
def test_it_claims_with_as_many_queries_however_much_waits_and_was_sent(
    django_assert_max_num_queries: Callable[[int], Any],
) -> None:
    for number in range(40):
        outbox_queue.queue(Address("telegram", f"chat-{number % 20}"), f"words {number}")
    with django_assert_max_num_queries(4):
        first = claim()
    outbox_queue.settle([Sent(delivery, "m") for delivery in first])
    for number in range(300):
        outbox_queue.queue(Address("telegram", f"chat-{number}"), f"words {number}")

    with django_assert_max_num_queries(4):
        assert len(claim()) == 100


@pytest.mark.django_db(transaction=True)
def test_it_never_hands_a_delivery_to_two() -> None:
    for number in range(60):
        outbox_queue.queue(Address("telegram", f"chat-{number % 30}"), f"words {number}")
    together = threading.Barrier(4)
    claims: list[tuple[int, int]] = []

    def work(name: str) -> None:
        try:
            together.wait()
            idle = 0
            while idle < 3:
                mine = outbox_queue.claim(owner=name, platforms=PLATFORMS, limit=7)
                claims.extend((delivery.pk, delivery.attempts) for delivery in mine)
                outbox_queue.settle([Sent(delivery, "m") for delivery in mine])
                idle = 0 if mine else idle + 1
        finally:
            connection.close()

    threads = [threading.Thread(target=work, args=(f"worker-{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert len(claims) == len(set(claims)) == 60
    assert set(OutboundDelivery.objects.values_list("status", "attempts")) == {(Status.SENT, 1)}


@pytest.mark.skipif(connection.vendor == "sqlite", reason="SQLite has one writer at a time")
@pytest.mark.django_db(transaction=True)
def test_it_does_not_wait_for_what_another_is_just_claiming() -> None:
    outbox_queue.queue(ALICE, "one")
    outbox_queue.queue(BOB, "two")
    found: list[str] = []

    def other() -> None:
        try:
            found.extend(texts(claim("other")))
        finally:
            connection.close()

    with transaction.atomic():
        OutboundDelivery.objects.select_for_update().get(text="one")
        thread = threading.Thread(target=other)
        thread.start()
        thread.join(10)

    assert found == ["two"]


@pytest.mark.django_db
def test_it_queues_more_parts_than_one_statement_takes() -> None:
    outbox_queue.queue(Address("telegram", "chat"), "a " * 4000, limit=1)

    assert OutboundDelivery.objects.count() == 4000
