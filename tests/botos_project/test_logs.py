from __future__ import annotations

import html
import json
import logging
import os
import re
from base64 import b64encode
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest
from django.db import InterfaceError, OperationalError

from botos_project.env import Environment
from botos_project.logs import JSONFormatter, RedactingFormatter
from tests import zygote

TOKEN = "123456:AAH-hunter2/x"


def written(message: str, *args: object, secrets: set[str], error: BaseException | None = None) -> str:
    exc_info = (type(error), error, error.__traceback__) if error else None
    record = logging.LogRecord("botos", logging.INFO, __file__, 1, message, args, exc_info)
    return RedactingFormatter(secrets=secrets).format(record)


def test_it_writes_time_level_logger_and_message() -> None:
    assert written("hello %s", "alice", secrets=set()).endswith(" INFO botos hello alice")


@pytest.mark.parametrize("form", [TOKEN, "123456%3AAAH-hunter2%2Fx"])
def test_it_masks_a_secret_in_the_message_and_in_its_arguments(form: str) -> None:
    line = written("GET /bot%s/getMe: %r", form, {"token": form}, secrets={TOKEN})

    assert line.endswith("GET /bot***/getMe: {'token': '***'}")


def test_it_masks_a_secret_in_an_exception_its_cause_and_the_source_line() -> None:
    def fail() -> None:
        try:
            raise ValueError(f"refused {TOKEN}")
        except ValueError as cause:
            raise RuntimeError("123456:AAH-hunter2/x", {TOKEN: 1}) from cause

    with pytest.raises(RuntimeError) as caught:
        fail()
    text = written("it failed", secrets={TOKEN}, error=caught.value)

    assert "Traceback" in text
    assert "RuntimeError: ('***', {'***': 1})" in text
    assert "hunter2" not in text


@pytest.mark.parametrize("kind", [OperationalError, InterfaceError])
def test_it_says_in_one_line_that_the_database_is_away(kind: type[Exception]) -> None:
    text = written("the sweep failed", secrets={TOKEN}, error=kind(f"no server at {TOKEN}\n\tIs it running?"))

    assert text.splitlines()[1:] == [f"{kind.__name__}: no server at *** Is it running?"]


def test_it_masks_the_longer_of_two_secrets_whole() -> None:
    assert written("abcdef", secrets={"abcd", "abcdef"}).endswith(" ***")


def test_it_leaves_words_alone_when_a_secret_is_empty_or_tiny() -> None:
    assert written("a cab", secrets={"", "a"}).endswith(" a cab")


def test_it_masks_a_secret_that_has_a_quote_or_a_line_break() -> None:
    secret = "hun'ter\n2\\"

    line = written("%s %r", secret, secret, secrets={secret})

    assert "ter" not in line


SPELLINGS: dict[str, Callable[[str, str], str]] = {
    "as it is": lambda user, password: password,
    "percent-encoded": lambda user, password: quote(password, safe=""),
    "percent-encoded in small letters": lambda user, password: re.sub(
        "%..", lambda code: code[0].lower(), quote(password, safe="")
    ),
    "in an address": lambda user, password: f"redis://{user}:{quote(password)}@host/0",
    "as a form": lambda user, password: quote_plus(password),
    "as Python prints it": lambda user, password: repr(password),
    "as Python prints bytes": lambda user, password: repr(password.encode()),
    "within a printed text": lambda user, password: repr(f"it's {password!r}"),
    "as JSON": lambda user, password: json.dumps({"password": password}),
    "as JSON in JSON": lambda user, password: json.dumps(json.dumps(password)),
    "as a header": lambda user, password: "Basic " + b64encode(f"{user}:{password}".encode()).decode(),
    "in base64": lambda user, password: b64encode(password.encode()).decode(),
    "on a page": lambda user, password: html.escape(password),
    "wrapped": lambda user, password: password[:9] + "\n    " + password[9:],
    "wrapped and printed": lambda user, password: password[:9] + "\\n" + password[9:],
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("kind", ["address", "secret"])
def test_it_masks_the_password_of_an_address_in_every_spelling(kind: str, spelling: str) -> None:
    password = "p w/ö%'\"&-Hunter2+Canary\\9"
    environment = Environment({"URL": f"https://bot%40x:{quote(password, safe='')}@model.example/v1"})
    getattr(environment, kind)("URL")

    line = written(SPELLINGS[spelling]("bot@x", password), secrets=environment.secrets)

    assert "***" in line
    assert not re.search("Hunter2|Canary|SHVudGVy|h1bnRlcj|IdW50ZXIy", line)


def test_it_masks_a_token_that_is_an_address_user_or_an_option() -> None:
    environment = Environment({"URL": "https://hunter2token@host/v1?api_key=hunter2key&page=contents"})
    environment.address("URL")

    assert "hunter2" not in written("hunter2token hunter2key", secrets=environment.secrets)
    assert "contents" in written("contents", secrets=environment.secrets)


def test_it_masks_each_line_of_a_secret_of_several_lines() -> None:
    secret = "-----BEGIN KEY-----\nhunter2hunter2\ncanarycanary\n-----END KEY-----"

    assert written("at canarycanary", secrets={secret}).endswith(" at ***")


@pytest.mark.parametrize("text", ["p='ab'", 'p="ab"', "password=ab&", "redis://:ab@host", "Bearer ab", "u:ab@h"])
def test_it_masks_a_tiny_secret_where_a_value_stands(text: str) -> None:
    line = written(text, secrets={"ab"})

    assert "ab" not in line.split(" botos ")[1]
    assert written("about a cab", secrets={"ab"}).endswith("about a cab")


def test_it_keeps_a_message_on_its_line_so_that_nobody_can_forge_a_record() -> None:
    line = written("said %s", "hi\r\n2026-01-01 ERROR botos forged", secrets=set())

    assert line.endswith("said hi\\r\\n2026-01-01 ERROR botos forged")


def test_it_does_not_change_the_record() -> None:
    record = logging.LogRecord("botos", logging.INFO, __file__, 1, "a %s", (TOKEN,), None)

    RedactingFormatter(secrets={TOKEN}).format(record)

    assert record.args == (TOKEN,)


def test_it_writes_one_object_a_line_without_secrets() -> None:
    secret = 'hun"ter\n2'
    error = ValueError(secret)
    record = logging.LogRecord("botos", logging.INFO, __file__, 1, "a\n%s", (secret,), (ValueError, error, None))
    record.event, record.delivery = 12, 40

    line = JSONFormatter(secrets={secret}).format(record)

    assert "\n" not in line
    assert "ter" not in line.replace("\\", "")
    found = json.loads(line)
    assert found.pop("time").endswith("Z")
    assert found == {
        "level": "INFO",
        "logger": "botos",
        "message": "a\n***",
        "event": 12,
        "delivery": 40,
        "exception": "ValueError: ***",
    }


WRITERS = {
    "an exception": "raise RuntimeError(SECRET)",
    "a thread": "import threading; t = threading.Thread(target=lambda: int(SECRET)); t.start(); t.join()",
    "a warning": "import warnings; warnings.warn(SECRET)",
    "what nobody raises": """
class Bad:
    def __del__(self): raise ValueError(SECRET)
Bad()""",
    "asyncio": """
import asyncio
async def main():
    asyncio.get_running_loop().call_soon(int, SECRET)
    await asyncio.sleep(0)
asyncio.run(main())""",
    "a handler from before": "early.warning(SECRET)",
    "a handler from before on stdout": "out.warning(SECRET)",
    "a handler of its own": "import logging; l = logging.getLogger('own'); l.addHandler(logging.StreamHandler()); "
    "l.propagate = False; l.warning(SECRET)",
    "print": "print(SECRET, file=sys.stderr)",
}
BEFORE = """
import logging, sys
early, out = logging.getLogger("early"), logging.getLogger("out")
early.addHandler(logging.StreamHandler()); out.addHandler(logging.StreamHandler(sys.stdout))
early.propagate = out.propagate = False
import django; django.setup()
from django.conf import settings
SECRET = settings.OPENAI_BASE_URL.split(":")[2].split("@")[0]
"""


@pytest.mark.parametrize("writer", WRITERS)
def test_it_masks_what_others_write_beside_the_log(writer: str) -> None:
    own = {
        "SECRET_KEY": "k" * 50,
        "BOTOS_ENV_FILE": "",
        "DJANGO_SETTINGS_MODULE": "botos_project.settings",
        "OPENAI_BASE_URL": "http://me:hunter2canary@127.0.0.1/v1",
    }

    done = zygote.run(["-c", BEFORE + WRITERS[writer]], environment=os.environ | own)

    assert "***" in done.stderr
    assert "canary" not in done.stderr + done.stdout
