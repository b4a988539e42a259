"""The playground: a local server for each platform, some people with accounts there, and bots that connect to them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from django.utils.module_loading import import_string

from adapters import registry
from adapters.botos import Bot
from adapters.platform import LocalServer
from adapters.playground.server import Person, PlatformServer, Said, Typing
from identity.support import platforms
from identity.support.text import utf16_length


@dataclass(frozen=True, slots=True)
class Persona:
    """A person to play, with an account on each platform."""

    name: str
    accounts: dict[str, Person]


def _persona(name: str, number: int) -> Persona:
    """Ids of the platforms' form that nobody has there, since the playground may share a database with real people."""
    accounts = {
        platform: Person(local.user_id.format(number), name, f"{name.lower()}_{platform[0]}")
        for platform, local in _local().items()
    }
    return Persona(name, accounts)


def _local() -> dict[str, LocalServer]:
    """The local servers of the platforms that have one."""
    return {name: one.playground for name, one in registry.known().items() if one.playground}


PERSONAS = (_persona("Alice", 1001), _persona("Bob", 1002), _persona("Mallory", 1003))


class Playground:
    """Local servers for all platforms, on loopback. Their messages are gone when it stops."""

    def __init__(self) -> None:
        servers = {name: import_string(local.path)() for name, local in _local().items()}
        self.servers: dict[str, PlatformServer] = servers
        self.told = 0  # steps of the story
        self.answers = 0  # that stood in the chat of the last step before it
        self.telling = asyncio.Lock()
        self.last_used: dict[str, str] = {}  # by name of a persona, the platform
        self._forgotten: set[tuple[str, str]] = set()  # platform and id of messages from before it started over

    async def start(self) -> None:
        """Start the servers."""
        await asyncio.gather(*(server.start() for server in self.servers.values()))
        current.append(self)

    async def stop(self) -> None:
        """Stop the servers."""
        current.remove(self)
        await asyncio.gather(*(server.stop() for server in self.servers.values()))

    def bot(self, platform: str) -> Bot:
        """A bot that talks to the local server, by the same adapter that talks to the real one. After `start`."""
        return Bot(platform, config=self.servers[platform].environment())

    async def say(self, persona: Persona, platform: str, text: str) -> None:
        """A persona writes to the bot in private. As the app does, it sends a text above the app's limit in parts."""
        self.last_used[persona.name] = platform
        limit = min(platforms.of(platform).cut_at, default=utf16_length(text))
        while text:
            part = text.encode("utf-16-le")[: 2 * limit].decode("utf-16-le", "ignore")
            await self.servers[platform].say(persona.accounts[platform], part)
            text = text[len(part) :]

    async def press(self, persona: Persona, platform: str, message_id: str, command: str) -> None:
        """A persona presses a button in the private chat. Raises ValueError if there is no such button there."""
        if message_id not in [said.message_id for said in self.chat(persona, platform)]:
            raise ValueError("there is no such message")
        self.last_used[persona.name] = platform
        await self.servers[platform].press(persona.accounts[platform], message_id, command)

    def chat(self, persona: Persona, platform: str) -> list[Said]:
        """All that stands in the private chat of a persona with the bot, oldest first."""
        server = self.servers[platform]
        chat_id = server.private_chat(persona.accounts[platform])
        theirs = (said for said in server.said if said.chat_id == chat_id)
        return [said for said in theirs if (platform, said.message_id) not in self._forgotten]

    def is_typing(self, persona: Persona, platform: str) -> bool:
        """Whether the bot's typing sign is on in the private chat of a persona."""
        server = self.servers[platform]
        typing: Typing | None = getattr(server, "typing", None)
        return typing is not None and typing.is_on(server.private_chat(persona.accounts[platform]))

    def forget(self) -> None:
        """Empty the chats. The platforms still have the messages; the panes do not show them."""
        self.told = 0
        self.last_used.clear()
        self._forgotten = {(name, said.message_id) for name, server in self.servers.items() for said in server.said}


current: list[Playground] = []  # the one that runs in this process, for the page
