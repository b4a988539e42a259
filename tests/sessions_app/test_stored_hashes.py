"""Hashes that databases keep: a later version must compute the same ones, or it forgets what they stand for."""

from __future__ import annotations

from uuid import UUID

import pytest
from pytest_django import Settings

from identity.models import Browser
from identity.pairing import codes
from identity.support import client_address, keys
from identity.web import sign_in
from sessions_app.receiving import tombstones
from sessions_app.web import browser_chat

KEY = "k" * 50


@pytest.fixture(autouse=True)
def _fixed_key(settings: Settings) -> None:
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = KEY, []


def test_it_knows_what_earlier_versions_wrote() -> None:
    tombstone = tombstones.hashes("telegram", "1:2")[0]
    typed = browser_chat._native_keys(Browser(pk=UUID(int=7)), "key", "words")[0]

    assert client_address.hash_of({"REMOTE_ADDR": "192.0.2.1"}).startswith("2612e83a9f7f926b")
    assert keys.new_nonce().hex().endswith("cedc8612")
    assert tombstone.startswith("34a2b051d3fcd9af")
    assert typed == f"{UUID(int=7).hex} c77faddfe08ccddcd9d2febd441bf3fa key"
    assert codes.purpose_key(KEY, "forget").hex().startswith("bfa5382aa89ee27f")
    assert sign_in._hash("alice").startswith("f221bf38bd593b03")
