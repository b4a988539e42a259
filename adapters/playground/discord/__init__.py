"""A local Discord: the real discord.py talks to it, a person is played by the methods of DiscordServer."""

from __future__ import annotations

import base64
from secrets import token_urlsafe

from aiohttp import web

from adapters.playground.discord.gateway import ANY, DIRECT_MESSAGES, GUILD_MESSAGES, GUILDS, Event, Gateway
from adapters.playground.discord.rest import API, BUTTON_CALLBACKS, MESSAGE_CALLBACKS, Asked, Rest
from adapters.playground.discord.world import ALL_PERMISSIONS, BUTTON, REPLY, Channel, Json, World, user_json
from adapters.playground.server import Person, Said, check_button

HOST = "127.0.0.1"
LOCALE = "en-US"
ATTACHMENT_SIZE_LIMIT = 10 * 1024 * 1024  # bytes, of a person or guild that pays for no more


class DiscordServer:
    """Fulfils PlatformServer. Groups are channels of one guild, by id or by name; a thread has an id of its own."""

    platform = "discord"

    def __init__(self) -> None:
        self.world = World()
        self.said: list[Said] = self.world.said
        self.token = _token(self.world.bot["id"])
        self.gateway = Gateway(self.world, self.token, self._welcome)
        self.rest = Rest(self.world, self.token, self._publish)
        self.typing = self.rest.typing
        self._runner: web.AppRunner | None = None
        self._address = ""

    def environment(self) -> dict[str, str]:
        return {
            "DISCORD_BOT_TOKEN": self.token,
            "DISCORD_API_URL": f"http://{self._address}{API}",
            "DISCORD_GATEWAY_URL": f"ws://{self._address}/gateway",
        }

    async def start(self, port: int = 0) -> None:
        app = web.Application()
        app.router.add_get("/gateway", self.gateway.handle)
        self.rest.add_routes(app)
        self.rest.gateway_address = lambda: self.environment()["DISCORD_GATEWAY_URL"]
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, HOST, port).start()
        self._address = f"{HOST}:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        if self._runner is not None:
            self.gateway.cut()
            await self._runner.cleanup()

    def limit_rates(self) -> None:
        """Refuse from now on what comes faster than Discord allows."""
        self.rest.limiter.is_on = True

    def private_chat(self, person: Person) -> str:
        return self.world.private_channel(person).id

    def group_chat(self, name: str) -> str:
        """The id of a channel of the guild."""
        return self.world.guild_channel(name).id

    async def say(
        self, person: Person, text: str, *, group: str = "", thread: str = "", mention: bool = False, reply_to: str = ""
    ) -> str:
        bot = self.world.bot
        content = f"<@{bot['id']}> {text}" if mention else text
        channel = await self._thread(thread, group) if thread else await self._place(person, group)
        more = self._reply(reply_to) if reply_to else {}
        message = self.world.write(channel, user_json(person), content, **more)
        await self._publish("MESSAGE_CREATE", message)
        return str(message["id"])

    async def edit(self, person: Person, message_id: str, text: str) -> None:
        message = self.world.find(message_id)
        self.world.rewrite(message, text)
        await self._publish("MESSAGE_UPDATE", message)

    async def press(self, person: Person, message_id: str, command: str) -> str:
        check_button(self.said, message_id, command)
        message = self.world.find(message_id)
        pressed = {"component_type": BUTTON, "custom_id": command, "id": 1}
        return await self._interact(person, 3, pressed, self.world.channels[message["channel_id"]], message=message)

    async def command(self, person: Person, name: str, text: str = "", *, group: str = "", context: int = 1) -> str:
        """A person runs a registered command; returns the interaction's id. `context` 2: in a chat of two people."""
        if name not in [command["name"] for command in self.rest.commands]:
            raise ValueError(f"there is no command {name!r}")
        options = [{"name": "text", "type": 3, "value": text}] if text else []
        about = {"id": "1", "name": name, "type": 1, "options": options}
        return await self._interact(person, 2, about, await self._place(person, group), context=context)

    async def _interact(
        self, person: Person, kind: int, about: Json, channel: Channel, *, context: int = 1, **more: object
    ) -> str:
        key, token = self.world.snowflake(), token_urlsafe(120)
        types = BUTTON_CALLBACKS if kind == 3 else MESSAGE_CALLBACKS
        pressed = more.get("message")
        self.rest.interactions[key] = Asked(token, types, channel, pressed if isinstance(pressed, dict) else None)
        user, guild_id = user_json(person), self.world.guild_id
        if channel.person is not None:
            who: Json = {"user": user, "context": context, "authorizing_integration_owners": {"0": "0"}}
        else:
            guild = {"id": guild_id, "locale": LOCALE, "features": []}
            member = {**self.world.member_json(user), "permissions": ALL_PERMISSIONS}
            who = {"guild_id": guild_id, "guild": guild, "guild_locale": LOCALE, "member": member, "context": 0}
            who["authorizing_integration_owners"] = {"0": guild_id}
        place = {**channel.as_json(), "permissions": ALL_PERMISSIONS}
        where = {"channel": place, "channel_id": channel.id, "app_permissions": ALL_PERMISSIONS, **who}
        rights = {"locale": LOCALE, "entitlements": [], "attachment_size_limit": ATTACHMENT_SIZE_LIMIT}
        ids = {"id": key, "application_id": self.world.bot["id"], "token": token, "version": 1, "type": kind, **rights}
        await self.gateway.publish("INTERACTION_CREATE", {**ids, "data": about, **where, **more}, ANY)
        return key

    async def wait_for(self, count: int, *, chat: str, timeout: float = 10.0) -> list[Said]:
        chat_id = chat if chat in self.world.channels else self.group_chat(chat)

        def answers() -> list[Said]:
            return [said for said in self.said if said.chat_id == chat_id and said.author_id == "bot"]

        await self.world.changes.until(lambda: len(answers()) >= count, timeout)
        return answers()

    async def _place(self, person: Person, group: str) -> Channel:
        if not group:
            return self.world.private_channel(person)
        known = len(self.world.channels)
        channel = self.world.guild_channel(group)
        if len(self.world.channels) > known:
            event = {**channel.as_json(), "guild_id": self.world.guild_id}
            await self.gateway.publish("CHANNEL_CREATE", event, GUILDS)
        return channel

    async def _thread(self, thread: str, group: str) -> Channel:
        """A thread of the group, or of the channel of the message that it begins with, whose id it then has."""
        if thread in self.world.channels:
            return self.world.channels[thread]
        beginning = [channel for channel in self.world.guild_channels() if thread in channel.messages]
        channel = self.world.thread(thread, beginning[0] if beginning else self.world.guild_channel(group or "general"))
        event = {**channel.as_json(), "guild_id": self.world.guild_id, "newly_created": True}
        await self.gateway.publish("THREAD_CREATE", event, GUILDS)
        return channel

    def _reply(self, message_id: str) -> Json:
        """A reply that does not also mention its author."""
        target = self.world.find(message_id)
        reference = {"type": 0, "message_id": message_id, "channel_id": target["channel_id"]}
        return {"type": REPLY, "message_reference": reference, "referenced_message": target}

    async def _publish(self, name: str, message: Json) -> None:
        private = self.world.channels[message["channel_id"]].person is not None
        await self.gateway.publish(name, self.world.as_event(message), DIRECT_MESSAGES if private else GUILD_MESSAGES)

    def _welcome(self, session_id: str) -> list[Event]:
        guild = {"id": self.world.guild_id, "unavailable": True}
        application = {"id": self.world.bot["id"], "flags": 0}
        address = {"session_id": session_id, "resume_gateway_url": self.environment()["DISCORD_GATEWAY_URL"]}
        ready = {"v": 10, "user": self.world.bot, "guilds": [guild], "application": application, **address}
        return [("READY", ready), ("GUILD_CREATE", self.world.guild_json())]


def _token(bot_id: str) -> str:
    """Three parts, as real ones have: the id, a time and a signature."""
    return base64.b64encode(bot_id.encode()).decode().rstrip("=") + ".GpLaYg.localSignatureThatOnlyThisServerKnows0"
