from __future__ import annotations

from dataclasses import replace

import pytest
from django.conf import settings

from identity.flows import linking
from identity.models import LiveEvent, PlatformAccount
from identity.resolvers import DatabaseIdentityResolver, IdentityUnavailable
from identity.support import clock
from sessions_app import dead_letters, inbox
from sessions_app.agents import AgentFailure, AgentTimeout, PermanentFailure
from sessions_app.history import window
from sessions_app.messages import Address, InboundMessage, MessageEdit, Reply
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
from sessions_app.turns.lifecycle import Answer
from tests.sessions_app.talk import (
    DATABASE,
    PLATFORMS,
    answer_in_turn,
    claim,
    is_busy,
    message,
    receive,
    say,
    texts,
    time_passes,
)

pytestmark = pytest.mark.django_db


def link(who: str, platform: str, person: str = "alice") -> None:
    linking.link(platform=platform, platform_user_id=who, unified_user_id=person, method="resolver", actor="test")


def test_it_writes_what_was_said_and_what_was_answered() -> None:
    conversation = say("alice", "hello", answer="hi")

    entries = HistoryEntry.objects.order_by("id").values_list("role", "text", "source", "platform")
    assert list(entries) == [("user", "hello", "message", "telegram"), ("assistant", "hi", "reply", "telegram")]
    delivery = OutboundDelivery.objects.get()
    assert (delivery.platform, delivery.chat_id, delivery.text) == ("telegram", "chat-alice", "hi")
    assert InboundEvent.objects.get().status == InboundEvent.Status.DONE
    assert texts(conversation) == ["hello", "hi"]


def test_it_gives_one_history_pair_for_an_event_delivered_three_times() -> None:
    receive("alice", "hello", key="update-1")
    again = [inbox.receive(_same("update-1"), resolver=DATABASE) for _ in range(2)]

    conversation = InboundEvent.objects.get().conversation_id
    lifecycle.finish(claim(conversation), "hi", limit=2000)
    late = inbox.receive(_same("update-1"), resolver=DATABASE)

    assert again == [None, None]
    assert late is None
    assert texts(conversation) == ["hello", "hi"]


def _same(key: str) -> InboundMessage:
    return message("alice", "hello", key=key)


def test_it_counts_the_start_before_the_agent_is_called() -> None:
    conversation = receive("alice", "hello")

    claim(conversation)

    assert InboundEvent.objects.get().starts == 1


def test_it_makes_one_turn_of_a_burst() -> None:
    conversation = receive("alice", "one")
    receive("alice", "two")

    claimed = claim(conversation)
    turn = lifecycle.begin(claimed, resolver=DATABASE)
    lifecycle.finish(claimed, "both", limit=2000)

    assert turn.text == "one\ntwo"
    assert texts(conversation) == ["one", "two", "both"]


def test_it_keeps_what_the_model_used_on_the_first_event_of_each_turn() -> None:
    receive("alice", "first")
    said = (("alice", "second"), ("bob", "third"), ("carol", "fourth"))
    claims = [claim(receive(who, text)) for who, text in said]
    replies = [Reply("ok", "gpt-5-mini", 1200, 30), Reply("ok"), None]

    lifecycle.finish_together(
        [Answer(claimed, "ok", 2000, reply) for claimed, reply in zip(claims, replies, strict=True)]
    )

    used = InboundEvent.objects.order_by("id").values_list("text", "model", "input_tokens", "output_tokens")
    assert list(used) == [
        ("first", "gpt-5-mini", 1200, 30),
        ("second", "", None, None),
        ("third", "", None, None),
        ("fourth", "", None, None),
    ]


def test_it_keeps_a_second_worker_off_a_held_lane() -> None:
    conversation = receive("alice", "one")
    claim(conversation)
    receive("alice", "two")

    assert is_busy(conversation)


def test_it_keeps_a_person_serial_over_platforms() -> None:
    link("alice", "telegram")
    link("alice", "discord")
    telegram, discord = receive("alice", "one"), receive("alice", "two", platform="discord")
    claim(telegram)

    assert is_busy(discord)


def test_it_serves_a_person_in_the_order_of_arrival_whatever_chat_is_asked_for() -> None:
    link("alice", "telegram")
    link("alice", "discord")
    receive("alice", "one")
    discord = receive("alice", "two", platform="discord")

    claimed = claim(discord)

    assert [event.text for event in claimed.events] == ["one"]
    assert claimed.more


def test_it_refuses_an_account_whose_turn_began_before_it_was_linked() -> None:
    telegram, discord = receive("alice", "one"), receive("alice", "two", platform="discord")
    claim(telegram)
    link("alice", "telegram")
    link("alice", "discord")

    assert is_busy(discord)


def test_it_does_not_write_once_the_lease_was_taken_over() -> None:
    conversation = receive("alice", "hello")
    late = claim(conversation, owner="late")
    Lane.objects.update(lease_until=clock.EPOCH)
    quick = claim(conversation, owner="quick")

    with pytest.raises(lifecycle.LeaseLost):
        lifecycle.finish(late, "too late", limit=2000)
    lifecycle.finish(quick, "in time", limit=2000)

    assert texts(conversation) == ["hello", "in time"]


def test_it_renews_the_leases_that_are_worked_under_and_no_others() -> None:
    mine, orphan, other = receive("alice", "a"), receive("bob", "b"), receive("mallory", "c")
    working = claim(mine, owner="me")
    claim(orphan, owner="me")
    claim(other, owner="somebody")
    Lane.objects.update(lease_until=clock.seconds_from_now(1))

    leases.renew([working.lease])

    far = clock.seconds_from_now(settings.BOTOS_LEASE_SECONDS / 2)
    assert list(Lane.objects.filter(lease_until__gt=far).values_list("pk", flat=True)) == [mine]


def test_it_notes_an_edit_that_came_while_the_turn_ran() -> None:
    conversation = receive("alice", "teh")
    claimed = claim(conversation)
    message_id = claimed.head.message_id

    inbox.edit(MessageEdit(Address("telegram", "chat-alice"), message_id, "the"))
    lifecycle.finish(claimed, "hi", limit=2000)

    entry = HistoryEntry.objects.get(role="user")
    assert (entry.text, entry.metadata) == ("teh", {"edited": "the"})


def test_it_tells_the_person_when_the_agent_fails_and_keeps_their_words() -> None:
    conversation = receive("alice", "hello")

    for _ in range(len(lifecycle.RETRY_AFTER) + 1):
        time_passes()
        lifecycle.fail(claim(conversation))

    said = list(OutboundDelivery.objects.order_by("id").values_list("text", flat=True))
    assert said[0].startswith("I couldn't answer that just now")
    assert said[1].startswith("I still couldn't answer")
    assert len(said) == 2
    assert texts(conversation)[0] == "hello"


def refused() -> PermanentFailure:
    """What a model's provider refuses for its content."""
    return PermanentFailure("refused", "I can't answer that.", is_refused=True)


def readable(conversation: int) -> list[str]:
    """What people read."""
    return [line.text for line in window.readable(Conversation.objects.get(pk=conversation), limit=100)]


def asked(claimed: leases.Claim) -> tuple[list[str], str]:
    """What an agent gets: the window and the question."""
    turn = lifecycle.begin(claimed, resolver=DATABASE)
    return [line.text for line in turn.history], turn.text


def test_later_turns_pass_a_failed_one_and_know_its_words() -> None:
    conversation = receive("alice", "hard question")
    lifecycle.fail(claim(conversation))
    receive("alice", "easy question")

    later = claim(conversation)
    assert asked(later) == (["hard question"], "easy question")
    lifecycle.finish(later, "easy answer", limit=2000)

    time_passes()
    repeated = claim(conversation)
    assert asked(repeated) == (["easy question", "easy answer"], "hard question")
    lifecycle.fail(repeated)
    time_passes()
    repeated = claim(conversation)
    assert asked(repeated) == (["easy question", "easy answer"], "hard question")
    lifecycle.finish(repeated, "hard answer", limit=2000)
    assert texts(conversation) == ["hard question", "hard answer", "easy question", "easy answer"]
    question, reply = HistoryEntry.objects.filter(event__text="hard question").order_by("role").reverse()
    assert question.said_at == question.written_at == InboundEvent.objects.get(text="hard question").received_at
    assert reply.said_at == question.said_at < reply.written_at


def test_each_message_of_a_failed_turn_is_repeated_alone_and_is_in_history_once() -> None:
    conversation = receive("alice", "one")
    receive("alice", "two")
    lifecycle.fail(claim(conversation))
    assert texts(conversation) == ["one", "two"]

    time_passes()
    for window_of, question in ((["two"], "one"), (["one", "re: one"], "two")):
        repeated = claim(conversation)
        assert asked(repeated) == (window_of, question)
        lifecycle.finish(repeated, f"re: {question}", limit=2000)

    assert texts(conversation) == ["one", "re: one", "two", "re: two"]
    assert OutboundDelivery.objects.filter(text__startswith="I couldn't answer").count() == 1


def test_the_parts_of_a_text_that_the_app_cut_are_repeated_together() -> None:
    parts = ["a" * 4096, "b" * 4000, "c"]
    (conversation,) = {receive("alice", text) for text in ("hello", *parts)}
    lifecycle.fail(claim(conversation))
    assert InboundEvent.objects.values("ready_at").distinct().count() == 1

    time_passes()
    lifecycle.finish(claim(conversation), "hi", limit=2000)
    repeated = claim(conversation)
    assert asked(repeated) == (["hello", "hi"], f"{parts[0]}{parts[1]}\nc")
    lifecycle.fail(repeated)
    time_passes()
    repeated = claim(conversation)
    assert asked(repeated) == (["hello", "hi"], f"{parts[0]}{parts[1]}\nc")
    lifecycle.finish(repeated, "long", limit=2000)

    assert texts(conversation) == ["hello", "hi", *parts, "long"]


def test_it_writes_the_words_of_a_message_that_failed_in_an_earlier_version() -> None:
    conversation = receive("alice", "hello")
    InboundEvent.objects.update(starts=1, failures=1)

    repeated = claim(conversation)
    assert asked(repeated) == ([], "hello")
    lifecycle.fail(repeated)
    assert texts(conversation) == ["hello"]
    time_passes()
    lifecycle.finish(claim(conversation), "hi", limit=2000)

    assert texts(conversation) == ["hello", "hi"]


def test_a_command_that_failed_is_no_part_of_the_conversation() -> None:
    conversation = receive("alice", "/prefer")

    while lifecycle.fail(claim(conversation), IdentityUnavailable("away")) is not None:
        assert readable(conversation) == []
        time_passes()

    assert texts(conversation) == []


def test_it_notes_an_edit_of_a_message_that_steps_aside() -> None:
    conversation = receive("alice", "teh")
    claimed = claim(conversation)
    lifecycle.fail(claimed)

    inbox.edit(MessageEdit(Address("telegram", "chat-alice"), claimed.head.message_id, "the"))

    entry = HistoryEntry.objects.get()
    assert (entry.text, entry.metadata) == ("teh", {"edited": "the"})
    time_passes()
    lifecycle.finish(claim(conversation), "hi", limit=2000)
    entry.refresh_from_db()
    assert (entry.text, entry.metadata) == ("teh", {"edited": "the"})


def test_it_notes_an_edit_that_came_before_the_turn_failed() -> None:
    claimed = claim(receive("alice", "teh"))

    inbox.edit(MessageEdit(Address("telegram", "chat-alice"), claimed.head.message_id, "the"))
    lifecycle.fail(claimed)

    assert HistoryEntry.objects.get().metadata == {"edited": "the"}


def test_no_agent_reads_an_apology() -> None:
    conversation = receive("alice", "hard question")
    while lifecycle.fail(claim(conversation)) is not None:
        time_passes()

    assert asked(claim(receive("alice", "and now?"))) == (["hard question"], "and now?")
    assert readable(conversation)[1].startswith("I still couldn't answer that")


@pytest.mark.parametrize("failures", [0, 1])
def test_no_agent_reads_what_the_provider_refuses(failures: int) -> None:
    conversation = receive("alice", "poison")
    if failures:
        lifecycle.fail(claim(conversation))
        time_passes()
    assert lifecycle.fail(claim(conversation), refused()) is None

    assert asked(claim(receive("alice", "and now?"))) == ([], "and now?")
    assert readable(conversation) == ["poison", "I can't answer that."]
    assert InboundEvent.objects.get(text="poison").status == InboundEvent.Status.GIVEN_UP


def test_no_agent_reads_a_failed_message_that_was_quarantined() -> None:
    conversation = receive("mallory", "poison")
    lifecycle.fail(claim(conversation))
    InboundEvent.objects.update(starts=1 + CRASHES_BEFORE_QUARANTINE)
    time_passes()
    lifecycle.quarantine(claim(conversation))

    assert texts(conversation) == []
    assert readable(conversation) == ["poison"]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (AgentFailure("RuntimeError"), "failure 1 of 4: AgentFailure: RuntimeError"),
        (AgentTimeout(), "failure 1 of 4: AgentTimeout"),
        (AgentFailure("x\0" * 300), ("failure 1 of 4: AgentFailure: " + "x" * 300)[:300]),
        (IdentityUnavailable("resolve returned 'alice smith'"), "failure 1 of 4: IdentityUnavailable"),
        (PermanentFailure("401", "Sorry."), "given up at once: PermanentFailure: 401"),
    ],
)
def test_it_tells_operators_why_there_is_no_answer(error: Exception, reason: str) -> None:
    lifecycle.fail(claim(receive("alice", "hello")), error)

    assert InboundEvent.objects.get().reason == reason


def test_it_says_why_a_message_was_given_up_or_quarantined_until_it_is_answered() -> None:
    conversation = receive("alice", "hello")
    for _ in lifecycle.RETRY_AFTER:
        lifecycle.fail(claim(conversation), AgentFailure("RuntimeError"))
        time_passes()
    last = claim(conversation)
    lifecycle.explain(last, ValueError("alice"))
    assert InboundEvent.objects.get().reason == "not answered: ValueError"

    lifecycle.fail(last, AgentFailure("RuntimeError"))
    assert InboundEvent.objects.get().reason == "given up: AgentFailure: RuntimeError"

    dead_letters.event(last.head.pk, operator="carol")
    assert InboundEvent.objects.get().reason == ""
    InboundEvent.objects.update(starts=CRASHES_BEFORE_QUARANTINE)
    lifecycle.quarantine(claim(conversation))
    reason = f"quarantined: processes ended {CRASHES_BEFORE_QUARANTINE} times while they worked on it"
    assert InboundEvent.objects.get().reason == reason

    dead_letters.event(last.head.pk, operator="carol")
    lifecycle.fail(claim(conversation), AgentFailure("RuntimeError"))
    time_passes()
    lifecycle.finish(claim(conversation), "hi", limit=2000)
    assert InboundEvent.objects.get().reason == ""


def test_it_names_commands_in_its_own_words_as_they_are_typed_there() -> None:
    """What it says of itself, and not what agents say."""
    receive("alice", "hello", platform="slack")
    for _ in range(len(lifecycle.RETRY_AFTER) + 1):
        time_passes()
        lifecycle.fail(claim(Lane.objects.get().pk))
    lifecycle.quarantine(claim(receive("alice", "and now?", platform="slack")))
    lifecycle.finish(claim(receive("alice", "again", platform="slack")), "it is in /etc", limit=2000)

    _, gave_up, quarantined, answered = OutboundDelivery.objects.order_by("id").values_list("text", flat=True)
    assert "send !retry later" in gave_up
    assert quarantined.endswith("or send !retry.")
    assert answered == "it is in /etc"


def test_it_waits_before_it_tries_a_failed_turn_again() -> None:
    conversation = receive("alice", "hello")

    for seconds in lifecycle.RETRY_AFTER:
        assert lifecycle.fail(claim(conversation)) == seconds
        assert leases.claim([conversation], owner="test", platforms=PLATFORMS) == leases.Claimed()
        assert leases.waiting(PLATFORMS) == []
        ready_at = InboundEvent.objects.get().ready_at
        assert ready_at is not None
        assert seconds - 1 < (ready_at - clock.read()).total_seconds() <= seconds
        time_passes()
    assert lifecycle.fail(claim(conversation)) is None


def test_it_puts_a_message_aside_that_took_the_process_down_three_times() -> None:
    conversation = receive("mallory", "poison")
    receive("mallory", "harmless")
    for _ in range(3):
        claim(conversation)
        Lane.objects.update(lease_until=clock.EPOCH)

    fourth = claim(conversation)
    assert lifecycle.should_quarantine(fourth)
    lifecycle.quarantine(fourth)

    assert InboundEvent.objects.get(text="poison").status == InboundEvent.Status.QUARANTINED
    assert [event.text for event in claim(conversation).events] == ["harmless"]


@pytest.mark.parametrize(
    ("met", "crashes", "has_unrelated_crashes"),
    [
        (["bob", "carol"], CRASHES_BEFORE_QUARANTINE, True),
        (["bob", "bob"], CRASHES_BEFORE_QUARANTINE, False),  # one conversation may be to blame itself
        (["bob", "carol"], lifecycle.MAX_CRASHES, False),
    ],
)
def test_it_takes_crashes_for_bad_luck_where_they_met_others_before(
    met: list[str], crashes: int, has_unrelated_crashes: bool
) -> None:
    for who in met:
        say(who, "answered after a crash")
    InboundEvent.objects.update(starts=2, done_at=clock.seconds_from_now(-10))
    conversation = receive("alice", "hello")
    InboundEvent.objects.filter(conversation=conversation).update(starts=crashes)

    assert lifecycle.has_unrelated_crashes(claim(conversation)) is has_unrelated_crashes


def test_it_blames_a_message_for_crashes_that_met_others_beside_it() -> None:
    for who in ("bob", "carol"):
        say(who, "answered after a crash")
    InboundEvent.objects.update(starts=2)
    conversation = receive("mallory", "poison")
    InboundEvent.objects.filter(status=InboundEvent.Status.DONE).update(done_at=clock.seconds_from_now(10))
    InboundEvent.objects.filter(conversation=conversation).update(starts=CRASHES_BEFORE_QUARANTINE)

    assert not lifecycle.has_unrelated_crashes(claim(conversation))


def test_it_blames_nobody_in_the_words_about_a_quarantine() -> None:
    conversation = receive("alice", "hello")
    lifecycle.quarantine(claim(conversation))

    [text] = OutboundDelivery.objects.values_list("text", flat=True)
    assert text.startswith("I was interrupted several times")
    assert "other words" not in text


def test_it_does_not_count_a_turn_that_was_given_back() -> None:
    conversation = receive("alice", "hello")

    lifecycle.release(claim(conversation))

    assert InboundEvent.objects.get().starts == 0
    assert leases.waiting(PLATFORMS) == [conversation]


def test_it_answers_a_command_without_making_history() -> None:
    conversation = receive("alice", "/prefer")

    answer_in_turn(conversation)

    assert texts(conversation) == []
    assert "I only know you here" in OutboundDelivery.objects.get().text


def test_it_puts_what_was_said_before_new_behind_on_all_accounts() -> None:
    link("alice", "telegram")
    link("alice", "discord")
    telegram = say("alice", "old")
    discord = say("alice", "old too", platform="discord")
    receive("alice", "/new")
    claimed = claim(telegram)
    lifecycle.answer_command(claimed, lifecycle.begin(claimed, resolver=DATABASE), limit=2000)
    say("alice", "fresh")

    assert texts(telegram) == texts(discord) == ["fresh", "re: fresh"]


def test_it_drops_a_group_message_that_is_not_for_the_bot() -> None:
    overheard = replace(message("alice", "lunch?", group="g"), is_addressed=False)

    assert inbox.receive(overheard, resolver=DATABASE) is None
    assert not InboundEvent.objects.exists()
    assert not PlatformAccount.objects.exists()


def test_it_asks_to_try_again_and_keeps_nothing_if_nobody_knows_who_it_is() -> None:
    class Broken:
        def resolve(self, platform: str, platform_user_id: str) -> str:
            raise OSError("no such table")

    for _ in range(2):  # the platform sends it again
        assert inbox.receive(message("alice", "secret", key="k"), resolver=Broken()) is None

    assert not InboundEvent.objects.exists()
    assert OutboundDelivery.objects.get().text.startswith("I can't tell who you are")
    assert outbox_queue.due(PLATFORMS).count() == 1


def test_it_announces_a_turn_once_to_pages_that_are_open() -> None:
    conversation = Conversation.objects.get(pk=say("alice", "hello"))

    assert list(LiveEvent.objects.values_list("topic", "kind")) == [(f"account:{conversation.account_id}", "messages")]


def test_it_asks_a_resolver_that_is_made_of_the_databases() -> None:
    class Named(DatabaseIdentityResolver):
        def resolve(self, platform: str, platform_user_id: str) -> str:
            return f"named-{super().resolve(platform, platform_user_id)}"

    linking.link(platform="telegram", platform_user_id="alice", unified_user_id="al", method="import", actor="test")
    claimed = claim(receive("alice", "hello"))

    assert lifecycle.begin(claimed, resolver=Named()).context.unified_user_id == "named-al"
    assert lifecycle.begin(claimed, resolver=DATABASE).context.unified_user_id == "al"


def test_it_adds_what_failed_attempts_used() -> None:
    conversation = receive("alice", "hello")
    for used in (Reply("", "gpt-5-mini", 1000, 5), None, Reply("", "", 10, None)):
        error = AgentFailure("busy")
        error.used = used
        lifecycle.fail(claim(conversation), error)
        time_passes()

    lifecycle.finish_together([Answer(claim(conversation), "hi", 2000, Reply("hi", "gpt-5", 300, 20))])

    event = InboundEvent.objects.get()
    assert (event.model, event.input_tokens, event.output_tokens) == ("gpt-5", 1310, 25)
