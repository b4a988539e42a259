"""The descriptions of platforms: what reads them, and what is said of one that cannot be read."""

from __future__ import annotations

import logging
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.test import override_settings
from django.urls import resolve
from django.utils.module_loading import import_string

from adapters import registry
from adapters.checks import check_tokens
from adapters.monitoring import diagnostics
from adapters.platform import Config, Platform, Setting, Transport, imported
from adapters.slack import PLATFORM as SLACK
from adapters.telegram import PLATFORM as TELEGRAM
from botos_project.env import BadSetting
from identity import labels
from tests.adapters.recording import RecordingAdapter
from tests.botos_project.test_settings import PROJECT, load, python
from tests.example_platform import PLATFORM as NOTES

ALL = [platform for platform in registry.known().values() if platform.settings]
SOURCE = (PROJECT / "botos_project" / "settings.py").read_text(encoding="utf-8")


def own(name: str = "own", **traits: Any) -> Platform:
    return Platform(name=name, build=lambda config: RecordingAdapter(name), text_limit=100, **traits)


@pytest.fixture(autouse=True)
def _forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is gone after it."""
    monkeypatch.setattr(registry, "_platforms", dict(registry._platforms))


# --- what reads them


@pytest.mark.parametrize("platform", ALL, ids=lambda platform: platform.name)
def test_the_settings_have_a_line_for_each_of_its_variables(platform: Platform) -> None:
    for setting in platform.settings:
        call = "secret" if setting.is_secret else "address"
        scheme = ', scheme="ws"' if setting.scheme == "ws" else ""
        assert f'\n{setting.name} = ENV.{call}("{setting.name}"{scheme})\n' in SOURCE
    if platform.transport_setting:
        names = [one.name for one in platform.transports]
        line = f'{platform.transport_setting} = ENV.choice("{platform.transport_setting}", "{names[0]}", '
        assert f'\n{line}"{" ".join(names)}")\n' in SOURCE


@pytest.mark.parametrize("platform", ALL, ids=lambda platform: platform.name)
def test_it_describes_what_it_needs(platform: Platform) -> None:
    described = {setting.name for setting in platform.settings}

    assert {name for one in platform.transports for name in one.needs} <= described
    assert {one.own_server for one in platform.transports} - {""} <= described
    assert platform.server_setting in described


@pytest.mark.parametrize("platform", ALL, ids=lambda platform: platform.name)
def test_its_library_is_quiet_in_the_log(platform: Platform) -> None:
    assert platform.loggers
    assert {settings.LOGGING["loggers"][name]["level"] for name in platform.loggers} == {"WARNING"}
    assert not any(logging.getLogger(name).isEnabledFor(logging.INFO) for name in platform.loggers)


@pytest.mark.parametrize("platform", ALL, ids=lambda platform: platform.name)
def test_a_description_loads_neither_models_nor_the_library(platform: Platform) -> None:
    module = platform.build.__module__
    script = f"import sys, {module}; print([m for m in sys.modules if m.startswith(('django.db', 'identity.models'))])"
    libraries = f"; print([m for m in {list(platform.loggers)!r} if m in sys.modules])"

    ended = subprocess.run(
        [sys.executable, "-c", script + libraries], cwd=PROJECT, capture_output=True, text=True, check=True
    )

    assert ended.stdout == "[]\n[]\n"


# --- platforms of one's own


def test_it_registers_a_description() -> None:
    registry.register_platform(own(title="Our Own", command_prefix="#"))

    assert registry.build("own", {}).platform == "own"
    assert registry.get("own").text_limit == 100
    assert labels.title("own") == "Our Own"
    assert labels.with_commands("/link", on="own") == "#link"


def test_it_registers_a_second_workspace_like_the_first() -> None:
    registry.register_platform("team2", SLACK)

    assert labels.with_commands("/link", on="team2") == "!link"
    assert registry.needs("team2") == registry.needs("slack")
    assert (labels.title("slack"), labels.title("team2")) == ("Slack", "Team2")


def test_it_keeps_the_title_that_a_second_workspace_is_given() -> None:
    registry.register_platform("slack-acme", replace(SLACK, title="Slack of Acme"))

    assert labels.title("slack-acme") == "Slack of Acme"


def test_it_takes_a_function_for_a_second_workspace_too() -> None:
    registry.register_platform("slack-acme", lambda config: RecordingAdapter("slack-acme"), needs=["ACME_TOKEN"])

    assert registry.needs("slack-acme") == ("ACME_TOKEN",)
    assert labels.with_commands("/link", on="slack-acme") == "!link"
    assert not registry.calls("slack-acme")


@pytest.mark.parametrize("name", ["Own", "1own", "own platform", "", "o" * 41])
def test_it_refuses_what_cannot_be_a_name(name: str) -> None:
    with pytest.raises(ValueError, match="is no platform name"):
        registry.register_platform(own(name))


def test_it_refuses_a_name_alone() -> None:
    with pytest.raises(TypeError, match="takes a Platform"):
        registry.register_platform("own")


def test_it_gives_build_what_is_described_and_nothing_else() -> None:
    given: dict[str, str] = {}
    transports = (Transport(needs=("OWN_TOKEN",)),)
    platform = own(settings=(Setting("OWN_TOKEN"),), reads=("BOTOS_PUBLIC_URL",), transports=transports)

    def build(config: Config) -> RecordingAdapter:
        given.update(config)
        return RecordingAdapter("own")

    registry.register_platform(replace(platform, build=build))

    registry.build("own", {"OWN_TOKEN": "t", "TELEGRAM_BOT_TOKEN": "x"})

    assert given == {"OWN_TOKEN": "t", "BOTOS_PUBLIC_URL": ""}


@pytest.mark.django_db
def test_the_doctor_says_where_to_get_a_token_of_ones_own_platform() -> None:
    registry.register_platform(NOTES)
    with override_settings(NOTES_TOKEN="hunter2", NOTES_URL="http://127.0.0.1:1", REDIS_URL=""):
        (found,) = [one for one in diagnostics.findings() if one.about == "notes"]

    assert (found.detail, found.hint) == ("not valid: NOTES_TOKEN", "copy it from the server's page.")


def test_a_token_in_the_place_of_another_is_seen_on_ones_own_platform_too() -> None:
    registry.register_platform(NOTES)
    with override_settings(NOTES_TOKEN="xoxb-1", NOTES_URL="http://127.0.0.1:1"):
        (found,) = [one for one in check_tokens(None) if one.id == "adapters.E001"]

    assert found.msg == "NOTES_TOKEN contains a Slack bot token (xoxb-)."
    assert found.hint == "put it in SLACK_BOT_TOKEN, and a token of Notes in NOTES_TOKEN."


# --- BOTOS_PLATFORMS

HOOKED = """
from adapters.platform import Config, Platform, Setting, Transport

PLATFORM = Platform(
    name="own",
    build=lambda config: None,
    text_limit=100,
    settings=(
        Setting("OWN_TOKEN"),
        Setting("OWN_URL", is_secret=False, scheme="http"),
        Setting("OWN_SECRET", pattern="s{8}", form="eight s"),
        Setting("OWN_ROOM", is_secret=False),
    ),
    transport_setting="OWN_TRANSPORT",
    transports=(
        Transport(name="polling", needs=("OWN_TOKEN",)),
        Transport(name="hook", needs=("OWN_TOKEN", "OWN_SECRET"), view="own_platform.hook"),
    ),
    loggers=("own_library",),
)
NUMBER = 7
SHOUTED = Platform(name="OWN", build=lambda config: None, text_limit=100)
SECOND = Platform(name="telegram", build=lambda config: None, text_limit=100)
BROWSER = Platform(name="web", build=lambda config: None, text_limit=100)
GREEDY = Platform(name="greedy", build=lambda config: None, text_limit=100, settings=(Setting("DEBUG"),))
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of modules, from which Python imports."""
    (tmp_path / "own_platform.py").write_text(HOOKED, encoding="utf-8")
    (tmp_path / "hasty_platform.py").write_text("from identity.models import Browser\n", encoding="utf-8")
    (tmp_path / "broken_platform.py").write_text("1 / 0\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


OWN = {"BOTOS_PLATFORMS": "own_platform.PLATFORM"}


@pytest.mark.usefixtures("folder")
def test_it_reads_the_settings_of_a_platform_of_ones_own() -> None:
    found = load(**OWN, OWN_TOKEN="t0k3n-of-ours", OWN_URL="https://own.example.org", OWN_ROOM="7")

    assert {name: found[name] for name in found if name.startswith("OWN_")} == {
        "OWN_TOKEN": "t0k3n-of-ours",
        "OWN_URL": "https://own.example.org",
        "OWN_SECRET": "",
        "OWN_ROOM": "7",
        "OWN_TRANSPORT": "polling",
    }
    assert "t0k3n-of-ours" in found["ENV"].secrets
    assert found["LOGGING"]["loggers"]["own_library"] == {"level": "WARNING"}


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"OWN_URL": "own.example.org"}, "E008 OWN_URL is not an address"),
        ({"OWN_TRANSPORT": "pigeon"}, "E005 OWN_TRANSPORT is not one of polling, hook"),
        ({"OWN_TRANSPORT": "hook"}, "E011 OWN_TRANSPORT=hook needs an address"),
        ({"OWN_TRANSPORT": "hook", "BOTOS_PUBLIC_URL": "https://a.example.org"}, "E012 OWN_SECRET is not eight s."),
    ],
)
def test_it_checks_the_settings_of_a_platform_of_ones_own(given: dict[str, str], sentence: str) -> None:
    with pytest.raises(BadSetting, match=sentence):
        load(**OWN, **given)


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("nowhere.PLATFORM", "nowhere.PLATFORM cannot be imported: No module named 'nowhere'."),
        (
            "own_platform.OTHER",
            'own_platform.OTHER cannot be imported: Module "own_platform" does not define a',
        ),
        ("nowhere", "nowhere cannot be imported: nowhere doesn't look like a module path."),
        ("own_platform.SHOUTED", "own_platform.SHOUTED is named 'OWN', and a platform's name is a-z, 0-9 and -, a"),
        ("own_platform.NUMBER", "own_platform.NUMBER is not a Platform of adapters.platform."),
        ("broken_platform.PLATFORM", "broken_platform.PLATFORM cannot be imported before Django is ready (ZeroDiv"),
    ],
)
def test_it_says_what_is_wrong_with_a_path(path: str, sentence: str) -> None:
    with pytest.raises(BadSetting) as caught:
        load(BOTOS_PLATFORMS=path)

    assert f"botos.E021 BOTOS_PLATFORMS: {sentence}" in str(caught.value)
    assert " Hint: " in str(caught.value)


@pytest.mark.parametrize("path", ["nowhere.PLATFORM", "hasty_platform.PLATFORM"])
def test_it_ends_with_one_sentence_and_status_2(path: str, folder: Path) -> None:
    ended = python("manage.py", "check", folder=folder, BOTOS_PLATFORMS=path, PYTHONPATH=str(folder))

    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr.startswith(f"botos.E021 BOTOS_PLATFORMS: {path} cannot be imported")
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize(("path", "name"), [("own_platform.SECOND", "telegram"), ("own_platform.BROWSER", "web")])
def test_it_takes_no_second_platform_of_one_name(path: str, name: str, folder: Path) -> None:
    ended = python("manage.py", "check", folder=folder, BOTOS_PLATFORMS=path, PYTHONPATH=str(folder))

    assert ended.returncode == 2
    assert f"BOTOS_PLATFORMS names two platforms that are called '{name}'. Hint: give" in ended.stderr
    assert ended.stderr.count("\n") == 1


@pytest.mark.usefixtures("folder")
def test_it_changes_no_setting_of_botos() -> None:
    assert load(BOTOS_PLATFORMS="own_platform.GREEDY")["DEBUG"] is False


IN_THE_PLAYGROUND = """
import django
django.setup()
from adapters.playground import stage
print(list(stage.Playground().servers), [persona.accounts["own"].id for persona in stage.PERSONAS])
"""
SERVER = """
from adapters.playground.slack import SlackServer


class Server(SlackServer):
    platform = "own"
"""
PLAYED = """
from adapters.platform import LocalServer, Platform

local = LocalServer(path="own_server.Server", user_id="own-{}")
PLATFORM = Platform(name="own", build=lambda config: None, text_limit=100, playground=local)
"""


def test_it_plays_a_platform_that_has_a_local_server(tmp_path: Path) -> None:
    (tmp_path / "own_server.py").write_text(SERVER, encoding="utf-8")
    (tmp_path / "played.py").write_text(PLAYED, encoding="utf-8")

    given = {"BOTOS_PLATFORMS": "played.PLATFORM", "PYTHONPATH": str(tmp_path)}
    ended = python("-c", IN_THE_PLAYGROUND, folder=tmp_path, **given)

    assert ended.stdout == "['telegram', 'discord', 'slack', 'own'] ['own-1001', 'own-1002', 'own-1003']\n"


def test_it_takes_the_description_itself() -> None:
    assert imported("adapters.telegram.PLATFORM") is TELEGRAM


@pytest.mark.parametrize("platform", ALL, ids=lambda platform: platform.name)
def test_each_platform_that_calls_has_an_address_of_its_own(platform: Platform) -> None:
    for transport in platform.transports:
        if transport.is_called:
            assert resolve(f"/hooks/{platform.name}").func is import_string(transport.view)
