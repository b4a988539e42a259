"""Echo bots of eleven client libraries work with the local servers, so what those libraries need is there.

`make clients` installs the libraries in `.clients`, apart from those of BotOS, and runs this.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from adapters.playground.server import Person
from tests.fakes.discord import FakeDiscord
from tests.fakes.server import FakeServer
from tests.fakes.slack import FakeSlack
from tests.fakes.telegram import FakeTelegram

INSTALLED = Path(__file__).parents[2] / ".clients"
BOTS = Path(__file__).parent / "bots"
PATIENCE = 60.0  # seconds; a library's start takes a few
ALICE = {
    "telegram": Person("1001", "Alice", "alice"),
    "discord": Person("300000000000000001", "Alice", "alice"),
    "slack": Person("U1ALICE", "Alice", "alice"),
}
SERVERS: dict[str, type[FakeServer]] = {"telegram": FakeTelegram, "discord": FakeDiscord, "slack": FakeSlack}

pytestmark = [pytest.mark.asyncio, pytest.mark.clients]


@asynccontextmanager
async def running(script: str, environment: dict[str, str], log: Path) -> AsyncIterator[None]:
    """A bot's process, which is gone at the end."""
    python = INSTALLED / "python" / "bin" / "python"
    program = ("node",) if script.endswith(".js") else (str(python), "-u")
    about = {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], "NODE_PATH": str(INSTALLED / "node_modules")}
    with log.open("wb") as output:
        bot = await asyncio.create_subprocess_exec(
            *program, str(BOTS / script), env={**about, **environment}, stdout=output, stderr=output
        )
    try:
        yield
    finally:
        if bot.returncode is None:
            bot.kill()
        await bot.wait()


@pytest.mark.parametrize(
    ("platform", "script"),
    [
        ("telegram", "aiogram_echo.py"),
        ("telegram", "telebot_echo.py"),
        ("telegram", "python_telegram_bot_echo.py"),
        ("telegram", "grammy_echo.js"),
        ("telegram", "telegraf_echo.js"),
        ("discord", "discord_py_echo.py"),
        ("discord", "nextcord_echo.py"),
        ("discord", "hikari_echo.py"),
        ("discord", "discord_js_echo.js"),
        ("slack", "bolt_python_echo.py"),
        ("slack", "bolt_js_echo.js"),
    ],
)
async def test_it_serves_an_echo_bot_of(platform: str, script: str, tmp_path: Path) -> None:
    server, alice, log = SERVERS[platform](), ALICE[platform], tmp_path / "bot.log"
    await server.start()
    try:
        async with running(script, server.environment(), log):
            if isinstance(server, FakeDiscord):
                await server.connected(PATIENCE)  # Discord tells a bot nothing of what was said before
            chat = server.private_chat(alice)
            await server.say(alice, "hello")
            [echo] = await server.wait_for(1, chat=chat, timeout=PATIENCE)
            [button] = echo.buttons
            await server.say(alice, "again")
            await server.wait_for(2, chat=chat, timeout=PATIENCE)  # by now the bot knows that its first echo was sent
            await server.press(alice, echo.message_id, button.command)
            [_, _, answer] = await server.wait_for(3, chat=chat, timeout=PATIENCE)
    except TimeoutError:
        pytest.fail(f"{script} did not answer:\n{log.read_text()}")
    finally:
        await server.stop()

    assert (echo.text, button.label, answer.text) == ("echo: hello", "Press", "pressed: yes")
