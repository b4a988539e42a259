from __future__ import annotations

import json
from functools import partial
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from identity.flows import linking
from identity.models import AuditEvent
from identity.resolvers import InMemoryIdentityResolver, Resolves
from identity.support import clock
from sessions_app import dead_letters, inbox
from sessions_app import texts as bot_texts
from sessions_app.history import window
from sessions_app.messages import Address, MessageEdit
from sessions_app.models import (
    CRASHES_BEFORE_QUARANTINE,
    Conversation,
    HistoryEntry,
    InboundEvent,
    Lane,
    OutboundDelivery,
)
from sessions_app.outbox import queue as outbox_queue
from sessions_app.turns import leases, lifecycle
from tests.identity.operator_pages import operator
from tests.sessions_app.racing import at_once
from tests.sessions_app.talk import DATABASE, PLATFORMS, claim, receive, say, texts, time_passes

pytestmark = pytest.mark.django_db


def dead_letter(chat: str = "chat-alice", text: str = "hello") -> int:
    outbox_queue.queue(Address("telegram", chat), text)
    row = OutboundDelivery.objects.latest("pk")
    OutboundDelivery.objects.filter(pk=row.pk).update(status="sending", owner="test")
    row.owner = "test"
    outbox_queue.settle([outbox_queue.Failed(row, "Forbidden: blocked", permanent=True)])
    return row.pk


def give_up(who: str, text: str, **place: Any) -> int:
    """The agent fails until the message is given up. The id of its conversation."""
    conversation = receive(who, text, **place)
    for _ in range(len(lifecycle.RETRY_AFTER) + 1):
        time_passes()
        lifecycle.fail(claim(conversation))
    return conversation


def quarantine(who: str, text: str) -> int:
    conversation = receive(who, text)
    InboundEvent.objects.filter(text=text).update(starts=CRASHES_BEFORE_QUARANTINE)
    lifecycle.quarantine(claim(conversation))
    return conversation


def ask(conversation: int) -> str:
    """Take the next turn, and have a command answered. What was claimed."""
    taken = claim(conversation)
    if taken.head.kind == InboundEvent.Kind.COMMAND:
        lifecycle.answer_command(taken, lifecycle.begin(taken, resolver=DATABASE), limit=outbox_queue.TEXT_LIMIT)
    else:
        lifecycle.finish(taken, f"re: {taken.head.text}", limit=outbox_queue.TEXT_LIMIT)
    return taken.head.text


def retry(who: str, **place: Any) -> str:
    """`who` asks to be answered after all. What the bot says to that."""
    ask(receive(who, "/retry", **place))
    return str(OutboundDelivery.objects.latest("pk").text)


def pages(conversation: int) -> list[str]:
    """What people read there."""
    return [line.text for line in window.readable(Conversation.objects.get(pk=conversation), limit=100)]


# --- Deliveries


def test_it_sends_a_dead_letter_again_under_its_nonce() -> None:
    pk = dead_letter()
    before = OutboundDelivery.objects.get(pk=pk)

    assert dead_letters.delivery(pk, operator="carol")
    (taken,) = outbox_queue.claim(owner="test", platforms=PLATFORMS)
    assert (taken.pk, taken.nonce, taken.attempts, taken.possibly_sent) == (pk, before.nonce, 1, False)
    audited = AuditEvent.objects.get()
    assert (audited.kind, audited.actor, audited.details) == ("delivery_redriven", "carol", {"delivery": pk})


def test_it_leaves_alone_what_is_not_dead() -> None:
    pk = dead_letter()
    assert dead_letters.delivery(pk, operator="carol")

    assert not dead_letters.delivery(pk, operator="carol")
    assert AuditEvent.objects.count() == 1


def test_it_dismisses_a_dead_letter_until_it_dies_again() -> None:
    pk = dead_letter()

    assert dead_letters.dismiss_delivery(pk, operator="carol")
    assert not dead_letters.dismiss_delivery(pk, operator="carol")
    assert not dead_letters.dead_deliveries().exists()
    audited = AuditEvent.objects.get()
    assert (audited.kind, audited.actor, audited.details) == ("delivery_dismissed", "carol", {"delivery": pk})

    assert dead_letters.delivery(pk, operator="carol")
    (taken,) = outbox_queue.claim(owner="test", platforms=PLATFORMS)
    outbox_queue.settle([outbox_queue.Failed(taken, "Forbidden", permanent=True)])
    assert dead_letters.dead_deliveries().get().pk == pk


@pytest.mark.django_db(transaction=True)
def test_it_does_once_what_two_ask_for_at_once() -> None:
    letter = dead_letter()
    give_up("bob", "hard question")
    event = InboundEvent.objects.get(text="hard question").pk
    for step in (
        partial(dead_letters.dismiss_delivery, letter, operator="carol"),
        partial(dead_letters.delivery, letter, operator="carol"),
        partial(dead_letters.dismiss_event, event, operator="carol"),
        partial(dead_letters.event, event, operator="carol"),
    ):
        done, raised = at_once(step, step)
        assert sorted(map(bool, done)) == [False, True]
        assert not raised


# --- Messages


def test_it_answers_after_all_what_was_given_up() -> None:
    say("alice", "first")
    conversation = give_up("alice", "hard question")
    say("alice", "later")
    pk = InboundEvent.objects.get(text="hard question").pk
    assert dead_letters.given_up_events().get().pk == pk

    assert dead_letters.event(pk, operator="carol")
    assert ask(conversation) == "hard question"
    assert texts(conversation) == ["first", "re: first", "hard question", "re: hard question", "later", "re: later"]
    assert not dead_letters.given_up_events().exists()
    audited = AuditEvent.objects.get()
    assert (audited.kind, audited.actor, audited.details) == ("event_redriven", "carol", {"event": pk})


def test_it_dismisses_a_message_and_the_person_may_still_ask() -> None:
    give_up("alice", "hard question")
    pk = InboundEvent.objects.get().pk

    assert dead_letters.dismiss_event(pk, operator="carol")
    assert not dead_letters.dismiss_event(pk, operator="carol")
    assert not dead_letters.unseen_events().exists()
    audited = AuditEvent.objects.get()
    assert (audited.kind, audited.actor, audited.details) == ("event_dismissed", "carol", {"event": pk})

    assert retry("alice").startswith("I'm trying again")
    InboundEvent.objects.filter(pk=pk).update(status="given up", done_at=clock.now())
    assert dead_letters.unseen_events().get().pk == pk


def test_it_keeps_what_a_message_was_edited_to() -> None:
    conversation = give_up("alice", "hard question")
    event = InboundEvent.objects.get()
    inbox.edit(MessageEdit(Address("telegram", event.chat_id), event.message_id, "easy question"))

    dead_letters.event(event.pk, operator="carol")
    ask(conversation)

    assert HistoryEntry.objects.get(role=HistoryEntry.Role.USER).metadata == {"edited": "easy question"}


def test_it_gives_an_operator_three_tries_and_a_person_one() -> None:
    conversation = quarantine("alice", "poison")
    assert dead_letters.event(InboundEvent.objects.get(text="poison").pk, operator="carol")
    assert InboundEvent.objects.get(text="poison").starts == 0
    lifecycle.quarantine(claim(conversation))

    retry("alice")
    assert not lifecycle.should_quarantine(claim(conversation))
    Lane.objects.update(lease_until="1970-01-01T00:00Z")  # the process ended
    assert lifecycle.should_quarantine(claim(conversation))


def test_a_person_asks_at_once_for_what_steps_aside() -> None:
    conversation = receive("alice", "hard question")
    lifecycle.fail(claim(conversation))
    lifecycle.fail(claim(receive("bob", "of another account")))

    assert retry("alice").startswith("I'm trying again")
    assert leases.waiting(PLATFORMS) == [conversation]
    assert ask(conversation) == "hard question"
    assert retry("alice").startswith("You have no failed messages")


def test_it_asks_again_in_a_chat() -> None:
    conversation = give_up("alice", "hard question")

    assert retry("alice").startswith("I'm trying again")
    assert ask(conversation) == "hard question"
    assert texts(conversation) == ["hard question", "re: hard question"]
    assert retry("alice").startswith("You have no failed messages")


@pytest.mark.parametrize("then", [None, DATABASE, InMemoryIdentityResolver()], ids=["none", "database", "memory"])
def test_it_asks_again_what_was_said_under_the_other_key_of_the_same_chat(then: Resolves | None) -> None:
    """A resolver was configured, or taken away, between the message and /retry."""
    first = None if then else DATABASE
    give_up("bob", "of another account", resolver=first)
    give_up("alice", "in a group", group="room", resolver=first)
    there = give_up("alice", "hard question", resolver=first)

    assert retry("alice", resolver=then).startswith("I'm trying again")
    assert ask(there) == "hard question"
    assert retry("alice", resolver=then).startswith("You have no failed messages")
    assert retry("alice", group="room", resolver=then).startswith("I'm trying again")
    assert dead_letters.given_up_events().get().text == "of another account"


def test_it_asks_for_no_other_account_of_the_person() -> None:
    for who, platform in (("1", "telegram"), ("2", "discord")):
        linking.link(platform=platform, platform_user_id=who, unified_user_id="alice", method="pairing", actor="test")
    there = give_up("2", "of another account", platform="discord")

    assert retry("1").startswith("You have no failed messages")
    assert dead_letters.given_up_events().get().text == "of another account"
    assert texts(there) == ["of another account"]
    assert pages(there) == ["of another account", str(bot_texts.GAVE_UP)]


def test_it_asks_in_a_group_for_who_wrote_it() -> None:
    give_up("alice", "mine", group="room")
    give_up("alice", "private")

    assert retry("bob", group="room").startswith("You have no failed messages")
    assert retry("alice", group="room").startswith("I'm trying again")
    assert dead_letters.given_up_events().get().text == "private"


# --- Operators


def run(*words: object) -> Any:
    out = StringIO()
    call_command(*map(str, words), "--json", stdout=out)
    return json.loads(out.getvalue())


@pytest.mark.parametrize("command", ["deliveries", "events"])
def test_commands_list_show_and_redrive(command: str) -> None:
    dead_letter(text="words of a delivery")
    give_up("alice", "words of a message")
    listed = run(command, "list")
    shown = run(command, "show", listed[0]["id"])

    assert len(listed) == 1
    assert listed[0]["reason"] == ("Forbidden: blocked" if command == "deliveries" else "given up: failed")
    assert shown["status"] == listed[0]["status"] in ("dead", "given up")
    assert "words of" not in json.dumps([listed, shown])
    assert run(command, "redrive", listed[0]["id"]) == {"redriven": 1}
    assert run(command, "list") == []
    assert AuditEvent.objects.get().actor.startswith("manage.py:")


@pytest.mark.parametrize("command", ["deliveries", "events"])
def test_commands_redrive_all_or_say_what_is_missing(command: str) -> None:
    for number in range(3):
        dead_letter(f"chat-{number}")
        give_up(f"person-{number}", "hard question")

    assert run(command, "redrive", "--all") == {"redriven": 3}
    assert run(command, "redrive", "--all") == {"redriven": 0}
    for words in (
        *((step, *which) for step in ("redrive", "dismiss") for which in (["1"], [], ["1", "--all"])),
        ("show", "4711"),
    ):
        with pytest.raises(CommandError):
            call_command(command, *words)


@pytest.mark.parametrize("command", ["deliveries", "events"])
def test_commands_dismiss_some_or_all(command: str) -> None:
    for number in range(4):
        dead_letter(f"chat-{number}")
        give_up(f"person-{number}", "hard question")
    first, second, *_ = (row["id"] for row in run(command, "list"))

    assert run(command, "dismiss", first, second) == {"dismissed": 2}
    assert len(run(command, "list")) == 2
    assert run(command, "dismiss", "--all") == {"dismissed": 2}
    assert run(command, "list") == []
    assert run(command, "redrive", "--all") == {"redriven": 0}
    assert {row.actor.partition(":")[0] for row in AuditEvent.objects.all()} == {"manage.py"}


LISTS = [("outbounddelivery", "delivery"), ("inboundevent", "event")]


@pytest.mark.parametrize("action", ["redrive", "dismiss"])
@pytest.mark.parametrize(("model", "noun"), LISTS)
def test_the_admin_does_it_with_the_permission_alone(model: str, noun: str, action: str) -> None:
    dead_letter(text="words of a delivery")
    give_up("alice", "words of a message")
    (pk,) = (
        dead_letters.dead_deliveries() if model == "outbounddelivery" else dead_letters.given_up_events()
    ).values_list("pk")
    address = reverse(f"admin:sessions_app_{model}_changelist")
    wanted = {"action": action, "_selected_action": pk}
    other = {"redrive": "dismiss", "dismiss": "redrive"}[action]

    looking = operator(f"view_{model}", f"{other}_{noun}", name="bob")
    assert "words of" not in looking.get(address).content.decode()
    looking.post(address, wanted)
    assert not AuditEvent.objects.exists()

    doing = operator(f"view_{model}", f"{action}_{noun}")
    doing.post(address, wanted)
    assert AuditEvent.objects.get().actor == "carol"
    assert f'value="{pk[0]}"' not in doing.get(address).content.decode()


@pytest.mark.parametrize(("model", "noun"), LISTS)
def test_the_lists_ask_as_many_queries_for_many_rows(model: str, noun: str) -> None:
    browser = operator(f"view_{model}", f"redrive_{noun}", f"dismiss_{noun}")

    def count() -> int:
        with CaptureQueriesContext(connection) as queries:
            assert browser.get(reverse(f"admin:sessions_app_{model}_changelist")).status_code == 200
        return len(queries)

    for number in range(2):
        dead_letter(f"chat-{number}")
        give_up(f"person-{number}", "hard question")
    few = count()
    for number in range(2, 8):
        dead_letter(f"chat-{number}")
        give_up(f"person-{number}", "hard question")

    assert count() == few


def test_it_takes_up_nothing_whose_words_are_gone() -> None:
    give_up("alice", "important words")
    InboundEvent.objects.update(text="", emptied_at=clock.read())

    assert not dead_letters.event(InboundEvent.objects.get().pk, operator="carol")
    assert HistoryEntry.objects.filter(text="important words").exists()
