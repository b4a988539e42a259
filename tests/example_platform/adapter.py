"""The adapter of Notes: a long poll in, one request for each answer out."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx

from adapters.aio import is_set_within
from adapters.protocols import DeliveryError, Inbox, NeedsConfiguration
from sessions_app.messages import Address, InboundMessage, OutgoingMessage, Sender
from tests.example_platform import PLATFORM


class NotesAdapter:
    """One bot on one server. Fulfils PlatformAdapter."""

    platform = PLATFORM.name
    text_limit = PLATFORM.text_limit

    def __init__(self, *, token: str, url: str) -> None:
        self._about: dict[str, Any] = {"base_url": url, "headers": {"Authorization": f"Bearer {token}"}, "timeout": 20}
        self._client: httpx.AsyncClient | None = None  # while connected

    async def run(self, inbox: Inbox, stop: asyncio.Event) -> None:
        """Take one note after the other. A server that does not serve ends it with httpx's error."""
        async with httpx.AsyncClient(**self._about) as client:
            me = (await self._ask(client, "GET", "/me")).json()
            self._client = client
            inbox.connected(name=me["name"])
            try:
                while not stop.is_set():
                    await self._take_note(client, inbox, stop)
            finally:
                self._client = None

    async def check(self) -> str:
        """See `Checkable`: the doctor asks."""
        async with httpx.AsyncClient(**self._about) as client:
            return str((await self._ask(client, "GET", "/me")).json()["name"])

    async def send(self, message: OutgoingMessage) -> str:
        """Leave an answer. The server knows each nonce, so a second attempt changes nothing."""
        if self._client is None:
            raise DeliveryError("notes is not connected")
        answer = {"chat": message.address.chat_id, "text": message.text, "nonce": message.nonce}
        try:
            response = await self._client.post("/answers", json=answer)
        except httpx.HTTPError as error:
            is_sent = not isinstance(error, httpx.ConnectError)
            raise DeliveryError(type(error).__name__, ambiguous=is_sent) from None
        if response.status_code == httpx.codes.TOO_MANY_REQUESTS:
            raise DeliveryError("too many answers", retry_after=float(response.headers["Retry-After"]))
        if response.is_error:
            raise DeliveryError(f"status {response.status_code}", permanent=response.is_client_error)
        return str(response.json()["id"])

    async def _take_note(self, client: httpx.AsyncClient, inbox: Inbox, stop: asyncio.Event) -> None:
        asking = asyncio.create_task(self._ask(client, "GET", "/notes"))
        stopping = asyncio.create_task(is_set_within(stop, None))
        await asyncio.wait({asking, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not asking.done():
            asking.cancel()
            return
        for note in asking.result().json():
            await inbox.receive(self._message(note))
            await self._ask(client, "DELETE", f"/notes/{note['id']}")  # only now: it is on disk

    async def _ask(self, client: httpx.AsyncClient, method: str, path: str) -> httpx.Response:
        response = await client.request(method, path)
        if response.status_code == httpx.codes.UNAUTHORIZED:
            raise NeedsConfiguration("NOTES_TOKEN is refused; copy it from the server's page")
        return response.raise_for_status()

    def _message(self, note: dict[str, str]) -> InboundMessage:
        address = Address(self.platform, chat_id=f"with-{note['author']}")
        sender = Sender(note["author"], name=note["name"])
        return InboundMessage(note["id"], address, sender, note["text"], message_id=note["id"])
