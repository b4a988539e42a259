"""Commands about one's own data, as they are answered in a chat."""

from __future__ import annotations

from typing import Any

import pytest
from django.conf import LazySettings
from django.db import OperationalError

from identity.flows import linking
from identity.models import AccountLink, Pairing, PlatformAccount
from identity.support import clock
from sessions_app import inbox
from sessions_app.commands import registry as command_registry
from sessions_app.commands.registry import Command, Invocation
from sessions_app.history import conversations
from sessions_app.messages import MessageEdit
from sessions_app.models import Conversation, InboundEvent, OutboundDelivery
from sessions_app.outbox import queue as outbox_queue
from sessions_app.turns import lifecycle
from sessions_app.wakeups import local as local_wakeups
from tests.identity import pairs
from tests.sessions_app import browsing
from tests.sessions_app.talk import DATABASE, answer_in_turn, claim, command, is_busy, message, receive, say, texts

pytestmark = pytest.mark.django_db


def answer(text: str, *, who: str = "alice", platform: str = "telegram") -> str:
    return command(who, text, platform=platform)


def link(who: str, platform: str, person: str = "alice") -> None:
    linking.link(platform=platform, platform_user_id=who, unified_user_id=person, method="pairing", actor="test")


@pytest.fixture
def alice() -> tuple[int, int]:
    """Her private chats on Telegram and Discord, linked; she wrote on Discord last."""
    chats = say("alice", "here"), say("alice", "there", platform="discord")
    link("alice", "telegram")
    link("alice", "discord")
    AccountLink.objects.update(since=clock.read())
    return chats


def preferred() -> int | None:
    found = conversations.preferred_of("alice")
    return found.pk if found else None


def test_it_writes_where_it_is_preferred(alice: tuple[int, int]) -> None:
    assert preferred() == alice[1]

    assert "I use Telegram" in answer("/prefer telegram", platform="discord")
    say("alice", "later", platform="discord")
    assert preferred() == alice[0]
    assert "I use Telegram" in answer("/prefer")

    assert "the app where you wrote last" in answer("/prefer last")
    assert preferred() == alice[1]


def test_it_writes_to_no_account_that_has_left(alice: tuple[int, int]) -> None:
    answer("/prefer telegram")
    AccountLink.objects.filter(account__platform="telegram").update(ended_at=clock.now())

    assert preferred() == alice[1]
    assert "the app where you wrote last" in answer("/prefer", platform="discord")


@pytest.mark.parametrize("wanted", ["slack", "x y", "%s", "'"])
def test_it_prefers_no_app_that_is_not_there(alice: tuple[int, int], wanted: str) -> None:
    assert "telegram, discord, last" in answer(f"/prefer {wanted}")
    assert preferred() == alice[1]


def test_it_refuses_the_wish_of_a_new_link(alice: tuple[int, int]) -> None:
    answer("/prefer telegram")
    AccountLink.objects.filter(account__platform="telegram").update(since=clock.seconds_from_now(-3600))

    assert "linked less than a day ago" in answer("/prefer discord", platform="discord")
    assert preferred() == alice[0]


def test_it_knows_a_stranger_in_one_place_alone() -> None:
    assert "I only know you here" in answer("/prefer discord", who="bob")


def test_it_says_where_an_export_is_to_be_had(settings: LazySettings) -> None:
    settings.BOTOS_PUBLIC_URL = "https://bots.example.org"

    assert answer("/export").startswith("Open https://bots.example.org/me/, verify")
    assert answer("/export", platform="slack").startswith("Open https://bots.example.org/me/, verify")

    settings.BOTOS_PUBLIC_URL = ""
    assert answer("/export").startswith('Open "My page" on')


def test_it_asks_which_words_and_says_when_there_are_none() -> None:
    assert "Which words should I look for?" in answer("/search")
    assert "I found no messages" in answer("/search octarine")


@pytest.mark.parametrize(("platform", "shown"), [("telegram", "*[Al](x)*"), ("discord", r"\*\[Al\]\(x\)\*")])
def test_it_says_names_as_they_are(platform: str, shown: str) -> None:
    say("alice", "octarine", platform=platform, group="pub")
    PlatformAccount.objects.update(display_name="*[Al](x)*")

    assert f'You are "{shown}"' in answer("/whoami", platform=platform)
    PlatformAccount.objects.update(display_name="*[Al](x)*")  # the message brought the name that she has there
    assert f" {shown}, on" in command("bob", "/search octarine", platform=platform, group="pub")


@pytest.mark.parametrize(("platform", "mark"), [("telegram", "/"), ("slack", "!")])
def test_it_names_commands_as_they_are_typed_there(platform: str, mark: str) -> None:
    said = [answer(command, platform=platform) for command in ("/help", "/start", "/prefer", "/search", "/export")]

    assert f"\n{mark}link code - " in said[0]
    names = ("help", "link", "search", "link")
    assert [f"{mark}{name}" in one for one, name in zip(said[1:], names, strict=True)] == [True] * 4
    assert not any(f"{'/!'.replace(mark, '')}{name}" in one for one, name in zip(said[1:], names, strict=True))


def test_it_repeats_what_people_said_as_they_said_it() -> None:
    say("alice", "it is in /etc/octarine", platform="slack")

    assert "in /etc/octarine" in answer("!history", platform="slack")
    assert "in /etc/octarine" in answer("!search octarine", platform="slack")


# --- At once, or in their turn

AT_ONCE = ("/help", "/start", "/whoami", "/history", "/search octarine", "/export")


@pytest.mark.parametrize("text", AT_ONCE)
@pytest.mark.parametrize("group", ["", "pub"])
def test_it_answers_what_only_reads_beside_a_running_turn(text: str, group: str) -> None:
    said = say("alice", "my colour is octarine", group=group)
    claim(receive("alice", "a long question", group=group))
    before = texts(said)

    assert inbox.receive(message("alice", text, group=group), resolver=DATABASE) is None

    event, delivery = InboundEvent.objects.latest("pk"), OutboundDelivery.objects.latest("pk")
    assert (event.kind, event.status, event.text) == (InboundEvent.Kind.COMMAND, InboundEvent.Status.DONE, text)
    assert (delivery.event, delivery.chat_id, delivery.entry) == (event, group or "chat-alice", None)
    assert texts(said) == before


@pytest.mark.parametrize("text", AT_ONCE)
def test_it_gives_the_same_answer_in_its_turn(text: str) -> None:
    """As to a command that a process of an earlier version has stored."""
    say("alice", "my colour is octarine")
    told = answer(text)
    waiting = {"status": InboundEvent.Status.PENDING, "done_at": None}
    InboundEvent.objects.filter(text=text).update(**waiting)
    OutboundDelivery.objects.all().delete()

    answer_in_turn(Conversation.objects.get().pk)

    assert OutboundDelivery.objects.get().text == told


@pytest.mark.parametrize("text", ["/new", "/retry", "/prefer"])
def test_it_keeps_the_order_of_what_depends_on_it(text: str) -> None:
    claim(receive("alice", "a long question"))

    conversation = receive("alice", text)

    assert is_busy(conversation)
    assert not OutboundDelivery.objects.filter(event__text=text).exists()


def test_it_answers_one_message_once() -> None:
    asked = message("alice", "/help")

    for _ in range(2):
        assert inbox.receive(asked, resolver=DATABASE) is None

    assert OutboundDelivery.objects.filter(event__text="/help").count() == 1


@pytest.mark.parametrize(("platform", "messages"), [("telegram", 1), ("discord", 2), ("slack", 1)])
def test_it_splits_an_answer_as_the_platform_needs_it(platform: str, messages: int) -> None:
    for _ in range(5):
        say("alice", "x" * 250, platform=platform, answer="y" * 250)

    answer("/history", platform=platform)

    assert OutboundDelivery.objects.filter(event__text="/history").count() == messages


def _breaks(asked: Invocation) -> str:
    Conversation.objects.create(kind="dm", key=f"{asked.account}", account=asked.account)  # there is one already
    return ""


def _finds_no_database(asked: Invocation) -> str:
    raise OperationalError("the server is gone")


def test_it_answers_in_its_turn_what_fails_at_receipt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(command_registry._commands, "help", Command("help", at_once=_breaks))
    conversation = receive("alice", "/help")
    monkeypatch.undo()
    assert InboundEvent.objects.get().reason == "not answered at receipt: IntegrityError"

    answer_in_turn(conversation)

    assert InboundEvent.objects.get().reason == ""
    assert OutboundDelivery.objects.latest("pk").text.startswith("Write to me")


def test_it_does_not_receive_what_the_database_cannot_answer_now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(command_registry._commands, "help", Command("help", at_once=_finds_no_database))

    with pytest.raises(OperationalError):
        inbox.receive(message("alice", "/help"), resolver=DATABASE)

    assert not InboundEvent.objects.exists()


def test_it_answers_in_a_browser_and_has_it_delivered(
    monkeypatch: pytest.MonkeyPatch, django_capture_on_commit_callbacks: Any
) -> None:
    say("alice", "x" * 2500)
    alice = PlatformAccount.objects.get()
    page = browsing.browser_of(alice)
    notified: list[object] = []
    monkeypatch.setattr(local_wakeups, "notify", notified.append)
    monkeypatch.setattr(local_wakeups, "notify_delivery_workers", lambda: notified.append("delivery workers"))

    with django_capture_on_commit_callbacks(execute=True):
        browsing.write(page, alice, "/history")

    assert "delivery workers" in notified
    assert Conversation.objects.get().pk not in notified
    told = OutboundDelivery.objects.get(platform="web")
    assert (told.chat_id, told.event and told.event.status) == (str(page.pk), "done")


# --- Words behind a command


@pytest.mark.parametrize("group", ["", "pub"])
def test_it_starts_anew_and_asks_what_stands_behind_new(group: str) -> None:
    chat = say("alice", "old", group=group)
    receive("alice", "/new what is\nthe weather?", group=group)
    answer_in_turn(chat)
    claimed = claim(chat)
    turn = lifecycle.begin(claimed, resolver=DATABASE)
    lifecycle.finish(claimed, "Rain.", limit=outbox_queue.TEXT_LIMIT)

    assert (turn.text, turn.history) == ("what is\nthe weather?", ())
    assert texts(chat) == ["what is\nthe weather?", "Rain."]
    told = OutboundDelivery.objects.order_by("pk").values_list("text", flat=True)
    assert [text[:20] for text in told][-2:] == ["A new conversation s", "Rain."]
    assert list(InboundEvent.objects.order_by("pk").values_list("text", flat=True))[1:] == ["/new", turn.text]


@pytest.mark.parametrize("platform", ["telegram", "discord", "slack"])
@pytest.mark.parametrize("name", ["help", "whoami", "history", "export", "start", "stop", "retry"])
def test_it_asks_what_stands_behind_a_command_that_takes_no_words(
    name: str, platform: str, monkeypatch: pytest.MonkeyPatch, django_capture_on_commit_callbacks: Any
) -> None:
    sent_at_once: list[str] = []
    monkeypatch.setattr(local_wakeups, "notify_delivery_workers", lambda: sent_at_once.append(name))

    with django_capture_on_commit_callbacks(execute=True):
        chat = receive("alice", f"/{name} tell me\na joke", platform=platform)
    if name == "retry":
        answer_in_turn(chat)
    else:  # the answer waits for no turn
        assert sent_at_once == [name]

    assert lifecycle.begin(claim(chat), resolver=DATABASE).text == "tell me\na joke"
    asked = InboundEvent.objects.exclude(kind=InboundEvent.Kind.MESSAGE).get()
    assert (asked.text, asked.status) == (f"/{name}", InboundEvent.Status.DONE)
    assert OutboundDelivery.objects.latest("pk").event == asked


@pytest.mark.parametrize("text", ["/start ad_2024", "/search tell me", "/prefer tell me", "/help", "/stop  "])
def test_it_asks_nothing_where_the_words_are_the_commands(text: str) -> None:
    answer(text)

    assert [event.text for event in InboundEvent.objects.all()] == [text]


def test_it_asks_once_what_stands_behind_new() -> None:
    asked = message("alice", "/new what is the weather?", key="k" * inbox.MAX_ID)

    outcomes = [inbox.receive(asked, resolver=DATABASE) for _ in range(2)]

    assert outcomes == [Conversation.objects.get().pk, None]
    keys = InboundEvent.objects.order_by("pk").values_list("native_key", flat=True)
    assert [len(key) <= inbox.MAX_ID for key in keys] == [True, True]


def test_it_starts_anew_before_it_asks_whatever_follows() -> None:
    for text in ("before", "/new first?", "second?"):
        receive("alice", text)
    chat = Conversation.objects.get().pk

    turns = []
    for _ in range(3):
        claimed = claim(chat)
        turns.append([event.text for event in claimed.events])
        lifecycle.finish(claimed, "ok", limit=outbox_queue.TEXT_LIMIT)

    assert turns == [["before"], ["/new"], ["first?", "second?"]]


def test_it_follows_an_edit_of_what_stands_behind_new() -> None:
    asked = message("alice", "/new what is the weather?")
    inbox.receive(asked, resolver=DATABASE)

    inbox.edit(MessageEdit(asked.address, asked.message_id, "/new what is the time?"))

    assert list(InboundEvent.objects.order_by("pk").values_list("text", flat=True)) == ["/new", "what is the time?"]


@pytest.mark.parametrize("platform", ["telegram", "discord", "slack"])
def test_it_takes_a_sentence_with_an_exclamation_mark_for_a_message(platform: str) -> None:
    chat = say("alice", "old", platform=platform)

    say("alice", "!new laptop arrived today, it is great", platform=platform)

    assert texts(chat) == ["old", "re: old", "!new laptop arrived today, it is great", *texts(chat)[3:]]
    assert not InboundEvent.objects.filter(kind=InboundEvent.Kind.COMMAND).exists()


# --- Unknown commands


@pytest.mark.parametrize(
    ("text", "platform", "told"),
    [
        ("/hlep", "telegram", "I don't know /hlep. Did you mean /help?"),
        ("!hlep", "slack", "I don't know !hlep. Did you mean !help?"),
        ("/serach octarine", "discord", "I don't know /serach. Did you mean /search?"),
        ("/my_own", "discord", r"I don't know /my\_own. Send /help to see what I can do."),
    ],
)
def test_it_suggests_a_command_at_once(text: str, platform: str, told: str) -> None:
    chat = say("alice", "hello", platform=platform)
    claim(receive("alice", "a long question", platform=platform))

    assert inbox.receive(message("alice", text, platform=platform), resolver=DATABASE) is None

    event, delivery = InboundEvent.objects.latest("pk"), OutboundDelivery.objects.latest("pk")
    assert (event.kind, event.status) == (InboundEvent.Kind.COMMAND, InboundEvent.Status.DONE)
    assert (delivery.event, delivery.text) == (event, told)
    assert texts(chat) == ["hello", "re: hello"]


@pytest.mark.parametrize(("text", "group"), [("/etc/hosts is broken", ""), ("/s", ""), ("/hlep", "pub")])
def test_it_asks_the_agent_what_may_be_no_command(text: str, group: str) -> None:
    """In a group, the command may be another bot's."""
    chat = say("alice", text, group=group)

    assert texts(chat)[0] == text


def test_it_keeps_no_code_behind_an_unknown_command() -> None:
    receive_link = inbox.receive(message("alice", "/link"), resolver=DATABASE)
    code = pairs.code(Pairing.objects.get())

    inbox.receive(message("bob", f"/lnik {code[:4]}-{code[4:]}", platform="discord"), resolver=DATABASE)

    assert receive_link is None
    assert (InboundEvent.objects.latest("pk").text, Pairing.objects.get().state) == ("", "claimed")


def test_it_suggests_a_command_in_a_browser() -> None:
    say("alice", "hello")
    alice = PlatformAccount.objects.get()

    browsing.write(browsing.browser_of(alice), alice, "/hlep")

    assert OutboundDelivery.objects.get(platform="web").text == "I don't know /hlep. Did you mean /help?"
