"""Open pages hear that something changed: once each, in order, from any process, and only what is theirs."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from asgiref.sync import SyncToAsync
from channels.db import database_sync_to_async
from channels.layers import InMemoryChannelLayer
from django.conf import settings
from django.contrib.sessions.backends.db import SessionStore
from django.db import OperationalError, connections, transaction

from adapters.runtime.webserver import WebServer
from identity import live
from identity.browsers import attachments
from identity.browsers import sessions as browser_sessions
from identity.models import Browser, LiveEvent, Pairing
from identity.support import clock
from identity.web import consumers, subscriptions
from tests import zygote
from tests.identity.pairs import account, person
from tests.identity.sockets import Socket
from tests.journeys.running import PATIENCE, database_url

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.asyncio]

in_database = database_sync_to_async


@pytest.fixture(autouse=True)
def no_reader_is_left() -> Iterator[None]:
    yield
    live._readers.clear()
    SyncToAsync.single_thread_executor.submit(connections.close_all).result(5)


async def some(events: AsyncIterator[live.Event], count: int) -> list[str]:
    """The kinds of the next so many events."""
    async with asyncio.timeout(PATIENCE):
        return [(await anext(events)).kind for _ in range(count)]


@contextlib.asynccontextmanager
async def hearing(*topics: str, after: int | None = 0) -> AsyncIterator[AsyncIterator[live.Event]]:
    async with contextlib.aclosing(live.subscribe(topics, after=after)) as batches:
        yield (event async for batch in batches for event in batch)


@pytest.mark.parametrize("turns", range(4))
async def test_a_reader_ends_also_if_it_is_woken_at_that_moment(turns: int) -> None:
    reader, queue = live._Reader(), live._Queue(frozenset())
    reader.add(queue)
    tasks = list(reader._tasks)
    async with asyncio.timeout(PATIENCE):
        while not reader._woken._waiters:  # noqa: ASYNC110 - it has read then, and waits
            await asyncio.sleep(0)
    reader._woken.set()
    for _ in range(turns):
        await asyncio.sleep(0)
    reader.remove(queue)

    _, running = await asyncio.wait(tasks, timeout=PATIENCE)
    assert not running


@pytest.mark.skipif(not settings.REDIS_URL, reason="without Redis, no command is sent")
async def test_listening_ends_whatever_command_is_on_its_way() -> None:
    for turns in range(80):
        listening = asyncio.create_task(live._Reader()._listen())
        for _ in range(turns):
            await asyncio.sleep(0)
        listening.cancel()

        done, _ = await asyncio.wait({listening}, timeout=PATIENCE)
        assert done, turns


async def test_it_hears_what_is_announced_on_its_topics_in_order() -> None:
    async with hearing("account:1", "account:2") as events:
        first = asyncio.create_task(some(events, 3))
        await asyncio.sleep(0.1)
        for topic, kind in (("account:1", "a"), ("account:3", "x"), ("account:2", "b"), ("account:1", "c")):
            await in_database(live.announce)(topic, kind)

        assert await first == ["a", "b", "c"]


async def test_it_hears_at_once_what_this_process_announces(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("POLL_SECONDS", "POLL_WITH_REDIS_SECONDS"):
        monkeypatch.setattr(live, name, 10 * PATIENCE)
    async with hearing("account:1") as events:
        heard = asyncio.create_task(some(events, 1))
        await asyncio.sleep(0.2)
        await in_database(live.announce)("account:1", "a")

        assert await heard == ["a"]


async def test_it_resumes_behind_an_id() -> None:
    await in_database(live.announce)(["account:1"] * 1, "a")
    known = await in_database(LiveEvent.objects.latest)("id")
    await in_database(live.announce)("account:1", "b")

    async with hearing("account:1", after=known.pk) as events:
        assert await some(events, 1) == ["b"]


async def test_it_hears_nothing_of_what_is_undone() -> None:
    def undone() -> None:
        with transaction.atomic():
            live.announce("account:1", "undone")
            transaction.set_rollback(True)

    async with hearing("account:1") as events:
        await in_database(undone)()
        await in_database(live.announce)("account:1", "done")

        assert await some(events, 1) == ["done"]


async def test_it_hears_an_id_that_became_visible_late_once() -> None:
    async with hearing("account:1") as events:
        heard = asyncio.create_task(some(events, 2))
        await asyncio.sleep(0.1)
        await in_database(LiveEvent.objects.create)(pk=1_000_011, topic="account:1", kind="early")
        live.wake()
        await asyncio.sleep(0.7)
        await in_database(LiveEvent.objects.create)(pk=1_000_010, topic="account:1", kind="late")
        live.wake()

        assert await heard == ["early", "late"]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.7):
                await anext(events)


async def test_it_reads_once_for_all_who_listen(monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[int] = []
    newer = live._newer

    def counted(floor: int) -> list[live.Event]:
        reads.append(floor)
        return newer(floor)

    monkeypatch.setattr(live, "_newer", counted)
    monkeypatch.setattr(live, "POLL_SECONDS", 10 * PATIENCE)  # a slow machine polls no more often
    async with contextlib.AsyncExitStack() as stack:
        all_events = [await stack.enter_async_context(hearing("account:1")) for _ in range(50)]
        heard = [asyncio.create_task(some(events, 1)) for events in all_events]
        await asyncio.sleep(0.3)
        await in_database(live.announce)("account:1", "a")

        assert await asyncio.gather(*heard) == [["a"]] * 50
    assert len(reads) <= 6


async def test_it_joins_again_before_the_layer_drops_it(monkeypatch: pytest.MonkeyPatch) -> None:
    layer: Any = InMemoryChannelLayer()
    joined: asyncio.Queue[str] = asyncio.Queue()
    join = layer.group_add

    async def noted(group: str, channel: str) -> None:
        await join(group, channel)
        joined.put_nowait(channel)

    monkeypatch.setattr(layer, "group_expiry", 0.2)
    monkeypatch.setattr(layer, "group_add", noted)
    monkeypatch.setattr(live, "get_channel_layer", lambda: layer)
    listening = asyncio.create_task(live._Reader()._listen())
    channels = {await joined.get() for _ in range(3)}
    listening.cancel()

    assert len(channels) == 1


async def test_it_hears_other_processes() -> None:
    script = (
        "import sys, botos_project.setup; from django.conf import settings; from identity import live;"
        "settings.CHANNEL_LAYERS['default'].get('CONFIG', {})['prefix'] = sys.argv[1];"
        "live.announce('account:1', 'afar')"
    )
    prefix = str(settings.CHANNEL_LAYERS["default"].get("CONFIG", {}).get("prefix"))
    async with hearing("account:1") as events:
        heard = asyncio.create_task(some(events, 1))
        await asyncio.sleep(0.1)
        environment = {
            "DATABASE_URL": database_url(),
            "SECRET_KEY": "x" * 60,
            "BOTOS_ENV_FILE": "",
            "REDIS_URL": settings.REDIS_URL,
        }
        await asyncio.to_thread(zygote.run, ["-c", script, prefix], environment=environment, check=True)

        assert await heard == ["afar"]


async def test_it_forgets_old_events() -> None:
    await in_database(live.announce)("account:1", "old")
    await in_database(LiveEvent.objects.update)(at=clock.seconds_from_now(-3601))
    await in_database(live.announce)("account:1", "new")

    assert await in_database(live.forget_old)() == 1


# --- sockets


class Page:
    """A browser with a session, and the socket of its page."""

    def __init__(self) -> None:
        self.browser = Browser.objects.create(name="Firefox on Linux")
        self.session = SessionStore()
        self.session[browser_sessions.SESSION_KEY] = str(self.browser.pk)
        self.session.save()

    @property
    def topic(self) -> str:
        return f"browser:{self.browser.pk}"

    def socket(self, origin: str = "http://localhost") -> Socket:
        headers = [(b"origin", origin.encode()), (b"host", b"localhost"), (b"cookie", self.cookie.encode())]
        return Socket(headers)

    @property
    def cookie(self) -> str:
        return f"sessionid={self.session.session_key}"


@contextlib.asynccontextmanager
async def connected(page: Page) -> AsyncIterator[Socket]:
    socket = page.socket()
    assert await socket.connect()
    assert await socket.receive_json() == {"ready": True}
    await socket.say('{"after": 0}')
    await asyncio.sleep(0.1)
    yield socket
    await socket.close()


def attach(page: Page) -> int:
    alice = account("alice")
    request = Pairing.objects.create(
        initiator=alice,
        responder_browser=page.browser,
        state="attached",
        expires_at=clock.read(),
        last_at=clock.read(),
        ended_at=clock.read(),
    )
    attachments.attach(browser=page.browser, account=alice, pairing=request)
    return alice.pk


async def test_it_pushes_that_something_changed_and_not_what() -> None:
    page = await in_database(Page)()
    async with connected(page) as socket:
        await in_database(live.announce)("account:77", "messages")
        await in_database(live.announce)(page.topic, "pairing")

        [said] = (await socket.receive_json())["events"]

    assert {**said, "id": 0} == {"id": 0, "topic": page.topic, "kind": "pairing"}


async def test_it_tells_many_at_once() -> None:
    page, many = await in_database(Page)(), [str(number) for number in range(2 * consumers.MAX_IN_ONE + 1)]
    rows = [LiveEvent(topic=page.topic, kind=kind) for kind in many]
    async with connected(page) as socket:
        await in_database(LiveEvent.objects.bulk_create)(rows)
        live.wake()

        told = [(await socket.receive_json())["events"] for _ in range(3)]

    assert [len(events) for events in told] == [consumers.MAX_IN_ONE, consumers.MAX_IN_ONE, 1]
    assert [event["kind"] for events in told for event in events] == many


@pytest.mark.parametrize(
    "origin",
    [
        "",
        "null",
        "http://mallory.example",
        "https://localhost",
        "http://localhost:81",
        "http://localhost:x",
        "http://[",
    ],
)
async def test_it_opens_for_own_pages_alone(origin: str) -> None:
    page = await in_database(Page)()

    assert not await page.socket(origin).connect()


async def test_it_hears_of_accounts_that_share_the_conversation_and_of_no_others() -> None:
    page = await in_database(Page)()
    await in_database(attach)(page)
    discord, stranger = await in_database(link_alice)()
    async with connected(page) as socket:
        while await socket.says_something():
            await socket.output()
        await in_database(live.announce)(f"account:{stranger}", "messages")
        await in_database(live.announce)(f"account:{discord}", "messages")

        [said] = (await socket.receive_json())["events"]

    assert said["topic"] == f"account:{discord}"


def link_alice() -> tuple[int, int]:
    """Her Discord account, and somebody else's."""
    person("alice", account("alice"), account("alice", "discord"))
    return account("alice", "discord").pk, account("mallory").pk


async def test_it_opens_for_no_stranger() -> None:
    page = await in_database(Page)()
    await in_database(browser_sessions.sign_out)(page.browser)

    assert not await page.socket().connect()


async def test_it_closes_when_the_browser_signs_out() -> None:
    page = await in_database(Page)()
    async with connected(page) as socket:
        await in_database(browser_sessions.sign_out)(page.browser)

        assert await socket.output() == {"type": "websocket.close", "code": 4403}


async def test_it_closes_within_five_seconds_when_the_session_is_gone() -> None:
    page = await in_database(Page)()
    async with connected(page) as socket:
        await in_database(page.session.flush)()

        assert await socket.output() == {"type": "websocket.close", "code": 4403}


async def test_it_closes_once_when_it_finds_out_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """By an event and by looking, in the same moment."""
    monkeypatch.setattr(consumers, "LOOK_SECONDS", 0.1)
    page = await in_database(Page)()
    pk = await in_database(attach)(page)
    async with connected(page) as socket:
        while await socket.says_something():
            await socket.output()
        await in_database(sign_out_loudly)(page, pk)
        assert (await socket.output())["type"] == "websocket.close"

        assert not await socket.says_something()


def sign_out_loudly(page: Page, pk: int) -> None:
    with transaction.atomic():
        browser_sessions.sign_out(page.browser)
        live.announce(f"account:{pk}", "messages")


async def test_it_closes_when_nobody_can_say_who_may_hear(monkeypatch: pytest.MonkeyPatch) -> None:
    async def nobody_knows(session_key: str) -> None:
        raise OperationalError("the database is away")

    page = await in_database(Page)()
    pk = await in_database(attach)(page)
    async with connected(page) as socket:
        while await socket.says_something():
            await socket.output()
        monkeypatch.setattr(subscriptions, "topics", nobody_knows)
        await in_database(live.announce)(f"account:{pk}", "messages")

        assert await socket.output() == {"type": "websocket.close", "code": 4000}


async def test_it_closes_for_a_page_that_never_asked_for_anything() -> None:
    page = await in_database(Page)()
    socket = page.socket()
    assert await socket.connect()
    assert await socket.receive_json() == {"ready": True}
    await in_database(browser_sessions.sign_out)(page.browser)

    assert await socket.output() == {"type": "websocket.close", "code": 4403}


async def test_it_pushes_nothing_of_an_account_that_has_left() -> None:
    page = await in_database(Page)()
    pk = await in_database(attach)(page)
    async with connected(page) as socket:
        while await socket.says_something():
            await socket.output()
        await in_database(attachments.live_attachments().update)(ended_at=clock.now())
        await in_database(live.announce)(f"account:{pk}", "messages")

        assert await socket.output() == {"type": "websocket.close", "code": 4000}


async def test_it_closes_on_a_flood() -> None:
    page = await in_database(Page)()
    async with connected(page) as socket:
        for _ in range(11):
            await socket.say('{"here": true}')

        assert (await socket.output())["code"] == 4429


async def test_it_closes_on_a_message_that_is_too_long() -> None:
    page = await in_database(Page)()
    async with connected(page) as socket:
        await socket.say("x" * (64 * 1024 + 1))

        assert (await socket.output())["code"] == 4429


async def test_it_works_through_the_real_server() -> None:
    import websockets

    page, server = await in_database(Page)(), WebServer("127.0.0.1", 0)
    serving = asyncio.create_task(server.run())
    address = f"127.0.0.1:{server.port}"
    async with websockets.connect(
        f"ws://{address}/live/",
        origin=websockets.Origin(f"http://{address}"),
        additional_headers={"Cookie": page.cookie},
    ) as socket:
        await socket.send(json.dumps({"after": 0}))
        assert json.loads(await asyncio.wait_for(socket.recv(), 5)) == {"ready": True}
        await in_database(live.announce)(page.topic, "pairing")
        [event] = json.loads(await asyncio.wait_for(socket.recv(), 5))["events"]
        assert event["kind"] == "pairing"
    server.stop()
    await serving
