"""The Telegram adapter with the real SDK against the local Bot API."""

from __future__ import annotations

import asyncio
import json
import logging
import traceback
from collections.abc import AsyncIterator
from datetime import timedelta
from itertools import pairwise
from time import monotonic

import httpx
import pytest
import pytest_asyncio
from aiohttp import web
from telegram.error import BadRequest, Forbidden, InvalidToken, NetworkError, RetryAfter, TelegramError, TimedOut
from telegram.request import HTTPXRequest

from adapters import registry
from adapters.duplicate_marker import ROOM
from adapters.playground.server import Person
from adapters.protocols import DeliveryError, NeedsConfiguration, PlatformAdapter, Superseded
from adapters.telegram import adapter as module
from adapters.telegram import webhook as telegram_webhook
from adapters.telegram.adapter import Credentials, TelegramAdapter
from adapters.telegram.webhook import Webhook
from sessions_app.messages import Address, InboundMessage, OutgoingMessage
from sessions_app.outbox.splitting import split
from tests.adapters.quoting import NAMES, quoting
from tests.adapters.recording import OneByOneInbox, RecordingInbox, StorageError, running
from tests.fakes.faults import Fault
from tests.fakes.server import FakeServer
from tests.fakes.telegram import FakeTelegram

ALICE = Person("1001", "Alice Liddell", "alice")
BOB = Person("1002", "Bob")
GROUP = "-100200300"


@pytest_asyncio.fixture
async def server() -> AsyncIterator[FakeTelegram]:
    server = FakeTelegram()
    await server.start()
    yield server
    await server.stop()


@pytest.fixture(autouse=True)
def logged(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Everything that is logged under the project's settings, where httpx may only warn: it logs URLs."""
    for name in ("httpx", "httpcore"):
        caplog.set_level(logging.WARNING, logger=name)
    caplog.set_level(logging.INFO)
    caplog.set_level(logging.DEBUG, logger="adapters")
    return caplog


@pytest.fixture(autouse=True)
def _no_long_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(module, "MAX_PAUSE", 0.05)


def adapter_for(server: FakeTelegram, webhook: Webhook | None = None, **changed: str) -> TelegramAdapter:
    return TelegramAdapter(**{"token": server.token, "api_url": server.url} | changed, webhook=webhook)


def to(
    chat: str, text: str = "Good morning", *, thread: str = "", repeat: bool = False, reply_to: str = ""
) -> OutgoingMessage:
    address = Address("telegram", chat, thread)
    return OutgoingMessage(address, text, nonce="n1", possibly_sent=repeat, reply_to=reply_to)


def everything_in(error: BaseException) -> str:
    """All that a log or an error tracker could show of an exception, suppressed context included."""
    shown = "".join(traceback.format_exception(error)) + repr(error)
    return shown + "".join(everything_in(other) for other in (error.__cause__, error.__context__) if other)


# -- hearing


@pytest.mark.asyncio
async def test_it_fulfils_the_contract(server: FakeTelegram) -> None:
    platform: FakeServer = server
    adapter: PlatformAdapter = adapter_for(server, platform="telegram-acme")

    assert (platform.platform, adapter.platform, adapter.text_limit) == ("telegram", "telegram-acme", 4096 - ROOM)
    assert registry.get("telegram").text_limit == adapter.text_limit
    assert isinstance(adapter, PlatformAdapter)


@pytest.mark.asyncio
async def test_it_hears_a_private_message(server: FakeTelegram) -> None:
    async with running(adapter_for(server)) as run:
        message_id = await server.say(ALICE, "My colour is octarine 😀")
        [message] = await run.inbox.wait_for(1)

    assert message.address == Address("telegram", "1001")
    assert (message.sender.user_id, message.sender.name, message.sender.username) == ("1001", "Alice Liddell", "alice")
    assert (message.text, message.message_id, message.chat_name) == (
        "My colour is octarine 😀",
        message_id,
        "Alice Liddell",
    )
    assert (message.is_private, message.is_addressed, message.is_firsthand) == (True, True, True)
    assert message.native_key.startswith("777001:")
    assert message.sent_at is not None
    assert message.sent_at.utcoffset() == timedelta(0)


@pytest.mark.asyncio
async def test_it_tells_addressed_group_messages_from_others(server: FakeTelegram) -> None:
    async with running(adapter_for(server)) as run:
        await server.say(BOB, "nobody in particular", group=GROUP)
        await server.say(BOB, "what is new?", group=GROUP, mention=True)
        await server.say(BOB, "/new@BotosPlaygroundBot now", group=GROUP)
        await server.say(BOB, "/new@SomeOtherBot now", group=GROUP)
        own = await run.adapter.send(to(GROUP))
        await server.say(BOB, "thanks", group=GROUP, reply_to=own)
        messages = await run.inbox.wait_for(5)

    assert [(message.is_addressed, message.text) for message in messages] == [
        (False, "nobody in particular"),
        (True, "what is new?"),
        (True, "/new now"),
        (False, "/new@SomeOtherBot now"),
        (True, "thanks"),
    ]
    assert {(message.is_private, message.chat_name) for message in messages} == {(False, f"Group {GROUP}")}


@pytest.mark.asyncio
async def test_it_answers_in_the_topic_that_it_heard(server: FakeTelegram) -> None:
    async with running(adapter_for(server, platform="telegram-acme")) as run:
        await server.say(BOB, "here", group=GROUP, thread="7")
        [message] = await run.inbox.wait_for(1)
        await run.adapter.send(to(GROUP, thread=message.address.thread_id))
        [reply] = await server.wait_for(1, chat=GROUP)

    assert message.address == Address("telegram-acme", GROUP, "7")
    assert reply.thread_id == "7"


@pytest.mark.asyncio
async def test_it_hears_edits(server: FakeTelegram) -> None:
    async with running(adapter_for(server)) as run:
        message_id = await server.say(ALICE, "teh")
        await server.edit(ALICE, message_id, "the")
        [edit] = await run.inbox.wait_for_edits(1)

    assert (edit.address, edit.message_id, edit.text) == (Address("telegram", "1001"), message_id, "the")


@pytest.mark.asyncio
async def test_it_marks_forwarded_messages(server: FakeTelegram) -> None:
    async with running(adapter_for(server)) as run:
        await server.forward(ALICE, "/link ABCD")
        [message] = await run.inbox.wait_for(1)

    assert (message.is_private, message.is_firsthand) == (True, False)


@pytest.mark.asyncio
async def test_it_hands_over_a_redelivery_under_the_same_key(server: FakeTelegram) -> None:
    async with running(adapter_for(server)) as run:
        message_id = await server.say(ALICE, "once")
        await server.acknowledged(message_id)
        await server.redeliver(message_id)
        first, second = await run.inbox.wait_for(2)

    assert first.native_key == second.native_key


# -- confirming


@pytest.mark.asyncio
async def test_it_confirms_only_what_the_inbox_stored(server: FakeTelegram) -> None:
    adapter, inbox = adapter_for(server), RecordingInbox()
    inbox.fail_next = 1
    lost = await server.say(ALICE, "first")
    await server.say(ALICE, "second")

    with pytest.raises(StorageError):
        async with running(adapter, inbox) as run:
            await run.ending()
    with pytest.raises(TimeoutError):
        await server.acknowledged(lost, timeout=0.01)
    async with running(adapter, inbox):
        messages = await inbox.wait_for(2)
        await server.acknowledged(lost)

    assert [message.text for message in messages] == ["first", "second"]


@pytest.mark.asyncio
async def test_it_does_not_confirm_while_the_inbox_is_still_storing(server: FakeTelegram) -> None:
    waiting, release = asyncio.Event(), asyncio.Event()

    class SlowInbox(RecordingInbox):
        async def receive(self, message: InboundMessage) -> None:
            waiting.set()
            await release.wait()
            await super().receive(message)

    async with running(adapter_for(server), SlowInbox()):
        message_id = await server.say(ALICE, "slow")
        await waiting.wait()
        with pytest.raises(TimeoutError):
            await server.acknowledged(message_id, timeout=0.1)
        release.set()
        await server.acknowledged(message_id)


@pytest.mark.asyncio
async def test_it_hands_a_batch_over_in_order_without_waiting_for_each(server: FakeTelegram) -> None:
    inbox, texts = OneByOneInbox(), ["one", "two", "three"]
    ids = [await server.say(ALICE, text) for text in texts]

    async with running(adapter_for(server), inbox):
        assert await inbox.wait_for_begun(3) == texts
        inbox.release(3)
        await server.acknowledged(ids[-1])

    assert [message.text for message in inbox.messages] == texts


@pytest.mark.asyncio
async def test_it_confirms_nothing_behind_what_was_not_stored(server: FakeTelegram) -> None:
    adapter, inbox = adapter_for(server), RecordingInbox()
    inbox.fail_next = 1
    await server.say(ALICE, "not stored")
    stored = await server.say(BOB, "stored")

    with pytest.raises(StorageError):
        async with running(adapter, inbox) as run:
            await run.ending()
    with pytest.raises(TimeoutError):
        await server.acknowledged(stored, timeout=0.01)
    async with running(adapter, inbox):
        await inbox.wait_for(3)

    assert [message.text for message in inbox.messages] == ["stored", "not stored", "stored"]
    assert inbox.messages[0].native_key == inbox.messages[2].native_key


@pytest.mark.asyncio
async def test_it_stops_within_a_batch(server: FakeTelegram) -> None:
    inbox = OneByOneInbox()
    for text in ("one", "two", "three"):
        await server.say(ALICE, text)

    async with running(adapter_for(server), inbox) as run:
        await inbox.wait_for_begun(3)
        run.stop.set()
        inbox.release(1)
        await run.ending()

    assert [message.text for message in inbox.messages] == ["one"]


@pytest.mark.asyncio
async def test_it_does_not_spin_on_what_cannot_be_confirmed(
    server: FakeTelegram, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.2)
    monkeypatch.setattr(module, "MAX_PAUSE", 0.4)
    await server.push_raw(5)

    async with running(adapter_for(server)) as run:
        await asyncio.sleep(0.3)  # in which a spinning loop polls a hundred times
        await server.say(ALICE, "still here")
        await run.inbox.wait_for_text("still here")
        polls = [method for method, _given in server.calls if method == "getUpdates"]

    assert len(polls) < 10


# -- starting and ending


@pytest.mark.asyncio
async def test_it_stops_a_running_poll_at_once(server: FakeTelegram) -> None:
    async with running(adapter_for(server)) as run:
        message_id = await server.say(ALICE, "hello")
        await server.acknowledged(message_id)  # so the next poll is waiting
        run.stop.set()
        async with asyncio.timeout(module.POLL_SECONDS / 2):  # well before that poll ends by itself
            await run.ending()

    with pytest.raises(DeliveryError, match="telegram is not connected"):
        await run.adapter.send(to("1001"))


@pytest.mark.asyncio
async def test_it_lets_a_message_on_its_way_arrive_before_it_ends(server: FakeTelegram) -> None:
    arrived, release, carry_out = asyncio.Event(), asyncio.Event(), server.api.call

    async def slow_call(method: str, given: dict[str, object]) -> object:
        if method == "sendMessage":
            arrived.set()
            await release.wait()
        return await carry_out(method, given)

    server.api.call = slow_call  # type: ignore[method-assign]
    async with running(adapter_for(server)) as run:
        await server.say(ALICE, "hello")
        sending = asyncio.create_task(run.adapter.send(to("1001")))
        await arrived.wait()
        run.stop.set()
        await asyncio.wait({run.task}, timeout=0.2)
        assert not run.task.done()
        release.set()
        assert await sending
        await run.ending()


@pytest.mark.asyncio
async def test_it_asks_for_configuration_when_the_token_is_refused(server: FakeTelegram) -> None:
    for token in ("", "no token", "12:ab\n", f"{server.token}x"):
        with pytest.raises(NeedsConfiguration, match="TELEGRAM_BOT_TOKEN is"):
            async with running(adapter_for(server, token=token)):
                pass


@pytest.mark.asyncio
async def test_it_asks_for_configuration_when_the_token_is_revoked(server: FakeTelegram) -> None:
    async with running(adapter_for(server)) as run:
        server.faults.inject("getUpdates", status=401)
        await server.say(ALICE, "wakes the poll that is waiting")
        with pytest.raises(NeedsConfiguration, match="TELEGRAM_BOT_TOKEN is refused") as refused:
            await run.ending()

    assert server.token.partition(":")[2] not in everything_in(refused.value)


@pytest.mark.asyncio
async def test_it_ends_when_somebody_else_polls(server: FakeTelegram) -> None:
    async with running(adapter_for(server)) as run, httpx.AsyncClient() as other:
        await server.acknowledged(await server.say(ALICE, "so the next poll is waiting"))
        await other.post(f"{server.url}/bot{server.token}/getUpdates")
        with pytest.raises(Superseded, match="another poller or a webhook is active"):
            await run.ending()


@pytest.mark.asyncio
async def test_it_ends_when_a_webhook_is_set_and_leaves_it_alone(server: FakeTelegram) -> None:
    await server.api.webhook.set("https://example.org/hook", "")

    async with running(adapter_for(server)) as run:
        with pytest.raises(Superseded, match="another poller or a webhook is active"):
            await run.ending()

    assert server.api.webhook.url == "https://example.org/hook"


@pytest.mark.asyncio
async def test_it_polls_on_after_a_blip(server: FakeTelegram) -> None:
    server.faults.inject("getUpdates", status=500, times=2)
    server.faults.inject("getUpdates", status=429, retry_after=0.01)
    server.faults.inject("getUpdates", lose_response=True)

    async with running(adapter_for(server)) as run:
        await server.say(ALICE, "first")
        await run.inbox.wait_for_text("first")
        await server.drop_connections()
        await server.say(ALICE, "second")
        await run.inbox.wait_for_text("second")


@pytest.mark.asyncio
async def test_it_rests_between_polls_that_a_server_answers_at_once(
    server: FakeTelegram, monkeypatch: pytest.MonkeyPatch
) -> None:
    moments: list[float] = []  # by the adapter's clock: when a poll begins, and when it has brought nothing
    poll, has_polled = server.api.updates.poll, asyncio.Semaphore(0)

    async def impatient(offset: int, limit: int, timeout: int) -> list[object]:
        has_polled.release()
        return await poll(offset, limit, 0)

    def now() -> float:
        moments.append(monotonic())
        return moments[-1]

    monkeypatch.setattr(server.api.updates, "poll", impatient)
    monkeypatch.setattr(module, "EMPTY_SECONDS", 0.1)
    monkeypatch.setattr(module, "monotonic", now)
    async with running(adapter_for(server)) as run:
        for _ in range(5):
            await has_polled.acquire()
        begun = moments[::2][:5]
        await server.say(ALICE, "hello")
        await run.inbox.wait_for_text("hello")

    assert all(later - earlier > 0.0999 for earlier, later in pairwise(begun))


@pytest.mark.asyncio
async def test_it_gives_up_when_telegram_stays_away(server: FakeTelegram) -> None:
    async with running(adapter_for(server)) as run:
        await server.stop()
        with pytest.raises(ConnectionError, match="telegram is out of reach"):
            await run.ending()
    with pytest.raises(ConnectionError, match="telegram cannot be reached"):
        async with running(adapter_for(server)):
            pass


# -- sending


@pytest.mark.asyncio
async def test_it_sends_plain_text_without_link_preview(server: FakeTelegram) -> None:
    async with running(adapter_for(server)) as run:
        await server.say(ALICE, "hello")
        message_id = await run.adapter.send(to("1001", "<b>5 < 6</b> _and_ https://example.org\x00"))
        [reply] = await server.wait_for(1, chat=server.private_chat(ALICE))

    assert (reply.message_id, reply.text) == (message_id, "<b>5 < 6</b> _and_ https://example.org")
    assert "parse_mode" not in server.api.sends[0]
    assert server.api.sends[0]["link_preview_options"] == '{"is_disabled": true}'


@pytest.mark.asyncio
async def test_it_answers_a_message_and_says_that_this_may_be_gone(server: FakeTelegram) -> None:
    async with running(adapter_for(server)) as run:
        asked = await server.say(BOB, "hello?", group=GROUP, mention=True)
        await run.adapter.send(to(GROUP, reply_to=asked))
        await run.adapter.send(to(GROUP, reply_to="1"))
        await run.adapter.send(to(GROUP, reply_to="none of Telegram's"))
        replies = await server.wait_for(3, chat=GROUP)

    assert [reply.reply_to for reply in replies] == [asked, "", ""]
    given = [json.loads(send.get("reply_parameters", "{}")) for send in server.api.sends]
    assert given == [
        {"message_id": int(asked), "allow_sending_without_reply": True},
        {"message_id": 1, "allow_sending_without_reply": True},
        {},
    ]


@pytest.mark.asyncio
@pytest.mark.parametrize("name", NAMES)
async def test_it_shows_a_name_and_no_mark_up(server: FakeTelegram, name: str) -> None:
    text = quoting(name, "telegram")
    await server.say(ALICE, "hello")

    async with running(adapter_for(server)) as run:
        await run.adapter.send(to(ALICE.id, text))

    [sent] = server.api.sends
    assert text == quoting(name, "")
    assert sent["text"] == text
    assert not {"parse_mode", "entities"} & sent.keys()


@pytest.mark.asyncio
@pytest.mark.parametrize("character", ["x", "😀"])
async def test_it_marks_a_possible_repeat_of_any_part_and_cuts_nothing_off(
    server: FakeTelegram, character: str
) -> None:
    parts = split(character * 5000, registry.get("telegram").text_limit)
    async with running(adapter_for(server)) as run:
        await server.say(ALICE, "hello")
        for part in parts:
            await run.adapter.send(to("1001", part, repeat=True))
        said = await server.wait_for(len(parts), chat="1001")

    assert [one.text for one in said] == [f"(sent again after an interruption)\n{part}" for part in parts]


@pytest.mark.asyncio
async def test_it_rather_sends_a_repeat_unmarked_than_without_its_end(server: FakeTelegram) -> None:
    """Without room for the mark: not a part of an answer, but what a program of somebody's own may hand in."""
    async with running(adapter_for(server)) as run:
        await server.say(ALICE, "hello")
        await run.adapter.send(to("1001", "x" * 4096, repeat=True))
        [said] = await server.wait_for(1, chat="1001")

    assert said.text == "x" * 4096


@pytest.mark.asyncio
async def test_it_passes_on_how_long_to_wait(server: FakeTelegram) -> None:
    async with running(adapter_for(server)) as run:
        await server.say(ALICE, "hello")
        server.faults.inject("sendMessage", status=429, retry_after=7)
        with pytest.raises(DeliveryError) as error:
            await run.adapter.send(to("1001"))

    assert (error.value.retry_after, error.value.permanent, error.value.ambiguous) == (7.0, False, False)


@pytest.mark.parametrize(
    ("status", "headers", "judged"),
    [
        (429, {"Retry-After": "7"}, (7.0, False)),
        (429, {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, (1.0, False)),
        (429, {}, (1.0, False)),
        (413, {}, (None, True)),
        (407, {}, (None, False)),
    ],
)
@pytest.mark.asyncio
async def test_it_believes_a_proxy_that_refuses_a_call(
    server: FakeTelegram,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    headers: dict[str, str],
    judged: tuple[float | None, bool],
) -> None:
    def refusal(fault: Fault) -> web.Response:
        return web.Response(status=fault.status, headers=headers, text="<html>no</html>", content_type="text/html")

    monkeypatch.setattr("tests.fakes.telegram._planned", refusal)
    async with running(adapter_for(server)) as run:
        await server.say(ALICE, "hello")
        server.faults.inject("sendMessage", status=status)
        with pytest.raises(DeliveryError) as error:
            await run.adapter.send(to("1001"))

    found = error.value
    assert ((found.retry_after, found.permanent), found.ambiguous) == (judged, False)


@pytest.mark.asyncio
async def test_it_knows_when_a_message_may_have_arrived(server: FakeTelegram) -> None:
    async with running(adapter_for(server)) as run:
        await server.say(ALICE, "hello")
        server.faults.inject("sendMessage", lose_response=True)
        with pytest.raises(DeliveryError) as lost:
            await run.adapter.send(to("1001"))
        server.faults.inject("sendMessage", status=500)
        with pytest.raises(DeliveryError) as failed:
            await run.adapter.send(to("1001"))
        await server.stop()
        with pytest.raises(DeliveryError) as unsent:
            await run.adapter.send(to("1001"))

    errors = [error.value for error in (lost, failed, unsent)]
    assert [(error.ambiguous, error.permanent) for error in errors] == [(True, False), (False, False), (False, False)]
    assert len(server.api.sends) == 1


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("result", "sent"),
    [({"message_id": 7}, "7"), ({"message_id": 7, "chat": "new", "date": {}}, "7"), ({}, ""), (True, "")],
)
async def test_it_takes_a_message_for_sent_that_the_sdk_cannot_read(result: object, sent: str) -> None:
    """Only an answer that names no message leaves open whether it was sent."""
    api = httpx.MockTransport(lambda request: httpx.Response(200, json={"ok": True, "result": result}))
    adapter = TelegramAdapter(token=f"1:{'a' * 35}")
    request = HTTPXRequest(httpx_kwargs={"transport": api})
    adapter._bot = adapter._build(request, request)

    if sent:
        assert await adapter.send(to("1001")) == sent
        return
    with pytest.raises(DeliveryError) as error:
        await adapter.send(to("1001"))
    assert (error.value.ambiguous, error.value.permanent) == (True, False)


@pytest.mark.asyncio
async def test_it_knows_when_a_message_can_never_arrive(server: FakeTelegram) -> None:
    server.api.blocked.add(1001)
    async with running(adapter_for(server)) as run:
        await server.say(ALICE, "hello")
        await server.say(BOB, "hello")
        for hopeless in (to("1001"), to("9999"), to("general"), to("1002", " "), to("1002", "x" * 4097)):
            with pytest.raises(DeliveryError) as error:
                await run.adapter.send(hopeless)
            assert (error.value.permanent, error.value.ambiguous) == (True, False)


def after(cause: Exception, error: TelegramError) -> TelegramError:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "permanent", "ambiguous"),
    [
        (Forbidden("Forbidden: bot was blocked by the user"), True, False),
        (BadRequest("Bad Request: chat not found"), True, False),
        (InvalidToken(), False, False),
        (NetworkError("Internal Server Error"), False, False),
        (after(httpx.ReadTimeout(""), TimedOut()), False, True),
        (after(httpx.WriteTimeout(""), TimedOut()), False, True),
        (after(httpx.ReadError(""), NetworkError("")), False, True),
        (after(httpx.RemoteProtocolError(""), NetworkError("")), False, True),
        (after(httpx.ConnectTimeout(""), TimedOut()), False, False),
        (after(httpx.PoolTimeout(""), TimedOut()), False, False),
        (after(httpx.ConnectError(""), NetworkError("")), False, False),
        (after(TelegramError("not JSON"), NetworkError("Bad Gateway (502)")), False, True),
        (KeyError("result"), False, True),
    ],
)
def test_it_judges_every_failure_to_send(error: Exception, permanent: bool, ambiguous: bool) -> None:
    judged = TelegramAdapter(token="1:a")._undelivered(error)

    assert (judged.permanent, judged.ambiguous) == (permanent, ambiguous)


@pytest.mark.filterwarnings("ignore::telegram.warnings.PTBDeprecationWarning")
@pytest.mark.parametrize("as_timedelta", ["false", "true"])
def test_it_reads_the_wait_in_both_types_of_the_sdk(as_timedelta: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PTB_TIMEDELTA", as_timedelta)

    judged = TelegramAdapter(token="1:a")._undelivered(RetryAfter(3))

    assert repr(judged.retry_after) == "3.0"


# -- secrets


@pytest.mark.asyncio
async def test_it_never_shows_the_token(server: FakeTelegram, logged: pytest.LogCaptureFixture) -> None:
    errors: list[BaseException] = []
    server.faults.inject("getMe", status=401)
    server.faults.inject("getMe", status=500)
    for adapter in (adapter_for(server), adapter_for(server), adapter_for(server, api_url="nonsense://h")):
        with pytest.raises((NeedsConfiguration, ConnectionError)) as early:
            async with running(adapter):
                pass
        errors.append(early.value)
    async with running(adapter_for(server)) as run:
        await server.say(ALICE, "hello")
        for fault in ({"status": 401}, {"status": 403}, {"status": 429, "retry_after": 1}, {"lose_response": True}):
            server.faults.inject("sendMessage", **fault)
            with pytest.raises(DeliveryError) as late:
                await run.adapter.send(to("1001"))
            errors.append(late.value)
        server.faults.inject("getUpdates", status=409)
        await server.drop_connections()
        with pytest.raises(Superseded) as end:
            await run.ending()
        errors.append(end.value)

    secret = server.token.partition(":")[2]
    assert len(errors) == 8
    assert not [error for error in errors if secret in everything_in(error)]
    assert all(error.__cause__ is None and error.__suppress_context__ for error in errors)
    assert logged.records
    assert secret not in logged.text
    assert not [record for record in logged.records if secret in repr(record.__dict__)]


def test_it_masks_the_token_in_what_the_sdk_says() -> None:
    credentials = Credentials("telegram", "77:SECRET")

    shown = credentials.masked(NetworkError("no answer from http://h/bot77:SECRET/sendMessage"))

    assert "SECRET" not in shown + repr(credentials)


# -- the webhook


@pytest_asyncio.fixture
async def page() -> AsyncIterator[Page]:
    """Somewhere to call, in place of the pages."""
    page = Page()
    await page.start()
    yield page
    await page.stop()


class Page:
    """Remembers what it is shown and told, and answers with `status`."""

    def __init__(self) -> None:
        self.status = 200
        self.told: list[tuple[str, int]] = []  # the secret, the update's id
        self.called = asyncio.Event()

    async def start(self) -> None:
        app = web.Application()
        app.router.add_post("/hooks/telegram", self._answer)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()

    async def stop(self) -> None:
        await self._runner.cleanup()

    @property
    def webhook(self) -> Webhook:
        return Webhook(f"http://127.0.0.1:{self._runner.addresses[0][1]}/hooks/telegram", "s" * 32)

    async def _answer(self, request: web.Request) -> web.Response:
        told = await request.json()
        self.told.append((request.headers["X-Telegram-Bot-Api-Secret-Token"], told["update_id"]))
        self.called.set()
        return web.Response(status=self.status)


@pytest.mark.asyncio
async def test_it_has_telegram_call_with_the_secret_and_the_kinds_that_polling_asks_for(
    server: FakeTelegram, page: Page
) -> None:
    early = await server.say(ALICE, "before the bot was there")
    async with running(adapter_for(server, page.webhook)):
        await server.acknowledged(early)
        await server.acknowledged(await server.say(ALICE, "hello"))

    assert [secret for secret, _ in page.told] == ["s" * 32] * 2
    assert server.api.updates.allowed == module.WANTED
    assert [given["max_connections"] for method, given in server.calls if method == "setWebhook"] == ["1"]
    assert server.api.webhook.url == page.webhook.address  # also when the bot has gone: the pages may still be there
    assert "getUpdates" not in [method for method, _ in server.calls]


@pytest.mark.asyncio
async def test_it_sends_while_it_is_called(server: FakeTelegram, page: Page) -> None:
    async with running(adapter_for(server, page.webhook)) as run:
        await server.say(ALICE, "hello")
        await run.adapter.send(to("1001"))

    assert [said.text for said in server.said] == ["hello", "Good morning"]


@pytest.mark.asyncio
async def test_it_takes_its_own_webhook_down_to_poll(server: FakeTelegram, page: Page) -> None:
    await server.api.webhook.set(page.webhook.address, "s" * 32)
    page.status = 503
    early = await server.say(ALICE, "hello")
    await page.called.wait()

    async with running(adapter_for(server, Webhook(page.webhook.address))) as run:
        await server.acknowledged(early)

    assert [message.text for message in run.inbox.messages] == ["hello"]
    assert server.api.webhook.url == ""


@pytest.mark.asyncio
async def test_it_leaves_a_webhook_elsewhere_alone_whatever_its_own_address_would_be(server: FakeTelegram) -> None:
    await server.api.webhook.set("https://example.org/hooks/telegram", "")

    async with running(adapter_for(server, Webhook("https://bots.example.org/hooks/telegram"))) as run:
        with pytest.raises(Superseded):
            await run.ending()

    assert server.api.webhook.url == "https://example.org/hooks/telegram"


@pytest.mark.asyncio
async def test_it_ends_when_its_webhook_was_replaced(
    server: FakeTelegram, page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telegram_webhook, "WATCH_SECONDS", 0.01)
    async with running(adapter_for(server, page.webhook)) as run:
        await server.acknowledged(await server.say(ALICE, "so the webhook is set"))
        await server.api.webhook.set("https://example.org/hook", "")
        with pytest.raises(Superseded, match="took the place of ours"):
            await run.ending()


@pytest.mark.asyncio
async def test_it_says_that_telegram_cannot_call(
    server: FakeTelegram, page: Page, monkeypatch: pytest.MonkeyPatch, logged: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(telegram_webhook, "WATCH_SECONDS", 0.01)
    page.status = 503
    async with running(adapter_for(server, page.webhook)):
        await server.say(ALICE, "hello")
        await server._until(lambda: [method for method, _ in server.calls].count("getWebhookInfo") > 9, 10)

    lines = [record.getMessage() for record in logged.records if "hand something over" in record.getMessage()]
    assert lines
    assert set(lines) == {"telegram: Telegram could not hand something over: 'Wrong response from the webhook: 503'"}


@pytest.mark.asyncio
async def test_it_says_why_telegram_does_not_take_the_webhook_and_not_its_secret(server: FakeTelegram) -> None:
    webhook = Webhook("http://bots.example.org/hooks/telegram", "secret-hunter2")

    async with running(adapter_for(server, webhook)) as run:
        with pytest.raises(ConnectionError, match="an https url must be provided") as caught:
            await run.ending()

    assert "hunter2" not in everything_in(caught.value) + repr(webhook)
