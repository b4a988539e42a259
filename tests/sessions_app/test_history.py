from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from django.db import connection, transaction
from django.db.models import F, Max
from django.test.utils import CaptureQueriesContext
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from identity.flows import linking
from identity.models import AccountLink, PlatformAccount, UnifiedUser
from identity.support import clock
from sessions_app import inbox
from sessions_app.agents import PermanentFailure
from sessions_app.history import search, window
from sessions_app.manager import BotSessionManager
from sessions_app.messages import Line, Sender
from sessions_app.mirror import mirror_to_session
from sessions_app.models import Conversation, HistoryEntry, InboundEvent, OutboundDelivery
from sessions_app.outbox import queue as outbox_queue
from sessions_app.texts import GAVE_UP
from sessions_app.turns import leases, lifecycle
from tests.sessions_app.moments import StillClock
from tests.sessions_app.reference_model import ReferenceModel
from tests.sessions_app.talk import DATABASE, PLATFORMS, claim, message, receive, say, texts

pytestmark = pytest.mark.django_db

ACCOUNTS = ("telegram:ann", "telegram:bea", "discord:cyd", "slack:dot")
GROUPS = ("telegram/pub/", "discord/den/")
PEOPLE = ("alice", "bob")
MANY = int(os.environ.get("HISTORY_EXAMPLES", "60"))
# Making a failing example small takes minutes; what is wanted first is that it fails.
PHASES = [phase for phase in Phase if os.environ.get("HISTORY_SHRINK") or phase is not Phase.shrink]

accounts = st.sampled_from(ACCOUNTS)
people = st.sampled_from(PEOPLE)
moves = st.sampled_from([1.0, 1.0, 0.0, 86_400.0])  # sometimes two things happen at one moment


class Histories(RuleBasedStateMachine):
    """Four accounts, two groups and two people do as they like; each window is always what the reference says."""

    still: StillClock

    def __init__(self) -> None:
        super().__init__()
        self.example = transaction.atomic()
        self.example.__enter__()
        self.reference = ReferenceModel(frozenset(GROUPS))
        self.conversations: dict[str, Conversation] = {}
        self.without_resolver: dict[str, Conversation] = {}
        self.count = 0

    def teardown(self) -> None:
        transaction.set_rollback(True)
        self.example.__exit__(None, None, None)

    @rule(account=accounts, move=moves)
    def says(self, account: str, move: float) -> None:
        self._receive(account, self._words(), move)
        self._serve(account)

    @rule(account=accounts, move=moves)
    def is_heard_and_not_answered_yet(self, account: str, move: float) -> None:
        self._receive(account, self._words(), move)

    @rule(account=accounts)
    def is_answered(self, account: str) -> None:
        self._serve(account)

    @rule(account=accounts, move=moves, is_refused=st.sampled_from([False, False, True]))
    def is_failed(self, account: str, move: float, is_refused: bool) -> None:
        self._receive(account, self._words(), move)
        self._fail(account, Refused(self._words()) if is_refused else None)

    @rule(account=accounts, move=moves)
    def says_new(self, account: str, move: float) -> None:
        self._receive(account, "/new", move)
        self._serve(account)

    @rule(account=accounts, move=moves, words=st.sampled_from(["", "", "/new"]))
    def says_without_a_resolver(self, account: str, move: float, words: str) -> None:
        self.still.move(move)
        platform, who = account.split(":")
        pk = receive(who, words or self._words(), platform=platform, resolver=None)
        self.without_resolver[account] = Conversation.objects.get(pk=pk)
        self._serve_in(self.without_resolver[account])

    @rule(account=st.sampled_from(ACCOUNTS[:3]), move=moves, words=st.sampled_from(["", "", "/new"]))
    def says_in_a_group(self, account: str, move: float, words: str) -> None:
        platform, _ = account.split(":")
        group = next(group for group in GROUPS if group.startswith(platform))
        self._receive(account, words or self._words(), move, group)
        self._serve(group)

    @rule(account=accounts, move=moves)
    def is_told_by_other_means(self, account: str, move: float) -> None:
        self.still.move(move)
        platform, who = account.split(":")
        words = self._words()
        manager = BotSessionManager(platform, identity_resolver=DATABASE)
        if mirror_to_session(manager, who, words, "cron"):
            self.reference.say(account, words, self.still.now)
            self.conversations[account] = Conversation.objects.get(account__platform=platform, key=account)

    @rule(account=accounts, person=people, move=moves)
    def is_linked(self, account: str, person: str, move: float) -> None:
        self.still.move(move)
        platform, who = account.split(":")
        linking.link(platform=platform, platform_user_id=who, unified_user_id=person, method="pairing", actor="test")
        self.reference.link(account, person, self.still.now)

    @precondition(lambda self: any(link.ended is None for link in self.reference.links))
    @rule(data=st.data(), move=moves, disown=st.booleans())
    def is_unlinked(self, data: st.DataObject, move: float, disown: bool) -> None:
        account = data.draw(st.sampled_from(self._linked()))
        self.still.move(move)
        platform, who = account.split(":")
        assert linking.unlink(platform=platform, platform_user_id=who, actor="test", disown=disown)
        self.reference.unlink(account, self.still.now, disown=disown)

    @precondition(lambda self: any(link.ended is None for link in self.reference.links))
    @rule(data=st.data())
    def shares_its_past(self, data: st.DataObject) -> None:
        account = data.draw(st.sampled_from(self._linked()))
        platform, who = account.split(":")
        linking.share_past(account=PlatformAccount.objects.get(platform=platform, platform_user_id=who), actor="test")
        self.reference.share_past(account)

    @rule(account=accounts, name=st.sampled_from([*PEOPLE, "ann", "cyd"]), move=moves)
    def is_renamed(self, account: str, name: str, move: float) -> None:
        self._receive(account, self._words(), move, name=name)
        self._serve(account)

    @invariant()
    def every_window_is_what_the_oracle_says(self) -> None:
        for place, conversation in self.conversations.items():
            for limit in (3, 100):
                assert _words(window.window_for(conversation, limit=limit)) == self.reference.window(place, limit)
                assert _words(window.readable(conversation, limit=limit)) == self.reference.readable(place, limit)
            found = search.find(conversation, "words", limit=1_000, for_agent=True)
            in_view = [words for words in self.reference.window(place, 1_000) if "words" in words]
            assert [hit.line.text for hit in reversed(found)] == in_view
            assert _paged(conversation) == self.reference.readable(place, 10_000)
            known = {*self.conversations, *self.without_resolver}
            listed = self.reference.places(place, known)
            assert self._listed(conversation) == {one: sorted(words) for one, words in listed.items()}

    def _listed(self, conversation: Conversation) -> dict[str, list[str]]:
        """What the pages of each conversation in the list show, both of an account together, sorted."""
        theirs = [*self.conversations.items(), *self.without_resolver.items()]
        names = {one.pk: place for place, one in theirs}
        listed: dict[str, list[str]] = {}
        for one in window.places(conversation):
            listed.setdefault(names[one.conversation_id], []).extend(_paged(conversation, only=one.conversation_id))
        return {place: sorted(words) for place, words in listed.items()}

    def _words(self) -> str:
        self.count += 1
        return f"words {self.count}"

    def _linked(self) -> list[str]:
        return [link.account for link in self.reference.links if link.ended is None]

    def _receive(self, account: str, words: str, move: float, group: str = "", name: str = "") -> None:
        self.still.move(move)
        platform, who = account.split(":")
        said = message(who, words, platform=platform, group=group.strip("/").rpartition("/")[2])
        pk = inbox.receive(replace(said, sender=Sender(who, name or who, name)), resolver=DATABASE)
        self.conversations[group or account] = Conversation.objects.get(pk=pk or 0)

    def _serve(self, place: str) -> None:
        """Do what waits longest in the lane that `place` is in, if anything does."""
        if place in self.conversations:
            self._serve_in(self.conversations[place])

    def _serve_in(self, conversation: Conversation) -> None:
        claims = leases.claim([conversation.pk], owner="test", platforms=PLATFORMS).claims
        if not claims:
            return
        (claimed,) = claims
        served, without_resolver = claimed.lease.conversation.key, self.without_resolver.items()
        alone = next((account for account, one in without_resolver if one == claimed.lease.conversation), "")
        if alone and claimed.head.kind == InboundEvent.Kind.COMMAND:
            lifecycle.answer_command(claimed, lifecycle.begin(claimed, resolver=None), limit=outbox_queue.TEXT_LIMIT)
            self.reference.reset_context_alone(alone, claimed.head.received_at)
            return
        if claimed.head.kind == InboundEvent.Kind.COMMAND:
            lifecycle.answer_command(
                claimed, lifecycle.begin(claimed, resolver=DATABASE), limit=outbox_queue.TEXT_LIMIT
            )
            self.reference.reset_context(served, claimed.head.received_at, now=self.still.now)
            return
        served, answer = alone or served, self._words()
        turn = lifecycle.begin(claimed, resolver=None if alone else DATABASE)
        assert not {event.text for event in claimed.events}.intersection(_words(turn.history))
        lifecycle.finish(claimed, answer, limit=outbox_queue.TEXT_LIMIT)
        for event in claimed.events if not claimed.head.failures else ():
            self.reference.say(served, event.text, event.received_at)
        self.reference.say(served, answer, claimed.events[-1].received_at, written=self.still.now)

    def _fail(self, account: str, error: Exception | None) -> None:
        """The agent fails at what waits longest in the lane. A message is in history from its first failure on."""
        claims = leases.claim([self.conversations[account].pk], owner="test", platforms=PLATFORMS).claims
        for claimed in claims:
            without_resolver = {one.pk: place for place, one in self.without_resolver.items()}
            conversation, is_command = claimed.lease.conversation, claimed.head.kind == InboundEvent.Kind.COMMAND
            place = without_resolver.get(conversation.pk, conversation.key)
            is_repeated = lifecycle.fail(claimed, error) is not None
            for event in claimed.events if not (is_command and is_repeated) else ():
                if is_command or not event.failures:
                    self.reference.say(place, event.text, event.received_at, is_withheld=is_command)
                if error:
                    self.reference.withhold(place, event.text)
            if not is_repeated:
                words, last = str(error or GAVE_UP), claimed.events[-1].received_at
                self.reference.say(place, words, last, written=self.still.now, is_withheld=True)


class Refused(PermanentFailure):
    """What a model's provider refuses for its content."""

    def __init__(self, words: str) -> None:
        super().__init__(words, words, is_refused=True)


def _paged(conversation: Conversation, *, only: int | None = None) -> list[str]:
    """All pages after another, each of three."""
    page = window.page(conversation, limit=3, only=only)
    words = _words(page.lines)
    while page.older:
        page = window.page(conversation, limit=3, before=page.older, only=only)
        assert 0 < len(page.lines) <= 3
        words = _words(page.lines) + words
    return words


def _words(lines: tuple[Line, ...]) -> list[str]:
    return [line.text for line in lines]


def live(still: StillClock, *, examples: int) -> None:
    class Here(Histories):
        pass

    Here.still = still
    run_state_machine_as_test(Here, settings=settings(max_examples=examples, stateful_step_count=40, phases=PHASES))


def test_it_shows_what_the_oracle_says_whatever_happens(still: StillClock) -> None:
    live(still, examples=4)


@pytest.mark.slow
def test_it_shows_what_the_oracle_says_in_many_histories(still: StillClock) -> None:
    live(still, examples=MANY)


def link(who: str, platform: str, person: str = "alice") -> None:
    linking.link(platform=platform, platform_user_id=who, unified_user_id=person, method="pairing", actor="test")


def unlink(who: str, platform: str, *, disown: bool = False) -> None:
    assert linking.unlink(platform=platform, platform_user_id=who, actor="test", disown=disown)


def share(who: str, platform: str) -> None:
    account = PlatformAccount.objects.get(platform=platform, platform_user_id=who)
    assert linking.share_past(account=account, actor="test")


def reset_context(conversation: int) -> None:
    claimed = claim(conversation)
    lifecycle.answer_command(claimed, lifecycle.begin(claimed, resolver=DATABASE), limit=outbox_queue.TEXT_LIMIT)


def pages(conversation: int) -> list[str]:
    return _words(window.readable(Conversation.objects.get(pk=conversation), limit=100))


@pytest.fixture
def alice() -> tuple[int, int]:
    """The private chats of alice on Telegram and Discord, where she wrote before they were linked."""
    chats = (say("alice", "old", answer="ok"), say("alice", "old too", answer="ok", platform="discord"))
    link("alice", "telegram")
    link("alice", "discord")
    return chats


def test_it_keeps_strangers_apart() -> None:
    alice, bob = say("alice", "mine", answer="ok"), say("bob", "his", answer="ok")

    assert texts(alice) == ["mine", "ok"]
    assert texts(bob) == ["his", "ok"]


def test_it_shows_both_chats_of_a_person_from_the_link_on(alice: tuple[int, int]) -> None:
    say("alice", "here", answer="ok")
    say("alice", "there", answer="ok", platform="discord")

    assert texts(alice[0]) == ["old", "ok", "here", "ok", "there", "ok"]
    assert texts(alice[1]) == ["old too", "ok", "here", "ok", "there", "ok"]


def test_it_starts_from_the_later_of_the_two_links() -> None:
    link("alice", "telegram")
    telegram, discord = say("alice", "before", answer="ok"), say("alice", "x", answer="ok", platform="discord")
    link("alice", "discord")

    assert texts(discord) == ["x", "ok"]
    assert texts(telegram) == ["before", "ok"]


def test_it_takes_the_moment_of_the_link_for_before_it(still: StillClock) -> None:
    say("alice", "at that moment", answer="ok")
    link("alice", "telegram")
    link("alice", "discord")
    still.move(1e-6)
    discord = say("alice", "after", answer="ok", platform="discord")
    say("alice", "after too", answer="ok")

    assert texts(discord) == ["after", "ok", "after too", "ok"]


def test_it_takes_the_moment_of_receipt_for_the_whole_turn() -> None:
    telegram, discord = receive("alice", "asked before"), say("alice", "x", answer="ok", platform="discord")
    link("alice", "telegram")
    link("alice", "discord")
    lifecycle.finish(claim(telegram), "answered after", limit=outbox_queue.TEXT_LIMIT)

    assert texts(discord) == ["x", "ok"]
    assert texts(telegram) == ["asked before", "answered after"]


def test_it_shows_the_past_of_an_account_that_shares_it_and_of_no_other(alice: tuple[int, int]) -> None:
    share("alice", "telegram")

    assert texts(alice[1]) == ["old", "ok", "old too", "ok"]
    assert texts(alice[0]) == ["old", "ok"]


def test_it_forgets_that_an_account_shared_its_past_once_it_is_linked_anew(alice: tuple[int, int]) -> None:
    share("alice", "telegram")
    unlink("alice", "telegram")
    link("alice", "telegram")

    assert texts(alice[1]) == ["old too", "ok"]


def test_it_parts_exactly_on_unlinking(alice: tuple[int, int]) -> None:
    say("alice", "together", answer="ok")
    unlink("alice", "discord")

    assert texts(alice[0]) == ["old", "ok", "together", "ok"]
    assert texts(alice[1]) == ["old too", "ok"]


def test_it_follows_an_account_to_another_person(alice: tuple[int, int]) -> None:
    bob = say("bob", "of bob", answer="ok", platform="slack")
    link("bob", "slack", "bob")
    link("alice", "discord", "bob")
    say("bob", "to himself", answer="ok", platform="slack")

    assert texts(alice[1]) == ["old too", "ok", "to himself", "ok"]
    assert texts(bob) == ["of bob", "ok", "to himself", "ok"]
    assert texts(alice[0]) == ["old", "ok"]


def test_it_shows_a_group_to_nobody_outside_and_nothing_else_in_it(alice: tuple[int, int]) -> None:
    share("alice", "telegram")
    group = say("alice", "to all", answer="ok", group="pub")
    say("bob", "hear, hear", answer="ok", group="pub")
    other = say("alice", "elsewhere", answer="ok", group="den", platform="discord")

    assert texts(group) == ["to all", "ok", "hear, hear", "ok"]
    assert texts(other) == ["elsewhere", "ok"]
    assert texts(alice[0]) == ["old", "ok"]
    assert pages(alice[1]) == ["old", "ok", "old too", "ok"]


def test_it_puts_behind_what_another_account_shares(alice: tuple[int, int]) -> None:
    share("alice", "telegram")
    receive("alice", "/new")
    reset_context(alice[0])
    say("alice", "fresh", answer="ok")

    assert texts(alice[0]) == texts(alice[1]) == ["fresh", "ok"]
    assert pages(alice[1]) == ["old", "ok", "old too", "ok", "fresh", "ok"]


def test_it_keeps_in_view_what_was_heard_after_new() -> None:
    conversation = receive("alice", "/new")
    start = claim(conversation)
    receive("alice", "while it works")
    lifecycle.answer_command(start, lifecycle.begin(start, resolver=DATABASE), limit=outbox_queue.TEXT_LIMIT)
    lifecycle.finish(claim(conversation), "ok", limit=outbox_queue.TEXT_LIMIT)

    assert texts(conversation) == ["while it works", "ok"]


def test_it_starts_a_group_anew_and_nobody_in_it(alice: tuple[int, int]) -> None:
    group = say("alice", "to all", answer="ok", group="pub")
    receive("alice", "/new", group="pub")
    reset_context(group)

    assert texts(group) == []
    assert texts(alice[0]) == ["old", "ok"]


@pytest.mark.parametrize("is_same_moment", [False, True])
def test_it_lets_a_new_link_put_nothing_behind_for_others(alice: tuple[int, int], is_same_moment: bool) -> None:
    slack = receive("alice", "/new", platform="slack")
    link("alice", "slack")
    if is_same_moment:  # as one handshake links two strangers
        AccountLink.objects.update(since=AccountLink.objects.latest("since").since)
    reset_context(slack)

    assert texts(alice[0]) == ["old", "ok"]
    answer = OutboundDelivery.objects.latest("pk").text
    assert answer.startswith("A new conversation starts here. Accounts that were linked before this one")


def test_it_lets_a_link_reset_what_was_linked_later(alice: tuple[int, int]) -> None:
    receive("alice", "/new")
    AccountLink.objects.filter(account__platform="discord").update(since=F("since") + timedelta(seconds=1))
    reset_context(alice[0])

    assert texts(alice[1]) == []


def test_it_lets_a_link_that_is_a_day_old_speak_for_all(alice: tuple[int, int]) -> None:
    receive("alice", "/new", platform="discord")
    AccountLink.objects.update(since=F("since") - timedelta(days=1))
    reset_context(alice[1])

    assert texts(alice[0]) == []
    assert "on all your linked apps" in OutboundDelivery.objects.latest("pk").text


def test_it_leaves_an_account_that_was_unlinked_out_of_new(alice: tuple[int, int]) -> None:
    unlink("alice", "discord")
    receive("alice", "/new")
    reset_context(alice[0])

    assert texts(alice[0]) == []
    assert texts(alice[1]) == ["old too", "ok"]


def test_it_brings_nothing_back_when_an_older_new_is_served_later() -> None:
    telegram = receive("alice", "/new")
    discord = say("alice", "between", answer="ok", platform="discord")
    receive("alice", "/new", platform="discord")
    reset_context(discord)
    link("alice", "telegram")
    link("alice", "discord")
    reset_context(telegram)

    assert texts(discord) == []


def test_it_keeps_what_was_said_in_a_disowned_link_from_every_agent(alice: tuple[int, int]) -> None:
    say("alice", "not me", answer="ok")
    unlink("alice", "telegram", disown=True)
    say("alice", "me again", answer="ok")
    link("alice", "telegram")
    share("alice", "telegram")

    assert texts(alice[0]) == ["old", "ok", "me again", "ok"]
    assert texts(alice[1]) == ["old", "ok", "old too", "ok", "me again", "ok"]
    assert pages(alice[0]) == ["old", "ok", "not me", "ok", "me again", "ok"]


def test_it_keeps_back_what_was_answered_in_a_disowned_link_to_a_message_from_before_it() -> None:
    discord = receive("mallory", "what does alice say?", platform="discord")
    telegram = receive("alice", "asked before")
    link("alice", "telegram")
    link("mallory", "discord")
    lifecycle.finish(claim(discord), "alice says: octarine", limit=outbox_queue.TEXT_LIMIT)
    lifecycle.finish(claim(telegram), "mallory says: believe me", limit=outbox_queue.TEXT_LIMIT)
    unlink("mallory", "discord", disown=True)

    assert texts(discord) == ["what does alice say?"]
    assert texts(telegram) == ["asked before"]
    assert pages(discord) == ["what does alice say?", "alice says: octarine"]


def test_it_keeps_in_view_what_was_answered_before_one_shared_a_person_with_a_disowned_link() -> None:
    say("mallory", "x", platform="slack")
    link("mallory", "slack")
    telegram = receive("alice", "asked")
    unlink("mallory", "slack", disown=True)
    link("alice", "telegram")
    lifecycle.finish(claim(telegram), "answered", limit=outbox_queue.TEXT_LIMIT)

    assert texts(telegram) == ["asked", "answered"]


@pytest.mark.parametrize("limit", [2, 3])
def test_it_looks_past_what_is_withheld_for_the_newest(limit: int) -> None:
    chat = say("alice", "old", answer="ok")
    say("alice", "new", answer="fine")
    for number in range(4):
        lifecycle.fail(claim(receive("alice", f"refused {number}")), Refused(f"sorry {number}"))

    assert texts(chat, limit=limit) == ["old", "ok", "new", "fine"][-limit:]
    assert pages(chat)[-2:] == ["refused 3", "sorry 3"]


def test_it_looks_past_a_disowned_link_for_the_newest(alice: tuple[int, int]) -> None:
    for number in range(3):
        say("alice", f"not me {number}", answer="no")
    unlink("alice", "telegram", disown=True)

    assert texts(alice[0], limit=2) == ["old", "ok"]


def test_it_keeps_in_view_what_was_said_in_a_link_that_merely_ended(alice: tuple[int, int]) -> None:
    say("alice", "still me", answer="ok")
    unlink("alice", "telegram")

    assert texts(alice[0]) == ["old", "ok", "still me", "ok"]


def test_it_gives_the_newest_over_all_accounts_oldest_first(alice: tuple[int, int]) -> None:
    for number in range(3):
        say("alice", f"here {number}", answer=f"ok {number}")
    say("alice", "there", answer="yes", platform="discord")

    assert texts(alice[0], limit=5) == ["ok 1", "here 2", "ok 2", "there", "yes"]
    assert texts(alice[1], limit=1) == ["yes"]


def test_it_orders_by_receipt_and_not_by_the_time_of_writing(still: StillClock) -> None:
    conversation = receive("alice", "asked")
    still.move(1)
    manager = BotSessionManager("telegram", identity_resolver=DATABASE)
    mirror_to_session(manager, "alice", "told in between", "cron")
    lifecycle.finish(claim(conversation), "answered", limit=outbox_queue.TEXT_LIMIT)

    assert texts(conversation) == ["asked", "answered", "told in between"]


def test_it_orders_by_the_time_of_writing_within_one_moment(still: StillClock) -> None:
    conversation = say("alice", "one", answer="two")
    say("alice", "three", answer="four")

    assert texts(conversation) == ["one", "two", "three", "four"]
    assert texts(conversation, limit=3) == ["two", "three", "four"]


def test_it_gives_moments_that_are_aware_on_every_database(still: StillClock) -> None:
    conversation = Conversation.objects.get(pk=say("alice", "hello"))

    assert {line.said_at for line in window.window_for(conversation, limit=10)} == {still.now}


@pytest.mark.parametrize("linked", [1, 4])
def test_it_asks_the_database_once(linked: int, django_assert_num_queries: Callable[[int], Any]) -> None:
    conversation = _of_many_accounts(linked)

    with django_assert_num_queries(1):
        window.window_for(conversation, limit=100)
    for who in "abcd"[:linked]:
        _fill(Conversation.objects.get(key=f"telegram:{who}"), 150)
    with django_assert_num_queries(1):
        assert len(window.window_for(conversation, limit=100)) == 100


def _of_many_accounts(count: int) -> Conversation:
    for who in "abcd"[:count]:
        say(who, "hello")
        link(who, "telegram")
    return Conversation.objects.get(key="telegram:a")


def _fill(conversation: Conversation, count: int) -> None:
    HistoryEntry.objects.bulk_create(
        [window.entry(conversation, role="user", source="message", text=f"words {number}") for number in range(count)],
        batch_size=1000,
    )


def test_it_pages_from_the_newest_back(alice: tuple[int, int]) -> None:
    for number in range(3):
        say("alice", f"here {number}", answer="ok", platform=("telegram", "discord")[number % 2])
    conversation = Conversation.objects.get(pk=alice[0])
    newest = window.page(conversation, limit=4)
    before = window.page(conversation, limit=4, before=newest.older)

    assert _words(newest.lines) == ["here 1", "ok", "here 2", "ok"]
    assert _words(before.lines) == ["old", "ok", "here 0", "ok"]
    assert before.older == ""


@pytest.mark.parametrize("cursor", ["x", "1", "-1-1", "1-1-1", "٣-٣", "9" * 40 + "-1"])
def test_it_takes_a_cursor_that_nobody_gave_for_none(alice: tuple[int, int], cursor: str) -> None:
    page = window.page(Conversation.objects.get(pk=alice[0]), limit=9, before=cursor)

    assert _words(page.lines) == ["old", "ok"]


def test_it_shows_one_conversation_alone_and_none_that_may_not_be_read(alice: tuple[int, int]) -> None:
    say("alice", "there", answer="yes", platform="discord")
    stranger = say("mallory", "mine", answer="ok")
    conversation = Conversation.objects.get(pk=alice[0])

    assert _words(window.page(conversation, limit=9, only=alice[1]).lines) == ["there", "yes"]
    assert window.page(conversation, limit=9, only=stranger).lines == ()


@pytest.fixture
def crowded() -> Conversation:
    """One of four chats of a person who wrote 16,000 entries, among 500 others with 20 each; statistics known."""
    conversation = _of_many_accounts(4)
    for who in "abcd":
        _fill(Conversation.objects.get(key=f"telegram:{who}"), 4_000)
    _others(500)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
    return conversation


def _others(count: int) -> None:
    names = [f"other-{number}" for number in range(count)]
    owners = PlatformAccount.objects.bulk_create([PlatformAccount(platform="slack", platform_user_id=n) for n in names])
    people = UnifiedUser.objects.bulk_create([UnifiedUser(unified_user_id=name) for name in names])
    AccountLink.objects.bulk_create([AccountLink(account=a, user=u) for a, u in zip(owners, people, strict=True)])
    chats = [Conversation(kind="dm", key=str(owner), account=owner, platform="slack") for owner in owners]
    said = [window.entry(chat, text="x") for chat in Conversation.objects.bulk_create(chats) * 20]
    HistoryEntry.objects.bulk_create(said, batch_size=1000)


def test_it_takes_the_same_work_however_long_the_history(crowded: Conversation) -> None:
    middle = f"{(clock.read() - clock.EPOCH) // timedelta(microseconds=1)}-{1 << 60}"
    older = partial(window.page, before=middle)
    retried = partial(window.window_for, asked=[0, 1])
    reads = (window.window_for, 10), (window.window_for, 100), (retried, 100), (window.readable, 100), (older, 100)
    for read, limit in reads:
        if connection.vendor == "postgresql":
            assert sum(_rows_read(_plan(crowded, read, limit, "EXPLAIN (ANALYZE, FORMAT JSON)"))) <= 3 * limit * 4
        else:
            assert _steps(crowded, read, limit) <= 70 * limit * 4 + 4_000
            _check_plan([row[3] for row in _plan(crowded, read, limit, "EXPLAIN QUERY PLAN")])


def _check_plan(plan: list[str]) -> None:
    """Of SQLite, which says `SEARCH e USING INDEX entries_in_order (conversation_id=? AND said_at>?)`."""
    of_history = [step for step in plan if step.split()[1] in {"e", "nth", HistoryEntry._meta.db_table}]
    assert len(of_history) == 2
    for step in of_history:
        assert re.match(r"SEARCH .* INDEX entries_in_order \(conversation_id=\? AND said_at>", step)
    assert not [step for step in plan if "BLOOM" in step]  # it would read all links to make one


def _steps(conversation: Conversation, read: Any, limit: int) -> int:
    """About how many instructions SQLite executes."""
    count = itertools.count(1)
    connection.connection.set_progress_handler(lambda: next(count) and None, 100)
    try:
        read(conversation, limit=limit)
    finally:
        connection.connection.set_progress_handler(None, 100)
    return 100 * next(count)


def _plan(conversation: Conversation, read: Any, limit: int, explain: str) -> list[Any]:
    with CaptureQueriesContext(connection) as asked:
        read(conversation, limit=limit)
    with connection.cursor() as cursor:
        cursor.execute(f"{explain} {asked.captured_queries[0]['sql']}")
        return list(cursor.fetchall())


def _rows_read(plan: list[Any]) -> Iterator[int]:
    """How many rows of history each step of the plan took up, those that it dropped again included."""
    ((found,),) = plan
    nodes = [step["Plan"] for step in (json.loads(found) if isinstance(found, str) else found)]
    while nodes:
        node = nodes.pop()
        nodes += node.get("Plans", [])
        if node.get("Relation Name") == HistoryEntry._meta.db_table:
            dropped = sum(count for name, count in node.items() if name.startswith("Rows Removed"))
            yield (node["Actual Rows"] + dropped) * node["Actual Loops"]


def test_it_leaves_no_time_to_the_clock_of_the_test_run(still: StillClock) -> None:
    """The tests above rely on it: what is stored has the test's time."""
    say("alice", "hello")

    assert clock.read() == still.now
    assert set(HistoryEntry.objects.values_list("said_at", flat=True)) == {still.now}


def test_it_starts_anew_in_the_order_of_all_locks() -> None:
    """An UPDATE takes rows as they lie in the table, and a claim or a handshake of the same person by their keys."""
    if connection.vendor != "postgresql":
        pytest.skip("SQLite has one writer at a time")
    conversation = Conversation.objects.get(pk=say("alice", "hello"))
    with CaptureQueriesContext(connection) as queries:
        window.reset_context(conversation, at=clock.read())

    done = [query["sql"] for query in queries.captured_queries]
    held = next(place for place, sql in enumerate(done) if sql.endswith("FOR NO KEY UPDATE"))
    assert held < next(place for place, sql in enumerate(done) if sql.startswith("UPDATE"))


@pytest.mark.django_db
def test_it_finds_the_groups_where_an_account_wrote_as_the_orm_does() -> None:
    for text, who, group in (
        ("one", "alice", "garden"),
        ("two", "alice", ""),
        ("three", "alice", "kitchen"),
        ("four", "bob", "kitchen"),
        ("five", "bob", "cellar"),
        ("six", "alice", "garden"),
    ):
        say(who, text, group=group, answer="ok")
    alice = PlatformAccount.objects.get(platform_user_id="alice")

    own = HistoryEntry.objects.filter(author=alice, role="user", conversation__kind="group")
    last = own.values("conversation").annotate(at=Max("said_at")).order_by("-at")
    found = window.groups_of(alice, limit=10)
    assert [(group.conversation_id, group.last_at) for group in found] == list(last.values_list("conversation", "at"))
    assert [group.name for group in found] == ["garden", "kitchen"]
    assert [group.name for group in window.groups_of(alice, limit=1)] == ["garden"]
    assert window.groups_of(PlatformAccount.objects.create(platform="slack", platform_user_id="carol"), limit=9) == []
