from __future__ import annotations

import re
from uuid import UUID, uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from identity import codes

KEY = codes.purpose_key("a secret", "secrets")
REQUEST = UUID("12345678-1234-5678-1234-567812345678")
NONCE = bytes(16)


def test_it_derives_the_same_secrets_again() -> None:
    assert codes.code(KEY, REQUEST, NONCE) == codes.code(KEY, REQUEST, NONCE)
    assert codes.token(KEY, REQUEST, NONCE) == codes.token(KEY, REQUEST, NONCE)
    assert codes.number(KEY, REQUEST, NONCE) == codes.number(KEY, REQUEST, NONCE)


def test_it_derives_other_secrets_for_another_key_request_or_nonce() -> None:
    inputs = [
        (KEY, REQUEST, NONCE),
        (codes.purpose_key("another secret", "secrets"), REQUEST, NONCE),
        (codes.purpose_key("a secret", "look-up"), REQUEST, NONCE),
        (KEY, uuid4(), NONCE),
        (KEY, REQUEST, b"\1" * 16),
    ]

    assert len({codes.code(*given) for given in inputs}) == len(inputs)
    assert len({codes.token(*given) for given in inputs}) == len(inputs)


def test_it_writes_secrets_in_their_alphabets() -> None:
    for _ in range(200):
        request = uuid4()
        assert re.fullmatch(f"[{codes.ALPHABET}]{{8}}", codes.code(KEY, request, NONCE))
        assert re.fullmatch(r"L[A-Za-z0-9_-]{22}", codes.token(KEY, request, NONCE))
        assert re.fullmatch(r"[0-9]{6}", codes.number(KEY, request, NONCE))


def test_it_uses_every_letter_about_as_often() -> None:
    letters = "".join(codes.code(KEY, uuid4(), NONCE) for _ in range(2000))

    assert all(600 < letters.count(letter) < 1000 for letter in codes.ALPHABET)


@pytest.mark.parametrize(
    "text",
    [
        "WDJB-MJHT",
        "wdjb-mjht",
        "  WDJB MJHT ",
        "wdjbmjht",
        "W D J B M J H T",
        "ＷＤＪＢ－ＭＪＨＴ",
        "WDJB\u2011MJHT",
        "WDJB\u200b-MJHT\n",
    ],
)
def test_it_reads_a_code_however_it_is_typed(text: str) -> None:
    assert codes.read_code(text) == "WDJBMJHT"


@pytest.mark.parametrize(
    "text", ["", "WDJB-MJH", "WDJB-MJHTT", "WDJB-MJHA", "hello you", "WDJB_MJHT", "12345678", "ＷＤＪＢ" * 99]
)
def test_it_reads_no_code_where_there_is_none(text: str) -> None:
    assert codes.read_code(text) is None


@pytest.mark.parametrize("text", ["482913", "482 913", " 482-913\n", "４８２９１３"])
def test_it_reads_a_number_however_it_is_typed(text: str) -> None:
    assert codes.read_number(text) == "482913"


@pytest.mark.parametrize("text", ["", "48291", "4829133", "48291a", "٤٨٢٩١٣", "²³¹²³¹x", "-482.913"])
def test_it_reads_no_number_where_there_is_none(text: str) -> None:
    assert codes.read_number(text) is None


def test_it_finds_codes_in_a_sentence() -> None:
    found = codes.codes_within("please send wdjb-mjht to the bot (or BCDF GHJK), not XBCDF-GHJKL")

    assert found == ["WDJBMJHT", "BCDFGHJK"]


def test_it_reads_back_what_it_shows() -> None:
    assert codes.read_code(codes.shown_code("WDJBMJHT")) == "WDJBMJHT"
    assert codes.read_number(codes.shown_number("482913")) == "482913"


@settings(max_examples=10_000)
@given(st.text(max_size=80))
def test_it_reads_any_text_without_failing(text: str) -> None:
    read = codes.read_code(text), codes.read_number(text), codes.read_token(text)

    assert read[0] is None or re.fullmatch(f"[{codes.ALPHABET}]{{8}}", read[0])
    assert read[1] is None or re.fullmatch("[0-9]{6}", read[1])
    assert read[2] is None or read[2] == text
    assert all(len(found) == 8 for found in codes.codes_within(text))
