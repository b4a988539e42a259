"""Whether what is set about webhooks can work and is safe: who calls, and whom the platform finds."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from botos_project.env import BadSetting

TELEGRAM_SECRET = r"[A-Za-z0-9_-]{32,256}"  # Telegram takes shorter ones, which can be guessed
SLACK_SECRET = r"[!-~]{32,}"
MIN_SECRET_LENGTH = 32


def check(found: Mapping[str, str]) -> None:
    """`found` are settings by name. Raises BadSetting for a webhook that nobody could call, or everybody."""
    if found["BOTOS_TELEGRAM_TRANSPORT"] == "webhook":
        _check_address(found, "BOTOS_TELEGRAM_TRANSPORT=webhook", found["TELEGRAM_API_URL"])
        if not re.fullmatch(TELEGRAM_SECRET, found["TELEGRAM_WEBHOOK_SECRET"]):
            problem = "TELEGRAM_WEBHOOK_SECRET is not 32 to 256 of A-Z, a-z, 0-9, _ and -."
            raise BadSetting("E012", problem, hint="set it to 32 or more random characters; BotOS tells Telegram.")
    if found["BOTOS_SLACK_TRANSPORT"] == "http":
        _check_address(found, "BOTOS_SLACK_TRANSPORT=http", found["SLACK_API_URL"])
        if not re.fullmatch(SLACK_SECRET, found["SLACK_SIGNING_SECRET"]):
            problem = f"SLACK_SIGNING_SECRET is not {MIN_SECRET_LENGTH} characters or more."
            raise BadSetting("E013", problem, hint='copy it from "Basic Information" of the Slack app.')


def _check_address(found: Mapping[str, str], chosen: str, own_server: str) -> None:
    """A platform calls by https; a server of one's own in its place may be on the same machine."""
    if urlsplit(found["BOTOS_PUBLIC_URL"]).scheme not in (("https", "http") if own_server else ("https",)):
        problem = f"{chosen} needs an address that the platform can call."
        raise BadSetting("E011", problem, hint="set BOTOS_PUBLIC_URL=https://..., where the pages are served.")
