"""What comes more than a day late names its day, once, or is given up; nothing younger is touched."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from identity import notices
from identity.models import AccountLink, UnifiedUser
from identity.notices import STILL_TRUE, Template
from identity.support import platforms
from identity.support.text import utf16_length
from sessions_app import dead_letters, inbox, lateness
from sessions_app.agents.chat_object import question_of
from sessions_app.agents.model import prompt_of
from sessions_app.messages import Address, OutgoingMessage
from sessions_app.models import HistoryEntry, InboundEvent, OutboundDelivery
from sessions_app.outbox import notify
from sessions_app.outbox import queue as outbox_queue
from sessions_app.outbox.queue import Failed, Sent
from sessions_app.privacy import confirmation
from sessions_app.turns import lifecycle
from tests.identity.pairs import account, linked
from tests.sessions_app.talk import DATABASE, PLATFORMS, answer_in_turn, claim, message, receive, say

pytestmark = pytest.mark.django_db

ALICE = Address("telegram", "chat-alice")
NEARLY_A_DAY = timedelta(hours=23, minutes=58)
FAR_EAST = timezone(timedelta(hours=14))


def back(age: timedelta = timedelta(days=9)) -> tuple[datetime, str]:
    """A moment that long ago, and its day in words."""
    moment = datetime.now(UTC) - age
    year = "" if moment.year == datetime.now(UTC).year else f" {moment.year}"
    return moment, f"{moment.day} {moment:%B}{year}"


def receive_back_then(text: str, *, age: timedelta = timedelta(days=9), **where: Any) -> tuple[int, str]:
    """A message that waits since then: its conversation, and the day."""
    conversation = receive("alice", text, **where)
    moment, day = back(age)
    InboundEvent.objects.filter(done_at=None).update(received_at=moment)
    return conversation, day


def age_deliveries(age: timedelta = timedelta(days=9)) -> str:
    """Let all deliveries that wait be queued then. Return the day."""
    moment, day = back(age)
    OutboundDelivery.objects.filter(settled_at=None).update(created_at=moment)
    return day


def claimed() -> list[OutboundDelivery]:
    return outbox_queue.claim(owner="worker", platforms=PLATFORMS)


def sent() -> list[OutgoingMessage]:
    """What adapters get of everything that is due, one after the other."""
    messages = []
    while due := claimed():
        messages += [outbox_queue.outgoing(delivery) for delivery in due]
        outbox_queue.settle([Sent(delivery, "7") for delivery in due])
    return messages


def texts(messages: Iterable[OutgoingMessage]) -> list[str]:
    return [message.text for message in messages]


def once_marked() -> str:
    (message,) = sent()
    return message.text


# -- questions


def test_an_old_question_is_answered_with_its_day() -> None:
    conversation, day = receive_back_then("what's the weather today?")

    lifecycle.finish(claim(conversation), "sunny", limit=2000)

    answer = f"About your message of {day}:\n\nsunny"
    assert texts(sent()) == [answer]
    assert HistoryEntry.objects.get(role="assistant").text == answer


def test_several_old_questions_are_answered_with_the_first_day() -> None:
    receive_back_then("hello")
    conversation = receive("alice", "anybody there?")
    day = back()[1]

    lifecycle.finish(claim(conversation), "yes", limit=2000)

    assert texts(sent()) == [f"About your messages since {day}:\n\nyes"]


@pytest.mark.parametrize("age", [timedelta(0), NEARLY_A_DAY])
def test_a_younger_question_is_answered_as_ever(age: timedelta) -> None:
    conversation, _ = receive_back_then("what's the weather today?", age=age)
    begun = claim(conversation)
    turn = lifecycle.begin(begun, resolver=DATABASE)

    lifecycle.finish(begun, "sunny", limit=2000)

    assert (turn.asked_at, question_of(turn), texts(sent())) == (None, turn.text, ["sunny"])


def test_the_agent_learns_that_a_question_is_old() -> None:
    conversation, _ = receive_back_then("what's the weather today?", group="g")

    turn = lifecycle.begin(claim(conversation), resolver=DATABASE)

    moment = back()[0]
    assert turn.asked_at == InboundEvent.objects.get().received_at
    line = f'[waiting since {moment.day} {moment:%B %Y}: "now" and "today" may mean that day]'
    assert prompt_of(turn)[1] == f"{line}\nAlice: what's the weather today?"
    assert turn.text == "what's the weather today?"


def test_an_old_question_costs_a_statement_and_a_new_one_none() -> None:
    if connection.vendor == "sqlite":
        pytest.skip("the clock is read without a statement")
    with CaptureQueriesContext(connection) as queries:
        assert not lateness.is_late(datetime.now(UTC))
        assert not queries.captured_queries
        assert lateness.is_late(back()[0])
    assert len(queries.captured_queries) == 1


@pytest.mark.parametrize("told", ["I couldn't answer that just now", "I still couldn't answer that"])
def test_an_apology_for_an_old_question_names_its_day_too(told: str) -> None:
    conversation, day = receive_back_then("what's the weather today?")
    failures = len(lifecycle.RETRY_AFTER) if "still" in told else 0
    InboundEvent.objects.update(failures=failures)

    lifecycle.fail(claim(conversation))

    assert once_marked().startswith(f"About your message of {day}:\n\n{told}")


def test_a_quarantined_old_question_names_its_day_too() -> None:
    conversation, day = receive_back_then("what's the weather today?")

    lifecycle.quarantine(claim(conversation))

    assert once_marked().startswith(f"About your message of {day}:\n\nI was interrupted")


def test_an_old_command_has_its_effect_and_names_its_day() -> None:
    say("alice", "hello")
    OutboundDelivery.objects.all().delete()
    conversation, day = receive_back_then("/new")

    answer_in_turn(conversation)

    assert once_marked().startswith(f"About your message of {day}:\n\nA new conversation starts here")


def read_back(text: str, *, age: timedelta = timedelta(days=2), is_from_history: bool = True) -> tuple[int | None, str]:
    """A message that is found in a chat's history: the conversation that waits now, and the day."""
    moment, day = back(age)
    old = replace(message("alice", text), sent_at=moment, is_from_history=is_from_history)
    OutboundDelivery.objects.all().delete()
    return inbox.receive(old, resolver=DATABASE), day


def test_an_old_question_that_was_read_back_only_now_is_answered_with_its_day() -> None:
    receive("alice", "hello")
    lifecycle.finish(claim(InboundEvent.objects.get().conversation_id), "hi", limit=2000)
    conversation, day = read_back("what's the weather today?", age=timedelta(days=20))
    assert conversation is not None
    begun = claim(conversation)
    turn = lifecycle.begin(begun, resolver=DATABASE)

    lifecycle.finish(begun, "sunny", limit=2000)
    age_deliveries()

    assert turn.asked_at == InboundEvent.objects.latest("pk").sent_at
    assert texts(sent()) == [f"About your message of {day}:\n\nsunny"]
    assert HistoryEntry.objects.latest("pk").said_at > begun.head.asked_at


@pytest.mark.parametrize(("age", "is_from_history"), [(NEARLY_A_DAY, True), (timedelta(days=2), False)])
def test_a_younger_one_and_one_whose_clock_is_wrong_are_answered_as_ever(age: timedelta, is_from_history: bool) -> None:
    receive("alice", "hello")
    lifecycle.finish(claim(InboundEvent.objects.get().conversation_id), "hi", limit=2000)
    conversation, _ = read_back("what's the weather today?", age=age, is_from_history=is_from_history)
    assert conversation is not None

    lifecycle.finish(claim(conversation), "sunny", limit=2000)

    assert texts(sent()) == ["sunny"]


def test_a_command_that_was_read_back_only_now_is_answered_with_its_day() -> None:
    receive("alice", "hello")
    waits, day = read_back("/help")

    assert waits is None
    assert once_marked().startswith(f"About your message of {day}:\n\n")


def test_the_words_behind_a_command_are_as_old_as_the_command() -> None:
    receive("alice", "hello")
    lifecycle.finish(claim(InboundEvent.objects.get().conversation_id), "hi", limit=2000)
    conversation, _ = read_back("/new what's the weather today?")
    assert conversation is not None
    answer_in_turn(conversation)

    assert lifecycle.begin(claim(conversation), resolver=DATABASE).asked_at is not None


def test_a_question_of_last_year_has_its_year() -> None:
    moment = datetime.now(UTC) - timedelta(days=400)

    assert lateness.day(moment) == f"{moment.day} {moment:%B} {moment.year}"


def test_the_day_is_that_of_utc() -> None:
    year = datetime.now(UTC).year
    evening = datetime(year, 5, 1, 23, 30, tzinfo=UTC)

    assert lateness.day(evening.astimezone(FAR_EAST)) == "1 May"


# -- deliveries


def test_an_old_delivery_is_sent_with_its_day() -> None:
    outbox_queue.queue(ALICE, "sunny")
    day = age_deliveries()

    (message,) = sent()

    assert message.text == f"I meant to send this on {day}:\n\nsunny"
    assert message.text.removeprefix(message.late_mark) == "sunny"


def test_so_is_what_a_program_told_a_person() -> None:
    noticed(Template.WRONG_NUMBER)
    OutboundDelivery.objects.all().delete()
    person = UnifiedUser.objects.get()
    notify.tell(person=person, text="Your standup is in 5 minutes.", label="cron", actor="root")
    day = age_deliveries()

    assert texts(sent()) == [f"I meant to send this on {day}:\n\nYour standup is in 5 minutes."]
    assert HistoryEntry.objects.latest("pk").text == "Your standup is in 5 minutes."


@pytest.mark.parametrize("age", [timedelta(0), NEARLY_A_DAY])
def test_a_younger_delivery_is_sent_as_it_is(age: timedelta) -> None:
    outbox_queue.queue(ALICE, "sunny")
    age_deliveries(age)
    (delivery,) = claimed()

    assert not outbox_queue.needs_database(delivery)
    assert outbox_queue.outgoing(delivery).text == "sunny"


def test_the_answer_to_an_old_question_is_not_marked_twice() -> None:
    conversation, day = receive_back_then("what's the weather today?", age=timedelta(days=20))
    lifecycle.finish(claim(conversation), "sunny", limit=2000)
    age_deliveries()

    assert texts(sent()) == [f"About your message of {day}:\n\nsunny"]


def test_of_several_parts_the_first_is_marked() -> None:
    lifecycle.finish(claim(receive("alice", "tell me a story")), "one " * 500 + "end", limit=1000)
    day = age_deliveries()

    first, *others = texts(sent())

    assert first.startswith(f"I meant to send this on {day}:\n\none")
    assert others
    assert not any("meant to send" in other for other in others)


def test_a_later_part_is_marked_if_the_first_came_in_time() -> None:
    lifecycle.finish(claim(receive("alice", "tell me a story")), "one " * 300 + "end", limit=1000)
    (first,) = claimed()
    outbox_queue.settle([Sent(first, "7")])
    moment, day = back()
    OutboundDelivery.objects.update(created_at=moment)
    OutboundDelivery.objects.filter(pk=first.pk).update(settled_at=moment)

    (second,) = texts(sent())

    assert second.startswith(f"I meant to send this on {day}:\n\none")


def test_a_part_has_room_for_its_day() -> None:
    limit = platforms.of(ALICE.platform).text_limit
    outbox_queue.queue(ALICE, "x" * limit)
    age_deliveries(timedelta(days=400))

    messages = sent()

    assert messages[0].late_mark
    assert all(utf16_length(message.text) <= limit for message in messages)


def test_a_part_without_room_is_sent_as_it_is() -> None:
    OutboundDelivery.objects.create(platform="notes", chat_id="1", text="x" * outbox_queue.TEXT_LIMIT)
    age_deliveries()

    (delivery,) = outbox_queue.claim(owner="worker", platforms=["notes"])

    assert outbox_queue.outgoing(delivery).text == "x" * outbox_queue.TEXT_LIMIT


# -- notices


def noticed(template: Template) -> None:
    """A notice of this kind for alice, about a link and a request that exist."""
    receive("alice-telegram", "hello")
    alice, bob = account("alice"), account("alice", "discord")
    request = linked(alice, bob)
    OutboundDelivery.objects.all().delete()
    about = {"link": AccountLink.objects.get(account=bob).pk, "pairing": str(request.pk), "by": bob.pk}
    notices.tell(alice, template, **about, browsers=1, seconds=5, minutes=5, left=1, reason="named")


KINDS = [one for one in Template if one != Template.BROWSER_ATTACHED]  # which is about a browser


@pytest.mark.parametrize("template", [*KINDS, confirmation.TEMPLATE])
def test_an_old_notice_is_marked_if_it_is_still_true_and_given_up_otherwise(template: Any) -> None:
    noticed(template)
    day = age_deliveries()
    (delivery,) = claimed()

    if template in STILL_TRUE:
        assert outbox_queue.outgoing(delivery).text.startswith(f"I meant to send this on {day}:\n\n")
    else:
        with pytest.raises(outbox_queue.TooOld, match="older than a day"):
            outbox_queue.outgoing(delivery)


def test_an_old_notice_that_a_link_was_made_can_still_be_answered() -> None:
    noticed(Template.ACCOUNT_ADDED)
    age_deliveries()

    (message,) = sent()

    assert [button.command.split()[0] for button in message.buttons] == ["/wasntme"]


@pytest.mark.parametrize("age", [timedelta(0), NEARLY_A_DAY])
def test_a_younger_notice_is_sent_as_it_is(age: timedelta) -> None:
    noticed(Template.WRONG_NUMBER)
    age_deliveries(age)

    assert texts(sent()) == ["That's not the right number. 1 try left."]


def test_a_notice_that_was_retried_until_now_is_sent_with_its_day() -> None:
    """The platform asked for a pause of a day."""
    noticed(Template.WRONG_NUMBER)
    day = age_deliveries()
    OutboundDelivery.objects.update(not_before=datetime.now(UTC) - timedelta(minutes=1))

    assert once_marked().startswith(f"I meant to send this on {day}:\n\n")


def test_a_notice_that_was_given_up_as_too_old_is_sent_with_its_day_when_an_operator_redrives_it() -> None:
    noticed(Template.WRONG_NUMBER)
    day = age_deliveries()
    (delivery,) = claimed()
    outbox_queue.settle([Failed(delivery, "older than a day", permanent=True)])
    assert OutboundDelivery.objects.get().reason == "older than a day"

    assert dead_letters.delivery(delivery.pk, operator="root")
    (again,) = claimed()
    first = outbox_queue.outgoing(again).text
    outbox_queue.settle([Failed(again, "busy", retry_after=0.0)])

    assert first == once_marked()
    assert first.startswith(f"I meant to send this on {day}:\n\n")
