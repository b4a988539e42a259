"""Forms that cannot be read are the sender's fault."""

from __future__ import annotations

import pytest
from django.test import Client

FORM = "application/x-www-form-urlencoded"
COOKIE = "a" * 32


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        (f"{FORM}; charset=utf-16", b"a=b"),
        (FORM, b"&".join([b"a=1"] * 1100)),
        (FORM, b"code=%00"),
        ("multipart/form-data", b"x"),
        ("multipart/form-data; boundary=\xff", b"--x"),
    ],
)
@pytest.mark.parametrize("path", ["/pair/code/", "/admin/login/"])
def test_it_answers_400_with_our_page_and_one_line(
    path: str, content_type: str, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    browser = Client(raise_request_exception=False, enforce_csrf_checks=True)
    browser.cookies["csrftoken"] = COOKIE

    answer = browser.generic("POST", path, body, content_type=content_type)

    assert answer.status_code == 400
    assert b"Bad request" in answer.content
    assert "Content-Security-Policy" in answer.headers
    assert [record.exc_info for record in caplog.records if record.name != "django.request"] == [None]
    assert "Traceback" not in caplog.text
