"""Platform names and the adapters behind them. A deployer's own platform registers here too."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from adapters.duplicate_marker import ROOM
from adapters.protocols import NeedsConfiguration, PlatformAdapter
from identity.models import PLATFORM_NAME
from sessions_app.outbox.queue import TEXT_LIMIT

Config = Mapping[str, str]  # setting names and their values


class UnknownPlatform(LookupError, ImproperlyConfigured):
    """There is no platform of that name. The text says which there are."""

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True, slots=True)
class Platform:
    """How to build the adapter of a platform.

    `needs` are the settings without which it cannot run, the first of them the bot's token, and `may_have` others that
    `build` is given. `text_limit` is the longest message in UTF-16 code units. `streams`: whether people see an answer
    there while it is made. `otherwise`: a setting, the value of it with which the platform calls the pages, and what is
    needed in place of `needs` then.
    """

    build: Callable[[Config], PlatformAdapter]
    needs: tuple[str, ...] = ()
    may_have: tuple[str, ...] = ()
    text_limit: int = TEXT_LIMIT
    streams: bool = False
    otherwise: tuple[str, str, tuple[str, ...]] | None = None

    def needs_with(self, value_of: Callable[[str], str]) -> tuple[str, ...]:
        """What it needs with these settings."""
        if self.otherwise is None or value_of(self.otherwise[0]) != self.otherwise[1]:
            return self.needs
        return self.otherwise[2]


def _telegram(config: Config) -> PlatformAdapter:
    from adapters.telegram.adapter import TelegramAdapter
    from adapters.telegram.webhook import PATH, Webhook

    given = {"api_url": config["TELEGRAM_API_URL"]} if config["TELEGRAM_API_URL"] else {}
    secret = config["TELEGRAM_WEBHOOK_SECRET"] if config["BOTOS_TELEGRAM_TRANSPORT"] == "webhook" else ""
    webhook = Webhook(config["BOTOS_PUBLIC_URL"] + PATH, secret) if config["BOTOS_PUBLIC_URL"] else None
    return TelegramAdapter(token=config["TELEGRAM_BOT_TOKEN"], webhook=webhook, **given)


def _discord(config: Config) -> PlatformAdapter:
    from adapters.discord.adapter import DiscordAdapter

    addresses = {"api_url": config["DISCORD_API_URL"], "gateway_url": config["DISCORD_GATEWAY_URL"]}
    return DiscordAdapter(token=config["DISCORD_BOT_TOKEN"], **addresses)


def _slack(config: Config) -> PlatformAdapter:
    address = {"api_url": config["SLACK_API_URL"]} if config["SLACK_API_URL"] else {}
    if config["BOTOS_SLACK_TRANSPORT"] == "http":
        from adapters.slack.http_adapter import SlackHttpAdapter

        return SlackHttpAdapter(bot_token=config["SLACK_BOT_TOKEN"], **address)
    from adapters.slack.adapter import SlackAdapter

    return SlackAdapter(bot_token=config["SLACK_BOT_TOKEN"], app_token=config["SLACK_APP_TOKEN"], **address)


def _web(config: Config) -> PlatformAdapter:
    from adapters.web import WebAdapter

    return WebAdapter()


# The SDKs are imported when an adapter is built: each takes a good part of a second.
_platforms: dict[str, Platform] = {
    "telegram": Platform(
        _telegram,
        ("TELEGRAM_BOT_TOKEN",),
        ("TELEGRAM_API_URL", "BOTOS_TELEGRAM_TRANSPORT", "TELEGRAM_WEBHOOK_SECRET", "BOTOS_PUBLIC_URL"),
        4096 - ROOM,
        otherwise=("BOTOS_TELEGRAM_TRANSPORT", "webhook", ("TELEGRAM_BOT_TOKEN", "TELEGRAM_WEBHOOK_SECRET")),
    ),
    "discord": Platform(_discord, ("DISCORD_BOT_TOKEN",), ("DISCORD_API_URL", "DISCORD_GATEWAY_URL"), 2000 - ROOM),
    "slack": Platform(
        _slack,
        ("SLACK_BOT_TOKEN", "SLACK_APP_TOKEN"),
        ("SLACK_API_URL", "BOTOS_SLACK_TRANSPORT"),
        4000,
        otherwise=("BOTOS_SLACK_TRANSPORT", "http", ("SLACK_BOT_TOKEN", "SLACK_SIGNING_SECRET")),
    ),
    "web": Platform(_web, text_limit=100_000, streams=True),
}


def register_platform(
    name: str,
    build: Callable[[Config], PlatformAdapter],
    *,
    needs: Iterable[str] = (),
    may_have: Iterable[str] = (),
    text_limit: int = TEXT_LIMIT,
) -> None:
    """Make `name` a platform; the rest is as in `Platform`. Raises ValueError for what cannot be a platform's name."""
    if not re.fullmatch(PLATFORM_NAME, name):
        raise ValueError(f"{name!r} is no platform name: a-z, 0-9 and -, and a letter first")
    _platforms[name] = Platform(build, tuple(needs), tuple(may_have), text_limit)


def names() -> list[str]:
    """All platforms that are known here."""
    return list(_platforms)


def get(name: str) -> Platform:
    """Raises UnknownPlatform with the names that there are."""
    try:
        return _platforms[name]
    except KeyError:
        raise UnknownPlatform(f"There is no platform {name!r}. Hint: use one of {', '.join(_platforms)}.") from None


def is_configured(name: str) -> bool:
    """Whether the settings have all that the platform needs."""
    return not missing(name, {})


def missing(name: str, overrides: Config) -> list[str]:
    """The settings that the platform needs and that neither the settings nor `overrides` have."""
    needed = get(name).needs_with(lambda key: overrides.get(key) or _setting(key))
    return [key for key in needed if not (overrides.get(key) or _setting(key))]


def calls(name: str) -> bool:
    """Whether the platform calls the pages with the settings there are, so that they receive."""
    way = get(name).otherwise
    return way is not None and _setting(way[0]) == way[1]


def needs(name: str) -> tuple[str, ...]:
    """What the platform needs with the settings there are."""
    return get(name).needs_with(_setting)


def build(name: str, overrides: Config) -> PlatformAdapter:
    """The adapter of a platform, made of the settings and `overrides`. Raises NeedsConfiguration: what is missing."""
    platform = get(name)
    needed = platform.needs_with(lambda key: overrides.get(key) or _setting(key))
    config = {key: overrides.get(key) or _setting(key) for key in needed + platform.may_have}
    if lacking := missing(name, overrides):
        raise NeedsConfiguration(f"set {' and '.join(lacking)}")
    return platform.build(config)


def token_of(name: str, overrides: Config) -> str:
    """The bot's token; empty if there is none."""
    needs = get(name).needs
    return (overrides.get(needs[0]) or _setting(needs[0])) if needs else ""


def _setting(key: str) -> str:
    return str(getattr(settings, key, ""))
