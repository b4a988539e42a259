"""Tokens that cannot be right, found at start instead of by a platform that refuses them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error

from adapters import registry


def check_tokens(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[CheckMessage]:
    """No token stands in the place of another, and none of those that belong together is missing."""
    return [*_misplaced(), *_incomplete()]


def _misplaced() -> list[CheckMessage]:
    """A token of a form that only another setting's tokens have."""
    tokens = {name: one for name, one in registry.settings_by_name().items() if one.kind}
    found: list[CheckMessage] = []
    for name, setting in tokens.items():
        value = getattr(settings, name, "")
        right = next((one for one in tokens.values() if re.fullmatch(one.pattern, value)), setting)
        if right != setting:
            hint = f"put it in {right.name}, and {setting.kind} in {name}."
            found.append(Error(f"{name} contains {right.kind}.", hint=hint, id="adapters.E001"))
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
