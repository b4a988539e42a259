"""How many calls a platform takes in a time. A local server counts only where its user asks for it."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most so many calls in so many seconds."""

    calls: int
    seconds: float


class Limiter:
    """Counts calls by key, for example by chat. `clock` gives seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.is_on = False
        self.clock = clock
        self._taken: defaultdict[tuple[str, RateLimit], deque[float]] = defaultdict(deque)

    def take(self, limits: dict[str, RateLimit]) -> float:
        """Count a call under each key. Returns 0, or the seconds to wait for a call that a limit forbids."""
        if not self.is_on:
            return 0.0
        now, wait = self.clock(), 0.0
        for key, limit in limits.items():
            taken = self._taken[key, limit]
            while taken and taken[0] <= now - limit.seconds:
                taken.popleft()
            if len(taken) >= limit.calls:
                wait = max(wait, taken[0] + limit.seconds - now)
        if not wait:
            for key, limit in limits.items():
                self._taken[key, limit].append(now)
        return wait
