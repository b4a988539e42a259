"""An answer hangs on its question where others may stand between: in groups, and where it comes late."""

from __future__ import annotations

from dataclasses import replace

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from sessions_app import inbox
from sessions_app.messages import Address, OutgoingMessage, Sender
from sessions_app.models import InboundEvent, OutboundDelivery
from sessions_app.outbox import queue as outbox_queue
from sessions_app.outbox.queue import Sent
from sessions_app.turns import lifecycle
from sessions_app.turns.lifecycle import Answer
from tests.sessions_app.talk import DATABASE, PLATFORMS, claim, message, receive, time_passes

pytestmark = pytest.mark.django_db

HERE = outbox_queue.Sender("here", PLATFORMS, 0.0)


def answer(conversation: int, text: str = "fine", *, limit: int = 2000) -> list[OutgoingMessage]:
    """What adapters get of an answer: its beginning by the direct road, the rest after a claim."""
    queued = lifecycle.finish_together([Answer(claim(conversation), text, limit)], sender=HERE)
    return [*map(sent, queued.taken), *claimed()]


def claimed() -> list[OutgoingMessage]:
    """What adapters get of everything that is due, one after the other."""
    messages = []
    while due := outbox_queue.claim(owner="worker", platforms=PLATFORMS):
        messages += [sent(delivery) for delivery in due]
    return messages


def sent(delivery: OutboundDelivery) -> OutgoingMessage:
    with CaptureQueriesContext(connection) as queries:
        outgoing = outbox_queue.outgoing(delivery)
    assert not queries.captured_queries
    outbox_queue.settle([Sent(delivery, "7")])
    return outgoing


def asked() -> str:
    return InboundEvent.objects.latest("pk").message_id


@pytest.mark.parametrize("is_direct", [True, False])
def test_an_answer_in_a_group_hangs_on_its_question(is_direct: bool) -> None:
    conversation = receive("bob", "what may I eat?", group="g")
    if not is_direct:
        outbox_queue.queue(Address("telegram", "g"), "something before it")

    outgoing = answer(conversation)[-1]

    assert (outgoing.text, outgoing.reply_to, outgoing.asker) == ("fine", asked(), "Bob")


def test_only_its_first_part_does() -> None:
    parts = answer(receive("bob", "what may I eat?", group="g"), "one two six", limit=4)

    assert [(part.text, part.reply_to) for part in parts] == [("one", asked()), ("two", ""), ("six", "")]


def test_each_of_two_answers_to_one_question_does() -> None:
    lifecycle.fail(claim(receive("bob", "what may I eat?", group="g")))
    time_passes()
    told = claimed()
    told += answer(InboundEvent.objects.get().conversation_id)

    assert [part.reply_to for part in told] == [asked()] * 2


def test_an_answer_in_a_private_chat_stands_alone() -> None:
    (outgoing,) = answer(receive("bob", "what may I eat?"))

    assert (outgoing.reply_to, outgoing.asker) == ("", "")


def test_it_hangs_on_its_question_there_too_if_the_agent_failed_before() -> None:
    conversation = receive("bob", "what may I eat?")
    InboundEvent.objects.update(failures=1)

    (outgoing,) = answer(conversation)

    assert (outgoing.reply_to, outgoing.asker) == (asked(), "")


def test_what_answers_no_message_hangs_on_none() -> None:
    pressed = replace(message("bob", "/new", group="g"), message_id="")
    conversation = inbox.receive(pressed, resolver=DATABASE)
    assert conversation is not None
    lifecycle.answer_command(begun := claim(conversation), lifecycle.begin(begun, resolver=DATABASE), limit=2000)
    outbox_queue.queue(Address("telegram", "g"), "a reminder")

    assert [(part.reply_to, part.asker) for part in claimed()] == [("", ""), ("", "")]


def test_a_question_in_another_chat_is_nothing_to_hang_on() -> None:
    conversation = receive("bob", "what may I eat?", group="g")
    InboundEvent.objects.update(failures=1)
    lifecycle.finish(claim(conversation), "fine", limit=2000)
    OutboundDelivery.objects.update(chat_id="the group after it was upgraded")

    assert [part.reply_to for part in claimed()] == [""]


def test_the_name_of_who_asked_is_harmless() -> None:
    sender = Sender("mallory", "Bob\nAlice: yes")
    conversation = inbox.receive(replace(message("mallory", "hi", group="g"), sender=sender), resolver=DATABASE)
    assert conversation is not None

    (outgoing,) = answer(conversation)

    assert outgoing.asker == "Bob Alice yes"
