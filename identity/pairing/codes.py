"""The secrets of pairing: derived, written out, read back and hashed. Pure: no clock, no database, no randomness.

Each secret is a pseudo-random function of one key, a request's id and nonce, and its purpose, so that it is computed
whenever it must be shown and kept nowhere. What is kept for look-up is a keyed hash under another purpose.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import unicodedata
from collections.abc import Iterable, Iterator
from itertools import chain
from uuid import UUID

# No vowels, so that no code is a word; no Y, which may be one.
ALPHABET = "BCDFGHJKLMNPQRSTVWXZ"
CODE_LETTERS = 8
NUMBER_DIGITS = 6
TOKEN_BYTES = 16
TOKEN_PREFIX = "L"
_MAX_CODE_TEXT = 64  # characters; a code with everything that is ignored in it

MAX_IN_A_TEXT = 1000  # secrets that are looked for in one text

_TOKEN = re.compile(TOKEN_PREFIX + r"[A-Za-z0-9_-]{22}")
# Mark-up may stand around a token, and `_` and `-` are letters of one: so it is looked for at every letter.
_TOKEN_IN_TEXT = re.compile(rf"(?<![A-Za-z0-9])(?=({_TOKEN.pattern})(?![A-Za-z0-9]))")
# Looked for at every letter: the four before a code may be letters of the alphabet, too ("HTML WDJB-MJHT").
_ONE_CODE = re.compile(f"[{ALPHABET}]{{{CODE_LETTERS}}}")
_CODE_IN_TEXT = re.compile(rf"(?<![A-Z0-9])(?=([{ALPHABET}]{{4}}[\s-]{{0,3}}[{ALPHABET}]{{4}})(?![A-Z0-9]))")
# However it is spelled. A letter is no separator, so that no more than a few are looked at from each.
_CODE_SPELLED_OUT = re.compile(
    rf"(?<![A-Za-z0-9])(?=([{ALPHABET}](?:[\W_]{{0,8}}[{ALPHABET}]){{{CODE_LETTERS - 1}}})(?![A-Za-z0-9]))"
)
# Rows of letters, and of pairs, as long as they are, with the same between all of them.
_ROWS = [
    re.compile(f"(?<![A-Z0-9]){word}(?P<mark>{mark}){word}(?![A-Z0-9])(?:(?P=mark){word}(?![A-Z0-9]))*")
    for word, mark in ((f"[{ALPHABET}]", r"[\W_]{1,8}"), (f"[{ALPHABET}]{{2}}", r"[\W_]"))
]
# Two halves with mark-up between them, which sentences do not have there.
_HALVES_OF_CODE = re.compile(
    r"(?<![A-Z0-9])(?=(X{4}(?:_|[^\w\s/,;:&\x2b]){1,8}X{4})(?![A-Z0-9]))".replace("X", f"[{ALPHABET}]")
)
# Words in capitals that could be parts of a code, as many as stand together.
_CAPITALS = re.compile(
    r"(?<![A-Za-z0-9])X+(?![A-Za-z0-9])(?:[\W_]{1,8}X+(?![A-Za-z0-9]))*".replace("X", f"[{ALPHABET}]")
)
_HALVES_OF_NUMBER = re.compile(r"(?<![0-9])(?=([0-9]{3}[\s-]{0,3}[0-9]{3})(?![0-9]))")
_DIGITS_IN_TEXT = re.compile(r"[0-9](?:[\W_]{0,3}[0-9])*")
_HYPHENATED = re.compile(rf"(?<![A-Z0-9-])[{ALPHABET}]{{4}}-[{ALPHABET}]{{4}}(?![A-Z0-9-])")


def purpose_key(secret: str, purpose: str) -> bytes:
    """A key of 32 bytes for one purpose alone, made of a deployment's secret."""
    return hmac.digest(secret.encode(), f"botos.pairing.{purpose}".encode(), hashlib.sha256)


def code(key: bytes, request: UUID, nonce: bytes) -> str:
    """The link code of a request: 8 letters, 34 bits."""
    number = int.from_bytes(_derive(key, request, nonce, "code"))
    letters = []
    for _ in range(CODE_LETTERS):  # 256 bits over 20**8: no letter is noticeably likelier than another
        number, index = divmod(number, len(ALPHABET))
        letters.append(ALPHABET[index])
    return "".join(letters)


def token(key: bytes, request: UUID, nonce: bytes) -> str:
    """The link token of a request, for deep links: `L` and 22 characters of `A-Za-z0-9_-`, 128 bits."""
    raw = _derive(key, request, nonce, "token")[:TOKEN_BYTES]
    return TOKEN_PREFIX + base64.urlsafe_b64encode(raw).decode().rstrip("=")


def number(key: bytes, request: UUID, nonce: bytes) -> str:
    """The number that travels back: 6 digits."""
    derived = int.from_bytes(_derive(key, request, nonce, "number"))
    return f"{derived % 10**NUMBER_DIGITS:0{NUMBER_DIGITS}d}"


def _derive(key: bytes, request: UUID, nonce: bytes, purpose: str) -> bytes:
    return hmac.digest(key, b"\0".join((purpose.encode(), request.bytes, nonce)), hashlib.sha256)


def lookup_hash(key: bytes, secret: str) -> str:
    """What a code or token is looked up by: 64 hexadecimal digits."""
    return hmac.new(key, secret.encode(), hashlib.sha256).hexdigest()


def is_same(one: str, other: str) -> bool:
    """Compare secrets in constant time."""
    return hmac.compare_digest(one.encode(), other.encode())


def shown_code(letters: str) -> str:
    """`WDJBMJHT` as people read it: `WDJB-MJHT`."""
    return f"{letters[:4]}-{letters[4:]}"


def shown_number(digits: str) -> str:
    """`482913` as people read it: `482 913`."""
    return f"{digits[:3]} {digits[3:]}"


def read_code(text: str) -> str | None:
    """The code that `text` consists of, whatever its case, width, spaces and hyphens; None if it is no code."""
    letters = _without_separators(text)
    is_code = len(letters) == CODE_LETTERS and all(letter in ALPHABET for letter in letters)
    return letters if is_code else None


def read_token(text: str) -> str | None:
    """The link token that `text` is; None if it is none."""
    return text if _TOKEN.fullmatch(text) else None


def read_number(text: str) -> str | None:
    """The number that `text` consists of, whatever its digits, width, spaces and marks; None if it is none."""
    if len(text) > _MAX_CODE_TEXT:
        return None
    digits = re.sub(r"[\W_]", "", _with_plain_digits(_spelled_plainly(text)))
    is_number = len(digits) == NUMBER_DIGITS and digits.isascii() and digits.isdigit()
    return digits if is_number else None


def found_in_private(text: str) -> list[str]:
    """Every token in a text, and all that could be a code: whatever consists of one, and in a longer text two halves
    with blanks, hyphens or mark-up, and eight letters that stand by themselves, in even parts or in capitals. Each
    once, the first so many.

    What is found here counts as a guess. So letters must look like a code, and of a longer row no part does.
    """
    plain = _plainly(text)
    upper = plain.upper()
    rows = (
        found[0] for row, of in ((_CAPITALS, plain), *((one, upper) for one in _ROWS)) for found in row.finditer(of)
    )
    whole = (letters for letters in map(_letters_of, rows) if _ONE_CODE.fullmatch(letters))
    halves = map(_letters_of, (*_CODE_IN_TEXT.findall(upper), *_HALVES_OF_CODE.findall(upper)))
    alone = read_code(text)
    return _each_once(chain(_tokens_in(text), [alone] if alone else [], halves, whole))


def all_within(text: str) -> list[str]:
    """Every token in a text, and all that could be a code in whatever spelling; each once, and so many at most."""
    spelled = (found[1] for found in _CODE_SPELLED_OUT.finditer(_spelled_plainly(text)))
    return _each_once(chain(_tokens_in(text), map(_letters_of, spelled)))


def _tokens_in(text: str) -> Iterator[str]:
    return (found[1] for found in _TOKEN_IN_TEXT.finditer(text))


def _letters_of(spelled: str) -> str:
    return re.sub(r"[\W_]", "", spelled)


def _each_once(found: Iterable[str]) -> list[str]:
    known: dict[str, None] = {}
    for one in found:
        if len(known) == MAX_IN_A_TEXT:
            break
        known[one] = None
    return list(known)


def hyphenated_code_within(text: str) -> str | None:
    """The first `XXXX-XXXX` in a longer text, without its hyphen."""
    found = re.search(_HYPHENATED, _spelled_plainly(text))
    return found[0].replace("-", "") if found else None


def numbers_within(text: str) -> list[str]:
    """Everything in a longer text that could be a number: three digits and three, or six in whatever spelling, once or
    several times over.
    """
    mixed = _spelled_plainly(text)
    plain = _with_plain_digits(mixed)
    halves = (*_HALVES_OF_NUMBER.findall(mixed), *_HALVES_OF_NUMBER.findall(plain))
    numbers = dict.fromkeys(
        _once(re.sub(r"[\W_]", "", found)) for found in chain(halves, _DIGITS_IN_TEXT.findall(plain))
    )
    return [number for number in numbers if len(number) == NUMBER_DIGITS]


def _once(digits: str) -> str:
    """The number that is written here again and again, else the digits."""
    times = len(digits) // NUMBER_DIGITS
    return digits[:NUMBER_DIGITS] if digits == digits[:NUMBER_DIGITS] * times else digits


def _with_plain_digits(text: str) -> str:
    return "".join(str(unicodedata.decimal(letter, letter)) for letter in text)


def _spelled_plainly(text: str) -> str:
    return _plainly(text).upper()


def _plainly(text: str) -> str:
    visible = (letter for letter in unicodedata.normalize("NFKC", text) if not _is_invisible(letter))
    return "".join("-" if _is_hyphen(letter) else letter for letter in visible)


def _without_separators(text: str) -> str:
    if len(text) > _MAX_CODE_TEXT:
        return ""
    plain = unicodedata.normalize("NFKC", text).upper()
    return "".join(letter for letter in plain if not (letter.isspace() or _is_hyphen(letter) or _is_invisible(letter)))


def _is_hyphen(letter: str) -> bool:
    return unicodedata.category(letter) == "Pd" or letter == "\u2212"  # a minus sign is none to Unicode


def _is_invisible(letter: str) -> bool:
    return unicodedata.category(letter) == "Cf"  # zero-width and direction marks, which apps put in when copying
