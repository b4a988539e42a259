"""The description of a platform: everything that BotOS knows of one besides its adapter.

`adapters/<name>/__init__.py` holds one as `PLATFORM`. The settings read it before Django is ready, so a module with a
description imports neither models nor the platform's library; `build` does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING

from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from identity.support.platforms import MAX_NAME, NAME, PlatformTraits

if TYPE_CHECKING:
    from adapters.protocols import PlatformAdapter

Config = Mapping[str, str]  # setting names and their values
FORM = "a-z, 0-9 and -, a letter first, at most 40 characters"


@dataclass(frozen=True, slots=True)
class Setting:
    """One variable of a platform, which the settings read from the environment.

    is_secret: it is left out of logs, and may come from a file. scheme: it is an address that begins so, or with the
    scheme's variant with TLS. pattern: what it must look like, which the doctor checks. form: the same in words, for
    a secret that guards the pages: then it is checked at start, if the transport in use needs it. kind: what it is, in
    words, where the pattern tells it from every other setting. hint: where to get it. error: the id of the error about
    its form.
    """

    name: str
    _: KW_ONLY
    is_secret: bool = True
    scheme: str = ""
    pattern: str = ""
    form: str = ""
    kind: str = ""
    hint: str = "copy it from the platform again."
    error: str = "E012"


@dataclass(frozen=True, slots=True, kw_only=True)
class Transport:
    """A way in which messages come from the platform.

    name: the value of `Platform.transport_setting` that chooses it. needs: the settings without which it cannot run,
    the first of them the bot's token. view: the platform calls the pages, and this view, by its dotted path, takes its
    calls at `/hooks/<platform>`. own_server: the setting that names a server of one's own in place of the platform's,
    which may call without TLS.
    """

    needs: tuple[str, ...] = ()
    name: str = ""
    view: str = ""
    own_server: str = ""

    @property
    def is_called(self) -> bool:
        """Whether the platform calls, so that the pages receive."""
        return bool(self.view)


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalServer:
    """The platform's server for the playground.

    path: the dotted path of a class that takes no arguments and fulfils `adapters.playground.server.PlatformServer`;
    only the playground imports it. user_id: the form of a person's id there, which nobody has on the real platform,
    with `{}` for the person's number.
    """

    path: str
    user_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform(PlatformTraits):
    """A platform. `build` makes its adapter of its settings; `identity` reads what PlatformTraits has.

    settings: all its own; `build` is given these. reads: other settings that `build` is given. transports: the first
    is the default; `transport_setting` names the one in use.
    streams: whether people see an answer while it is made. loggers: of its library, which write at INFO what belongs
    in no log. server: an address of the platform that answers anybody, with its clock in the header `Date`;
    `server_setting` names the setting that replaces it. playground: its local server.
    """

    build: Callable[[Config], PlatformAdapter]
    text_limit: int
    settings: tuple[Setting, ...] = ()
    reads: tuple[str, ...] = ()
    transports: tuple[Transport, ...] = (Transport(),)
    transport_setting: str = ""
    streams: bool = False
    loggers: tuple[str, ...] = ()
    server: str = ""
    server_setting: str = ""
    playground: LocalServer | None = None

    @property
    def needs(self) -> tuple[str, ...]:
        """What it needs as it comes along."""
        return self.transports[0].needs

    def transport(self, value_of: Callable[[str], str]) -> Transport:
        """The transport in use with these settings."""
        chosen = value_of(self.transport_setting) if self.transport_setting else ""
        return next((one for one in self.transports if one.name == chosen), self.transports[0])

    def config(self, value_of: Callable[[str], str]) -> dict[str, str]:
        """What `build` is given."""
        own = (setting.name for setting in self.settings)
        names = {*own, *self.reads, *self.transport(value_of).needs, self.transport_setting} - {""}
        return {name: value_of(name) for name in names}


def imported(path: str) -> Platform:
    """The description at a dotted path. Raises ImproperlyConfigured: why there is none."""
    try:
        found = import_string(path)
    except ImportError as error:
        raise ImproperlyConfigured(f"{path} cannot be imported: {error}.") from None
    except Exception as error:  # noqa: BLE001 - any exception of a deployer's module
        problem = f"{path} cannot be imported before Django is ready ({type(error).__name__})"
        raise ImproperlyConfigured(f"{problem}; import models and libraries in its function `build`.") from None
    if not isinstance(found, Platform):
        raise ImproperlyConfigured(f"{path} is not a Platform of adapters.platform.")
    if not is_name(found.name):
        raise ImproperlyConfigured(f"{path} is named {found.name!r}, and a platform's name is {FORM}.")
    return found


def is_name(name: str) -> bool:
    """Whether a platform can have this name."""
    return re.fullmatch(NAME, name) is not None and len(name) <= MAX_NAME
