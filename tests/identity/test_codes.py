from __future__ import annotations

import re
from collections.abc import Callable
from uuid import UUID, uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from identity.pairing import codes
from tests.identity.sentences import SENTENCES

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


# No spelling of a code.
ODD = [
    "W D J B M J H T",
    "W.D.J.B.M.J.H.T",
    "WDJ-BMJ-HT",
    "WD JB MJ HT",
    "WDJB--MJHT",
    "WDJB  MJHT",
    "**WDJB**-**MJHT**",
]


@pytest.mark.parametrize(
    "text",
    [
        "WDJB-MJHT",
        "wdjb-mjht",
        "  WDJB MJHT ",
        "wdjbmjht",
        "**WDJB-MJHT**",
        "`wdjb-mjht`",
        "ＷＤＪＢ－ＭＪＨＴ",
        "WDJB\u2011MJHT",
        "WDJB\u200b-MJHT\n",
    ],
)
def test_it_reads_a_code_however_it_is_typed(text: str) -> None:
    assert codes.read_code(text) == "WDJBMJHT"


@pytest.mark.parametrize(
    "text", ["", "WDJB-MJH", "WDJB-MJHTT", "WDJB-MJHA", "hello you", "WDJB_MJHT", "12345678", "ＷＤＪＢ" * 99, *ODD]
)
def test_it_reads_no_code_where_there_is_none(text: str) -> None:
    assert codes.read_code(text) is None


@pytest.mark.parametrize(
    "text", ["482913", "482 913", " 482-913\n", "４８２９１３", "٤٨٢٩١٣", "-482.913", "4 8 2 9 1 3", "482\u00b7913!"]
)
def test_it_reads_a_number_however_it_is_typed(text: str) -> None:
    assert codes.read_number(text) == "482913"


@pytest.mark.parametrize("text", ["", "48291", "4829133", "48291a", "²³¹²³¹x", "48_29_13_0"])
def test_it_reads_no_number_where_there_is_none(text: str) -> None:
    assert codes.read_number(text) is None


def test_it_reads_no_more_than_64_characters() -> None:
    assert codes.read_number("123456" + " " * 58) == "123456"
    assert codes.read_number("123456" + " " * 59) is None


def test_it_finds_codes_in_a_sentence() -> None:
    found = codes.secrets_within("please send wdjb-mjht to the bot (or BCDF GHJK), not XBCDF-GHJKL")

    assert found == ["WDJBMJHT", "BCDFGHJK"]


SPELLED: list[Callable[[str], str]] = [
    str,
    lambda code: f"{code[:4]} {code[4:]}",
    lambda code: f"{code[:4]}-{code[4:]}",
    lambda code: f"{code[:4]}\u2212{code[4:]}",
    lambda code: f"{code[:4]}\u00a0{code[4:]}",
    lambda code: f"`{code[:4]}-{code[4:]}`",
    lambda code: f"**{code[:4]}-{code[4:]}**",
    lambda code: "".join(chr(ord(letter) + 0xFEE0) for letter in code),
    lambda code: f"HTML {code[:4]}-{code[4:]}",
]


@pytest.mark.parametrize("spelled", SPELLED)
@pytest.mark.parametrize("case", [str.upper, str.lower, str.capitalize])
def test_it_finds_codes_in_each_of_their_spellings(spelled: Callable[[str], str], case: Callable[[str], str]) -> None:
    text = f"my code is {case(spelled('WDJBMJHT'))} please"

    assert "WDJBMJHT" in codes.secrets_within(text)


@pytest.mark.parametrize("text", ["xWDJBMJHT", "WDJBMJHT1", "WDJBaMJHT", "WDJB\nor MJHT", "WDJB/MJHT", *ODD])
def test_it_finds_no_code_in_other_letters(text: str) -> None:
    assert codes.secrets_within(f"it is {text} ok") == []


@pytest.mark.parametrize("case", [str, str.lower, str.capitalize])
def test_it_takes_no_ordinary_sentence_for_a_code(case: Callable[[str], str]) -> None:
    assert len(SENTENCES) == 200
    assert [one for one in SENTENCES if codes.secrets_within(case(one))] == []


@pytest.mark.parametrize("text", ["sq ft vs sq km", "kb, mb, gb, tb", "html, http", "html/http", "http:html", "c++"])
def test_it_takes_no_small_letters_for_a_code_that_are_just_words(text: str) -> None:
    assert codes.secrets_within(f"it is {text} or so") == []


@pytest.mark.parametrize(
    "text",
    [
        "G C D G\nG C D G\nG C D D\nG C D G",
        "Shipping to: DE, FR, NL, PL, CZ, DK, HR, GR, BG, SK, HU",
        "W W D L W\nW D D W L",
        "The consonants are B, C, D, F, G, H, J, K, L, M",
        "B D C B D C C B D B",
        "R L R R L R L L R L R R L R L L",
    ],
)
def test_it_takes_no_part_of_a_longer_row_for_a_code(text: str) -> None:
    assert codes.secrets_within(text) == []


@pytest.mark.parametrize("form", ["{}", "_{}_", "*{}*", "start={}&x", "-{}-", "({})"])
def test_it_finds_tokens_with_marks_around_them(form: str) -> None:
    token = codes.token(KEY, REQUEST, NONCE)

    assert codes.secrets_within(form.format(token))[0] == token


def test_it_finds_each_secret_once_and_so_many_at_most() -> None:
    assert codes.secrets_within("WDJB-MJHT " * 10_000)[0] == "WDJBMJHT"
    assert len(codes.secrets_within("WDJB-MJHT " * 10_000)) < 10
    many = " ".join(codes.code(KEY, uuid4(), NONCE) for _ in range(11_000))
    assert len(codes.secrets_within(many)) == codes.MAX_IN_A_TEXT
    assert len(codes.secrets_within("L_" * 50_000)) < 30


@pytest.mark.parametrize("pattern", ["_TOKEN_IN_TEXT", "_CODE_IN_TEXT", "_HYPHENATED", "_HALVES_OF_NUMBER"])
def test_it_looks_at_a_few_letters_from_each_and_at_no_more(pattern: str) -> None:
    """So that a text takes as long to read as it is long."""
    assert not re.search(r"[*+]|,\}", getattr(codes, pattern).pattern), "it repeats without an end"


@pytest.mark.parametrize(
    "text",
    [
        "it is 482913",
        "x482913",
        "482.913",
        "it is 4 8 2 9 1 3",
        "48-29-13 ok",
        "٤٨٢٩١٣",
        "\u0966482913",
        "room 12, 482913",
        "482913482913",
        "482 913, 482 913, 482 913",
    ],
)
def test_it_finds_a_number_in_any_spelling(text: str) -> None:
    assert "482913" in codes.numbers_within(text)


@pytest.mark.parametrize(
    "text", ["2026-11-22", "call 0701234567", "12, 34 and 56 times 7", "on 12 May at 10:30", "bus 100 or bus 245?"]
)
def test_it_finds_no_number_in_other_figures(text: str) -> None:
    assert codes.numbers_within(text) == []


def test_it_reads_back_what_it_shows() -> None:
    assert codes.read_code(codes.shown_code("WDJBMJHT")) == "WDJBMJHT"
    assert codes.read_number(codes.shown_number("482913")) == "482913"


UNICODE = st.text(max_size=80)
LETTERS = st.text(codes.ALPHABET, min_size=8, max_size=8)


@settings(max_examples=100)
@given(UNICODE, LETTERS, st.sampled_from(SPELLED))
def test_it_reads_any_text_without_failing(text: str, code: str, spelled: Callable[[str], str]) -> None:
    check_reading(text, code, spelled)


@pytest.mark.faults
@settings(max_examples=10_000, deadline=None)
@given(UNICODE, LETTERS, st.sampled_from(SPELLED))
def test_it_reads_ten_thousand_texts_without_failing(text: str, code: str, spelled: Callable[[str], str]) -> None:
    check_reading(text, code, spelled)


def check_reading(text: str, code: str, spelled: Callable[[str], str]) -> None:
    """Whatever a text is, what is read in it has the form of a secret; and a code is found with any text around it."""
    read = codes.read_code(text), codes.read_number(text), codes.read_token(text)
    found = codes.secrets_within(text)

    assert read[0] is None or re.fullmatch(f"[{codes.ALPHABET}]{{8}}", read[0])
    assert read[1] is None or re.fullmatch("[0-9]{6}", read[1])
    assert read[2] is None or read[2] == text
    assert all(re.fullmatch(f"[{codes.ALPHABET}]{{8}}", one) or codes.read_token(one) for one in found)
    assert all(re.fullmatch("[0-9]{6}", number) for number in codes.numbers_within(text))
    assert {read[0], read[2]} - {None} <= set(found)
    assert code in codes.secrets_within(f"{text} is {spelled(code)} is {text}")
