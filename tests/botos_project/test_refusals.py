from __future__ import annotations

import logging

import pytest

from botos_project.refusals import WithoutTraceback


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
