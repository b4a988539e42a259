"""Accounts whose names would be something else if a platform read them, in texts of the bot."""

from __future__ import annotations

import re

from identity import labels
from identity.models import PlatformAccount

NAMES = (
    "[482 913](https://evil.example)",
    "<https://evil.example|482 913>",
    "@everyone <@1001> <!channel> <#7>",
    "**482** __913__ ~~x~~ ||y|| `z`",
    "\\*not bold\\* \\_",
    "https://evil.example",
    "<b>482</b> &lt; *x* _y_",
    "alice_b.c-d",
)


def mallory(name: str) -> PlatformAccount:
    """Somebody who calls themselves `name`."""
    return PlatformAccount(platform="slack", platform_user_id="U3MALLORY", display_name=name, username=name[:32])


def quoting(name: str, platform: str) -> str:
    """What the bot says of mallory on `platform`."""
    return f"{labels.described(mallory(name), on=platform)} used your code."


def as_discord_shows(text: str) -> str:
    """What is read on Discord. Fails if anything in it would be mark-up."""
    rest = re.sub(r"\\[^0-9A-Za-z\s]", "", text)
    words = rest.replace("Slack account", "").replace("(, ID", "ID").replace(")", "")
    found = re.search(r"[\\*_~`|<>\[\]@#]|\w+:", words)
    assert found is None, f"{found} is mark-up in {text!r}"
    return re.sub(r"\\([^0-9A-Za-z\s])", r"\1", text)
