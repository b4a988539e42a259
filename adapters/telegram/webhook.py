"""Telegram's webhook: set when the bot connects, watched, and taken down by a bot that polls.

What Telegram tells comes to the pages (webhooks.py), in whatever process they are served.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from telegram import Bot

from adapters.aio import is_set_within
from adapters.protocols import Superseded

log = logging.getLogger(__name__)

PATH = "/hooks/telegram"
WATCH_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Webhook:
    """Where Telegram calls, and what it shows there. Without a secret the bot polls, and nobody is to call there."""

    address: str
    secret: str = field(default="", repr=False)


async def put_up(bot: Bot, webhook: Webhook, wanted: list[str]) -> None:
    """Have Telegram call from now on; what waits is not dropped. Raises whatever the SDK does.

    One call at a time: of forty at once, as Telegram makes them by default, a later message could be stored first.
    """
    await bot.set_webhook(webhook.address, allowed_updates=wanted, secret_token=webhook.secret, max_connections=1)


async def take_down(bot: Bot, webhook: Webhook) -> None:
    """Remove our own webhook, which makes polling impossible. The webhook of another program stays.

    Raises whatever the SDK does.
    """
    if (await bot.get_webhook_info()).url == webhook.address:
        await bot.delete_webhook()


async def watch(bot: Bot, webhook: Webhook, platform: str, stop: asyncio.Event) -> None:
    """Until `stop` is set. Raises Superseded when another program set another webhook, and whatever the SDK does."""
    reported = datetime.now(tz=UTC) - timedelta(seconds=1)  # Telegram's moments are whole seconds
    while not await is_set_within(stop, WATCH_SECONDS):
        info = await bot.get_webhook_info()
        if info.url != webhook.address:
            raise Superseded(f"another poller or webhook took the place of ours for the bot of {platform}")
        if info.last_error_date and info.last_error_date > reported:
            reported = info.last_error_date
            log.warning(
                "%s: Telegram could not hand something over: %s", platform, ascii(info.last_error_message)[:200]
            )
