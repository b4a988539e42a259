"""What somebody is told who has not asked: one chat gets it, and the agent knows."""

from __future__ import annotations

import io

import pytest
from django.core.management import CommandError, call_command

from identity.flows import linking
from identity.models import AccountLink, AuditEvent, UnifiedUser
from identity.support import clock, platforms
from sessions_app.models import Conversation, HistoryEntry, OutboundDelivery
from sessions_app.outbox import notify
from sessions_app.outbox import queue as outbox_queue
from tests.sessions_app.talk import say, texts

pytestmark = pytest.mark.django_db


@pytest.fixture
def alice() -> UnifiedUser:
    """She wrote on Discord last, and has Telegram too."""
    for platform in ("telegram", "discord"):
        say("alice", f"hello {platform}", platform=platform)
        linking.link(
            platform=platform, platform_user_id="alice", unified_user_id="alice", method="pairing", actor="test"
        )
    AccountLink.objects.update(since=clock.seconds_from_now(-2 * 86_400))
    OutboundDelivery.objects.all().delete()
    return UnifiedUser.objects.get()


def test_it_tells_a_person_where_they_wrote_last_and_the_agent_everywhere(alice: UnifiedUser) -> None:
    notify.tell(person=alice, text="The bot rests tonight.", label="operator", actor="carol")

    [sent] = OutboundDelivery.objects.all()
    assert (sent.platform, sent.chat_id, sent.text) == ("discord", "chat-alice", "The bot rests tonight.")
    assert sent.entry == HistoryEntry.objects.get(source="mirror", source_label="operator")
    assert texts(Conversation.objects.get(platform="telegram").pk)[-1] == "The bot rests tonight."
    assert AuditEvent.objects.filter(kind="told", actor="carol", unified_user_id="alice").count() == 1


def test_it_tells_no_more_at_once_than_the_platform_takes(alice: UnifiedUser) -> None:
    limit = platforms.of("discord").text_limit
    notify.tell(person=alice, text="x" * (limit + 1), label="cron", actor="system")

    parts = OutboundDelivery.objects.order_by("pk").values_list("text", flat=True)
    assert "".join(parts) == "x" * (limit + 1)
    assert max(map(len, parts)) <= limit < outbox_queue.TEXT_LIMIT


def test_it_tells_a_person_where_they_prefer(alice: UnifiedUser) -> None:
    telegram = Conversation.objects.get(platform="telegram").account
    assert telegram
    linking.prefer(account=telegram, preferred=telegram)

    assert notify.tell(person=alice, text="Hello.", label="cron", actor="system").platform == "telegram"


def test_it_tells_no_newcomer_alone(alice: UnifiedUser) -> None:
    say("mallory", "hello", platform="slack")
    linking.link(platform="slack", platform_user_id="mallory", unified_user_id="alice", method="pairing", actor="test")
    assert notify.tell(person=alice, text="Hello.", label="cron", actor="system").platform == "discord"

    AccountLink.objects.filter(account__platform="slack").update(since=clock.seconds_from_now(-86_401))
    say("mallory", "hello again", platform="slack")
    assert notify.tell(person=alice, text="Hello.", label="cron", actor="system").platform == "slack"


@pytest.mark.parametrize("text", ["", " \n", "a\x00b", "\ud800"])
def test_it_tells_nothing_that_is_nothing_or_cannot_be_kept(alice: UnifiedUser, text: str) -> None:
    with pytest.raises(ValueError, match=r"nothing to say|no database keeps"):
        notify.tell(person=alice, text=text, label="operator", actor="carol")

    assert not OutboundDelivery.objects.exists()


def test_it_says_that_somebody_has_no_chat() -> None:
    UnifiedUser.objects.create(unified_user_id="zoe")

    with pytest.raises(CommandError, match="zoe has no private chat"):
        call_command("tell", "zoe", "Hello.")
    with pytest.raises(CommandError, match="nobody"):
        call_command("tell", "nobody", "Hello.")


def test_operators_tell_from_the_command_line(alice: UnifiedUser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("Words that no shell remembers.\n"))
    out = io.StringIO()

    call_command("tell", "alice", "-", stdout=out)

    assert out.getvalue() == "The message is queued for Discord.\n"
    assert OutboundDelivery.objects.get().text == "Words that no shell remembers."
