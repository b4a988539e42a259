"""What can be pressed instead of written."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Button:
    """Pressing it is the same as writing `command`, which holds no secret. At most 64 bytes: Telegram takes no more."""

    label: str
    command: str
