from __future__ import annotations

import pytest
from pytest_django import Settings

from identity.browsers.user_agents import rough_name
from identity.support.client_address import client_address, hash_of

FORWARDED = {"REMOTE_ADDR": "127.0.0.1", "HTTP_X_FORWARDED_FOR": "6.6.6.6, 203.0.113.9, 10.0.0.2"}


@pytest.mark.parametrize(("proxies", "expected"), [(0, "127.0.0.1"), (1, "10.0.0.2"), (2, "203.0.113.9")])
def test_it_believes_so_many_proxies_and_no_client(settings: Settings, proxies: int, expected: str) -> None:
    settings.BOTOS_TRUSTED_PROXIES = proxies

    assert client_address(FORWARDED) == expected


def test_it_takes_the_nearest_where_a_proxy_said_nothing(settings: Settings) -> None:
    settings.BOTOS_TRUSTED_PROXIES = 1

    assert client_address({"REMOTE_ADDR": "192.0.2.1"}) == "192.0.2.1"


def test_it_takes_a_household_for_one() -> None:
    def of(address: str) -> str:
        return hash_of({"REMOTE_ADDR": address})

    assert of("2001:db8:1:2::1") == of("2001:db8:1:2:ffff::9")
    assert of("2001:db8:1:2::1") != of("2001:db8:1:3::1")
    assert of("::ffff:192.0.2.1") == of("192.0.2.1") != of("192.0.2.2")
    assert "192.0.2.1" not in of("192.0.2.1")
    assert of("nonsense") == of("")


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0", "Firefox on Linux"),
        (
            "Mozilla/5.0 (Windows NT 10.0; Win64) AppleWebKit/537.36 Chrome/126.0 Safari/537.36 Edg/126.0",
            "Edge on Windows",
        ),
        ("Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) Version/17.5 Safari/604.1", "Safari on iPhone"),
        ("Your bank\u202e (please type the number)", ""),
    ],
)
def test_it_names_a_browser_in_words_of_its_own(said: str, expected: str) -> None:
    assert rough_name(said) == expected
