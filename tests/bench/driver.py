"""One measured sample, in a process of its own: `python -P driver.py STEP '{"option": value}'` prints a JSON object.

The process works in the tree that is measured, which may be an older version of BotOS. So this file imports from it
only names that every version has, and nothing of the benchmark. CPU is what all threads of this process used.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import os
import secrets
import sys
import threading
import time
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import django

django.setup()

from django.conf import settings  # noqa: E402
from django.contrib.auth.models import User  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.db import connection  # noqa: E402
from django.db.backends.base.base import BaseDatabaseWrapper  # noqa: E402
from django.db.backends.signals import connection_created  # noqa: E402
from django.db.models import Model  # noqa: E402
from django.test import Client  # noqa: E402
from django.utils import timezone  # noqa: E402

from adapters.botos import Bot, BotOS  # noqa: E402
from adapters.registry import register_platform  # noqa: E402
from identity.models import Browser, BrowserAccount, Pairing, PlatformAccount  # noqa: E402
from identity.resolvers import DatabaseIdentityResolver  # noqa: E402
from sessions_app.messages import Address, InboundMessage, OutgoingMessage, Sender, Turn  # noqa: E402
from sessions_app.models import Conversation, HistoryEntry, InboundEvent, Lane, OutboundDelivery  # noqa: E402

PLATFORM = "bench"
QUESTION = "And how long will it take to get there by train if I leave on Thursday morning?"
ANSWER = "About four hours: leave at 7:12, change once, and you arrive a little after eleven. Shall I remind you?"
PATIENCE = 60.0  # seconds until a message counts as never answered
QUIET = 0.02  # seconds after an answer, in which the process stores that it was delivered


class Agent:
    """Answers at once, so that only BotOS is measured."""

    async def reply(self, turn: Turn) -> str:
        return ANSWER


class Platform:
    """A platform in this process: hands messages over as an adapter does, and takes every answer at once."""

    platform = PLATFORM
    text_limit = 4096

    def __init__(self) -> None:
        self.is_up = asyncio.Event()
        self._run = secrets.token_hex(4)  # several processes use one database
        self._keys = itertools.count(1)
        self._waiting: dict[str, asyncio.Future[None]] = {}
        self._inbox: Any = None

    async def run(self, inbox: Any, stop: asyncio.Event) -> None:
        self._inbox = inbox
        inbox.connected()
        self.is_up.set()
        await stop.wait()

    async def send(self, message: OutgoingMessage) -> str:
        self._waiting.pop(message.address.chat_id).set_result(None)
        return f"sent-{next(self._keys)}"

    async def ask(self, person: int) -> None:
        """Have a person write, and wait for the answer."""
        chat = f"chat-{person}"
        answered = self._waiting[chat] = asyncio.get_running_loop().create_future()
        key = f"{self._run}-{next(self._keys)}"
        await self._inbox.receive(
            InboundMessage(
                native_key=key,
                address=Address(PLATFORM, chat),
                sender=Sender(f"person-{person}", f"Person {person}"),
                text=QUESTION,
                message_id=key,
                chat_name=f"Person {person}",
            )
        )
        async with asyncio.timeout(PATIENCE):
            await answered

    async def ask_all(self, people: deque[int], turns: int, *, in_flight: int) -> None:
        """Have the people write in turns, each not before the last answer, and up to `in_flight` of them at once."""
        left = iter(range(turns))

        async def one_after_another() -> None:
            for _ in left:
                person = people.popleft()
                await self.ask(person)
                people.append(person)
                if in_flight == 1:
                    await asyncio.sleep(QUIET)

        await asyncio.gather(*(one_after_another() for _ in range(in_flight)))


@asynccontextmanager
async def running() -> AsyncIterator[Platform]:
    """BotOS on one platform, from its start to its end."""
    platform = Platform()
    register_platform(PLATFORM, lambda _: platform)
    botos = BotOS(agent=Agent(), bots=[Bot(PLATFORM)], identity_resolver=DatabaseIdentityResolver())
    serving = asyncio.create_task(botos.start())
    async with asyncio.timeout(PATIENCE):
        await platform.is_up.wait()
    try:
        yield platform
    finally:
        await botos.stop()
        await serving


async def turns(*, people: int, turns: int, in_flight: int, warm_up: int) -> dict[str, float]:
    """CPU and duration of a turn in milliseconds, and the CPU of PostgreSQL."""
    async with running() as platform:
        waiting = deque(range(people))
        await platform.ask_all(waiting, warm_up, in_flight=in_flight)
        gc.collect()
        server = await asyncio.to_thread(server_cpu)
        cpu, began = time.process_time(), time.perf_counter()
        await platform.ask_all(waiting, turns, in_flight=in_flight)
        cpu, took = time.process_time() - cpu, time.perf_counter() - began
        server = await asyncio.to_thread(server_cpu) - server
    each = {"cpu": cpu, "elapsed": took} | ({"server": server} if connection.vendor == "postgresql" else {})
    return {name: 1000 * seconds / turns for name, seconds in each.items()}


async def parts(*, people: int, turns: int, in_flight: int, warm_up: int) -> dict[str, float]:
    """CPU of a turn in milliseconds, by the part of BotOS that used it."""
    async with running() as platform:
        waiting = deque(range(people))
        await platform.ask_all(waiting, warm_up, in_flight=in_flight)
        sampler = Sampler()
        sampler.start()
        await platform.ask_all(waiting, turns, in_flight=in_flight)
        used = await asyncio.to_thread(sampler.stop)
    return {part: 1000 * seconds / turns for part, seconds in used.items()}


class Sampler(threading.Thread):
    """Looks a thousand times a second at what each thread runs, and adds up the CPU that it used since the last look.

    A part is the first function of BotOS on the stack: in the database's thread, what was called there.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._tree = f"{Path.cwd()}{os.sep}"
        self._own = tuple(f"{self._tree}{app}{os.sep}" for app in ("identity", "sessions_app", "adapters"))
        self._used: dict[str, float] = defaultdict(float)
        self._is_over = threading.Event()

    def stop(self) -> dict[str, float]:
        """CPU seconds by part."""
        self._is_over.set()
        self.join()
        return self._used

    def run(self) -> None:
        sys.setswitchinterval(0.0005)  # seconds, so that a busy thread cannot keep this one from looking
        seen: dict[int, float] = {}
        while not self._is_over.wait(0.001):
            for thread, frame in sys._current_frames().items():
                if thread == self.ident:
                    continue
                with suppress(OSError):  # the thread has ended
                    now = time.clock_gettime(time.pthread_getcpuclockid(thread))
                    self._used[self._part(thread, frame)] += now - seen.get(thread, now)
                    seen[thread] = now

    def _part(self, thread: int, frame: FrameType | None) -> str:
        part = "the event loop" if thread == threading.main_thread().ident else "threads that carry calls"
        while frame:
            file = frame.f_code.co_filename
            # db.py, earlier bridge.py, only carries a call to the database's thread.
            if file.startswith(self._own) and not file.endswith(("/db.py", "/bridge.py")):
                module = file.removeprefix(self._tree).removesuffix(".py").replace(os.sep, ".")
                part = f"{module}.{frame.f_code.co_qualname}"
            frame = frame.f_back
        return part


def server_cpu() -> float:
    """CPU seconds of the PostgreSQL processes that serve this database on this machine; 0.0 elsewhere."""
    if connection.vendor != "postgresql":
        return 0.0
    with connection.cursor() as cursor:
        cursor.execute("SELECT pid FROM pg_stat_activity WHERE datname = current_database()")
        pids = [pid for (pid,) in cursor.fetchall()]
    ticks = 0
    for pid in pids:
        with suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / 100


async def counts(*, people: int, turns: int) -> dict[str, float]:
    """Statements, transactions (of more than one statement) and calls of other threads of a turn, one at a time."""
    opened: set[BaseDatabaseWrapper] = set()  # a pool opens the same one many times

    def log_queries(connection: BaseDatabaseWrapper, **_: Any) -> None:
        connection.force_debug_cursor = True
        opened.add(connection)

    calls = 0
    submit = ThreadPoolExecutor.submit

    def counting(self: ThreadPoolExecutor, *args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        return submit(self, *args, **kwargs)

    connection_created.connect(log_queries)
    ThreadPoolExecutor.submit = counting  # type: ignore[assignment, method-assign]
    async with running() as platform:
        await platform.ask_all(deque(range(people)), people, in_flight=1)
        for each in opened:
            each.queries_log = deque()  # without its limit
        calls = 0
        await platform.ask_all(deque(range(people)), turns, in_flight=1)
        hops = calls
        said = [str(query["sql"]) for each in opened for query in each.queries_log.copy()]
        transactions = sum(statement.startswith("BEGIN") for statement in said)
        statements = len(said) - transactions - sum(statement in {"COMMIT", "ROLLBACK"} for statement in said)
    return {"statements": statements / turns, "transactions": transactions / turns, "hops": hops / turns}


# --- Databases with much in them


def fill(*, people: int, entries: int, kept: int = 0, others: int = 0) -> dict[str, float]:
    """Make a database in which `people` have `entries` each, and messages of `others` make up for `kept` messages.

    One real turn is the model of all rows, so that they have what this version writes.
    """
    call_command("migrate", verbosity=0)

    async def say_one() -> None:
        async with running() as platform:
            await platform.ask(-1)

    asyncio.run(say_one())
    copy_all(people, entries // 2, kept, others)
    return {}


def copy_all(people: int, turns: int, kept: int, others: int) -> None:
    everybody = people + others
    account, conversation = (model._meta.db_table for model in (PlatformAccount, Conversation))
    event, entry = (model._meta.db_table for model in (InboundEvent, HistoryEntry))
    changed = {"platform_user_id": "'person-' || n.i", "display_name": "'Person ' || n.i"}
    copy(PlatformAccount, changed, numbers(everybody))
    copy(
        Conversation,
        {"key": f"'{PLATFORM}:person-' || n.i", "chat_id": "'chat-' || n.i", "account_id": "a.id"},
        f"{numbers(everybody)} JOIN {account} a ON a.platform = old.platform AND a.platform_user_id = 'person-' || n.i",
    )
    copy(Lane, {"conversation_id": "c.id"}, f"JOIN {conversation} c ON c.id <> old.conversation_id")

    def copy_events(first: int, count: int, each: int) -> None:
        """So many events in each of `count` conversations, a second apart, the newest last."""
        moment = f"old.{{0}} - ({each} - t.i) * INTERVAL '1 second'"
        if connection.vendor == "sqlite":
            moment = f"strftime('%Y-%m-%d %H:%M:%f000', old.{{0}}, (t.i - {each}) || ' seconds')"
        copy(
            InboundEvent,
            {at: moment.format(at) for at in ("received_at", "done_at")}
            | {"native_key": "old.native_key || '-' || t.i || '-' || n.i", "message_id": "t.i || '-' || n.i"}
            | {"chat_id": "c.chat_id", "conversation_id": "c.id", "account_id": "c.account_id"},
            f"{numbers(each, 't')} {numbers(count, 'n', first)} "
            f"JOIN {conversation} c ON c.kind = 'dm' AND c.key = '{PLATFORM}:person-' || n.i",
            only_first=True,
        )

    copy_events(0, people, turns)
    if others:
        copy_events(people, others, max(kept - people * turns, 0) // others)
    said = {"conversation_id": "e.conversation_id", "chat_id": "e.chat_id", "event_id": "e.id"}
    said |= {"message_id": "CASE WHEN old.message_id = '' THEN '' ELSE e.message_id END"}
    copy(
        HistoryEntry,
        said | {"author_id": "e.account_id", "said_at": "e.received_at", "written_at": "e.received_at"},
        f"JOIN {event} e ON e.id <> old.event_id",
        order="e.id, old.id",
    )
    copy(
        OutboundDelivery,
        {"nonce": "'copy-' || r.id", "entry_id": "r.id", "event_id": "r.event_id", "chat_id": "r.chat_id"}
        | dict.fromkeys(("created_at", "settled_at"), "r.said_at"),
        f"JOIN {entry} r ON r.id <> old.entry_id AND r.role = 'assistant'",
        order="r.id",
    )
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE" if connection.vendor == "postgresql" else "PRAGMA wal_checkpoint(TRUNCATE)")


def numbers(count: int, name: str = "n", first: int = 0) -> str:
    return (
        f"CROSS JOIN (WITH RECURSIVE s(i) AS (SELECT {first} UNION ALL SELECT i + 1 FROM s "
        f"WHERE i < {first + count - 1}) SELECT i FROM s) {name}"
    )


def copy(
    model: type[Model], changed: Mapping[str, str], source: str, *, only_first: bool = False, order: str = ""
) -> None:
    """Insert copies of the rows that are there (`old`), each column as it was unless `changed` has an expression."""
    fields = [field for field in model._meta.concrete_fields if not field.primary_key or field.is_relation]
    columns = [str(field.column) for field in fields]
    values = ", ".join(changed.get(column, f"old.{column}") for column in columns)
    table = model._meta.db_table
    where = f"WHERE old.id = (SELECT MIN(id) FROM {table})" if only_first else ""
    order = f"ORDER BY {order}" if order else ""
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {table} ({', '.join(columns)}) SELECT {values} FROM {table} old {source} {where} {order}"
        )


# --- Pages


def pages(*, calls: int) -> dict[str, float]:
    """Milliseconds of `/metrics` and of the operators' longest lists."""
    client = Client(SERVER_NAME="localhost")
    client.force_login(User.objects.get_or_create(username="carol", is_staff=True, is_superuser=True)[0])
    lists = {"messages": InboundEvent, "deliveries": OutboundDelivery}
    addresses = {name: f"/admin/{model._meta.app_label}/{model._meta.model_name}/" for name, model in lists.items()}
    token = {"Authorization": f"Bearer {settings.BOTOS_METRICS_TOKEN}"}
    return {"metrics": loading(client, "/metrics", calls, token)} | {
        name: loading(client, address, calls) for name, address in addresses.items()
    }


def me(*, calls: int) -> dict[str, float]:
    """Milliseconds of `/me/` for the person of a database with one person."""
    browser, account = Browser.objects.create(), PlatformAccount.objects.get(platform_user_id="person-0")
    now = timezone.now()
    pairing = Pairing.objects.create(
        initiator_browser=browser, responder=account, state="attached", expires_at=now, last_at=now, ended_at=now
    )
    BrowserAccount.objects.create(browser=browser, account=account, pairing=pairing)
    client = Client(SERVER_NAME="localhost")
    session = client.session
    session["browser"] = str(browser.pk)
    session.save()
    return {"me": loading(client, "/me/", calls)}


def loading(client: Client, address: str, calls: int, headers: Mapping[str, str] | None = None) -> float:
    """The quickest of some calls after the first, in milliseconds: what else the machine does only adds to it."""
    times = []
    for _ in range(calls + 1):
        began = time.perf_counter()
        response = client.get(address, headers=headers)
        times.append(time.perf_counter() - began)
        assert response.status_code == 200, f"{address} answers {response.status_code}"
    return 1000 * min(times[1:])


STEPS: dict[str, Callable[..., Any]] = {
    "turns": turns,
    "parts": parts,
    "counts": counts,
    "fill": fill,
    "pages": pages,
    "me": me,
}


if __name__ == "__main__":
    result = STEPS[sys.argv[1]](**json.loads(sys.argv[2]))
    print(json.dumps(asyncio.run(result) if asyncio.iscoroutine(result) else result))
