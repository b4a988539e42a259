from __future__ import annotations

import asyncio

import pytest

from adapters.aio import is_set_within

pytestmark = pytest.mark.asyncio


async def test_it_says_whether_the_event_is_set_in_time() -> None:
    event = asyncio.Event()
    assert not await is_set_within(event, 0.01)
    event.set()
    assert await is_set_within(event, None)
    assert await is_set_within(event, 0)


@pytest.mark.parametrize("turns", range(4))
async def test_it_loses_no_cancellation_when_the_event_is_set(turns: int) -> None:
    """However far the loop has come since then."""
    event = asyncio.Event()

    async def wait() -> None:
        await is_set_within(event, 60)
        await asyncio.Event().wait()

    waiting = asyncio.create_task(wait())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    event.set()
    for _ in range(turns):
        await asyncio.sleep(0)
    waiting.cancel()

    done, _ = await asyncio.wait({waiting}, timeout=0.5)
    assert done
    assert waiting.cancelled()
