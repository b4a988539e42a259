from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.journeys.running import Platforms


@pytest.fixture
def platforms() -> Iterator[Platforms]:
    servers = Platforms()
    yield servers
    servers.close()
