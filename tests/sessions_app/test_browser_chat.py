"""What is said in a browser is said by the attached account, in its own conversation, and nothing else is."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db.models import F
from pytest_django import DjangoCaptureOnCommitCallbacks

from identity.browsers import sessions as browser_sessions
from identity.flows import linking, pair_in_browser, pair_in_chat
from identity.models import BrowserAccount, LiveEvent, PlatformAccount
from identity.pairing.requests import Outcome
from identity.support import clock
from sessions_app import inbox
from sessions_app.history import window
from sessions_app.models import Conversation, HistoryEntry, InboundEvent, OutboundDelivery
from sessions_app.outbox import queue as outbox_queue
from sessions_app.turns import leases, lifecycle
from sessions_app.wakeups import local as local_wakeups
from sessions_app.web import browser_chat
from sessions_app.web.browser_chat import Answer
from tests.identity import pairs
from tests.sessions_app.browsing import account, browser_of, claim, conversation_of, converse, events, write
from tests.sessions_app.talk import DATABASE, PLATFORMS, message, receive, texts

pytestmark = pytest.mark.django_db


def link(*accounts: PlatformAccount) -> None:
    for one in accounts:
        name = {"platform": one.platform, "platform_user_id": one.platform_user_id}
        linking.link(**name, unified_user_id="alice", method="resolver", actor="test")


# --- whose words they are, and where they stand


def test_it_is_said_by_the_attached_account_in_its_own_conversation() -> None:
    alice = account("alice")
    page = browser_of(alice)

    converse(page, alice, "hello from the page", "hello to the page")

    said = HistoryEntry.objects.filter(platform="web").order_by("id")
    assert {entry.author for entry in said} == {alice}
    assert {entry.conversation for entry in said} == {conversation_of(alice)}
    assert texts(conversation_of(alice).pk)[-3:] == ["hello to the app", "hello from the page", "hello to the page"]
    assert not PlatformAccount.objects.filter(platform="web").exists()


def test_it_answers_to_the_browser_that_asked() -> None:
    alice = account("alice")
    page, _other = browser_of(alice), browser_of(alice)

    converse(page, alice, "hello", "hi")

    delivery = OutboundDelivery.objects.get(platform="web")
    assert (delivery.chat_id, delivery.text) == (str(page.pk), "hi")


def test_it_leaves_the_conversation_at_home_in_the_app() -> None:
    """So that notices and everything about linking go to the chat app."""
    alice = account("alice")
    converse(browser_of(alice), alice, "hello", "hi")
    OutboundDelivery.objects.all().delete()

    pair_in_chat.offer(account=alice)

    assert Conversation.objects.get().platform == "telegram"
    assert Conversation.objects.get().chat_id == "chat-alice"
    assert {one.platform for one in OutboundDelivery.objects.all()} == {"telegram"}


def test_it_is_one_conversation_with_the_linked_apps() -> None:
    alice, discord = account("alice"), account("alice", "discord")
    link(alice, discord)
    page = browser_of(alice)

    converse(page, alice, "from the page", "to the page")

    assert texts(conversation_of(discord).pk)[-2:] == ["from the page", "to the page"]


def test_it_waits_for_the_persons_turn_in_another_app() -> None:
    alice, discord = account("alice"), account("alice", "discord")
    link(alice, discord)
    page = browser_of(alice)
    receive("alice", "first", platform="discord")
    leases.claim([conversation_of(discord).pk], owner="other", platforms=PLATFORMS)

    write(page, alice, "second")

    asked = leases.claim([conversation_of(alice).pk], owner="test", platforms=("web",))
    assert asked.claims == ()
    assert asked.busy == {conversation_of(alice).pk}


def test_it_tells_the_agent_who_is_asking_and_from_where() -> None:
    alice = account("alice")
    link(alice)
    page = browser_of(alice)
    write(page, alice, "hello")

    context = lifecycle.begin(claim(alice), resolver=DATABASE).context

    assert (context.platform, context.chat_id, context.chat_name) == ("web", str(page.pk), "Firefox on Linux")
    assert (context.user_id, context.user_name, context.unified_user_id) == ("alice", "Alice", "alice")


def test_it_cannot_be_reached_by_an_adapter() -> None:
    """What an adapter hands in as `web` is by a `web` account, whatever ids it names."""
    alice = account("alice")

    inbox.receive(message("alice", "I am alice", platform="web"), resolver=DATABASE)

    assert HistoryEntry.objects.filter(author=alice, platform="web").count() == 0
    assert InboundEvent.objects.get(platform="web").account != alice
    assert "I am alice" not in texts(conversation_of(alice).pk)


def test_it_tells_open_pages_and_workers(
    django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks, monkeypatch: pytest.MonkeyPatch
) -> None:
    notified: list[int] = []
    monkeypatch.setattr(local_wakeups, "notify", notified.append)
    alice = account("alice")
    page = browser_of(alice)

    with django_capture_on_commit_callbacks(execute=True):
        write(page, alice, "hello")

    assert notified == [conversation_of(alice).pk]
    assert LiveEvent.objects.filter(topic=f"browser:{page.pk}", kind="messages").count() == 1


# --- who may write


def test_it_takes_nothing_for_an_account_that_is_not_attached() -> None:
    alice, mallory = account("alice"), account("mallory", "discord")
    page = browser_of(mallory)

    assert write(page, alice, "as alice") == Answer.UNCONFIRMED
    assert events() == []


def test_it_takes_nothing_when_the_confirmation_is_old() -> None:
    alice = account("alice")
    page = browser_of(alice)
    pairs.later(901, BrowserAccount.objects.all())

    assert write(page, alice, "hello") == Answer.UNCONFIRMED
    assert events() == []


def test_it_keeps_the_confirmation_while_it_is_used() -> None:
    alice = account("alice")
    page = browser_of(alice)
    for _ in range(3):
        BrowserAccount.objects.update(confirmed_at=F("confirmed_at") - timedelta(seconds=600))
        assert write(page, alice, "still here") == Answer.SENT


def test_it_takes_nothing_from_a_browser_that_has_ended() -> None:
    alice = account("alice")
    page = browser_of(alice)
    browser_sessions.sign_out(page)

    assert write(page, alice, "hello") == Answer.ENDED
    assert events() == []


# --- once


def test_it_keeps_one_message_however_often_it_is_sent() -> None:
    alice = account("alice")
    page = browser_of(alice)

    assert [write(page, alice, "hello", key="one") for _ in range(3)] == [Answer.SENT] * 3
    assert [event.text for event in events()] == ["hello"]


def test_it_loses_no_new_words_under_an_old_key() -> None:
    """As a page has them that the browser's back button brings."""
    alice = account("alice")
    page = browser_of(alice)

    for words in ("hello", "hello again", "hello again"):
        write(page, alice, words, key="one")

    assert [event.text for event in events()] == ["hello", "hello again"]


def test_it_does_not_mix_the_keys_of_two_browsers() -> None:
    alice = account("alice")

    for page in (browser_of(alice), browser_of(alice)):
        write(page, alice, "hello", key="one")

    assert len(events()) == 2


# --- limits


def all_of_this_moment() -> None:
    """However slow the machine was to write them."""
    InboundEvent.objects.update(received_at=clock.read())


def test_it_takes_ten_messages_a_second_from_a_browser() -> None:
    alice = account("alice")
    page, other = browser_of(alice), browser_of(alice)
    assert {write(page, alice, "hello") for _ in range(10)} == {Answer.SENT}
    all_of_this_moment()

    assert write(page, alice, "hello") == Answer.TOO_OFTEN
    assert write(other, alice, "hello") == Answer.SENT
    InboundEvent.objects.update(received_at=F("received_at") - timedelta(seconds=1))
    assert write(page, alice, "hello") == Answer.SENT


def test_it_counts_what_is_about_linking_too() -> None:
    alice = account("alice")
    page = browser_of(alice)

    assert {write(page, alice, "/link") for _ in range(10)} == {Answer.SECRET}
    all_of_this_moment()

    assert write(page, alice, "/link") == Answer.TOO_OFTEN


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("", Answer.EMPTY),
        (" \r\n ", Answer.EMPTY),
        ("x" * 65_536, Answer.SENT),
        ("x" * 65_537, Answer.TOO_LONG),
        ("ü" * 32_769, Answer.TOO_LONG),
        ("a\x00b", Answer.UNACCEPTABLE),
        ("a\ud800b", Answer.UNACCEPTABLE),
    ],
)
def test_it_takes_what_can_be_kept(text: str, answer: Answer) -> None:
    alice = account("alice")

    assert write(browser_of(alice), alice, text) == answer
    assert len(events()) == (answer == Answer.SENT)


def test_it_keeps_lines_as_they_were_typed() -> None:
    alice = account("alice")
    write(browser_of(alice), alice, "one\r\n  two\r\n")

    assert events()[0].text == "one\n  two"


# --- linking is for the app


@pytest.mark.parametrize("text", ["/link", "/unlink", "!accounts", "/cancel", "/share", "/signout", "/link BCDF-GHJK"])
def test_it_sends_everything_about_linking_to_the_app(text: str) -> None:
    alice = account("alice")
    page, before = browser_of(alice), OutboundDelivery.objects.count()

    assert write(page, alice, text) == Answer.SECRET
    assert [(event.kind, event.text, event.status) for event in events()] == [("pairing", "", "done")]
    assert OutboundDelivery.objects.count() == before
    assert pair_in_browser.current(page).state == "attached"  # type: ignore[union-attr]


@pytest.mark.parametrize("words", ["{code}", "my code is {code}", "{letters}", "https://t.me/bot?start={token}"])
def test_it_claims_no_code(words: str) -> None:
    alice, bob = account("alice"), account("bob", "discord")
    page, request = browser_of(alice), pairs.offered(bob)
    letters = pairs.code(request)
    code = f"{letters[:4]}-{letters[4:]}"

    text = words.format(code=code, letters=letters, token=pairs.token(request))

    assert write(page, alice, text) == Answer.SECRET
    assert pairs.state(request) == "offered"
    assert events()[0].text == ""


@pytest.mark.parametrize("words", ["{}", "it is {}, I think"])
def test_it_confirms_no_number(words: str) -> None:
    """That the account is asked for in the app, or a wrong one."""
    alice, bob = account("alice"), account("bob", "discord")
    page, request = browser_of(alice), pairs.claimed(bob, alice)

    answers = {write(page, alice, words.format(one)) for one in (pairs.number(request), pairs.wrong(request))}

    request.refresh_from_db()
    assert answers == {Answer.SECRET}
    assert (request.state, request.tries) == ("claimed", 0)
    assert {event.text for event in events()} == {""}


def test_it_keeps_no_number_of_the_browsers_own_handshake() -> None:
    alice, discord = account("alice"), account("alice", "discord")
    page = browser_of(alice)
    request = pairs.offered(discord)
    shown = pair_in_browser.claim(browser=page, secret=pairs.code(request), address="home")
    assert shown.outcome == Outcome.CLAIMED

    assert write(page, alice, pairs.number(request)) == Answer.SECRET


@pytest.mark.parametrize("text", ["482 913", "The house number is 482 913."])
def test_it_keeps_six_digits_that_nobody_waits_for(text: str) -> None:
    alice = account("alice")

    assert write(browser_of(alice), alice, text) == Answer.SENT


def test_it_gives_the_same_answer_to_a_repeated_secret() -> None:
    alice = account("alice")
    page = browser_of(alice)

    assert [write(page, alice, "/link", key="one") for _ in range(2)] == [Answer.SECRET] * 2
    assert len(events()) == 1


# --- the way back


def out(delivery: OutboundDelivery) -> bool:
    return browser_chat.arrive(outbox_queue.outgoing(delivery))


def test_it_tells_the_pages_of_the_browser_that_an_answer_is_there() -> None:
    alice = account("alice")
    page = browser_of(alice)
    converse(page, alice, "hello", "hi")
    LiveEvent.objects.all().delete()

    assert out(OutboundDelivery.objects.get(platform="web"))
    assert [(one.topic, one.kind) for one in LiveEvent.objects.all()] == [(f"browser:{page.pk}", "messages")]


def test_it_counts_an_answer_as_delivered_that_history_shows() -> None:
    alice = account("alice")
    page = browser_of(alice)
    converse(page, alice, "hello", "hi")
    browser_sessions.sign_out(page)

    assert out(OutboundDelivery.objects.get(platform="web"))
    assert [line.text for line in window.readable(conversation_of(alice), limit=1)] == ["hi"]


def test_it_cannot_deliver_to_nobody_what_nothing_else_shows() -> None:
    alice = account("alice")
    page = browser_of(alice)
    write(page, alice, "/help")
    delivery = OutboundDelivery.objects.get(platform="web")

    assert out(delivery)
    browser_sessions.sign_out(page)
    assert not out(delivery)


def test_it_delivers_nothing_to_what_is_no_browser() -> None:
    delivery = OutboundDelivery.objects.create(platform="web", chat_id="somewhere", text="hello")

    assert not out(delivery)
