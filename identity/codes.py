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
from uuid import UUID

# No vowels, so that no code is a word; no Y, which may be one.
ALPHABET = "BCDFGHJKLMNPQRSTVWXZ"
CODE_LETTERS = 8
NUMBER_DIGITS = 6
TOKEN_BYTES = 16
TOKEN_PREFIX = "L"
_LONGEST_CODE_TEXT = 64  # characters; a code with everything that is ignored in it

_TOKEN = re.compile(TOKEN_PREFIX + r"[A-Za-z0-9_-]{22}")
# Looked for at every letter: the four before a code may be letters of the alphabet, too ("HTML WDJB-MJHT").
_CODE_IN_TEXT = re.compile(rf"(?<![A-Z0-9])(?=([{ALPHABET}]{{4}}[\s-]{{0,3}}[{ALPHABET}]{{4}})(?![A-Z0-9]))")
_NUMBER_IN_TEXT = re.compile(r"(?<!\d)[0-9]{3}[\s-]{0,3}[0-9]{3}(?!\d)")
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
    """The number that `text` consists of, whatever its width, spaces and hyphens; None if it is none."""
    digits = _without_separators(text)
    is_number = len(digits) == NUMBER_DIGITS and digits.isascii() and digits.isdigit()
    return digits if is_number else None


def codes_within(text: str) -> list[str]:
    """Everything in a longer text that could be a code."""
    return [re.sub(r"[\s-]", "", found) for found in _CODE_IN_TEXT.findall(_spelled_plainly(text))]


def hyphenated_code_within(text: str) -> str | None:
    """The first `XXXX-XXXX` in a longer text, without its hyphen."""
    found = re.search(_HYPHENATED, _spelled_plainly(text))
    return found[0].replace("-", "") if found else None


def numbers_within(text: str) -> list[str]:
    """Everything in a longer text that could be a number."""
    return [re.sub(r"[\s-]", "", found) for found in _NUMBER_IN_TEXT.findall(_spelled_plainly(text))]


def _spelled_plainly(text: str) -> str:
    plain = unicodedata.normalize("NFKC", text).upper()
    visible = (letter for letter in plain if not _is_invisible(letter))
    return "".join("-" if _is_hyphen(letter) else letter for letter in visible)


def _without_separators(text: str) -> str:
    if len(text) > _LONGEST_CODE_TEXT:
        return ""
    plain = unicodedata.normalize("NFKC", text).upper()
    return "".join(letter for letter in plain if not (letter.isspace() or _is_hyphen(letter) or _is_invisible(letter)))


def _is_hyphen(letter: str) -> bool:
    return unicodedata.category(letter) == "Pd" or letter == "\u2212"  # a minus sign is none to Unicode


def _is_invisible(letter: str) -> bool:
    return unicodedata.category(letter) == "Cf"  # zero-width and direction marks, which apps put in when copying
