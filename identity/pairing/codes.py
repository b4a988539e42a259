"""The secrets of pairing: derive, write, read and hash them. Pure: no clock, no database, no randomness.

Each secret is a pseudo-random function of a key, a request's id and nonce, and its purpose. It is computed whenever it
is shown, and stored nowhere; look-up uses a keyed hash under another purpose.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import string
import unicodedata
from itertools import chain
from uuid import UUID

# No vowels, so that no code is a word; no Y, which may be one.
ALPHABET = "BCDFGHJKLMNPQRSTVWXZ"
CODE_LETTERS = 8
NUMBER_DIGITS = 6
TOKEN_BYTES = 16
TOKEN_PREFIX = "L"
_MAX_TEXT = 64  # characters of a text that is a code or a number, with all that is ignored in it

MAX_IN_A_TEXT = 1000  # secrets that are looked for in one text

_MARKS = "*_`"  # around bold words and code
_TOKEN = re.compile(TOKEN_PREFIX + r"[A-Za-z0-9_-]{22}")
_CODE = re.compile(rf"[{ALPHABET}]{{4}}[\s-]?[{ALPHABET}]{{4}}")
# Looked for at every letter: `_` and `-` around a token are letters of one, and a word before a code may be half of one
# ("HTML WDJB-MJHT").
_TOKEN_IN_TEXT = re.compile(rf"(?<![A-Za-z0-9])(?=({_TOKEN.pattern})(?![A-Za-z0-9]))")
_CODE_IN_TEXT = re.compile(rf"(?<![A-Z0-9])(?=({_CODE.pattern})(?![A-Z0-9]))")
_HYPHENATED = re.compile(rf"(?<![A-Z0-9-])[{ALPHABET}]{{4}}-[{ALPHABET}]{{4}}(?![A-Z0-9-])")
_HALVES_OF_NUMBER = re.compile(r"(?<![0-9])(?=([0-9]{3}[\s-]{0,3}[0-9]{3})(?![0-9]))")
_DIGITS_IN_TEXT = re.compile(r"[0-9](?:[\W_]{0,3}[0-9])*")


def purpose_key(secret: str, purpose: str) -> bytes:
    """Derive a key of 32 bytes for one purpose from a deployment's secret."""
    return hmac.digest(secret.encode(), f"botos.pairing.{purpose}".encode(), hashlib.sha256)


def code(key: bytes, request: UUID, nonce: bytes) -> str:
    """Derive the link code of a request: 8 letters, 34 bits."""
    number = int.from_bytes(_derive(key, request, nonce, "code"))
    letters = []
    for _ in range(CODE_LETTERS):  # 256 bits over 20**8: no letter is noticeably likelier than another
        number, index = divmod(number, len(ALPHABET))
        letters.append(ALPHABET[index])
    return "".join(letters)


def token(key: bytes, request: UUID, nonce: bytes) -> str:
    """Derive the link token of a request, for deep links: `L` and 22 characters of `A-Za-z0-9_-`, 128 bits."""
    raw = _derive(key, request, nonce, "token")[:TOKEN_BYTES]
    return TOKEN_PREFIX + base64.urlsafe_b64encode(raw).decode().rstrip("=")


def number(key: bytes, request: UUID, nonce: bytes) -> str:
    """Derive the number of a request, which travels back: 6 digits."""
    derived = int.from_bytes(_derive(key, request, nonce, "number"))
    return f"{derived % 10**NUMBER_DIGITS:0{NUMBER_DIGITS}d}"


def _derive(key: bytes, request: UUID, nonce: bytes, purpose: str) -> bytes:
    return hmac.digest(key, b"\0".join((purpose.encode(), request.bytes, nonce)), hashlib.sha256)


def lookup_hash(key: bytes, secret: str) -> str:
    """Return the keyed hash of a code or token, for look-up: 64 hexadecimal digits."""
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
    """Return the eight letters of the code that `text` is, or None.

    A code is four letters, a dash, one blank or nothing, and four letters, in any case and width, with marks of bold or
    code around it.
    """
    if len(text) > _MAX_TEXT:
        return None
    plain = _plain(text).strip(_MARKS + string.whitespace)
    return _letters_of(plain) if _CODE.fullmatch(plain) else None


def read_token(text: str) -> str | None:
    """Return `text` if it is a link token, or None."""
    return text if _TOKEN.fullmatch(text) else None


def read_number(text: str) -> str | None:
    """Return the six digits that `text` consists of, with any blanks and marks between them, or None."""
    if len(text) > _MAX_TEXT:
        return None
    digits = re.sub(r"[\W_]", "", _with_plain_digits(_plain(text)))
    is_number = len(digits) == NUMBER_DIGITS and digits.isascii() and digits.isdigit()
    return digits if is_number else None


def secrets_within(text: str) -> list[str]:
    """Return every token in a text, then everything that is spelled as a code, each once; the first MAX_IN_A_TEXT.

    Words that only look like a code are among them, and count as wrong codes.
    """
    tokens = (match[1] for match in _TOKEN_IN_TEXT.finditer(text))
    spelled = (_letters_of(match[1]) for match in _CODE_IN_TEXT.finditer(_plain(text)))
    secrets: dict[str, None] = {}
    for secret in chain(tokens, spelled):
        if len(secrets) == MAX_IN_A_TEXT:
            break
        secrets[secret] = None
    return list(secrets)


def hyphenated_code_within(text: str) -> str | None:
    """Return the letters of the first `XXXX-XXXX` in a text, or None."""
    match = _HYPHENATED.search(_plain(text))
    return _letters_of(match[0]) if match else None


def numbers_within(text: str) -> list[str]:
    """Return everything in a text that may be a number: three digits and three, or six with marks between them.

    A number that is written several times in a row counts, too.
    """
    mixed = _plain(text)
    plain = _with_plain_digits(mixed)
    numbers: dict[str, None] = {}
    for spelled in chain(
        _HALVES_OF_NUMBER.findall(mixed), _HALVES_OF_NUMBER.findall(plain), _DIGITS_IN_TEXT.findall(plain)
    ):
        digits = re.sub(r"[\W_]", "", spelled)
        number = digits[:NUMBER_DIGITS]
        if len(number) == NUMBER_DIGITS and digits == number * (len(digits) // NUMBER_DIGITS):
            numbers[number] = None
    return list(numbers)


def _with_plain_digits(text: str) -> str:
    return "".join(str(unicodedata.decimal(letter, letter)) for letter in text)


def _letters_of(code: str) -> str:
    return code[:4] + code[-4:]


def _plain(text: str) -> str:
    """The text in capitals of normal width, with one kind of dash and nothing that is invisible."""
    letters = []
    for letter in unicodedata.normalize("NFKC", text):
        category = unicodedata.category(letter)
        if category == "Pd" or letter == "\u2212":  # Unicode does not count the minus sign as a dash
            letters.append("-")
        elif category != "Cf":  # zero-width and direction marks, which apps add when text is copied
            letters.append(letter)
    return "".join(letters).upper()
