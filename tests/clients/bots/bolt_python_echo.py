"""An echo bot with Bolt for Python, in Socket Mode."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from slack_bolt.adapter.socket_mode.aiohttp import AsyncSocketModeHandler
from slack_bolt.app.async_app import AsyncApp
from slack_sdk.web.async_client import AsyncWebClient

url = os.environ["SLACK_API_URL"]


async def main() -> None:
    app = AsyncApp(client=AsyncWebClient(os.environ["SLACK_BOT_TOKEN"], base_url=url))

    @app.event("message")
    async def echo(event: dict[str, Any], say: Any) -> None:
        button = {"type": "button", "action_id": "echo-yes", "text": {"type": "plain_text", "text": "Press"}}
        text = f"echo: {event['text']}"
        section = {"type": "section", "text": {"type": "plain_text", "text": text}}
        row = {"type": "actions", "block_id": "row", "elements": [{**button, "value": "yes"}]}
        await say(text=text, blocks=[section, row])

    @app.action({"block_id": "row", "action_id": "echo-yes"})
    async def pressed(ack: Any, action: dict[str, Any], respond: Any) -> None:
        await ack()
        await respond(f"pressed: {action['value']}", response_type="in_channel", replace_original=False)

    token = os.environ["SLACK_APP_TOKEN"]
    await AsyncSocketModeHandler(app, token, web_client=AsyncWebClient(token, base_url=url)).start_async()


asyncio.run(main())
