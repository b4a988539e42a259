"""Buttons: commands that a person presses instead of typing."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Button:
    """A button that sends `command`, at most 64 bytes for Telegram, and without a secret."""

    label: str
    command: str
