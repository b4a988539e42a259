from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from asgiref.sync import async_to_sync
from django.db import connections, transaction

from identity.models import UnifiedUser
from sessions_app import db

pytestmark = pytest.mark.django_db(transaction=True)


def make(name: str) -> str:
    UnifiedUser.objects.create(unified_user_id=name)
    return name


def names() -> set[str]:
    return set(UnifiedUser.objects.values_list("unified_user_id", flat=True))


def test_it_gives_what_a_function_returns_and_what_it_raises() -> None:
    async def main() -> None:
        assert await db.call(make, "alice") == "alice"
        with pytest.raises(UnifiedUser.DoesNotExist):
            await db.call(UnifiedUser.objects.get, unified_user_id="mallory")

    async_to_sync(main)()

    assert names() == {"alice"}


def test_it_crosses_in_one_thread() -> None:
    async def main() -> set[int]:
        return set(await asyncio.gather(*(db.call(threading.get_ident) for _ in range(20))))

    assert len(async_to_sync(main)()) == 1


def test_it_knows_how_long_a_call_waits() -> None:
    began, may_end = threading.Event(), threading.Event()

    def stand_still() -> None:
        began.set()
        may_end.wait(10)

    async def main() -> None:
        standing = asyncio.create_task(db.call(stand_still))
        await asyncio.to_thread(began.wait, 10)
        first = db.longest_wait()
        behind = asyncio.create_task(db.call(make, "alice"))
        await asyncio.sleep(0)
        assert db.longest_wait() > first > 0
        may_end.set()
        await asyncio.gather(standing, behind)
        assert db.longest_wait() == 0

    async_to_sync(main)()


def test_it_ends_what_it_began_although_the_caller_is_cancelled() -> None:
    began, may_end = threading.Event(), threading.Event()

    def slowly() -> None:
        began.set()
        may_end.wait(10)
        make("alice")

    async def main() -> None:
        task = asyncio.create_task(db.call(slowly))
        await asyncio.to_thread(began.wait, 10)
        task.cancel()
        await asyncio.sleep(0)
        assert not task.done()
        may_end.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await db.call(names) == {"alice"}
        await db.call(connections.close_all)  # the bridge's thread outlives the test

    with asyncio.Runner() as runner:
        runner.run(main())


def test_it_writes_what_it_accepted_in_order_and_drains() -> None:
    order: list[int] = []

    async def main() -> None:
        for number in range(10):
            db.call_soon(order.append, number)
        assert len(order) < 10
        await db.drain()

    gate = threading.Event()
    db.call_soon(gate.wait, 10)
    threading.Timer(0.01, gate.set).start()
    async_to_sync(main)()

    assert order == list(range(10))


def test_it_drains_when_there_is_nothing() -> None:
    async_to_sync(db.drain)()


def test_it_loses_nothing_if_the_draining_is_cancelled() -> None:
    gate = threading.Event()

    async def main() -> None:
        db.call_soon(gate.wait, 10)
        db.call_soon(make, "alice")
        draining = asyncio.create_task(db.drain())
        await asyncio.sleep(0)
        draining.cancel()
        await asyncio.gather(draining, return_exceptions=True)
        gate.set()
        await db.drain()

    async_to_sync(main)()

    assert names() == {"alice"}


def test_it_goes_on_after_a_call_that_failed() -> None:
    async def main() -> None:
        failed = db.call_soon(UnifiedUser.objects.get, unified_user_id="mallory")
        db.call_soon(make, "alice")
        await db.drain()
        assert isinstance(failed.exception(), UnifiedUser.DoesNotExist)

    async_to_sync(main)()

    assert names() == {"alice"}


def test_it_does_not_hold_up_the_bridge_with_what_waits() -> None:
    gate = threading.Event()

    async def main() -> None:
        db.call_soon(gate.wait, 10)
        async with asyncio.timeout(5):
            assert await db.call(make, "alice") == "alice"
        gate.set()
        await db.drain()

    async_to_sync(main)()


def test_it_leaves_no_connection_behind_in_a_thread() -> None:
    left: list[object] = []

    def work() -> None:
        db.call_from_any_thread(make, "alice")
        left.append(connections["default"].connection)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(10)

    assert left == [None]
    assert names() == {"alice"}


def test_it_keeps_the_connection_of_somebody_who_has_one() -> None:
    with transaction.atomic():
        db.call_from_any_thread(make, "alice")
        transaction.set_rollback(True)

    assert names() == set()


def test_it_knows_whether_it_may_block() -> None:
    async def main() -> tuple[bool, bool]:
        return db.is_in_event_loop(), await asyncio.to_thread(db.is_in_event_loop)

    assert not db.is_in_event_loop()
    assert async_to_sync(main)() == (True, False)


def test_it_writes_in_a_forked_process_too(tmp_path: Path) -> None:
    program = """
import os, pathlib, sys
from sessions_app import db
db.call_soon(int).result(10)  # the thread is there now
if (child := os.fork()) == 0:
    db.call_soon(pathlib.Path(sys.argv[1]).touch).result(10)
    os._exit(0)
os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    environment = os.environ | {"DJANGO_SETTINGS_MODULE": "tests.settings"}

    ended = subprocess.run([sys.executable, "-c", program, tmp_path / "done"], env=environment, timeout=30, check=False)

    assert ended.returncode == 0
    assert (tmp_path / "done").exists()
