from __future__ import annotations

import logging

import pytest

from botos_project import refusals
from botos_project.refusals import OnceAMinute, WithoutTraceback


@pytest.mark.parametrize(
    ("name", "status", "is_kept"),
    [("django.request", 403, False), ("django.security.DisallowedHost", 400, False), ("django.request", 500, True)],
)
def test_it_takes_the_traceback_off_a_refusal_alone(name: str, status: int, is_kept: bool) -> None:
    error = ValueError("x")
    record = logging.LogRecord(name, logging.WARNING, __file__, 1, "Forbidden", (), (ValueError, error, None))
    record.status_code = status

    assert WithoutTraceback().filter(record)
    assert bool(record.exc_info) is is_kept


def line(name: str, message: str) -> logging.LogRecord:
    return logging.LogRecord(name, logging.ERROR, __file__, 1, message, (), None)


def test_it_passes_what_strangers_bring_about_once_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    once, now = OnceAMinute(), 5.0
    monkeypatch.setattr(refusals, "monotonic", lambda: now)
    full = line("asyncio", "socket.accept() out of system resource\nsocket: <asyncio.TransportSocket fd=7>")
    invalid, other = line("uvicorn.error", "Invalid HTTP request received."), line("asyncio", "Task was destroyed")

    assert [once.filter(full), once.filter(full), once.filter(invalid), once.filter(invalid)] == [1, 0, 1, 0]
    assert [once.filter(other), once.filter(other)] == [1, 1]
    now += 60
    assert once.filter(full)


@pytest.mark.parametrize("name", ["asyncio", "uvicorn.error"])
def test_it_is_in_place(name: str) -> None:
    assert any(isinstance(one, OnceAMinute) for one in logging.getLogger(name).filters)
