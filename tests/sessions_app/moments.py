"""Time in the test's hands: what the database calls now is what the test says, on every engine."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection

from identity.support import clock

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


class StillClock:
    """The database's clock, which stands still until it is moved."""

    def __init__(self) -> None:
        self.now = NOON

    def move(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def put_in_place(self, patch: pytest.MonkeyPatch) -> StillClock:
        patch.setattr("identity.support.clock.Moment.statement", lambda moment: self._statement(moment.seconds))
        patch.setattr(clock, "read", lambda: self.now)
        return self

    def _statement(self, seconds: float) -> tuple[str, Any]:
        return "%s", connection.ops.adapt_datetimefield_value(self.now + timedelta(seconds=seconds))
