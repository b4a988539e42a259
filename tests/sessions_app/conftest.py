from __future__ import annotations

import pytest

from tests.sessions_app.moments import StillClock


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> StillClock:
    """The database's clock, in the test's hands."""
    return StillClock().put_in_place(monkeypatch)
