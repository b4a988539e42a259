"""What was said before a resolver was configured, or after it was taken away, stays with the account that said it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from django.db import transaction

from identity import labels
from identity.flows import linking
from identity.models import AccountLink, PlatformAccount
from identity.resolvers import (
    FileIdentityResolver,
    IdentityResolverProtocol,
    IdentityUnavailable,
    InMemoryIdentityResolver,
    Resolves,
)
from identity.support import clock
from sessions_app.history import conversations, export, search, window
from sessions_app.manager import BotSessionManager
from sessions_app.models import Conversation, ForgetRequest, HistoryEntry, Lane
from sessions_app.outbox import queue as outbox_queue
from sessions_app.privacy import confirmation, forget_report, forgetting
from sessions_app.privacy.forget_report import Why
from sessions_app.turns import leases, lifecycle
from sessions_app.turns.leases import LaneKey
from tests.sessions_app.talk import DATABASE, PLATFORMS, claim, command, is_busy, receive, texts

pytestmark = pytest.mark.django_db


@pytest.fixture(params=["memory", "file"])
def resolver(request: pytest.FixtureRequest, tmp_path: Path) -> IdentityResolverProtocol:
    return InMemoryIdentityResolver() if request.param == "memory" else FileIdentityResolver(tmp_path / "identity.json")


def say(who: str, text: str, resolver: Resolves | None, *, platform: str = "telegram") -> list[str]:
    """The words of the window that a turn has, which is then answered."""
    if text.startswith("/"):
        command(who, text, platform=platform, resolver=resolver)
        return []
    claimed = claim(receive(who, text, platform=platform, resolver=resolver))
    turn = lifecycle.begin(claimed, resolver=resolver)
    lifecycle.finish(claimed, "ok", limit=outbox_queue.TEXT_LIMIT)
    return [line.text for line in turn.history if line.role == "user"]


def link(who: str, platform: str = "telegram") -> None:
    linking.link(platform=platform, platform_user_id=who, unified_user_id="alice", method="pairing", actor="test")


def test_it_keeps_what_was_said_before_the_databases_resolver() -> None:
    say("1", "octarine", None)
    kept = HistoryEntry.objects.get(text="octarine").conversation_id

    assert say("1", "hello", DATABASE) == ["octarine"]
    assert say("1", "again", DATABASE) == ["octarine", "hello"]
    assert HistoryEntry.objects.get(text="octarine").conversation_id == kept


def test_it_keeps_what_was_said_before_another_resolver(resolver: IdentityResolverProtocol) -> None:
    say("1", "octarine", None)

    assert say("1", "hello", resolver) == ["octarine"]


def test_it_keeps_what_somebody_who_is_linked_said_before_another_resolver(resolver: IdentityResolverProtocol) -> None:
    say("1", "octarine", None)
    say("8", "purple", None, platform="discord")
    resolver.link("telegram", "1", "alice")
    resolver.link("discord", "8", "alice")

    assert say("1", "hello", resolver) == ["octarine"]
    assert say("8", "hello too", resolver, platform="discord") == ["purple", "hello"]


def test_it_keeps_what_was_said_when_a_resolver_is_taken_away(resolver: IdentityResolverProtocol) -> None:
    say("1", "octarine", DATABASE)
    say("2", "purple", resolver)

    assert say("1", "hello", None) == ["octarine"]
    assert say("2", "hello", None) == ["purple"]


def test_it_shows_it_to_linked_accounts_as_what_was_said_since() -> None:
    say("1", "before", None)
    say("1", "hello", DATABASE)
    say("8", "hi", DATABASE, platform="discord")
    link("1")
    link("8", "discord")
    say("1", "since", None)

    assert say("8", "x", DATABASE, platform="discord") == ["hi", "since"]
    linking.share_past(account=PlatformAccount.objects.get(platform_user_id="1"), actor="test")
    assert say("8", "y", DATABASE, platform="discord") == ["before", "hello", "hi", "since", "x"]


def test_it_puts_it_behind(resolver: IdentityResolverProtocol) -> None:
    for given in (DATABASE, resolver):
        who = str(id(given))
        say(who, "old", None)
        say(who, "/new", given)
        assert say(who, "fresh", given) == []
        say(who, "/new", None)
        assert say(who, "fresher", given) == []
        say(who, "/new", given)
        assert say(who, "last", None) == []


def test_it_finds_and_exports_it_and_shows_it_on_the_page() -> None:
    say("1", "octarine", None)
    say("1", "hello", DATABASE)
    account = PlatformAccount.objects.get()
    conversation = Conversation.objects.get(account=account)

    assert [hit.line.text for hit in search.find(conversation, "octarine", limit=5)] == ["octarine"]
    assert {place.account_id for place in window.places(conversation)} == {account.pk}
    for _ in range(2):
        exported = json.loads(export.export(account, kind="json")[0])
        assert [one["text"] for one in exported["entries"]] == ["octarine", "ok", "hello", "ok"]
        link("1")


def test_it_answers_history_and_search_with_it(resolver: IdentityResolverProtocol) -> None:
    say("1", "octarine", None)
    resolver.link("telegram", "1", "alice")

    assert "octarine" in command("1", "/search octarine", resolver=resolver)
    assert "octarine" in command("1", "/history", resolver=resolver)
    conversation = Conversation.objects.get(key="alice")
    assert search.find(conversation, "octarine", limit=5) == []


def test_it_forgets_it() -> None:
    say("1", "octarine", None)
    say("11", "hers", None)
    say("1", "hello", DATABASE)
    account = PlatformAccount.objects.get(platform_user_id="1")
    request = forgetting.ask(account=account)
    assert request
    ForgetRequest.objects.filter(pk=request.pk).update(
        state=ForgetRequest.State.CONFIRMED, confirmed_at=request.created_at
    )

    assert forgetting.erase(request.pk, portions_limit=20)
    assert list(HistoryEntry.objects.filter(role="user").values_list("text", flat=True)) == ["hers"]
    assert list(Conversation.objects.values_list("key", flat=True)) == ["bot_telegram_11"]


def test_its_report_is_of_what_is_forgotten() -> None:
    """Both chats of an account go together. One that can be warned nowhere stays, with what it said long ago."""
    for who, platform in (("1", "telegram"), ("8", "discord"), ("9", "slack")):
        say(who, f"old of {who}", None, platform=platform)
        link(who, platform)
    say("1", "new of 1", DATABASE)
    say("8", "new of 8", DATABASE, platform="discord")
    AccountLink.objects.update(since=clock.seconds_from_now(-2 * 86_400))
    mine, warned, unwarned = PlatformAccount.objects.order_by("pk")
    request = forgetting.ask(account=mine)
    assert request
    while taken := outbox_queue.claim(owner="worker", platforms=PLATFORMS):
        outbox_queue.settle([outbox_queue.Sent(one, f"sent-{one.pk}") for one in taken])
    before = forget_report.look([mine]).before()

    answer = forgetting.confirm(account=mine, number=confirmation.number_of(request))
    assert answer.request
    assert forgetting.erase(request.pk, portions_limit=20)

    assert answer.request.accounts == [mine.pk, warned.pk]
    assert before.deleted == (labels.described(mine), labels.described(warned))
    assert [(one.words, one.why) for one in before.kept] == [(labels.described(unwarned), Why.UNTOLD)]
    assert list(HistoryEntry.objects.filter(role="user").values_list("text", flat=True)) == ["old of 9"]
    assert list(Conversation.objects.values_list("key", flat=True)) == ["bot_slack_9"]


@pytest.mark.parametrize("is_linked", [False, True])
def test_it_serves_both_chats_of_an_account_one_turn_at_a_time(is_linked: bool) -> None:
    receive("1", "hello")
    if is_linked:
        link("1")
    old, new = receive("1", "octarine", resolver=None), Conversation.objects.get(account__isnull=False).pk
    other = receive("11", "hers", resolver=None)
    lifecycle.finish(claim(new), "ok", limit=outbox_queue.TEXT_LIMIT)
    claimed = claim(new)

    assert claimed.lease.conversation.pk == old
    assert is_busy(new)
    assert is_busy(old)
    assert claim(other).head.text == "hers"


def test_it_gives_a_manager_what_was_said_before(resolver: IdentityResolverProtocol) -> None:
    say("alice", "of a stranger", None)
    say("1", "octarine", None)
    resolver.link("telegram", "1", "alice")
    link("1")
    computed = BotSessionManager("telegram", identity_resolver=DATABASE)
    manager = BotSessionManager("telegram", identity_resolver=resolver)
    for one in (computed, manager):
        assert [line["content"] for line in one.history("1")] == ["octarine", "ok"]
    say("1", "hello", resolver)

    assert [one["content"] for one in manager.history("1")] == ["octarine", "ok", "hello", "ok"]
    assert [one["content"] for one in manager.history("alice")] == ["hello", "ok"]


class Chosen:
    """A resolver that somebody wrote."""

    def __init__(self, answer: str) -> None:
        self.answer = answer

    def resolve(self, platform: str, platform_user_id: str) -> str:
        return self.answer


def test_it_lets_no_resolver_give_the_key_of_another_account(tmp_path: Path) -> None:
    file = tmp_path / "identity.json"
    file.write_text('{"links": {"discord::8": "bot_telegram_1"}}')
    for resolver in (Chosen("bot_telegram_1"), FileIdentityResolver(file)):
        with pytest.raises(IdentityUnavailable, match="the key of another account"):
            conversations.storage_key("discord", "8", resolver)
    assert receive("1", "hello", resolver=Chosen("bot_telegram_1")) == receive("1", "hello", resolver=None)


@pytest.mark.parametrize(
    ("kind", "key", "platform"),
    [
        ("group", "bot_telegram_x_1", "telegram"),
        ("dm", "bot_telegram_x_1", "telegram_x"),  # a program's own name for a platform, and the id 1
        ("dm", "bot_telegram_x_11", "telegram"),
        ("dm", "bot_discord_x_1", "discord"),
        ("dm", "telegram:x_1", "telegram"),
        ("dm", "was_telegram_x_1", "telegram"),  # a resolver's own string, of the same form
    ],
)
def test_it_takes_no_other_conversation_for_an_accounts_own(kind: str, key: str, platform: str) -> None:
    other = Conversation.objects.create(kind=kind, key=key, platform=platform)
    window.entry(other, role="user", source="message", text="not mine").save()
    conversation = receive("x_1", "hello")
    account = PlatformAccount.objects.get()

    assert texts(conversation) == []
    if kind == "dm":
        Lane.objects.create(conversation=other)
        with transaction.atomic():
            lanes, _ = leases._lock_lanes([other.pk])
        assert lanes == {LaneKey(None, (other.pk,)): [other.pk]}
    assert list(conversations.of_accounts([account.pk]).values_list("pk", flat=True)) == [conversation]


@pytest.mark.parametrize(
    ("key", "given"),
    [("bot_telegram_x_1", InMemoryIdentityResolver()), ("telegram:x_1", None)],
    ids=["before", "since"],
)
def test_it_takes_no_conversation_of_another_platform_for_an_accounts_own(key: str, given: Resolves | None) -> None:
    """A program's own name for a platform makes the same key."""
    other = Conversation.objects.create(kind="dm", key=key, platform="telegram_x")
    window.entry(other, role="user", source="message", text="not mine").save()
    conversation = Conversation.objects.get(pk=receive("x_1", "hello", resolver=given))

    assert conversation != other
    assert window.readable(conversation, limit=9, speaker=("telegram", "x_1")) == ()
    Conversation.objects.filter(pk=other.pk).update(platform="telegram")
    assert [line.text for line in window.readable(conversation, limit=9, speaker=("telegram", "x_1"))] == ["not mine"]
