"""The files for containers and systemd name what there is."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tomllib
from configparser import ConfigParser, SectionProxy
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.conf import settings
from django.core.management import get_commands
from django.utils.module_loading import import_string
from packaging.requirements import Requirement

from adapters.runtime.http_connections import BACKLOG, Connection
from botos_project.env import RENAMED
from sessions_app.commands import registry as command_registry
from tests import zygote
from tests.botos_project.test_settings import PROJECT

COMPOSE: dict[str, Any] = yaml.safe_load((PROJECT / "compose.yaml").read_text(encoding="utf-8"))
OURS = {name: service for name, service in COMPOSE["services"].items() if service.get("image") == "botos"}
UNITS = sorted((PROJECT / "deploy" / "systemd").glob("*.service"))
SECRET = "hunter2-" * 7
COMMANDS = {*get_commands(), "rqworker"}  # which is there with REDIS_URL


def test_it_has_all_parts() -> None:
    assert {"web", "bots", "worker", "postgres", "redis"} <= COMPOSE["services"].keys()


@pytest.mark.parametrize("name", sorted(OURS))
def test_it_gives_each_part_what_it_needs(name: str) -> None:
    part = OURS[name]

    assert {key.removesuffix("_FILE") for key in part["environment"]} <= settings.ENV.asked | RENAMED.keys()
    files = {value.rpartition("/")[2] for key, value in part["environment"].items() if key.endswith("_FILE")}
    assert files == set(part["secrets"]) <= COMPOSE["secrets"].keys()
    assert part["command"][0] == "python"  # and no shell, which would keep the stop signal to itself
    assert part["command"][1] != "manage.py" or part["command"][2] in COMMANDS
    assert part["stop_grace_period"] == "30s"
    assert set(part["depends_on"]) <= COMPOSE["services"].keys()


def test_it_passes_on_what_differs_between_two_machines() -> None:
    passed = {key.removesuffix("_FILE") for key in COMPOSE["x-botos"]["environment"]}

    assert settings.ENV.secret_names - {"SECRET_KEY_FALLBACKS"} <= passed  # that one is set for a day
    assert {"BOTOS_TELEGRAM_TRANSPORT", "BOTOS_SLACK_TRANSPORT", "ALLOWED_HOSTS", "OPENAI_BASE_URL"} <= passed


def test_it_passes_on_old_names_which_a_default_under_the_new_name_would_hide() -> None:
    passed = COMPOSE["x-botos"]["environment"]
    renamed = {old: new for old, new in RENAMED.items() if new in passed}

    assert set(renamed) == {"BOTOS_NOTICE", "BOTOS_PROXIES"}
    assert {name: passed[name] for pair in renamed.items() for name in pair} == {
        name: f"${{{name}:-}}" for pair in renamed.items() for name in pair
    }


def test_it_opens_no_port_to_others() -> None:
    ports = [port for service in COMPOSE["services"].values() for port in service.get("ports", ())]

    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_it_runs_as_nobody_special_and_copies_every_app() -> None:
    lines = (PROJECT / "Dockerfile").read_text(encoding="utf-8").splitlines()

    assert lines.index("USER botos") < next(place for place, line in enumerate(lines) if line.startswith("CMD"))
    for folder in ("botos_project", "identity", "sessions_app", "adapters", "static", "templates"):
        assert f"COPY {folder} {folder}" in lines


def service_of(unit: Path) -> SectionProxy:
    parser = ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment]
    parser.read(unit, encoding="utf-8")
    return parser["Service"]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_it_has_units_that_stop_in_time_and_are_not_root(unit: Path) -> None:
    service = service_of(unit)

    assert service["User"] == "botos"
    assert service["UMask"] == "0077"
    assert int(service["TimeoutStopSec"]) >= 30
    named = re.search(r"manage\.py (\w+)", service["ExecStart"])
    assert (named[1] in COMMANDS) if named else ("botos_project.asgi:application" in service["ExecStart"])


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_it_bounds_what_a_unit_may_use(unit: Path) -> None:
    service = service_of(unit)

    assert int(service["LimitNOFILE"]) >= 4096
    assert service["MemoryMax"].endswith("G")
    assert int(service["TasksMax"]) >= 256  # 128 agents may each have a thread


@pytest.mark.parametrize(
    "command",
    [
        service_of(PROJECT / "deploy" / "systemd" / "botos-web.service")["ExecStart"].split(),
        COMPOSE["services"]["web"]["command"],
    ],
    ids=["unit", "container"],
)
def test_it_bounds_the_connections_of_pages_apart(command: list[str]) -> None:
    given = dict(pairwise(command))

    assert import_string(given["--http"].replace(":", ".")) is Connection
    assert int(given["--backlog"]) == BACKLOG


@pytest.mark.parametrize("name", sorted(COMPOSE["services"]))
def test_it_bounds_what_a_container_may_use(name: str) -> None:
    part = COMPOSE["services"][name]

    assert part["pids_limit"] >= 256
    assert part["mem_limit"].endswith("g")
    assert part["ulimits"]["nofile"] >= 4096


def test_it_masks_secrets_in_what_the_web_server_says() -> None:
    """As the units start it: uvicorn sets up its log first, then the settings do."""
    script = (
        "import logging, uvicorn; uvicorn.Config('botos_project.asgi:application').load();"
        f"logging.getLogger('uvicorn.error').error('no server at {SECRET}')"
    )
    own = {"SECRET_KEY": SECRET, "BOTOS_ENV_FILE": "", "DJANGO_SETTINGS_MODULE": "botos_project.settings"}
    done = zygote.run(["-c", script], environment=os.environ | own, check=True)

    assert "ERROR uvicorn.error no server at ***" in done.stderr


def test_it_names_the_units_in_the_manual() -> None:
    manual = (PROJECT / "docs" / "howto" / "running.md").read_text(encoding="utf-8")

    assert {unit.name for unit in UNITS} <= set(re.findall(r"botos[\w@-]*\.service", manual))


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_it_runs_commands_as_the_units_do(unit: Path) -> None:
    manual = (PROJECT / "docs" / "howto" / "running.md").read_text(encoding="utf-8")
    [command] = re.findall(r"(?s)sudo systemd-run (.*?) manage\.py", manual)
    given, service = command.replace("\\\n", " ").split(), service_of(unit)

    assert {f"--uid={service['User']}", f"--working-directory={service['WorkingDirectory']}"} < set(given)
    assert {f"--property={key}={service[key]}" for key in ("EnvironmentFile", "UMask")} < set(given)
    assert [f"--setenv={pair}" for pair in service["Environment"].split()] == given[-3:-1]
    assert given[-1] == service["ExecStart"].split()[0]


def test_it_tells_slack_of_every_command() -> None:
    manifest = yaml.safe_load((PROJECT / "deploy" / "slack-manifest.yaml").read_text(encoding="utf-8"))
    listed = [(one["command"], one["description"], one["usage_hint"]) for one in manifest["features"]["slash_commands"]]

    assert listed == [(f"/{one.name}", str(one.summary), one.argument_hint) for one in command_registry.menu()]
    assert {"chat:write", "im:history", "commands"} <= set(manifest["oauth_config"]["scopes"]["bot"])
    assert {"message.im", "app_mention"} <= set(manifest["settings"]["event_subscriptions"]["bot_events"])


# --- What runs elsewhere than here


def test_it_runs_everything_on_each_push() -> None:
    workflow = yaml.safe_load((PROJECT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))

    [job] = workflow["jobs"].values()
    assert ".ci/run" in [step.get("run") for step in job["steps"]]
    assert set(job["services"]) == {"postgres", "redis"}
    assert {"TEST_DATABASE_URL", "TEST_REDIS_URL"} <= set(job["env"])
    assert all(re.fullmatch(r"actions/[a-z-]+@v\d+\.\d+\.\d+", step["uses"]) for step in job["steps"] if "uses" in step)
    [python] = [step["with"]["python-version"] for step in job["steps"] if "python-version" in step.get("with", {})]
    assert python == "3.11"


def test_it_is_developed_on_the_servers_of_ci() -> None:
    [ci] = yaml.safe_load((PROJECT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))["jobs"].values()
    container = json.loads((PROJECT / ".devcontainer" / "devcontainer.json").read_text(encoding="utf-8"))
    services = yaml.safe_load((PROJECT / ".devcontainer" / container["dockerComposeFile"]).read_text())["services"]

    own = services.pop(container["service"])
    assert {name: one["image"] for name, one in services.items()} == {
        name: one["image"] for name, one in ci["services"].items()
    }
    assert own["environment"] == {key: ci["env"][key] for key in ("TEST_DATABASE_URL", "TEST_REDIS_URL")}
    assert "chromium" in container["onCreateCommand"]
    # The tests reach no other address than 127.0.0.1.
    assert {one.get("network_mode", "service:postgres") for one in [own, *services.values()]} == {"service:postgres"}


def test_it_asks_for_diagnostics_and_for_no_secrets() -> None:
    folder = PROJECT / ".github" / "ISSUE_TEMPLATE"
    forms = {name: yaml.safe_load((folder / f"{name}.yml").read_text(encoding="utf-8")) for name in ("bug", "feature")}

    asked = [part["attributes"] for part in forms["bug"]["body"]]
    assert any("manage.py doctor --json" in one.get("label", "") for one in asked)
    assert all("Leave out" in str(form) and "tokens" in str(form) for form in forms.values())


def test_it_keeps_what_it_pins_up_to_date() -> None:
    updates = yaml.safe_load((PROJECT / ".github" / "dependabot.yml").read_text(encoding="utf-8"))["updates"]

    assert {"pip", "github-actions", "docker"} <= {one["package-ecosystem"] for one in updates}


def test_it_lists_every_finding() -> None:
    listed = re.findall(r"(?m)^\| \[(.+?)\]", (PROJECT / "findings" / "README.md").read_text(encoding="utf-8"))

    assert sorted(listed) == sorted(path.name for path in (PROJECT / "findings").glob("*.sh"))


def test_it_says_under_which_licence_it_is() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    assert project["license"] == "MIT"
    assert (
        (PROJECT / "LICENSE").read_text(encoding="utf-8").startswith("MIT License\n\nCopyright (c) 2026 BotOS contrib")
    )


LOCKED = {name: (PROJECT / f"{name}.lock").read_text(encoding="utf-8") for name in ("requirements", "requirements-dev")}
NAMED = [Requirement(line) for line in re.findall(r"(?m)^[a-z0-9].*?(?= \\$)", LOCKED["requirements-dev"])]
PINNED = [(one.name, str(one.specifier)) for one in NAMED if one.marker is None or one.marker.evaluate()]
AUDITED = [{"name": name, "version": version, "vulns": []} for name, version in PINNED]
SKIPPED = [{"name": name, "skip_reason": "not found"} for name, _ in PINNED]
HOLE: dict[str, Any] = AUDITED[0] | {"vulns": [{"id": "PYSEC-1"}]}


@pytest.mark.parametrize("name", sorted(LOCKED))
def test_it_installs_only_files_whose_hashes_are_known(name: str) -> None:
    packages = re.split(r"(?m)^(?=[a-z0-9])", LOCKED[name])[1:]
    wanted = re.findall(r"(?m)^([\w.-]+)(?:\[\S+\])?==(\S+)", (PROJECT / f"{name}.txt").read_text(encoding="utf-8"))

    assert all("--hash=sha256:" in package for package in packages)
    locked = {re.split(r"[ ;]", package, maxsplit=1)[0] for package in packages}
    assert {f"{one.lower().replace('.', '-').replace('_', '-')}=={version}" for one, version in wanted} <= {
        re.sub(r"\[.*\]", "", one) for one in locked
    }
    assert f"--require-hashes --no-deps -r {name}.lock" in (PROJECT / "Makefile").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("found", "status", "said"),
    [
        (AUDITED, 0, "no known hole"),
        (SKIPPED, 0, f"{len(PINNED)} of {len(PINNED)} pinned packages were not audited"),
        ([*AUDITED[1:], SKIPPED[0]], 0, f"1 of {len(PINNED)} pinned packages were not audited"),
        ([], 0, f"{len(PINNED)} of {len(PINNED)} pinned packages were not audited"),
        ([HOLE, *AUDITED[1:]], 1, "PYSEC-1"),
        (None, 1, "Nothing was audited"),
    ],
    ids=["all", "none", "one left out", "an empty answer", "a hole", "no report"],
)
def test_it_passes_only_what_was_audited(tmp_path: Path, found: Any, status: int, said: str) -> None:
    report, auditor = tmp_path / "report", tmp_path / "auditor"
    report.write_text("" if found is None else json.dumps({"dependencies": found}))
    auditor.write_text(f'#!/bin/sh\nwhile [ "$1" != --output ]; do shift; done\ncat {report} > "$2"\nexit {status}\n')
    auditor.chmod(0o755)

    done = subprocess.run(
        [PROJECT / ".ci" / "audit"],
        env=os.environ | {"PIP_AUDIT": str(auditor)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode == 0) == (said == "no known hole")
    assert said in done.stdout + done.stderr
