"""Tokens that cannot be right, found at start instead of by a platform that refuses them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error

from adapters import registry

FORMS = {
    "TELEGRAM_BOT_TOKEN": r"[0-9]+:[A-Za-z0-9_-]{30,}",
    "DISCORD_BOT_TOKEN": r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+",
    "SLACK_BOT_TOKEN": r"xoxb-.+",
    "SLACK_APP_TOKEN": r"xapp-.+",
}
KINDS = {
    "TELEGRAM_BOT_TOKEN": "a Telegram token",
    "DISCORD_BOT_TOKEN": "a Discord token",
    "SLACK_BOT_TOKEN": "a Slack bot token (xoxb-)",
    "SLACK_APP_TOKEN": "a Slack app-level token (xapp-)",
}


def check_tokens(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[CheckMessage]:
    """No token stands in the place of another, and none of those that belong together is missing."""
    return [*_misplaced(), *_incomplete()]


def kind_of(token: str) -> str:
    """The setting that a token looks made for; empty if it looks like none."""
    return next((name for name, form in FORMS.items() if re.fullmatch(form, token)), "")


def _misplaced() -> list[CheckMessage]:
    found: list[CheckMessage] = []
    for name in FORMS:
        right = kind_of(getattr(settings, name, ""))
        if right and right != name:
            hint = f"put it in {right}, and {KINDS[name]} in {name}."
            found.append(Error(f"{name} contains {KINDS[right]}.", hint=hint, id="adapters.E001"))
    return found


def _incomplete() -> list[CheckMessage]:
    """A platform with some of what it needs was meant to be connected."""
    found: list[CheckMessage] = []
    for name in registry.names():
        needs, missing = registry.needs(name), registry.missing(name, {})
        if missing and len(missing) < len(needs):
            there = " and ".join(key for key in needs if key not in missing)
            problem = f"{there} is set, but not {' and '.join(missing)}."
            hint = f"set {' and '.join(missing)} too, or unset {there} to leave {name} out."
            found.append(Error(problem, hint=hint, id="adapters.E002"))
    return found
