"""What a private chat on Slack has that was not told: read from its history, page by page. Not what is in threads."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient

from adapters.backfill import AskLater, Unreadable, start_of
from adapters.slack.client import CANNOT_LOOK, PERMANENT, REFUSED, answer, seconds
from adapters.slack.events import stamp_at
from sessions_app.receiving.watermarks import Mark

PAGE = 200  # messages; Slack gives fewer to apps of some kinds
Page = Mapping[str, Any]
Ask = Callable[[Callable[[], Awaitable[Page]]], Awaitable[Page]]


async def missed(web: AsyncWebClient, chat_id: str, mark: Mark, ask: Ask) -> list[Any]:
    """All messages after a mark, the oldest first. `ask` gets a page, again and again if need be."""
    oldest = stamp_at(max(mark.position, int(start_of(mark).timestamp() * 10**6)))
    found: list[Any] = []
    cursor: str | None = None
    while cursor != "":
        page = await ask(partial(_page, web, chat_id, oldest, cursor))
        found += page.get("messages") or ()
        cursor = (page.get("response_metadata") or {}).get("next_cursor") or ""
    return found[::-1]


async def _page(web: AsyncWebClient, chat_id: str, oldest: str, cursor: str | None) -> Page:
    try:
        page = await web.conversations_history(channel=chat_id, oldest=oldest, limit=PAGE, cursor=cursor)
    except SlackApiError as error:
        raise _meaning(error) from None
    return page.data if isinstance(page.data, dict) else {}


def _meaning(error: SlackApiError) -> Exception:
    status, code, headers = answer(error)
    if status == 429 or code in ("ratelimited", "rate_limited"):
        return AskLater(seconds(headers.get("retry-after", "")))
    if code in CANNOT_LOOK | PERMANENT | REFUSED:
        return Unreadable(code)
    return ConnectionError(f"slack failed: {code or status}")
