"""Telegram, by python-telegram-bot and long polling, or by webhook."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adapters.duplicate_marker import ROOM
from adapters.platform import Config, LocalServer, Platform, Setting, Transport

if TYPE_CHECKING:
    from adapters.protocols import PlatformAdapter

MAX_TEXT = 4096  # UTF-16 code units


def _build(config: Config) -> PlatformAdapter:
    from adapters.telegram.adapter import TelegramAdapter  # the library takes a good part of a second
    from adapters.telegram.webhook import PATH, Webhook

    given = {"api_url": config["TELEGRAM_API_URL"]} if config["TELEGRAM_API_URL"] else {}
    secret = config["TELEGRAM_WEBHOOK_SECRET"] if config["BOTOS_TELEGRAM_TRANSPORT"] == "webhook" else ""
    webhook = Webhook(config["BOTOS_PUBLIC_URL"] + PATH, secret) if config["BOTOS_PUBLIC_URL"] else None
    return TelegramAdapter(token=config["TELEGRAM_BOT_TOKEN"], webhook=webhook, **given)


PLATFORM = Platform(
    name="telegram",
    title="Telegram",
    build=_build,
    text_limit=MAX_TEXT - ROOM,
    cut_at=(MAX_TEXT,),
    settings=(
        Setting("TELEGRAM_BOT_TOKEN", pattern=r"[0-9]+:[A-Za-z0-9_-]{30,}", kind="a Telegram token"),
        Setting("TELEGRAM_API_URL", is_secret=False, scheme="http"),
        Setting(
            "TELEGRAM_WEBHOOK_SECRET",
            pattern=r"[A-Za-z0-9_-]{32,256}",  # Telegram takes shorter ones, which can be guessed
            form="32 to 256 of A-Z, a-z, 0-9, _ and -",
            hint="set it to 32 or more random characters; BotOS tells Telegram.",
        ),
    ),
    reads=("BOTOS_PUBLIC_URL",),
    transport_setting="BOTOS_TELEGRAM_TRANSPORT",
    transports=(
        Transport(name="polling", needs=("TELEGRAM_BOT_TOKEN",)),
        Transport(
            name="webhook",
            needs=("TELEGRAM_BOT_TOKEN", "TELEGRAM_WEBHOOK_SECRET"),
            view="adapters.webhooks.telegram",
            own_server="TELEGRAM_API_URL",
        ),
    ),
    handle_prefix="@",
    start_link="?start={token}",
    private_chat=r"[0-9]+",  # groups and channels have negative ids
    loggers=("telegram",),
    server="https://api.telegram.org",
    server_setting="TELEGRAM_API_URL",
    playground=LocalServer(path="adapters.playground.telegram.TelegramServer", user_id="90000000000{}"),
)
