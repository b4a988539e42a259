"""A local Slack: the Web API and Socket Mode on one loopback port, and people who write."""

from __future__ import annotations

import html
import time
from typing import Any
from uuid import uuid4

from aiohttp import web

from adapters.playground.server import Person, Said, check_button
from adapters.playground.slack.api import WebApi
from adapters.playground.slack.responses import Responses
from adapters.playground.slack.socket import Envelope, SocketMode
from adapters.playground.slack.workspace import APP, BOT_USER, TEAM, Channel, Message, Workspace, button_of


class SlackServer:
    """A PlatformServer. `redeliver_after`: seconds until an event that is not acknowledged is sent again."""

    platform = "slack"

    def __init__(self, redeliver_after: float = 3.0) -> None:
        self.workspace = Workspace()
        self.said = self.workspace.said
        self.bot_token, self.app_token = f"xoxb-{uuid4().hex}", f"xapp-1-{uuid4().hex}"
        self.api = WebApi(self.workspace, {self.bot_token: "bot", self.app_token: "app"})
        self.typing = self.api.typing
        self.socket = SocketMode(self.workspace, redeliver_after)
        self.responses = Responses(self.workspace)
        self._runner: web.AppRunner | None = None
        self._port = 0

    def environment(self) -> dict[str, str]:
        api_url = f"http://127.0.0.1:{self._port}/api/"
        tokens = {"SLACK_BOT_TOKEN": self.bot_token, "SLACK_APP_TOKEN": self.app_token, "SLACK_API_URL": api_url}
        return tokens | {"BOTOS_SLACK_TRANSPORT": "socket"}

    async def start(self, port: int = 0) -> None:
        app = web.Application(client_max_size=8 * 1024 * 1024)
        app.router.add_route("*", "/api/{method}", self.api.handle)
        app.router.add_get("/link", self.socket.serve)
        app.router.add_post("/respond/{id}", self.responses.handle)
        self.api.heard = self.responses.heard = self._echo
        self.api.socket_address = self._socket_address
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", port).start()
        self._port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        self.socket.close()
        if self._runner is not None:
            await self._runner.cleanup()

    def limit_rates(self) -> None:
        """Refuse from now on what comes faster than Slack documents."""
        self.api.limiter.is_on = True

    def private_chat(self, person: Person) -> str:
        return self.workspace.private_chat(person).id

    async def say(
        self, person: Person, text: str, *, group: str = "", thread: str = "", mention: bool = False, reply_to: str = ""
    ) -> str:
        self.workspace.meet(person)
        channel = self.workspace.channel(group) if group else self.workspace.private_chat(person)
        words = (f"<@{BOT_USER}> " if mention else "") + html.escape(text, quote=False)
        team = self.workspace.team_of(person.id)
        about = {"user": person.id, "team": team, **({"user_team": team} if team != TEAM else {})}
        message = {"type": "message", "text": words, **about, **self._within(thread or reply_to)}
        written = await self.workspace.write(channel, message, author=person.id)
        if mention and channel.kind != "im":
            await self._tell(written["ts"], {**written, "type": "app_mention"}, channel)
        await self._tell(written["ts"], {**written, "channel_type": channel.kind}, channel)
        return str(written["ts"])

    async def edit(self, person: Person, message_id: str, text: str) -> None:
        channel, message = self.workspace.message(message_id)
        before = await self.workspace.rewrite(message, html.escape(text, quote=False))
        await self._tell_change(channel, message, before)

    async def command(self, person: Person, command: str, text: str, *, group: str = "") -> str:
        """A person runs a slash command; returns the envelope id.

        A `group` that starts with D is a private chat of two other people.
        """
        self.workspace.meet(person)
        channel = self.workspace.channel(group) if group else self.workspace.private_chat(person)
        about = {"command": command, "text": text, "user_id": person.id, "user_name": person.username}
        where = {"channel_id": channel.id, "channel_name": channel.name if group else "directmessage"}
        where["is_enterprise_install"] = "true" if self.workspace.is_org_wide else "false"  # a form has no types
        if self.workspace.enterprise:
            where |= {"enterprise_id": self.workspace.enterprise, "enterprise_name": "Org"}
        return await self._push(Envelope("slash_commands", {**self._request(channel), **about, **where}))

    async def press(self, person: Person, message_id: str, command: str) -> str:
        """A person presses a button of a message; returns the envelope id."""
        check_button(self.said, message_id, command)
        self.workspace.meet(person)
        channel, message = self.workspace.message(message_id)
        stamp = {"action_ts": self.workspace.next_ts()}
        action = {**button_of(message, command), **stamp}
        container = {"type": "message", "message_ts": message_id, "channel_id": channel.id, "is_ephemeral": False}
        about = {"type": "block_actions", "actions": [action], "message": message, "container": container}
        user = {"id": person.id, "username": person.username, "team_id": self.workspace.team_of(person.id)}
        enterprise = {"id": self.workspace.enterprise, "name": "Org"} if self.workspace.enterprise else None
        installed = {"enterprise": enterprise, "is_enterprise_install": self.workspace.is_org_wide}
        team = {"team": {"id": TEAM, "domain": "play"}, **installed}
        where: dict[str, Any] = {"channel": {"id": channel.id, "name": channel.name}, "user": user, **team}
        payload = {**self._request(channel, message), **about, **where, "state": {"values": {}}}
        return await self._push(Envelope("interactive", payload))

    async def wait_for(self, count: int, *, chat: str, timeout: float = 10.0) -> list[Said]:
        def by_bot() -> list[Said]:
            return [said for said in self.said if said.chat_id == chat and said.author_id == "bot"]

        await self.workspace.until(lambda: len(by_bot()) >= count, timeout)
        return by_bot()

    async def _echo(self, channel: Channel, message: Message, before: Message | None) -> None:
        """Slack tells the bot of its own messages, too."""
        if before is None:
            await self._tell(message["ts"], {**message, "channel_type": channel.kind}, channel)
        else:
            await self._tell_change(channel, message, before)

    async def _tell(self, message_id: str, event: dict[str, Any], channel: Channel) -> None:
        if not channel.has_bot:
            return
        payload = self._payload({**event, "channel": channel.id, "event_ts": event["ts"]})
        await self._push(Envelope("events_api", payload, message_id))

    async def _push(self, envelope: Envelope) -> str:
        """Tell the bot something; returns the envelope's id."""
        return await self.socket.push(envelope)

    async def _tell_change(self, channel: Channel, message: Message, before: Message) -> None:
        ts = self.workspace.next_ts()
        change = {"message": dict(message), "previous_message": before, "ts": ts, "hidden": True}
        event = {"type": "message", "subtype": "message_changed", **change, "channel_type": channel.kind}
        await self._tell(ts, event, channel)

    def _within(self, thread: str) -> dict[str, str]:
        if not thread:
            return {}
        return {"thread_ts": thread, "parent_user_id": self.workspace.message(thread)[1]["user"]}

    def _payload(self, event: Any) -> dict[str, Any]:
        enterprise, is_org_wide = self.workspace.enterprise or None, self.workspace.is_org_wide
        bot = {"user_id": BOT_USER, "is_bot": True, "is_enterprise_install": is_org_wide}
        seat = {"enterprise_id": enterprise, "team_id": None if is_org_wide else TEAM, **bot}
        about: dict[str, Any] = {"token": "unused", "team_id": TEAM, "api_app_id": APP, "authorizations": [seat]}
        if enterprise:
            about["enterprise_id"] = enterprise
        stamp = {"event_id": f"Ev{uuid4().hex[:10].upper()}", "event_time": int(time.time())}
        return {**about, **stamp, "type": "event_callback", "event": event}

    def _request(self, channel: Channel, message: Message | None = None) -> dict[str, Any]:
        response_url = f"http://127.0.0.1:{self._port}/respond/{self.responses.issue(channel, message)}"
        about = {"token": "unused", "team_id": TEAM, "team_domain": "play", "api_app_id": APP}
        return {**about, "response_url": response_url, "trigger_id": uuid4().hex}

    def _socket_address(self) -> str:
        return f"ws://127.0.0.1:{self._port}/link?ticket={self.socket.ticket()}&app_id={APP}"
