"""Discord, by discord.py and its gateway."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adapters.duplicate_marker import ROOM
from adapters.platform import Config, LocalServer, Platform, Setting, Transport

if TYPE_CHECKING:
    from adapters.protocols import PlatformAdapter

MAX_TEXT = 2000  # characters


def _build(config: Config) -> PlatformAdapter:
    from adapters.discord.adapter import DiscordAdapter  # the library takes a good part of a second

    addresses = {"api_url": config["DISCORD_API_URL"], "gateway_url": config["DISCORD_GATEWAY_URL"]}
    return DiscordAdapter(token=config["DISCORD_BOT_TOKEN"], **addresses)


PLATFORM = Platform(
    name="discord",
    title="Discord",
    build=_build,
    text_limit=MAX_TEXT - ROOM,
    cut_at=(MAX_TEXT, 2 * MAX_TEXT),  # with Nitro, people write twice as much
    settings=(
        Setting("DISCORD_BOT_TOKEN", pattern=r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+", kind="a Discord token"),
        Setting("DISCORD_API_URL", is_secret=False, scheme="http"),
        Setting("DISCORD_GATEWAY_URL", is_secret=False, scheme="ws"),
    ),
    transports=(Transport(needs=("DISCORD_BOT_TOKEN",)),),
    markup=r"\*_~`|<>[]()@#:",  # in the middle of a line, and the colon that makes an address a link
    loggers=("discord",),
    server="https://discord.com",
    server_setting="DISCORD_API_URL",
    playground=LocalServer(path="adapters.playground.discord.DiscordServer", user_id="1000000{}"),
)
