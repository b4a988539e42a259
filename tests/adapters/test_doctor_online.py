"""`doctor --online`: the real SDKs ask the local platform servers."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from email.utils import parsedate_to_datetime
from io import StringIO
from time import monotonic
from typing import Any

import pytest
from aiohttp import web
from django.conf import settings as django_settings
from django.core.management import call_command
from pytest_django import Settings

from adapters import registry
from adapters.discord.client import point_sdk_at
from adapters.monitoring import diagnostics
from sessions_app import receiver_leases
from tests.adapters.recording import RecordingAdapter
from tests.fakes.slack import FakeSlack
from tests.fakes.telegram import FakeTelegram
from tests.journeys.running import PLATFORMS, Platforms
from tests.sessions_app.model_server import KEY, ModelServer, says

pytestmark = pytest.mark.django_db

QUESTIONS = {"telegram": "getMe", "discord": "GET /users/@me", "slack": "auth.test"}
ADDRESSES = {"telegram": "TELEGRAM_API_URL", "discord": "DISCORD_API_URL", "slack": "SLACK_API_URL"}
TOKENS = ("TELEGRAM_BOT_TOKEN", "DISCORD_BOT_TOKEN", "SLACK_BOT_TOKEN", "SLACK_APP_TOKEN")


@pytest.fixture(scope="module")
def servers() -> Iterator[Platforms]:
    made = Platforms()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def platforms(servers: Platforms, settings: Settings, monkeypatch: pytest.MonkeyPatch, db: None) -> Platforms:
    """The settings lead to the local servers, which are well, and whose tokens look like real ones to the doctor.

    Some process receives.
    """
    for name, value in servers.environment().items():
        setattr(settings, name, value)
    for name in ("TELEGRAM_BOT_TOKEN", "DISCORD_BOT_TOKEN", "SLACK_BOT_TOKEN"):
        receiver_leases.take(receiver_leases.key_of(getattr(settings, name)), "town/4711/3f2a")
    settings.REDIS_URL = ""
    monkeypatch.setattr(registry, "settings_by_name", dict)
    for server in servers.servers.values():
        server.faults.planned.clear()
    return servers


@pytest.fixture
def silence() -> Iterator[str]:
    """The address of a server that accepts and never answers."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def doctor() -> tuple[int, dict[str, Any]]:
    """The exit status, and what was found by what it is about; no token is shown."""
    out, status = StringIO(), 0
    try:
        call_command("doctor", "--online", "--json", stdout=out)
    except SystemExit as ended:
        status = int(ended.code or 0)
    assert not any(getattr(django_settings, name) in out.getvalue() for name in TOKENS)
    return status, {one["about"]: one for one in json.loads(out.getvalue())["findings"]}


def test_it_says_whose_tokens_they_are() -> None:
    status, found = doctor()

    assert status == 0, found
    assert found["telegram online"]["detail"] == "accepts the credentials of @BotosPlaygroundBot"
    assert found["slack online"]["detail"] == "accepts the credentials of @botos"
    assert found["discord online"]["detail"] == "accepts the credentials of botos"


def test_it_compares_the_clock_with_each_platforms(monkeypatch: pytest.MonkeyPatch) -> None:
    clocks = [f"{platform} clock" for platform in PLATFORMS]
    assert not any(doctor()[1][clock]["hint"] for clock in clocks)

    monkeypatch.setattr(
        diagnostics, "parsedate_to_datetime", lambda text: parsedate_to_datetime(text) - timedelta(hours=1)
    )
    status, found = doctor()

    assert status == 1
    assert all(re.fullmatch(r"\+36\d\d s here", found[clock]["detail"]) for clock in clocks), found
    assert all("clock" in found[clock]["hint"] for clock in clocks)


def test_it_asks_nobody_unless_it_is_told_to(platforms: Platforms) -> None:
    for platform, question in QUESTIONS.items():
        platforms.servers[platform].faults.inject(question, status=401)
    call_command("doctor", stdout=StringIO())


@pytest.mark.parametrize("platform", PLATFORMS)
def test_it_sees_a_token_that_is_refused(platform: str, platforms: Platforms) -> None:
    platforms.servers[platform].faults.inject(QUESTIONS[platform], status=401)
    status, found = doctor()

    assert status == 1
    assert found[f"{platform} online"]["detail"] == "rejects the credentials"
    assert f"{platform.upper()}_BOT_TOKEN is refused" in found[f"{platform} online"]["hint"]


@pytest.mark.parametrize("platform", PLATFORMS)
def test_it_sees_an_outage(platform: str, platforms: Platforms) -> None:
    platforms.servers[platform].faults.inject("*", status=503, times=9)
    status, found = doctor()

    assert status == 1
    assert platform in found[f"{platform} online"]["detail"]
    assert found[f"{platform} online"]["hint"] == diagnostics.WAY_OUT
    assert not any(found[f"{other} online"]["hint"] for other in PLATFORMS if other != platform)


@pytest.mark.parametrize("platform", PLATFORMS)
def test_it_waits_for_no_platform_longer_than_it_says(
    platform: str, silence: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diagnostics, "ONLINE_SECONDS", 1.0)
    setattr(settings, ADDRESSES[platform], f"{silence}/api/")
    began = monotonic()
    status, found = doctor()

    assert status == 1
    assert found[f"{platform} online"]["detail"] == "does not answer within 1 s"
    assert monotonic() - began < 25  # the SDKs alone wait 30 and more


def test_it_sees_a_webhook_that_takes_the_messages(platforms: Platforms) -> None:
    server = platforms.servers["telegram"]
    assert isinstance(server, FakeTelegram)
    server.api.webhook.url = "https://elsewhere.example/hook"
    try:
        status, found = doctor()
    finally:
        server.api.webhook.url = ""

    assert status == 1
    assert "deleteWebhook" in found["telegram online"]["hint"]


@pytest.mark.parametrize("transport", ["polling", "webhook"])
def test_it_is_content_with_a_webhook_of_its_own(platforms: Platforms, settings: Settings, transport: str) -> None:
    server = platforms.servers["telegram"]
    assert isinstance(server, FakeTelegram)
    settings.BOTOS_PUBLIC_URL = "https://bots.example.org"
    settings.BOTOS_TELEGRAM_TRANSPORT, settings.TELEGRAM_WEBHOOK_SECRET = transport, "s" * 32
    server.api.webhook.url = "https://bots.example.org/hooks/telegram"
    try:
        status, _ = doctor()
    finally:
        server.api.webhook.url = ""

    assert status == 0


def test_it_needs_no_socket_where_slack_posts(platforms: Platforms, settings: Settings) -> None:
    settings.BOTOS_PUBLIC_URL = "https://bots.example.org"
    settings.BOTOS_SLACK_TRANSPORT, settings.SLACK_SIGNING_SECRET, settings.SLACK_APP_TOKEN = (
        "http",
        "s" * 32,
        "xapp-never-asked",
    )
    status, _ = doctor()

    assert status == 0


def test_it_sees_a_scope_that_the_slack_token_lacks(platforms: Platforms, monkeypatch: pytest.MonkeyPatch) -> None:
    server = platforms.servers["slack"]
    assert isinstance(server, FakeSlack)
    monkeypatch.setattr(server.api, "scopes", ["im:history"])
    status, found = doctor()

    assert status == 1
    assert "lacks the scopes chat:write" in found["slack online"]["hint"]


def test_it_sees_that_the_socket_of_slack_is_refused(platforms: Platforms) -> None:
    platforms.servers["slack"].faults.inject("apps.connections.open", status=401)

    assert "SLACK_APP_TOKEN is refused" in doctor()[1]["slack online"]["hint"]


class Careless(RecordingAdapter):
    """Somebody's own adapter, which says too much."""

    async def check(self) -> str:
        raise OSError("401 for " + getattr(django_settings, "OWN_TOKEN"))  # noqa: B009


@pytest.mark.parametrize(("build", "detail"), [(Careless, "401 for ***"), (RecordingAdapter, "can't be checked")])
def test_it_asks_a_platform_of_ones_own(
    build: Callable[[str], RecordingAdapter], detail: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    setattr(settings, "OWN_TOKEN", "hunter2")  # noqa: B010 - no setting of ours
    monkeypatch.setattr(registry, "_platforms", {})
    registry.register_platform("own", lambda config: build("own"), needs=["OWN_TOKEN"])

    assert doctor()[1]["own online"]["detail"] == detail


@pytest.fixture(autouse=True)
def _real_discord() -> Iterator[None]:
    """The addresses of Discord hold for the whole process."""
    from discord.gateway import DiscordWebSocket
    from discord.http import Route

    before = Route.BASE, str(DiscordWebSocket.DEFAULT_GATEWAY)
    yield
    point_sdk_at(*before)


# --- the model


class Model:
    """A server with OpenAI's protocol on a loop of its own; `status` is what it answers with."""

    status = 200

    def answer(self, body: dict[str, Any]) -> web.Response:
        if self.status == 200:
            return says("ready")
        return web.json_response({"error": {"message": f"wrong key {KEY}", "type": "x"}}, status=self.status)


@pytest.fixture
def model(platforms: Platforms, settings: Settings) -> Iterator[tuple[Model, ModelServer]]:
    server, told = ModelServer(), Model()
    server.answer = told.answer
    context = server.running()
    platforms.do(context.__aenter__())
    settings.BOTOS_MODEL, settings.OPENAI_API_KEY, settings.OPENAI_BASE_URL = "openai:tiny", KEY, server.base_url
    yield told, server
    platforms.do(context.__aexit__(None, None, None))


def test_it_asks_the_model_once(model: tuple[Model, ModelServer]) -> None:
    status, found = doctor()

    assert status == 0, found
    assert found["model online"]["detail"] == "openai:tiny answers"
    assert len(model[1].asked) == 1


@pytest.mark.parametrize(
    ("answered", "detail", "hint"),
    [
        (401, "the server refuses the key (HTTP 401)", "correct OPENAI_API_KEY."),
        (404, "the server does not know the model 'openai:tiny' (HTTP 404)", "correct the name in BOTOS_MODEL"),
    ],
)
def test_it_says_why_the_model_does_not_answer(
    model: tuple[Model, ModelServer], answered: int, detail: str, hint: str
) -> None:
    model[0].status = answered
    status, found = doctor()

    assert (status, found["model online"]["detail"]) == (1, detail)
    assert found["model online"]["hint"].startswith(hint)
    assert KEY not in str(found)


def test_it_says_that_the_model_cannot_be_reached(platforms: Platforms, settings: Settings) -> None:
    settings.BOTOS_MODEL, settings.OPENAI_BASE_URL = "openai:tiny", "http://127.0.0.1:1/v1"
    status, found = doctor()

    assert (status, found["model online"]["detail"]) == (1, "the server cannot be reached")
    assert "OPENAI_BASE_URL" in found["model online"]["hint"]
