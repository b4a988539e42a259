"""The browser as a platform. It connects to nothing: a delivery's row is how an answer travels, since the pages read
the database, and sending tells the open ones to look. So another process may serve the pages, or take the turns.
"""

from __future__ import annotations

import asyncio

from adapters.platform import Platform
from adapters.protocols import DeliveryError, Inbox
from sessions_app import db
from sessions_app.messages import BROWSER, OutgoingMessage
from sessions_app.web import browser_chat

TEXT_LIMIT = 100_000  # UTF-16 code units; a page shows a text of any length


class WebAdapter:
    platform = BROWSER
    text_limit = TEXT_LIMIT

    async def run(self, inbox: Inbox, stop: asyncio.Event) -> None:
        inbox.connected()
        await stop.wait()

    async def send(self, message: OutgoingMessage) -> str:
        """Sending twice has the pages look twice."""
        if not await db.call(browser_chat.arrive, message):
            raise DeliveryError("the browser has signed out, and nothing shows it anywhere else", permanent=True)
        return message.nonce


PLATFORM = Platform(name=BROWSER, build=lambda config: WebAdapter(), text_limit=TEXT_LIMIT, streams=True)
