"""The settings of platforms: what their descriptions say of them, read from the environment and checked."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.functional import empty

from adapters.platform import Platform, Setting, Transport, imported
from botos_project.env import BadSetting, Environment

BUILT_IN: tuple[str, ...] = ("adapters.telegram.PLATFORM", "adapters.discord.PLATFORM", "adapters.slack.PLATFORM")


def read(paths: Iterable[str], env: Environment) -> dict[str, str]:
    """The settings of the platforms at these dotted paths, by name.

    Raises BadSetting for a path without a platform, and for a webhook that nobody could call, or everybody.
    """
    platforms = [_platform(path) for path in paths]
    found = {setting.name: _value(setting, env) for one in platforms for setting in one.settings}
    found |= {one.transport_setting: _choice(one, env) for one in platforms if one.transport_setting}
    return found


def check(paths: Iterable[str], found: Mapping[str, str]) -> None:
    """Raises BadSetting for a webhook that nobody could call, or everybody. `found` are settings by name."""
    for platform in map(imported, paths):
        transport = platform.transport(lambda name: found.get(name, ""))
        if not transport.is_called:
            continue
        _check_address(platform, transport, found)
        for setting in platform.settings:
            if setting.form and setting.name in transport.needs:
                _check_form(setting, found[setting.name])


def loggers(paths: Iterable[str]) -> list[str]:
    """The loggers of the platforms' libraries."""
    return [logger for platform in map(imported, paths) for logger in platform.loggers]


def _platform(path: str) -> Platform:
    was_configured = settings.configured
    try:
        return imported(path)
    except ImproperlyConfigured as error:
        if not was_configured:
            # A module that asked for a setting made Django take the half of them for all, and go on without the error.
            settings._wrapped = empty  # noqa: SLF001
        hint = "name Platform objects by their dotted paths, such as my_platform.PLATFORM."
        raise BadSetting("E021", f"BOTOS_PLATFORMS: {error}", hint=hint) from None


def _value(setting: Setting, env: Environment) -> str:
    if setting.is_secret:
        return env.secret(setting.name)
    return env.address(setting.name, scheme=setting.scheme) if setting.scheme else env.text(setting.name)


def _choice(platform: Platform, env: Environment) -> str:
    names = [one.name for one in platform.transports]
    return env.choice(platform.transport_setting, names[0], " ".join(names))


def _check_form(setting: Setting, value: str) -> None:
    if not re.fullmatch(setting.pattern, value):
        raise BadSetting(setting.error, f"{setting.name} is not {setting.form}.", hint=setting.hint)


def _check_address(platform: Platform, transport: Transport, found: Mapping[str, str]) -> None:
    """A platform calls by https; a server of one's own in its place may be on the same machine."""
    has_own_server = bool(found.get(transport.own_server))
    if urlsplit(found["BOTOS_PUBLIC_URL"]).scheme not in (("https", "http") if has_own_server else ("https",)):
        problem = f"{platform.transport_setting}={transport.name} needs an address that the platform can call."
        raise BadSetting("E011", problem, hint="set BOTOS_PUBLIC_URL=https://..., where the pages are served.")
