"""The playground's page: who may open it, what it shows of the agent, and when it may clear the database."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from django.test import Client, override_settings

from adapters import registry
from adapters.playground import reset, stage, story, views, watching
from adapters.playground.server import Said
from adapters.playground.stage import PERSONAS, Playground
from adapters.slack import PLATFORM as SLACK
from identity import audit
from identity.flows import linking
from identity.models import AuditEvent, BotProfile, LiveEvent, PlatformAccount
from identity.support.text import utf16_length
from sessions_app import receiver_leases
from sessions_app.history import window
from sessions_app.models import Conversation, InboundEvent

pytestmark = pytest.mark.django_db(transaction=True)  # async views close and open connections

ALICE = PERSONAS[0]
TOKENS = {"TELEGRAM_BOT_TOKEN": "", "DISCORD_BOT_TOKEN": "", "SLACK_BOT_TOKEN": "", "SLACK_APP_TOKEN": ""}


@pytest.fixture(autouse=True)
def playground() -> Iterator[Playground]:
    running = Playground()
    stage.current.append(running)
    yield running
    stage.current.remove(running)


def account(platform: str, person: stage.Persona = ALICE) -> PlatformAccount:
    return PlatformAccount.objects.create(platform=platform, platform_user_id=person.accounts[platform].id)


def told(one: PlatformAccount, text: str) -> Conversation:
    fields = {"platform": one.platform, "chat_id": "1", "account": one, "kind": "dm", "key": str(one)}
    conversation = Conversation.objects.create(**fields)
    window.entry(conversation, role="user", source="message", text=text).save()
    return conversation


def status(**meta: str) -> int:
    return Client().get("/playground/", headers={"host": "localhost:8000"} | meta).status_code


@pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.1", "127.0.0.1:8000", "[::1]:8000"])
def test_it_opens_on_this_machine(host: str) -> None:
    assert Client().get("/playground/", headers={"host": host}).status_code == 200
    assert Client(REMOTE_ADDR="::1").get("/playground/", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("path", ["", "chats/", "say/", "press/", "story/", "start-over/"])
@override_settings(ALLOWED_HOSTS=["*"])
def test_it_is_not_there_for_anybody_else(path: str) -> None:
    ask = Client().get if path in ("", "chats/") else Client().post
    here = {"host": "localhost"}

    assert ask(f"/playground/{path}", headers=here).status_code != 404
    assert ask(f"/playground/{path}", headers={"host": "rebound.example"}).status_code == 404
    assert ask(f"/playground/{path}", headers={"host": "192.168.1.7:8000"}).status_code == 404
    assert ask(f"/playground/{path}", headers=here, REMOTE_ADDR="192.168.1.7").status_code == 404
    assert ask(f"/playground/{path}", headers=here, REMOTE_ADDR="").status_code == 404
    assert ask(f"/playground/{path}", headers=here | {"x-forwarded-for": "192.168.1.7"}).status_code == 404
    assert ask(f"/playground/{path}", headers=here | {"forwarded": "for=192.168.1.7"}).status_code == 404


def test_it_is_not_there_unless_it_runs(playground: Playground) -> None:
    stage.current.remove(playground)

    assert status() == 404
    stage.current.append(playground)


def test_it_shows_what_the_agent_is_given_in_each_app() -> None:
    telegram, discord = account("telegram"), account("discord")
    told(telegram, "octarine")
    told(discord, "<b>mauve</b>")

    def page(see: str) -> str:
        return Client().get(f"/playground/?see={see}", headers={"host": "localhost"}).content.decode()

    assert "octarine" in page("telegram")
    assert "octarine" not in page("discord")
    assert "&lt;b&gt;mauve" in page("discord")
    for one in (telegram, discord):
        linking.link(
            platform=one.platform,
            platform_user_id=one.platform_user_id,
            unified_user_id="alice",
            method="resolver",
            actor="test",
        )
    assert watching.watch(ALICE).linked == ("telegram", "discord")
    assert "Alice has linked Telegram, Discord." in page("discord")


@pytest.mark.parametrize("platform", ["telegram", "discord", "slack"])
def test_it_shows_a_typing_sign_while_the_platform_does(playground: Playground, platform: str) -> None:
    """And not because an answer is due."""
    conversation = told(account(platform), "octarine")
    about = {"conversation": conversation, "account": conversation.account, "platform": platform, "chat_id": "1"}
    InboundEvent.objects.create(native_key="1", kind="message", text="hello", **about)
    server: Any = playground.servers[platform]
    chat = server.private_chat(ALICE.accounts[platform])

    def shown() -> list[str]:
        page = Client().get("/playground/", headers={"host": "localhost"}).content.decode()
        return re.findall(r'id="(\w+)-typing">BotOS is typing', page)

    assert shown() == []
    server.typing.show("somewhere else")
    assert shown() == []
    server.typing.show(chat)
    assert shown() == [platform]
    server.typing.end(chat)
    assert shown() == []


def test_it_calls_a_platform_by_its_title(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_platforms", registry._platforms | {"slack": replace(SLACK, title="Slack of Acme")})
    told(account("slack"), "octarine")

    page = Client().get("/playground/?see=slack", headers={"host": "localhost"}).content.decode()

    assert '<h2 id="slack-title">Slack of Acme ' in page
    assert '<span class="badge slack">Slack of Acme</span>' in page


def test_a_step_of_the_story_waits_for_the_answer_to_the_one_before(
    playground: Playground, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(story, "PATIENCE", 0.0)
    telegram = playground.servers["telegram"]
    chat = telegram.private_chat(ALICE.accounts["telegram"])
    asyncio.run(story.go_on(playground))

    with pytest.raises(story.Stuck):  # nothing is busy: what was said has not even come to the bot
        asyncio.run(story.go_on(playground))
    telegram.said.append(Said(chat_id=chat, author_id="bot", text="Got it!", message_id="2"))
    asyncio.run(story.go_on(playground))

    assert playground.told == 2


def test_it_shows_what_an_answer_replies_to(playground: Playground) -> None:
    telegram = playground.servers["telegram"]
    chat = telegram.private_chat(ALICE.accounts["telegram"])
    telegram.said.append(Said("1", chat, ALICE.accounts["telegram"].id, "<b>what may I eat?" + "?" * 100))
    telegram.said.append(Said("2", chat, "bot", "Not nuts.", reply_to="1"))

    page = Client().get("/playground/", headers={"host": "localhost"}).content.decode()
    panes = Client().get("/playground/chats/", headers={"host": "localhost"}).json()["panes"]

    (shown,) = re.findall(r'<small class="question">(.*?)</small>', page)
    assert shown.startswith("In reply to “&lt;b&gt;what may I eat?")
    assert shown.endswith("?…”")
    lines = next(pane["lines"] for pane in panes if pane["platform"] == "telegram")
    assert [line["reply_to"] for line in lines] == ["", "1"]


@override_settings(**TOKENS)
def test_it_clears_what_the_played_people_said() -> None:
    told(account("telegram"), "octarine")
    BotProfile.objects.create(platform="telegram", name="botos")
    audit.record(kind="linked", actor="test")
    LiveEvent.objects.create(topic="account:1", kind="links")
    assert receiver_leases.take("key", "owner")

    reset.clear()

    assert not watching.is_known(ALICE)
    assert not Conversation.objects.exists()
    assert [model.objects.count() for model in (BotProfile, AuditEvent, LiveEvent)] == [1, 1, 1]
    assert receiver_leases.renew("key", "owner")  # else the bots would reconnect, and miss messages in between


@override_settings(**TOKENS)
def test_it_clears_nothing_where_there_is_anybody_else() -> None:
    told(account("telegram"), "octarine")
    PlatformAccount.objects.create(platform="telegram", platform_user_id="4711")

    with pytest.raises(reset.NotOurs, match="belong to the playground"):
        reset.clear()

    assert watching.is_known(ALICE)
    assert Client().post("/playground/start-over/", headers={"host": "localhost"}).status_code == 409


@pytest.mark.parametrize("token", ["TELEGRAM_BOT_TOKEN", "DISCORD_BOT_TOKEN"])
def test_it_clears_nothing_where_a_real_bot_has_a_token(token: str) -> None:
    told(account("telegram"), "octarine")

    with override_settings(**TOKENS | {token: "123456:AAAA"}), pytest.raises(reset.NotOurs, match="Real bots"):
        reset.clear()

    assert watching.is_known(ALICE)


@pytest.mark.parametrize(
    ("platform", "author", "shown"),
    [
        ("discord", "bot", r"@alice_t, C:\temp"),
        ("discord", "alice", r"@alice\_t, C:\temp"),
        ("slack", "bot", r"@alice\_t, C:\temp"),
    ],
)
def test_it_shows_names_as_discord_does(platform: str, author: str, shown: str) -> None:
    said = Said(chat_id="1", author_id=author, text=r"@alice\_t, C:\temp", message_id="1")

    assert views._bubble(said, platform).parts == (shown,)


@pytest.mark.parametrize(
    ("platform", "lengths"),
    [
        ("telegram", [4096, 4096, 808]),
        ("discord", [2000, 2000, 2000, 2000, 1000]),
        ("slack", [4000, 4000, 1000]),
    ],
)
@pytest.mark.parametrize("letter", ["x", "\N{OCTOPUS}"])
def test_it_sends_a_long_paste_in_parts_as_the_app_does(
    playground: Playground, platform: str, lengths: list[int], letter: str
) -> None:
    text = letter * (9000 // utf16_length(letter))
    fields = {"as": ALICE.name, "platform": platform, "text": text}
    assert Client().post("/playground/say/", fields, headers={"host": "localhost"}).status_code == 302

    said = [one.text for one in playground.chat(ALICE, platform)]
    assert ([utf16_length(part) for part in said], "".join(said)) == (lengths, text)
