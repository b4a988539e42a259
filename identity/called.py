"""How accounts and browsers are called when people read of them."""

from __future__ import annotations

from django.utils.translation import gettext as _

from identity.models import Browser, PlatformAccount
from identity.names import harmless

PLATFORM_TITLES = {"telegram": "Telegram", "discord": "Discord", "slack": "Slack"}


def described(account: PlatformAccount) -> str:
    """`Telegram account "Alice B." (@alice_b, ID ..6789)`: its own names, made harmless, beside the end of the id."""
    at = "@" if account.platform.startswith("telegram") else ""
    handle = f"{at}{harmless(account.username)}, " if account.username else ""
    name = harmless(account.display_name) or _("no name")
    tail = account.platform_user_id[-4:]
    values = {"platform": title(account.platform), "name": name, "handle": handle, "tail": tail}
    return _('%(platform)s account "%(name)s" (%(handle)sID ..%(tail)s)') % values


def title(platform: str) -> str:
    """How people call a platform."""
    return PLATFORM_TITLES.get(platform, platform.title())


def described_browser(browser: Browser) -> str:
    """`A browser (Firefox on Linux)`."""
    name = harmless(browser.name)
    return _("A browser (%(name)s)") % {"name": name} if name else _("A browser")
