"""How accounts and browsers are called when people read of them."""

from __future__ import annotations

import re

from django.utils.translation import gettext as _

from identity.models import Browser, PlatformAccount
from identity.support import platforms
from identity.support.sanitize import literal


def described(account: PlatformAccount, *, on: str = "") -> str:
    """`Telegram account "Alice B." (@alice_b, ID ..6789)`: its own names, made harmless, beside the end of the id.

    `on` is the platform where it is read; none for a page.
    """
    at = platforms.of(account.platform).handle_prefix
    handle = f"{at}{literal(account.username, on)}, " if account.username else ""
    name = literal(account.display_name, on) or _("no name")
    tail = account.platform_user_id[-4:]
    values = {"platform": title(account.platform), "name": name, "handle": handle, "tail": tail}
    return _('%(platform)s account "%(name)s" (%(handle)sID ..%(tail)s)') % values


def title(platform: str) -> str:
    """How people call a platform."""
    return platforms.title(platform)


def with_commands(text: str, *, on: str) -> str:
    """What the bot says, with its commands as they are typed there."""
    prefix = platforms.of(on).command_prefix
    return re.sub(r"(?<![\w/:.])/(?=[a-z])", lambda _: prefix, text)


def described_browser(browser: Browser, *, on: str = "") -> str:
    """`A browser (Firefox on Linux)`. `on` as in `described`."""
    name = literal(browser.name, on)
    return _("A browser (%(name)s)") % {"name": name} if name else _("A browser")
