"""What Telegram calls: a call that is not Telegram's changes nothing, and what is stored is stored before the 200."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import OperationalError
from django.test import Client
from django.urls import resolve

from adapters import webhook_calls, webhooks
from adapters.playground.telegram.api import BOT
from adapters.telegram.events import BotIdentity, parse_update
from adapters.telegram.webhook import PATH
from identity.models import BotProfile
from sessions_app import inbox, messages
from sessions_app.messages import InboundMessage
from sessions_app.models import InboundEvent, OutboundDelivery
from sessions_app.wakeups import local as local_wakeups

pytestmark = pytest.mark.django_db(transaction=True)

SECRET = "a-secret-of-the-webhook-hunter2-hunter2"
ALICE = {"id": 1001, "is_bot": False, "first_name": "Alice"}
CHAT = {"id": 1001, "type": "private", "first_name": "Alice"}
MESSAGE = {"message_id": 7, "date": 1_700_000_000, "from": ALICE, "chat": CHAT, "text": "My cat is Tom."}
UPDATE = {"update_id": 42, "message": MESSAGE}
QUERY = {"id": "q1", "from": ALICE, "chat_instance": "1", "data": "/help", "message": MESSAGE | {"from": BOT}}


@pytest.fixture(autouse=True)
def webhook(settings: Any) -> None:
    settings.BOTOS_TELEGRAM_TRANSPORT = "webhook"
    settings.TELEGRAM_WEBHOOK_SECRET = SECRET
    settings.TELEGRAM_BOT_TOKEN = f"{BOT['id']}:AAxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
    BotProfile.objects.create(platform="telegram", name=f"@{BOT['username']}", url="https://t.me/x")


@pytest.fixture
def notified() -> Iterator[list[object]]:
    """What workers were notified of: a conversation's id, or "send"."""
    notified: list[object] = []
    listener = local_wakeups._Listener(notified.append, lambda: notified.append("send"))
    local_wakeups._listeners.append(listener)
    yield notified
    local_wakeups._listeners.remove(listener)


def call(update: object = UPDATE, *, secret: str | None = SECRET, body: bytes | None = None) -> Any:
    """What Telegram does."""
    headers = {} if secret is None else {webhooks.SECRET_HEADER: secret}
    client = Client(enforce_csrf_checks=True)
    given = json.dumps(update).encode() if body is None else body
    return client.post(PATH, given, content_type="application/json", headers=headers)


def test_it_stores_a_message_under_the_key_that_polling_gives_it(notified: list[object]) -> None:
    answer = call()

    assert (answer.status_code, answer.content) == (200, b"")
    event = InboundEvent.objects.get()
    polled = parse_update(UPDATE, BotIdentity(BOT["id"], BOT["username"]))
    assert isinstance(polled, InboundMessage)
    assert (event.native_key, event.text) == (polled.native_key, "My cat is Tom.")
    assert notified == [event.conversation_id]


def test_it_keeps_one_of_an_update_that_is_told_again(notified: list[object]) -> None:
    assert [call().status_code for _ in range(3)] == [200] * 3

    assert InboundEvent.objects.count() == 1


def test_it_knows_a_mention_of_the_bot_in_a_group() -> None:
    group = {"id": -5, "type": "group", "title": "Us"}
    words = f"@{BOT['username']} hello"
    mention = {"type": "mention", "offset": 0, "length": len(words) - 6}
    call({"update_id": 43, "message": MESSAGE | {"chat": group, "text": words, "entities": [mention]}})
    call({"update_id": 44, "message": MESSAGE | {"chat": group, "text": "not to the bot"}})

    assert [event.text for event in InboundEvent.objects.all()] == ["hello"]


def test_it_takes_a_pressed_button_and_has_it_answered() -> None:
    answer = call({"update_id": 43, "callback_query": QUERY})

    assert answer.json() == {"method": "answerCallbackQuery", "callback_query_id": "q1"}
    assert InboundEvent.objects.get().text == "/help"


def test_it_takes_an_edit() -> None:
    call()
    call({"update_id": 43, "edited_message": MESSAGE | {"text": "My cat is Tim."}})

    assert InboundEvent.objects.get().text == "My cat is Tim."


def test_it_decides_pairing_text_at_once_and_has_the_answer_sent(notified: list[object]) -> None:
    call({"update_id": 43, "message": MESSAGE | {"text": "/link"}})

    assert InboundEvent.objects.get().text == ""
    assert OutboundDelivery.objects.exists()
    assert notified == ["send"]


@pytest.mark.parametrize("secret", [None, "", "wrong", SECRET[:-1], f"{SECRET}x", SECRET.upper(), "é" * 40])
def test_it_refuses_who_does_not_know_the_secret(secret: str | None, caplog: pytest.LogCaptureFixture) -> None:
    answer = call(secret=secret)

    assert answer.status_code == 403
    assert not InboundEvent.objects.exists()
    assert "hunter2" not in caplog.text + answer.content.decode()


@pytest.mark.parametrize("method", ["get", "head", "put", "delete", "options"])
def test_it_takes_posts_only(method: str) -> None:
    answer = getattr(Client(), method)(PATH, headers={webhooks.SECRET_HEADER: SECRET})

    assert (answer.status_code, answer["Allow"]) == (405, "POST")


def test_it_is_not_there_where_the_bot_polls(settings: Any) -> None:
    settings.BOTOS_TELEGRAM_TRANSPORT = "polling"

    assert call().status_code == 404
    assert not InboundEvent.objects.exists()


def test_it_refuses_a_body_that_is_too_long() -> None:
    long = json.dumps(UPDATE | {"filler": "x" * webhook_calls.MAX_BYTES}).encode()

    assert call(body=long).status_code == 413
    assert not InboundEvent.objects.exists()


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000])
def test_it_refuses_what_is_not_json_and_says_so_once(body: bytes, caplog: pytest.LogCaptureFixture) -> None:
    assert call(body=body).status_code == 400

    assert [record.getMessage() for record in caplog.records] == [f"Not JSON: {PATH}"]


@pytest.mark.parametrize("update", [[], 1, None, {}, {"update_id": 43, "message": {"text": "hunter2"}}])
def test_it_skips_what_cannot_be_read_and_says_so_once(update: object, caplog: pytest.LogCaptureFixture) -> None:
    """Told again, it would hold up what follows."""
    assert call(update).status_code == 200

    [record] = caplog.records
    assert record.getMessage().startswith("telegram: an update is skipped: ")
    assert "hunter2" not in caplog.text


def test_it_has_what_can_never_be_stored_not_told_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(messages, "MAX_TEXT", 3)

    assert call().status_code == 200

    assert [record.getMessage() for record in caplog.records] == [
        "a message from a webhook was refused: the text is longer than 3 characters"
    ]


def test_it_says_received_only_when_it_is_stored(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OperationalError("the words of alice: hunter2")

    with monkeypatch.context() as down:
        down.setattr(inbox, "_store", fail)
        assert call().status_code == 503

    assert [record.getMessage() for record in caplog.records] == [f"Not stored (OperationalError): {PATH}"]
    assert "hunter2" not in caplog.text
    assert not InboundEvent.objects.exists()
    assert call().status_code == 200
    assert InboundEvent.objects.count() == 1


def test_it_takes_nothing_before_it_knows_the_bots_name() -> None:
    BotProfile.objects.all().delete()

    assert call().status_code == 503
    assert not InboundEvent.objects.exists()


def test_it_sets_no_cookie_and_is_kept_nowhere() -> None:
    answer = call()

    assert not answer.cookies
    assert "no-store" in answer["Cache-Control"]


def test_it_compares_the_secret_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[object] = []

    def compare(*both: str) -> bool:
        compared.append(both)
        return False

    monkeypatch.setattr(webhooks, "constant_time_compare", compare)

    assert call().status_code == 403
    assert compared == [(SECRET, SECRET)]


def test_it_is_where_telegram_is_told_that_it_is() -> None:
    assert resolve(PATH).func is webhooks.telegram


def test_it_notifies_through_redis_where_no_bot_runs(monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    notified: list[object] = []
    settings.REDIS_URL = "redis://127.0.0.1:9/0"
    notifier = type(
        "Notifier", (), {"notify": notified.append, "notify_delivery_workers": lambda: notified.append("send")}
    )
    monkeypatch.setattr(local_wakeups, "_elsewhere", lambda: notifier)

    call()
    call({"update_id": 43, "message": MESSAGE | {"text": "/link"}})

    assert notified == [InboundEvent.objects.earliest("pk").conversation_id, "send"]


def test_it_notifies_nobody_without_redis(settings: Any, caplog: pytest.LogCaptureFixture) -> None:
    settings.REDIS_URL = ""
    caplog.set_level(logging.WARNING)

    assert call().status_code == 200
    assert not caplog.records
