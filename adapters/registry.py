"""Platform names and the adapters behind them. A deployer's own platform registers here too."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from adapters import web
from adapters.platform import FORM, Config, Platform, Setting, Transport, imported, is_name
from adapters.protocols import NeedsConfiguration, PlatformAdapter
from identity.support import platforms
from sessions_app.messages import BROWSER
from sessions_app.outbox.queue import TEXT_LIMIT


class UnknownPlatform(LookupError, ImproperlyConfigured):
    """There is no platform of that name. The text says which there are."""

    def __str__(self) -> str:
        return str(self.args[0])


def _configured() -> dict[str, Platform]:
    """Those that the settings name, and the browser. Raises ImproperlyConfigured for two of one name."""
    found: dict[str, Platform] = {}
    for path, platform in [*((path, imported(path)) for path in settings.BOTOS_PLATFORMS), ("", web.PLATFORM)]:
        if platform.name in found:
            problem = f"BOTOS_PLATFORMS names two platforms that are called {platform.name!r}"
            raise ImproperlyConfigured(f"{problem}. Hint: give {path or 'the other'} another name.")
        found[platform.name] = platform
    return found


_platforms = _configured()


def register_platform(
    name: str | Platform,
    build: Callable[[Config], PlatformAdapter] | Platform | None = None,
    *,
    needs: Iterable[str] = (),
    may_have: Iterable[str] = (),
    text_limit: int = TEXT_LIMIT,
) -> None:
    """Make a platform known, in one of three ways.

    `register_platform(platform)` takes its description. `register_platform(name, platform)` takes it under another
    name, as for a second workspace. `register_platform(name, build, ...)` takes what makes the adapter, with the
    settings without which it cannot run, the bot's token first, others that `build` is given, and the longest message
    in UTF-16 code units; the rest is as on the platform whose name stands before the first hyphen, if there is one.

    Raises ValueError for what cannot be a platform's name.
    """
    platform = name if isinstance(name, Platform) else build
    name = name.name if isinstance(name, Platform) else name
    if not is_name(name):
        raise ValueError(f"{name!r} is no platform name: {FORM}")
    if isinstance(platform, Platform):
        is_taken = any(one.title == platform.title for other, one in _platforms.items() if other != name)
        _platforms[name] = platforms.named(platform, name) if is_taken else replace(platform, name=name)
        return
    if platform is None:
        raise TypeError("register_platform takes a Platform, or a name and what makes its adapter")
    model = _platforms.get(name.partition("-")[0]) or Platform(name=name, build=platform, text_limit=text_limit)
    _platforms[name] = replace(
        platforms.named(model, name),
        build=platform,
        text_limit=text_limit,
        settings=(),
        reads=tuple(may_have),
        transports=(Transport(needs=tuple(needs)),),
        transport_setting="",
        server="",
        playground=None,
    )


def known() -> Mapping[str, Platform]:
    """The chat platforms by name: all but the browser, which comes along with the pages."""
    return {name: one for name, one in _platforms.items() if name != BROWSER}


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
    value_of = _values(overrides)
    return [key for key in get(name).transport(value_of).needs if not value_of(key)]


def calls(name: str) -> bool:
    """Whether the platform calls the pages with the settings there are, so that they receive."""
    return get(name).transport(_setting).is_called


def webhooks() -> dict[str, str]:
    """By platform that can call the pages, the dotted path of the view that takes its calls."""
    return {name: transport.view for name, one in known().items() for transport in one.transports if transport.view}


def needs(name: str) -> tuple[str, ...]:
    """What the platform needs with the settings there are."""
    return get(name).transport(_setting).needs


def build(name: str, overrides: Config) -> PlatformAdapter:
    """The adapter of a platform, made of the settings and `overrides`. Raises NeedsConfiguration: what is missing."""
    if lacking := missing(name, overrides):
        raise NeedsConfiguration(f"set {' and '.join(lacking)}")
    platform = get(name)
    return platform.build(platform.config(_values(overrides)))


def token_of(name: str, overrides: Config) -> str:
    """The bot's token; empty if there is none."""
    needed = get(name).needs
    return _values(overrides)(needed[0]) if needed else ""


def settings_by_name() -> dict[str, Setting]:
    """Every setting that a platform describes."""
    return {setting.name: setting for platform in _platforms.values() for setting in platform.settings}


def tokens() -> str:
    """The settings that the platforms need, for a sentence: `A, B, or C and D`. One platform's are enough."""
    each = [" and ".join(one.needs) for one in known().values() if one.needs]
    return f"{', '.join(each[:-1])}, or {each[-1]}" if each[1:] else "".join(each)


def _values(overrides: Config) -> Callable[[str], str]:
    return lambda key: overrides.get(key) or _setting(key)


def _setting(key: str) -> str:
    return str(getattr(settings, key, ""))
