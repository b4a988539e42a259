"""What Slack calls: unsigned or old is refused, and what is stored is stored before the 200."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import pytest
import time_machine
from django.db import OperationalError
from django.test import Client
from slack_sdk.signature import SignatureVerifier

from adapters import webhook_calls
from adapters.slack import webhook as slack_webhook
from adapters.slack.client import slack_client
from adapters.slack.directory import Directory
from adapters.slack.events import Me
from sessions_app import inbox
from sessions_app.models import HistoryEntry, InboundEvent, OutboundDelivery, Watermark

pytestmark = pytest.mark.django_db(transaction=True)

PATH = "/hooks/slack"
SECRET = "hunter2-of-the-slack-app-hunter2-hunter2"
ME = Me("slack", "U0BOTOS", "B0BOTOS", frozenset({"T0"}))
EVENT = {
    "type": "message",
    "channel": "DU1",
    "channel_type": "im",
    "user": "U1",
    "ts": "1700000000.000100",
    "text": "hi",
}
TOLD = {"type": "event_callback", "event_id": "Ev1", "team_id": "T0", "event": EVENT}
COMMAND = {"command": "/help", "text": "", "channel_id": "DU1", "user_id": "U1", "team_id": "T0", "trigger_id": "t1"}
PRESS = {
    "type": "block_actions",
    "actions": [{"type": "button", "value": "/help", "action_ts": "1700000001.000100"}],
    "message": {"ts": "1700000000.000100", "bot_id": "B0BOTOS"},
    "channel": {"id": "DU1"},
    "user": {"id": "U1", "team_id": "T0"},
}


@pytest.fixture(autouse=True)
def webhook(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slack itself cannot be reached, so that nobody has a name."""
    settings.BOTOS_SLACK_TRANSPORT = "http"
    settings.SLACK_SIGNING_SECRET = SECRET
    settings.SLACK_BOT_TOKEN = "xoxb-hunter2"
    settings.SLACK_API_URL = "http://127.0.0.1:9/api/"
    web = slack_client(settings.SLACK_API_URL, settings.SLACK_BOT_TOKEN)
    monkeypatch.setattr(slack_webhook, "_met", {(settings.SLACK_API_URL, "xoxb-hunter2"): (ME, Directory(web))})


def signed(body: bytes, *, secret: str = SECRET, age: float = 0) -> dict[str, str]:
    """The headers of a request with this body, signed so many seconds ago."""
    timestamp = str(int(time.time() - age))
    signature = SignatureVerifier(secret).generate_signature(timestamp=timestamp, body=body)
    return {"X-Slack-Request-Timestamp": timestamp, "X-Slack-Signature": signature or ""}


def call(told: object = TOLD, *, headers: dict[str, str] | None = None, body: bytes | None = None) -> Any:
    """What Slack does: events are JSON, and forms are made of a dict of fields."""
    given = json.dumps(told).encode() if body is None else body
    return _post(given, "application/json", headers)


def submit(fields: dict[str, str]) -> Any:
    """A button or a command."""
    return _post(urlencode(fields).encode(), "application/x-www-form-urlencoded", None)


def _post(body: bytes, content_type: str, headers: dict[str, str] | None) -> Any:
    client = Client(enforce_csrf_checks=True)
    return client.post(PATH, body, content_type=content_type, headers=signed(body) if headers is None else headers)


def test_it_stores_a_message() -> None:
    answer = call()

    assert (answer.status_code, answer.content) == (200, b"")
    event = InboundEvent.objects.get()
    assert (event.native_key, event.text) == ("DU1:1700000000.000100", "hi")


def test_it_keeps_one_of_an_event_that_is_told_again() -> None:
    body = json.dumps(TOLD).encode()
    for number in "123":
        assert (
            call(headers=signed(body) | {"X-Slack-Retry-Num": number, "X-Slack-Retry-Reason": "timeout"}).status_code
            == 200
        )

    assert InboundEvent.objects.count() == 1


def test_it_takes_a_pressed_button() -> None:
    assert submit({"payload": json.dumps(PRESS)}).status_code == 200

    assert InboundEvent.objects.get().native_key == "DU1:1700000001.000100:U1"


def test_it_takes_a_slash_command() -> None:
    answer = submit(COMMAND)

    assert (answer.status_code, answer.content) == (200, b"")  # any words would be shown beside the bot's own
    assert InboundEvent.objects.get().text == "/help"


def test_it_takes_an_edit() -> None:
    call()
    changed = {"type": "message", "subtype": "message_changed", "channel": "DU1", "message": EVENT | {"text": "hello"}}
    call(TOLD | {"event": changed})

    assert InboundEvent.objects.get().text == "hello"


def test_it_decides_pairing_text_at_once() -> None:
    call(TOLD | {"event": EVENT | {"text": "!link"}})

    assert InboundEvent.objects.get().text == ""
    assert OutboundDelivery.objects.exists()


def test_it_does_not_take_a_message_for_proof_of_those_before_it() -> None:
    """They may have been given up by Slack; what reads the histories back must begin before them."""
    call()

    assert Watermark.objects.get().position == 0


def test_it_answers_the_challenge() -> None:
    answer = call({"type": "url_verification", "token": "unused", "challenge": "c-123"})

    assert (answer.status_code, answer.content.decode(), answer["Content-Type"]) == (200, "c-123", "text/plain")


def test_it_answers_no_challenge_without_a_signature() -> None:
    answer = call({"type": "url_verification", "challenge": "c-123"}, headers={})

    assert (answer.status_code, answer.content) == (403, b"")


GOOD = json.dumps(TOLD).encode()
FORGED: dict[str, Callable[[], dict[str, str]]] = {  # made when they are used, since they age
    "no headers": dict,
    "another secret": lambda: signed(GOOD, secret="x" * 32),
    "another body": lambda: signed(GOOD + b" "),
    "no signature": lambda: {"X-Slack-Request-Timestamp": str(int(time.time()))},
    "no timestamp": lambda: {"X-Slack-Signature": signed(GOOD)["X-Slack-Signature"]},
    "a timestamp that is none": lambda: signed(GOOD) | {"X-Slack-Request-Timestamp": "soon"},
    "a timestamp of 400 digits": lambda: signed(GOOD) | {"X-Slack-Request-Timestamp": "9" * 400},
    "a timestamp of 5000 digits": lambda: signed(GOOD) | {"X-Slack-Request-Timestamp": "9" * 5000},
    "a fraction as timestamp": lambda: signed(GOOD) | {"X-Slack-Request-Timestamp": "1e400"},
    "another timestamp": lambda: signed(GOOD) | {"X-Slack-Request-Timestamp": str(int(time.time()) - 7)},
    "letters that no signature has": lambda: signed(GOOD) | {"X-Slack-Signature": "v0=é"},
}


@pytest.mark.parametrize("forged", FORGED.values(), ids=FORGED)
def test_it_refuses_what_slack_did_not_sign(
    forged: Callable[[], dict[str, str]], caplog: pytest.LogCaptureFixture
) -> None:
    answer = call(headers=forged())

    assert answer.status_code == 403
    assert not InboundEvent.objects.exists()
    assert "hunter2" not in caplog.text + answer.content.decode()


def test_it_refuses_a_body_that_is_no_text() -> None:
    assert call(body=b"\xff\xfe", headers=signed(b"x")).status_code == 403


@pytest.mark.parametrize(("age", "status"), [(299, 200), (301, 403), (-299, 200), (-302, 403)])
def test_it_refuses_what_was_signed_too_long_ago_or_in_the_future(age: float, status: int) -> None:
    with time_machine.travel(time.time(), tick=False):
        assert call(headers=signed(GOOD, age=age)).status_code == status

    assert InboundEvent.objects.exists() == (status == 200)


@pytest.mark.parametrize("method", ["get", "head", "put", "delete", "options"])
def test_it_takes_posts_only(method: str) -> None:
    answer = getattr(Client(), method)(PATH)

    assert (answer.status_code, answer["Allow"]) == (405, "POST")


def test_it_is_not_there_where_the_bot_has_a_socket(settings: Any) -> None:
    settings.BOTOS_SLACK_TRANSPORT = "socket"

    assert call().status_code == 404
    assert not InboundEvent.objects.exists()


def test_it_refuses_a_body_that_is_too_long() -> None:
    body = json.dumps(TOLD | {"filler": "x" * webhook_calls.MAX_BYTES}).encode()

    assert call(body=body).status_code == 413
    assert not InboundEvent.objects.exists()


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"[" * 100_000])
def test_it_refuses_what_is_not_an_object_and_says_so_once(body: bytes, caplog: pytest.LogCaptureFixture) -> None:
    assert call(body=body).status_code == 400

    [record] = caplog.records
    assert record.getMessage() in {f"Not JSON: {PATH}", f"Not an object: {PATH}"}


@pytest.mark.parametrize(
    "fields", [{"payload": "{"}, {f"field{number}": "x" for number in range(slack_webhook.MAX_FIELDS + 1)}]
)
def test_it_refuses_a_form_that_is_none(fields: dict[str, str]) -> None:
    assert submit(fields).status_code == 400


@pytest.mark.parametrize("told", [{}, {"event": 1}, TOLD | {"event": EVENT | {"ts": "hunter2"}}])
def test_it_drops_what_cannot_be_read_and_says_so_once(told: object, caplog: pytest.LogCaptureFixture) -> None:
    assert call(told).status_code == 200

    [record] = [record for record in caplog.records if record.name == slack_webhook.__name__]
    assert " is malformed, dropped: " in record.getMessage()
    assert "hunter2" not in caplog.text
    assert not InboundEvent.objects.exists()


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
    assert call().status_code == 200
    assert InboundEvent.objects.count() == 1
    assert not HistoryEntry.objects.exists()


def test_it_takes_nothing_while_slack_does_not_say_who_the_bot_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slack_webhook, "_met", {})

    assert call().status_code == 503
    assert not InboundEvent.objects.exists()


def test_it_sets_no_cookie() -> None:
    answer = call()

    assert not answer.cookies
    assert "no-store" in answer["Cache-Control"]
