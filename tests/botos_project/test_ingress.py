"""What is refused before Django sees it, and what waits."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from django.conf import LazySettings
from django.core.handlers.asgi import ASGIHandler

from botos_project import ingress
from botos_project.ingress import Ingress


class Caller:
    """One request to an application, and what came back."""

    def __init__(self, path: str = "/pair/", *parts: bytes, announced: int | None = None) -> None:
        headers = [] if announced is None else [(b"content-length", str(announced).encode())]
        self.scope: dict[str, Any] = {
            "type": "http",
            "method": "POST",
            "path": path,
            "headers": headers,
            "scheme": "http",
        }
        self.parts = list(parts) or [b""]
        self.read = 0
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.body = b""

    async def receive(self) -> Any:
        if not self.parts:
            await asyncio.Event().wait()
        self.read += len(self.parts[0])
        return {"type": "http.request", "body": self.parts.pop(0), "more_body": bool(self.parts)}

    async def send(self, message: Any) -> None:
        self.status = message.get("status", self.status)
        self.headers |= {name.lower(): value for name, value in message.get("headers", ())}
        self.body += message.get("body", b"")

    async def call(self, application: Any) -> Caller:
        await application(self.scope, self.receive, self.send)
        return self


class Page:
    """An application that answers when it is told to."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.go.set()
        self.bodies: list[bytes] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.bodies.append((await receive())["body"])
        await self.go.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"page"})


MIB = 1024 * 1024


@pytest.mark.asyncio
@pytest.mark.parametrize(("path", "limit"), [("/pair/", 2 * MIB), ("/hooks/slack", MIB), ("/nowhere", 2 * MIB)])
async def test_it_refuses_an_announced_body_that_is_too_long_without_reading_it(path: str, limit: int) -> None:
    page = Page()

    refused = await Caller(path, b"x", announced=limit + 1).call(Ingress(page, requests=1))
    taken = await Caller(path, b"x" * limit, announced=limit).call(Ingress(page, requests=1))

    assert (refused.status, refused.read) == (413, 0)
    assert (taken.status, [len(body) for body in page.bodies]) == (200, [limit])


@pytest.mark.asyncio
async def test_it_refuses_a_body_that_grows_too_long_as_soon_as_it_does() -> None:
    page = Page()
    caller = await Caller("/pair/", *[b"x" * MIB] * 300).call(Ingress(page, requests=1))

    assert (caller.status, caller.read) == (413, 3 * MIB)
    assert page.bodies == []


@pytest.mark.asyncio
async def test_it_shows_our_page_with_the_headers_of_every_page() -> None:
    caller = await Caller("/pair/", announced=10**9).call(Ingress(Page(), requests=1))

    assert b"That is too large" in caller.body
    for name in (b"content-security-policy", b"x-frame-options", b"x-content-type-options", b"cache-control"):
        assert caller.headers[name]


@pytest.mark.asyncio
@pytest.mark.parametrize("status", [400, 408, 413, 503])
@pytest.mark.parametrize(
    ("scheme", "proxies", "forwarded", "is_secure"),
    [
        ("https", 0, None, True),
        ("http", 0, None, False),
        ("http", 0, b"https", False),
        ("http", 1, b"https", True),
        ("http", 1, b"http", False),
        ("https", 1, b"http", False),
    ],
)
async def test_its_pages_have_the_security_headers_of_the_others(
    *, status: int, scheme: str, proxies: int, forwarded: bytes | None, is_secure: bool, settings: LazySettings
) -> None:
    """Also the one that only pages over TLS have, by the word of a proxy of ours and of no other."""
    settings.SECURE_HSTS_SECONDS = 31_536_000
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if proxies else None
    refused, other = Caller("/pair/"), Caller("/healthz")
    for caller in (refused, other):
        caller.scope |= {"scheme": scheme, "query_string": b"\xff"}
        caller.scope["headers"] = [(b"host", b"localhost")]
        caller.scope["headers"] += [(b"x-forwarded-proto", forwarded)] if forwarded else []
    other.scope |= {"method": "GET", "query_string": b""}

    async def refuse(scope: Any, receive: Any, send: Any) -> None:
        raise ingress.Refused(status)

    await refused.call(Ingress(refuse, requests=1))
    await other.call(ASGIHandler())

    assert (refused.status, other.status) == (status, 200)
    own = {b"content-type", b"content-length", b"expires", b"retry-after", b"vary"}
    assert {name: refused.headers[name] for name in refused.headers.keys() - own} == {
        name: other.headers[name] for name in other.headers.keys() - own
    }
    assert (b"strict-transport-security" in refused.headers) == is_secure


@pytest.mark.asyncio
@pytest.mark.parametrize("length", ["-1", "1_0", "9" * 30, "x"])
async def test_it_refuses_a_length_that_is_no_number(length: str) -> None:
    caller = Caller("/pair/")
    caller.scope["headers"] = [(b"content-length", length.encode())]

    assert (await caller.call(Ingress(Page(), requests=1))).status == 400


@pytest.mark.asyncio
async def test_it_refuses_a_body_that_does_not_come_and_keeps_no_place_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingress, "BODY_SECONDS", 0.01)
    slow, page = Caller("/pair/", b"x", b"y"), Page()
    slow.parts[1:] = []
    slow.receive = _more_to_come  # type: ignore[method-assign]

    assert (await slow.call(Ingress(page, requests=1))).status == 408
    assert page.bodies == []


async def _more_to_come() -> Any:
    await asyncio.Event().wait()


@pytest.mark.asyncio
async def test_it_holds_a_bounded_number_of_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingress, "MAX_BODIES", 3)
    application = Ingress(Page(), requests=1)

    assert (await Caller("/pair/", b"xxxx").call(application)).status == 503
    assert (await Caller("/pair/", b"xxx").call(application)).status == 200


@pytest.mark.asyncio
async def test_it_lets_pages_wait_and_then_asks_them_to_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingress, "WAIT_SECONDS", 0.01)
    page = Page()
    page.go.clear()
    application = Ingress(page, requests=2)
    running = [asyncio.ensure_future(Caller().call(application)) for _ in range(2)]
    while len(page.bodies) < 2:  # noqa: ASYNC110 - what the application does is what is waited for
        await asyncio.sleep(0)

    refused = await Caller().call(application)
    page.go.set()
    done = await asyncio.gather(*running)
    after = await Caller().call(application)

    assert (refused.status, refused.headers[b"retry-after"]) == (503, b"5")
    assert [one.status for one in (*done, after)] == [200] * 3
    assert len(page.bodies) == 3


@pytest.mark.asyncio
@pytest.mark.parametrize("path", ["/hooks/telegram", "/hooks/slack", "/healthz", "/readyz", "/metrics"])
async def test_it_keeps_places_for_platforms_and_supervisors(path: str) -> None:
    page = Page()
    page.go.clear()
    application = Ingress(page, requests=1)
    callers = [asyncio.ensure_future(Caller(where).call(application)) for where in ("/pair/", "/pair/", path)]
    while len(page.bodies) < 2:  # noqa: ASYNC110 - what the application does is what is waited for
        await asyncio.sleep(0)
    page.go.set()

    assert [one.status for one in await asyncio.gather(*callers)] == [200] * 3


class TimedPage(Page):
    """A page that takes 0.05 s, and notes when each request begins and ends."""

    def __init__(self) -> None:
        super().__init__()
        self.times: list[float] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        loop = asyncio.get_running_loop()
        self.times.append(loop.time())
        await asyncio.sleep(0.05)
        await super().__call__(scope, receive, send)
        self.times.append(loop.time())


@pytest.mark.asyncio
async def test_a_place_rests_while_all_are_taken() -> None:
    page = TimedPage()
    application = Ingress(page, requests=1, rest=3.0)

    answers = await asyncio.gather(*(Caller().call(application) for _ in range(2)))

    began, ended, next_began, _ = page.times
    assert [answer.status for answer in answers] == [200, 200]
    assert next_began - ended >= 2.9 * (ended - began)


@pytest.mark.asyncio
async def test_it_gives_up_an_answer_that_nobody_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingress, "SEND_SECONDS", 0.01)
    application, stuck = Ingress(Page(), requests=1), Caller()
    stuck.send = _never  # type: ignore[method-assign, assignment]

    await stuck.call(application)

    assert (await Caller().call(application)).status == 200


async def _never(_message: Any) -> None:
    await asyncio.Event().wait()
