"""Pauses between attempts at something that fails."""

from __future__ import annotations

import random


def seconds(attempt: int, *, first: float, longest: float, least: float = 0.0) -> float:
    """Return how many seconds to wait after the `attempt`-th failure in a row, counted from 1.

    The value is random between `least` and a ceiling that begins at `first`, doubles with each attempt and stops at
    `longest`.
    """
    ceiling = min(longest, first * 2 ** (min(attempt, 64) - 1))
    return random.uniform(least, max(least, ceiling))  # noqa: S311 - it spreads attempts and hides nothing
