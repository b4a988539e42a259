"""The playground: the three local platform servers, some people with accounts there, and bots that connect to them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from adapters.botos import Bot
from adapters.playground.discord import DiscordServer
from adapters.playground.server import Person, PlatformServer, Said
from adapters.playground.slack import SlackServer
from adapters.playground.telegram import TelegramServer
from identity import linking


@dataclass(frozen=True, slots=True)
class Persona:
    """Somebody to play, with an account on each platform. `is_linked`: all of them are known to be one person's."""

    name: str
    accounts: dict[str, Person]
    is_linked: bool


def _persona(name: str, number: int, *, is_linked: bool) -> Persona:
    """Ids of the platforms' form that nobody has there, since the playground may share a database with real people."""
    accounts = {
        "telegram": Person(f"90000000000{number}", name, f"{name.lower()}_t"),
        "discord": Person(f"1000000{number}", name, f"{name.lower()}_d"),
        "slack": Person(f"U0PLAYGROUND{name.upper()}", name, f"{name.lower()}_s"),
    }
    return Persona(name, accounts, is_linked)


PERSONAS = (_persona("Alice", 1001, is_linked=True), _persona("Bob", 1002, is_linked=False))


class Playground:
    """Local servers for all platforms, on loopback. What is said there is gone when it stops."""

    def __init__(self) -> None:
        servers: Iterable[PlatformServer] = (TelegramServer(), DiscordServer(), SlackServer())
        self.servers = {server.platform: server for server in servers}

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
        """A persona writes to the bot in private."""
        await self.servers[platform].say(persona.accounts[platform], text)

    async def press(self, persona: Persona, platform: str, message_id: str, command: str) -> None:
        """A persona presses a button in the private chat. Raises ValueError if there is no such button there."""
        if message_id not in [said.message_id for said in self.chat(persona, platform)]:
            raise ValueError("there is no such message")
        await self.servers[platform].press(persona.accounts[platform], message_id, command)

    def chat(self, persona: Persona, platform: str) -> list[Said]:
        """All that stands in the private chat of a persona with the bot, oldest first."""
        server = self.servers[platform]
        chat_id = server.private_chat(persona.accounts[platform])
        return [said for said in server.said if said.chat_id == chat_id]


current: list[Playground] = []  # the one that runs in this process, for the page


def link_personas() -> None:
    """Link those accounts that are played as one person's, as a deployer's own code may."""
    for persona in PERSONAS:
        for platform, person in persona.accounts.items() if persona.is_linked else ():
            linking.link(
                platform=platform,
                platform_user_id=person.id,
                unified_user_id=f"playground-{persona.name.lower()}",
                display_name=persona.name,
                method="resolver",
                actor="playground",
            )
