"""The server of the example platform: people leave notes, and the bot takes them and leaves answers."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import asdict, dataclass

from aiohttp import web
from aiohttp.typedefs import Handler

from adapters.platform import Platform
from adapters.playground.server import Person, Said
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
    """Fulfils PlatformServer. Notes has private chats alone, without edits and buttons.

    waiting: notes that the bot did not take away yet.
    """

    platform = PLATFORM.name

    def __init__(self) -> None:
        self.said: list[Said] = []
        self.waiting: list[Note] = []
        self._written: dict[str, Note] = {}
        self._refusals: list[web.HTTPException] = []
        self._changed = asyncio.Condition()
        app = web.Application(middlewares=[_for_the_bot])
        app.router.add_get("/me", self._me)
        app.router.add_get("/notes", self._notes)
        app.router.add_delete("/notes/{id}", self._take_away)
        app.router.add_post("/answers", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)

    async def start(self, port: int = 0) -> None:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", port).start()

    async def stop(self) -> None:
        await self._runner.cleanup()

    def environment(self) -> dict[str, str]:
        host, port = self._runner.addresses[0][:2]
        return {"NOTES_TOKEN": TOKEN, "NOTES_URL": f"http://{host}:{port}"}

    def private_chat(self, person: Person) -> str:
        return f"with-{person.id}"

    async def say(
        self, person: Person, text: str, *, group: str = "", thread: str = "", mention: bool = False, reply_to: str = ""
    ) -> str:
        if group or thread:
            raise ValueError("Notes has no groups")
        note = Note(f"note-{len(self._written)}", person.id, person.name, text)
        self._written[note.id] = note
        self.said.append(Said(note.id, self.private_chat(person), person.id, text))
        await self.tell_again(note.id)
        return note.id

    async def edit(self, person: Person, message_id: str, text: str) -> None:
        raise ValueError("a note stays as it is written")

    async def press(self, person: Person, message_id: str, command: str) -> str:
        raise ValueError("Notes has no buttons")

    async def wait_for(self, count: int, *, chat: str, timeout: float = 10.0) -> list[Said]:
        def answers() -> list[Said]:
            return [said for said in self.said if said.chat_id == chat and said.author_id == "bot"]

        async with asyncio.timeout(timeout), self._changed:
            await self._changed.wait_for(lambda: len(answers()) >= count)
        return answers()

    async def tell_again(self, message_id: str) -> None:
        """Tell the bot of a note once more, as the platform does when in doubt."""
        async with self._changed:
            self.waiting.append(self._written[message_id])
            self._changed.notify_all()

    def refuse_next(self, *, permanent: bool) -> None:
        """Refuse the bot's next answer: for good, or only now."""
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
            if answer["nonce"] not in [said.message_id for said in self.said]:
                self.said.append(Said(answer["nonce"], answer["chat"], "bot", answer["text"]))
                self._changed.notify_all()
        return web.json_response({"id": answer["nonce"]})


class NotesUnderTest:
    """Fulfils PlatformUnderTest: alice writes on a server of her own, once it is started."""

    user_id = "alice"
    chat_id = "with-alice"

    def __init__(self, description: Platform = PLATFORM) -> None:
        self.description = description
        self._server = NotesServer()
        self.start, self.stop = self._server.start, self._server.stop
        self.settings = self._server.environment
        self.tell_again, self.refuse_next = self._server.tell_again, self._server.refuse_next

    def refused_settings(self) -> dict[str, str]:
        return self.settings() | {"NOTES_TOKEN": "notes-of-another"}

    async def say(self, text: str) -> str:
        return await self._server.say(Person(self.user_id, "Alice"), text)

    async def answers(self, count: int) -> list[str]:
        return [said.text for said in await self._server.wait_for(count, chat=self.chat_id, timeout=60)]


@web.middleware
async def _for_the_bot(request: web.Request, handler: Handler) -> web.StreamResponse:
    if request.headers.get("Authorization") != f"Bearer {TOKEN}":
        raise web.HTTPUnauthorized
    return await handler(request)
