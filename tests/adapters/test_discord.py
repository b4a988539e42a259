"""The Discord adapter with the real SDK against the local Discord."""

from __future__ import annotations

import asyncio
import json
import logging
import traceback
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import discord
import pytest
import pytest_asyncio
from aiohttp import web

from adapters import registry
from adapters.discord import connection
from adapters.discord.adapter import DiscordAdapter
from adapters.duplicate_marker import MARK, ROOM
from adapters.playground.discord import gateway, rest
from adapters.protocols import DeliveryError, NeedsConfiguration, PlatformAdapter
from sessions_app.messages import Address, InboundMessage, OutgoingMessage
from tests.adapters.discord_payloads import ALICE, BOB, hostile_events
from tests.adapters.quoting import NAMES, as_discord_shows, quoting
from tests.adapters.recording import PATIENCE, OneByOneInbox, RecordingInbox, Run, called, running
from tests.fakes import discord as fakes
from tests.fakes.discord import FakeDiscord
from tests.fakes.faults import Fault, FaultPlan
from tests.fakes.server import FakeServer


@pytest_asyncio.fixture
async def server() -> AsyncIterator[FakeDiscord]:
    server = FakeDiscord()
    await server.start()
    yield server
    await server.stop()


@pytest_asyncio.fixture
async def run(server: FakeDiscord) -> AsyncIterator[Run]:
    async with running(adapter_for(server)) as run:
        yield run


@pytest.fixture(autouse=True)
def logged(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    for name in ("adapters", "discord"):
        caplog.set_level(logging.DEBUG, logger=name)
    return caplog


@pytest.fixture(autouse=True)
def _no_long_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "FIRST_RETRY", 0.01)
    monkeypatch.setattr(connection, "MAX_RETRY", 0.02)


def adapter_for(server: FakeDiscord, *, token: str = "", platform: str = "discord") -> DiscordAdapter:
    where = server.environment()
    urls = {"api_url": where["DISCORD_API_URL"], "gateway_url": where["DISCORD_GATEWAY_URL"]}
    return DiscordAdapter(token=token or where["DISCORD_BOT_TOKEN"], platform=platform, **urls)


def to(
    chat: str, text: str = "Good morning", *, nonce: str = "n1", repeat: bool = False, reply_to: str = ""
) -> OutgoingMessage:
    return OutgoingMessage(Address("discord", chat), text, nonce=nonce, possibly_sent=repeat, reply_to=reply_to)


async def refused(run: Run, message: OutgoingMessage) -> DeliveryError:
    with pytest.raises(DeliveryError) as caught:
        await run.adapter.send(message)
    return caught.value


class FullInbox(RecordingInbox):
    """Has no room for the next `times` messages; `refused` tells of the first."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.fail_next = times
        self.refused = asyncio.Event()

    async def receive(self, message: InboundMessage) -> None:
        self.refused.set()
        await super().receive(message)


class RefusingPlan(FaultPlan):
    """Lets nobody in; `noticed` tells of the first who tried."""

    def __init__(self) -> None:
        super().__init__(outage=True)
        self.noticed = asyncio.Event()

    def take(self, method: str) -> Fault | None:
        self.noticed.set()
        return super().take(method)


async def _at_once(client: discord.Client, shard_id: int | None, *, initial: bool = False) -> None:
    """In place of the 5 s that Discord wants between two new sessions."""


def texts(run: Run) -> list[str]:
    return [message.text for message in run.inbox.messages]


# -- hearing


def test_it_fulfils_the_contract() -> None:
    platform: FakeServer = FakeDiscord()
    adapter: PlatformAdapter = DiscordAdapter(token="t", platform="discord-acme")

    assert (platform.platform, adapter.platform, adapter.text_limit) == ("discord", "discord-acme", 2000 - ROOM)
    assert registry.get("discord").text_limit == adapter.text_limit
    assert isinstance(adapter, PlatformAdapter)


@pytest.mark.asyncio
async def test_it_hears_a_private_message(server: FakeDiscord, run: Run) -> None:
    said = await server.say(ALICE, "hello")
    await server.acknowledged(said)
    (message,) = await run.inbox.wait_for(1)

    assert (message.native_key, message.text) == (said, "hello")
    assert message.address == Address("discord", server.private_chat(ALICE))
    assert (message.is_private, message.sender.user_id) == (True, ALICE.id)


@pytest.mark.asyncio
async def test_it_hears_where_it_is_mentioned_or_answered(server: FakeDiscord, run: Run) -> None:
    await server.say(ALICE, "what time is it?", group="general", mention=True)
    (question,) = await run.inbox.wait_for(1)
    answer = await run.adapter.send(to(question.address.chat_id, "noon"))
    await server.say(BOB, "thanks", group="general", reply_to=answer)
    thanks = await run.inbox.wait_for_text("thanks")

    assert (question.text, question.chat_name) == ("what time is it?", "general")
    assert [(m.is_private, m.is_addressed) for m in (question, thanks)] == [(False, True), (False, True)]


@pytest.mark.asyncio
async def test_it_does_not_hear_what_guild_members_tell_each_other(server: FakeDiscord, run: Run) -> None:
    first = await server.say(ALICE, "hi Bob", group="general")
    await server.say(BOB, "hi Alice", group="general", reply_to=first)
    await server.say(BOB, "in private")
    await run.inbox.wait_for(1)

    assert texts(run) == ["in private"]


@pytest.mark.asyncio
async def test_it_answers_in_a_thread_where_it_is_mentioned(server: FakeDiscord, run: Run) -> None:
    beginning = await server.say(ALICE, "hi Bob", group="general")
    await server.say(ALICE, "what do you think?", thread=beginning, mention=True)
    [message] = await run.inbox.wait_for(1)
    await run.adapter.send(OutgoingMessage(message.address, "Good", "n1"))
    [answer] = await server.wait_for(1, chat=beginning)

    assert (message.address.chat_id, message.chat_name) == (beginning, f"thread {beginning}")
    assert (message.is_private, message.is_addressed, answer.text) == (False, True, "Good")


@pytest.mark.asyncio
async def test_it_hears_an_edit(server: FakeDiscord, run: Run) -> None:
    said = await server.say(ALICE, "helo")
    await server.edit(ALICE, said, "hello")
    (edit,) = await run.inbox.wait_for_edits(1)

    assert (edit.address, edit.message_id, edit.text) == (Address("discord", server.private_chat(ALICE)), said, "hello")


@pytest.mark.asyncio
async def test_it_keeps_the_order(server: FakeDiscord, run: Run) -> None:
    wanted = [f"message {number}" for number in range(50)]
    for number, text in enumerate(wanted):
        await server.say((ALICE, BOB)[number % 2], text)
    await run.inbox.wait_for(50)

    assert texts(run) == wanted


@pytest.mark.asyncio
async def test_it_tries_again_to_store_a_message(server: FakeDiscord, run: Run) -> None:
    run.inbox.fail_next = 5
    for text in ("first", "second"):
        await server.say(ALICE, text)
    await run.inbox.wait_for(2)

    assert (texts(run), run.inbox.fail_next) == (["first", "second"], 0)


@pytest.mark.asyncio
async def test_it_hands_in_together_what_it_hears_meanwhile(
    server: FakeDiscord, monkeypatch: pytest.MonkeyPatch
) -> None:
    has_heard_all = called(monkeypatch, connection.Connection, "_handle_message", times=4)
    inbox, wanted = OneByOneInbox(), ["one", "two", "three", "four"]
    async with running(adapter_for(server), inbox):
        await server.say(ALICE, wanted[0])
        await inbox.wait_for_begun(1)
        for text in wanted[1:]:
            await server.say(ALICE, text)
        await asyncio.wait_for(has_heard_all.wait(), PATIENCE)
        inbox.release(1)
        assert await inbox.wait_for_begun(4) == wanted
        assert len(inbox.messages) == 1
        inbox.release(3)
        await inbox.wait_for(4)

    assert [message.text for message in inbox.messages] == wanted


@pytest.mark.asyncio
async def test_it_hears_a_message_twice_under_one_key(server: FakeDiscord, run: Run) -> None:
    said = await server.say(ALICE, "hello")
    await server.redeliver(said)
    messages = await run.inbox.wait_for(2)

    assert messages[0] == messages[1]


@pytest.mark.asyncio
async def test_it_survives_hostile_events(server: FakeDiscord, run: Run, logged: pytest.LogCaptureFixture) -> None:
    logged.set_level(logging.INFO, logger="discord")  # at DEBUG it logs each event, a megabyte too
    hostile = hostile_events(300)
    for raw in hostile:
        await server.push_raw(raw)
    await server.say(ALICE, "still there?")
    await run.inbox.wait_for(1)

    warnings = [record for record in logged.records if record.levelno >= logging.WARNING]
    assert len([record for record in warnings if "malformed" in record.getMessage()]) == len(hostile) == 300
    assert len(warnings) == 300
    assert max(len(record.getMessage()) for record in warnings) < 200
    assert (texts(run), server.gateway.identified, server.gateway.resumed) == (["still there?"], 1, 0)


@pytest.mark.asyncio
async def test_it_survives_unknown_and_malformed_events_of_other_kinds(
    server: FakeDiscord, run: Run, logged: pytest.LogCaptureFixture
) -> None:
    known = ("GUILD_CREATE", "CHANNEL_CREATE", "MESSAGE_UPDATE", "MESSAGE_DELETE", "INTERACTION_CREATE", "RESUMED")
    for kind in (*known, "NO_SUCH_EVENT", 5, ["READY"], {"t": 1}, None):
        await server.push_raw({"op": 0, "t": kind, "d": {"id": []}})
    await server.say(ALICE, "still there?")
    await run.inbox.wait_for(1)

    named = [record.getMessage() for record in logged.records if "malformed" in record.getMessage()]
    assert len(named) == len(set(named)) == 5  # all but RESUMED, which has no fields
    assert server.gateway.identified == 1


# -- connection


@pytest.mark.asyncio
async def test_it_resumes_without_loss_after_a_broken_connection(server: FakeDiscord, run: Run) -> None:
    for number in range(5):
        await server.say(ALICE, f"before {number}")
        await server.drop_connections()
        await server.say(BOB, f"after {number}")
    await run.inbox.wait_for(10)

    assert texts(run) == [f"{when} {number}" for number in range(5) for when in ("before", "after")]
    assert (server.gateway.identified, server.gateway.resumed > 0) == (1, True)


@pytest.mark.asyncio
async def test_it_resumes_when_asked_to_reconnect(server: FakeDiscord, run: Run) -> None:
    await server.reconnect()
    await server.say(ALICE, "hello")
    await run.inbox.wait_for(1)

    assert (server.gateway.identified, server.gateway.resumed) == (1, 1)


@pytest.mark.asyncio
async def test_it_reads_what_a_lost_session_did_not_tell(
    server: FakeDiscord, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(discord.Client, "before_identify_hook", _at_once)
    await server.say(ALICE, "first")
    await run.inbox.wait_for(1)
    server.lose_session()
    await server.drop_connections()
    missed = [await server.say(ALICE, f"missed {number}") for number in range(130)]  # more than a page
    await server.acknowledged(missed[-1])
    await run.inbox.wait_for_text("missed 129")
    await server.connected()
    await server.say(BOB, "live")
    await run.inbox.wait_for_text("live")

    assert list(dict.fromkeys(texts(run))) == ["first", *(f"missed {number}" for number in range(130)), "live"]
    assert (server.gateway.identified, server.gateway.resumed) == (2, 0)


@pytest.mark.asyncio
async def test_it_comes_back_after_an_outage(server: FakeDiscord, run: Run) -> None:
    server.faults.outage = True
    await server.drop_connections()
    await server.say(ALICE, "anybody there?")
    server.faults.outage = False
    await run.inbox.wait_for(1)

    assert server.gateway.identified == 1


@pytest.mark.asyncio
async def test_it_hands_over_to_the_supervisor_when_the_gateway_stays_away(
    server: FakeDiscord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "AWAY_LIMIT", 0.3)
    async with running(adapter_for(server)) as run:
        server.faults.outage = True
        await server.drop_connections()
        with pytest.raises(ConnectionError):
            await run.ending()
        error = await refused(run, to("1"))
        with suppress(ConnectionError):
            run.task.result()

    assert "not connected" in str(error)


@pytest.mark.asyncio
async def test_it_keeps_a_quiet_connection(server: FakeDiscord, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "AWAY_LIMIT", 1.0)  # connecting takes a part of it
    async with running(adapter_for(server)) as run:
        ended, _ = await asyncio.wait({run.task}, timeout=1.5)

    assert not ended


@pytest.mark.asyncio
@pytest.mark.parametrize("token", ["", "MTIz.wrong.token", "två ord", "a\nb"])
async def test_it_needs_a_valid_token(server: FakeDiscord, token: str, logged: pytest.LogCaptureFixture) -> None:
    adapter = DiscordAdapter(token=token, **_urls(server))
    with pytest.raises(NeedsConfiguration, match="DISCORD_BOT_TOKEN") as caught:
        await adapter.run(RecordingInbox(), asyncio.Event())

    assert not token or token not in everything_in(caught.value) + logged.text
    assert caught.value.__context__ is None  # an error of the SDK holds the request's headers


@pytest.mark.asyncio
async def test_it_needs_a_new_token_when_the_gateway_refuses_it(
    server: FakeDiscord, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server.gateway, "_token", "another")
    await server.drop_connections()
    with pytest.raises(NeedsConfiguration, match="reset it"):
        await run.ending()
    run.task = asyncio.create_task(asyncio.sleep(0))


@pytest.mark.asyncio
async def test_it_needs_permission_for_its_intents(server: FakeDiscord, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway, "PRIVILEGED", gateway.DIRECT_MESSAGES)
    with pytest.raises(NeedsConfiguration, match="intents"):
        await adapter_for(server).run(RecordingInbox(), asyncio.Event())


@pytest.mark.asyncio
async def test_it_stops_at_once(server: FakeDiscord, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "CLOSING", 10 * PATIENCE)  # or it would end of that at the latest
    run.stop.set()
    await run.ending()

    assert not server.gateway.is_live()


@pytest.mark.asyncio
async def test_it_stops_while_it_cannot_connect(server: FakeDiscord) -> None:
    refusing = RefusingPlan()
    server.gateway.faults = refusing
    stop = asyncio.Event()
    task = asyncio.create_task(adapter_for(server).run(RecordingInbox(), stop))
    await refusing.noticed.wait()
    stop.set()
    await asyncio.wait_for(task, 2)


@pytest.mark.asyncio
async def test_it_stores_in_the_next_run_what_it_could_not_store_before(server: FakeDiscord) -> None:
    adapter, inbox = adapter_for(server), FullInbox(10_000)
    async with running(adapter, inbox):
        await server.say(ALICE, "first")
        await inbox.refused.wait()
    async with running(adapter) as again:
        await server.say(ALICE, "second")
        await again.inbox.wait_for(2)

    assert (inbox.messages, list(dict.fromkeys(texts(again)))) == ([], ["first", "second"])


@pytest.mark.asyncio
async def test_it_stores_what_it_heard_before_it_stops(server: FakeDiscord, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "FIRST_RETRY", 100.0)
    inbox = FullInbox(1)
    async with running(adapter_for(server), inbox) as run:
        await server.say(ALICE, "hello")
        await inbox.refused.wait()

    assert texts(run) == ["hello"]


# -- sending


@pytest.mark.asyncio
async def test_it_sends_without_mentions_and_previews(server: FakeDiscord, run: Run) -> None:
    chat = server.private_chat(ALICE)
    sent = await run.adapter.send(to(chat, "@everyone https://example.org"))
    (said,) = await server.wait_for(1, chat=chat)

    assert (said.message_id, said.text, said.author_id) == (sent, "@everyone https://example.org", "bot")
    (post,) = server.rest.posts
    assert (post["allowed_mentions"], post["flags"], post["enforce_nonce"]) == ({"parse": []}, 4, True)


@pytest.mark.asyncio
async def test_it_answers_a_message_without_notifying_its_author(server: FakeDiscord, run: Run) -> None:
    asked = await server.say(ALICE, "hello?", group="general", mention=True)
    chat = (await run.inbox.wait_for(1))[0].address.chat_id
    sent = await run.adapter.send(to(chat, reply_to=asked))
    (said,) = await server.wait_for(1, chat=chat)

    assert (said.message_id, said.reply_to) == (sent, asked)
    (post,) = server.rest.posts
    assert post["message_reference"] == {"message_id": asked, "fail_if_not_exists": False}
    assert post["allowed_mentions"] == {"parse": [], "replied_user": False}
    assert server.world.find(sent)["mentions"] == []


@pytest.mark.asyncio
async def test_it_answers_where_it_may_not_reply(server: FakeDiscord, run: Run) -> None:
    asked = await server.say(ALICE, "hello?", group="general", mention=True)
    chat = (await run.inbox.wait_for(1))[0].address.chat_id
    server.rest.unread.add(chat)
    sent = await run.adapter.send(to(chat, reply_to=asked))
    (said,) = await server.wait_for(1, chat=chat)

    assert (said.message_id, said.reply_to) == (sent, "")


@pytest.mark.asyncio
@pytest.mark.parametrize("name", NAMES)
async def test_it_shows_a_name_and_no_mark_up(server: FakeDiscord, run: Run, name: str) -> None:
    chat = server.private_chat(ALICE)
    await run.adapter.send(to(chat, quoting(name, "discord")))
    (said,) = await server.wait_for(1, chat=chat)

    assert as_discord_shows(said.text) == quoting(name, "")


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("fault", "meaning"),
    [
        ({"status": 429, "retry_after": 12.5}, (False, 12.5, False)),
        ({"status": 429, "retry_after": 3600.0}, (False, 3600.0, False)),
        ({"status": 500}, (False, None, False)),
        ({"status": 502}, (False, None, True)),
        ({"status": 503}, (False, None, False)),
        ({"status": 401}, (False, None, False)),
        ({"status": 403}, (True, None, False)),
        ({"lose_response": True}, (False, None, True)),
    ],
    ids=str,
)
async def test_it_says_what_a_failure_means(
    server: FakeDiscord, run: Run, fault: dict[str, Any], meaning: tuple[bool, float | None, bool]
) -> None:
    server.faults.inject("POST /channels/messages", **fault)
    error = await refused(run, to(server.private_chat(ALICE)))  # the SDK alone would wait, and succeed

    assert (error.permanent, error.retry_after, error.ambiguous) == meaning
    assert (server.token in everything_in(error), error.__context__) == (False, None)


@pytest.mark.asyncio
@pytest.mark.parametrize("is_named", [True, False])
async def test_it_takes_a_message_for_sent_that_the_sdk_cannot_read(
    server: FakeDiscord, run: Run, monkeypatch: pytest.MonkeyPatch, *, is_named: bool
) -> None:
    """Only an answer that names no message leaves open whether it was sent."""
    chat, answer = server.private_chat(ALICE), server.rest._answer

    async def corrupted(request: web.Request, handler: rest.Handler) -> web.Response:
        response = await answer(request, handler)
        if not request.path.endswith("/messages"):
            return response
        said = json.loads(response.text or "")
        return rest.json_response({"id": said["id"], "author": "new"} if is_named else {})

    monkeypatch.setattr(server.rest, "_answer", corrupted)
    if is_named:
        sent = await run.adapter.send(to(chat))
        assert [said.message_id for said in await server.wait_for(1, chat=chat)] == [sent]
        return
    error = await refused(run, to(chat))
    assert (error.ambiguous, error.permanent) == (True, False)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("text", "chat", "code"),
    [("x" * 2001, "", 50035), (" \n", "", 50006), ("hi", "77", 10003), ("hi", "general", None)],
)
async def test_it_gives_up_what_discord_never_takes(
    server: FakeDiscord, run: Run, text: str, chat: str, code: int | None
) -> None:
    error = await refused(run, to(chat or server.private_chat(ALICE), text))

    assert error.permanent
    assert code is None or f"error code: {code}" in str(error)


@pytest.mark.asyncio
async def test_it_gives_up_a_person_who_takes_no_direct_messages(server: FakeDiscord, run: Run) -> None:
    server.close_private_chat(ALICE)
    error = await refused(run, to(server.private_chat(ALICE)))

    assert error.permanent
    assert "50007" in str(error)


@pytest.mark.asyncio
async def test_it_sends_elsewhere_while_one_chat_must_wait(server: FakeDiscord, run: Run) -> None:
    server.faults.inject("POST /channels/messages", status=429, retry_after=30.0)
    await refused(run, to(server.private_chat(ALICE)))

    assert await run.adapter.send(to(server.private_chat(BOB), nonce="n2"))


@pytest.mark.asyncio
async def test_it_asks_nothing_while_the_whole_bot_must_wait(
    server: FakeDiscord, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fakes, "LIMIT_IS_GLOBAL", True)
    server.faults.inject("POST /channels/messages", status=429, retry_after=30.0)
    await refused(run, to(server.private_chat(ALICE)))
    error = await refused(run, to(server.private_chat(BOB), nonce="n2"))

    assert error.retry_after == pytest.approx(30, abs=1)
    assert server.said == []


@pytest.mark.asyncio
async def test_it_does_not_send_before_it_is_connected(server: FakeDiscord) -> None:
    with pytest.raises(DeliveryError, match="not connected") as caught:
        await adapter_for(server).send(to("1"))

    assert (caught.value.permanent, caught.value.ambiguous) == (False, False)


@pytest.mark.asyncio
async def test_it_knows_that_a_server_that_is_gone_got_nothing(server: FakeDiscord, run: Run) -> None:
    chat = server.private_chat(ALICE)
    await server.stop()
    error = await refused(run, to(chat))

    assert (error.permanent, error.ambiguous) == (False, False)


@pytest.mark.asyncio
async def test_it_does_not_post_twice_with_one_nonce(server: FakeDiscord, run: Run) -> None:
    chat = server.private_chat(ALICE)
    server.faults.inject("POST /channels/messages", lose_response=True)
    await refused(run, to(chat))
    again = await run.adapter.send(to(chat))

    assert [(said.message_id, said.text) for said in server.said] == [(again, "Good morning")]


@pytest.mark.asyncio
async def test_it_finds_an_earlier_attempt_that_discord_forgot(
    server: FakeDiscord, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rest, "NONCE_LIFETIME", 0.0)
    chat = server.private_chat(ALICE)
    server.faults.inject("POST /channels/messages", lose_response=True)
    await refused(run, to(chat, " Good morning\n"))
    again = await run.adapter.send(to(chat, " Good morning\n", repeat=True))

    assert [said.message_id for said in server.said] == [again]


@pytest.mark.asyncio
async def test_it_finds_an_earlier_attempt_that_was_not_late_yet(
    server: FakeDiscord, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rest, "NONCE_LIFETIME", 0.0)
    chat = server.private_chat(ALICE)
    server.faults.inject("POST /channels/messages", lose_response=True)
    await refused(run, to(chat))
    mark = "I meant to send this on 20 November:\n\n"
    again = await run.adapter.send(replace(to(chat, f"{mark}Good morning", repeat=True), late_mark=mark))

    assert [said.message_id for said in server.said] == [again]


@pytest.mark.asyncio
async def test_it_takes_no_other_message_for_its_earlier_attempt(server: FakeDiscord, run: Run) -> None:
    chat = server.private_chat(ALICE)
    await server.say(ALICE, "Drink water")
    before = await run.adapter.send(to(chat, "Drink water", nonce="n1"))
    repeat = replace(to(chat, "Drink water", nonce="n2", repeat=True), follows=before)

    sent = await run.adapter.send(repeat)

    assert [before, sent] == [said.message_id for said in server.said if said.author_id == "bot"]


@pytest.mark.asyncio
async def test_it_finds_an_earlier_attempt_behind_many_messages(server: FakeDiscord, run: Run) -> None:
    chat = server.private_chat(ALICE)
    before = await run.adapter.send(to(chat, nonce="n1"))
    for number in range(130):  # more than a page
        await server.say(ALICE, f"message {number}")
    arrived = await run.adapter.send(to(chat, "Got it!", nonce="n2"))

    repeat = replace(to(chat, "Got it!", nonce="n3", repeat=True), follows=before)  # as if Discord had no nonces

    assert await run.adapter.send(repeat) == arrived


@pytest.mark.asyncio
async def test_it_finds_an_earlier_attempt_that_arrived_before_it_was_queued(server: FakeDiscord, run: Run) -> None:
    """By the database's clock, which is fast. Nothing was said before it that could be told by its id."""
    chat = server.private_chat(ALICE)
    arrived = await run.adapter.send(to(chat, "Got it!", nonce="n1"))
    fast = datetime.now(tz=UTC) + timedelta(minutes=10)

    again = await run.adapter.send(replace(to(chat, "Got it!", nonce="n2", repeat=True), queued_at=fast, waited=300.0))

    assert again == arrived


@pytest.mark.asyncio
async def test_it_marks_a_repeat_where_there_is_too_much_to_look_through(
    server: FakeDiscord, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapters.discord.adapter.LOOK_THROUGH", 3)
    chat, longest = server.private_chat(ALICE), "x" * run.adapter.text_limit
    before = await run.adapter.send(to(chat, nonce="n1"))
    for number in range(3):
        await server.say(ALICE, f"message {number}")
    repeat = replace(to(chat, longest, nonce="n2", repeat=True), follows=before)

    sent = await run.adapter.send(repeat)
    monkeypatch.setattr("adapters.discord.adapter.LOOK_THROUGH", 500)
    found = await run.adapter.send(replace(repeat, nonce="n3"))

    assert (server.said[-1].message_id, server.said[-1].text) == (sent, MARK + longest)
    assert found == sent


@pytest.mark.asyncio
async def test_it_takes_no_later_message_for_its_earlier_attempt(server: FakeDiscord, run: Run) -> None:
    """A dead letter that never arrived is sent again, long after another with the same words."""
    chat = server.private_chat(ALICE)
    before = await run.adapter.send(to(chat, "Good morning", nonce="n1"))
    later = await run.adapter.send(to(chat, "Got it!", nonce="n3"))
    repeat = replace(to(chat, "Got it!", nonce="n2", repeat=True), follows=before, others=frozenset([later]))

    sent = await run.adapter.send(repeat)

    assert [said.message_id for said in server.said] == [before, later, sent]


@pytest.mark.asyncio
@pytest.mark.parametrize(("waited", "posts"), [(1.0, 2), (300.0, 1)])
async def test_it_trusts_the_nonce_while_discord_remembers_it(
    server: FakeDiscord, run: Run, waited: float, posts: int
) -> None:
    """By the seconds that it is told: this machine's clock, which `queued_at` would be held against, may be off."""
    chat = server.private_chat(ALICE)
    await run.adapter.send(to(chat, "Drink water", nonce="n1"))
    before = datetime.now(tz=UTC) - timedelta(minutes=5)
    repeat = replace(to(chat, "Drink water", nonce="n2", repeat=True), queued_at=before, waited=waited)

    await run.adapter.send(repeat)

    assert [said.text for said in server.said] == ["Drink water"] * posts


@pytest.mark.asyncio
async def test_it_stays_in_doubt_when_it_cannot_look(server: FakeDiscord, run: Run) -> None:
    server.faults.inject("GET /channels/messages", status=500)
    error = await refused(run, to(server.private_chat(ALICE), repeat=True))

    assert error.ambiguous
    assert server.said == []


# -- secrets


@pytest.mark.asyncio
async def test_it_tells_nobody_its_token(server: FakeDiscord, logged: pytest.LogCaptureFixture) -> None:
    async with running(adapter_for(server)) as run:
        await server.say(ALICE, "hello")
        await run.inbox.wait_for(1)
        await run.adapter.send(to(server.private_chat(ALICE)))
        await server.drop_connections()
        await server.connected()

    assert "IDENTIFY" in logged.text
    assert server.token not in logged.text
    assert server.token not in json.dumps([record.__dict__ for record in logged.records], default=repr)


def everything_in(error: BaseException) -> str:
    """All that a log or an error tracker could show of an exception, suppressed context included."""
    shown = "".join(traceback.format_exception(error)) + repr(error)
    return shown + "".join(everything_in(other) for other in (error.__cause__, error.__context__) if other)


def _urls(server: FakeDiscord) -> dict[str, str]:
    where = server.environment()
    return {"api_url": where["DISCORD_API_URL"], "gateway_url": where["DISCORD_GATEWAY_URL"]}
