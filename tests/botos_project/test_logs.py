from __future__ import annotations

import json
import logging

import pytest
from django.db import InterfaceError, OperationalError

from botos_project.logs import JSONFormatter, RedactingFormatter

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
