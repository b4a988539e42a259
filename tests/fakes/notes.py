"""The server of the example platform: people leave notes, and the bot takes them and leaves answers."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import asdict, dataclass

from aiohttp import web
from aiohttp.typedefs import Handler

from adapters.platform import Platform
from tests.example_platform import PLATFORM

TOKEN = "notes-s3cret"
POLL_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Note:
    """What one person wrote."""

    id: str
    author: str
    name: str
    text: str


class NotesServer:
    """Fulfils PlatformUnderTest: alice writes.

    waiting: notes that the bot did not take away yet. answered: chat and text of each answer, by nonce.
    """

    user_id = "alice"
    chat_id = "with-alice"

    def __init__(self, description: Platform = PLATFORM) -> None:
        self.description = description
        self.waiting: list[Note] = []
        self.answered: dict[str, tuple[str, str]] = {}
        self._written: dict[str, Note] = {}
        self._refusals: list[web.HTTPException] = []
        self._changed = asyncio.Condition()
        app = web.Application(middlewares=[_for_the_bot])
        app.router.add_get("/me", self._me)
        app.router.add_get("/notes", self._notes)
        app.router.add_delete("/notes/{id}", self._take_away)
        app.router.add_post("/answers", self._answer)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)

    async def start(self) -> None:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()

    async def stop(self) -> None:
        await self._runner.cleanup()

    def settings(self) -> dict[str, str]:
        host, port = self._runner.addresses[0][:2]
        return {"NOTES_TOKEN": TOKEN, "NOTES_URL": f"http://{host}:{port}"}

    def refused_settings(self) -> dict[str, str]:
        return self.settings() | {"NOTES_TOKEN": "notes-of-another"}

    async def say(self, text: str) -> str:
        note = Note(f"note-{len(self._written)}", self.user_id, "Alice", text)
        self._written[note.id] = note
        await self.tell_again(note.id)
        return note.id

    async def tell_again(self, message_id: str) -> None:
        async with self._changed:
            self.waiting.append(self._written[message_id])
            self._changed.notify_all()

    async def answers(self, count: int) -> list[str]:
        async with asyncio.timeout(60), self._changed:
            await self._changed.wait_for(lambda: len(self.answered) >= count)
        return [text for chat, text in self.answered.values() if chat == self.chat_id]

    def refuse_next(self, *, permanent: bool) -> None:
        closed, busy = web.HTTPForbidden(), web.HTTPTooManyRequests(headers={"Retry-After": "0.01"})
        self._refusals.append(closed if permanent else busy)

    async def _me(self, request: web.Request) -> web.Response:
        return web.json_response({"name": "notes-bot"})

    async def _notes(self, request: web.Request) -> web.Response:
        with suppress(TimeoutError):
            async with asyncio.timeout(POLL_SECONDS), self._changed:
                await self._changed.wait_for(lambda: self.waiting)
        return web.json_response([asdict(note) for note in self.waiting[:1]])

    async def _take_away(self, request: web.Request) -> web.Response:
        note = self._written[request.match_info["id"]]
        if note in self.waiting:
            self.waiting.remove(note)  # told again, it waits a second time
        return web.Response(status=204)

    async def _answer(self, request: web.Request) -> web.Response:
        if self._refusals:
            raise self._refusals.pop(0)
        answer = await request.json()
        async with self._changed:
            self.answered.setdefault(answer["nonce"], (answer["chat"], answer["text"]))
            self._changed.notify_all()
        return web.json_response({"id": answer["nonce"]})


@web.middleware
async def _for_the_bot(request: web.Request, handler: Handler) -> web.StreamResponse:
    if request.headers.get("Authorization") != f"Bearer {TOKEN}":
        raise web.HTTPUnauthorized
    return await handler(request)
