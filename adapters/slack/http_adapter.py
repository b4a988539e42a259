"""Slack over HTTP: the pages take what Slack tells (webhook.py); here it is answered, and read what was missed.

Slack gives an event up after three repetitions, so what came while no page was served is in the histories only.
"""

from __future__ import annotations

import asyncio

from adapters.protocols import Inbox
from adapters.slack.adapter import PING_SECONDS, SlackAdapter
from adapters.slack.client import introduce, slack_client
from adapters.slack.directory import Directory
from adapters.slack.receiver import Receiver


class SlackHttpAdapter(SlackAdapter):
    """One bot in one workspace, without a socket."""

    def __init__(self, *, bot_token: str, api_url: str = "https://slack.com/api/", platform: str = "slack") -> None:
        super().__init__(bot_token=bot_token, app_token="", api_url=api_url, platform=platform)

    async def check(self) -> str:
        """See `Checkable`. Whether Slack knows the pages' address, it does not say."""
        return await self._check_bot()

    async def _session(self, inbox: Inbox) -> None:
        bot = slack_client(self._api_url, self._bot_token)
        me = await introduce(bot, self.platform)
        receiver = Receiver(inbox, me, Directory(bot), await inbox.marks())
        try:
            self._web, self._me, self._refused, self._shows_no_status = bot, me, False, False
            receiver.catch_up()
            inbox.connected(name=me.name)
            while not receiver.task.done():
                await asyncio.wait({receiver.task}, timeout=PING_SECONDS)
                self._check_token()
            receiver.task.result()
        finally:
            self._web = None
            await receiver.finish()
