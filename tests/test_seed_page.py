"""The code of the page "Cross-Platform Sessions", block by block, with nothing changed but the lines that import."""

from __future__ import annotations

import json
import os
import secrets
import stat
import subprocess
import textwrap
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.test import override_settings

from adapters.botos import Bot, BotOS
from adapters.runtime.supervisor import State
from identity.resolvers import (
    FileIdentityResolver,
    IdentityUnavailable,
    InMemoryIdentityResolver,
    Resolves,
)
from sessions_app.agents import Agent
from sessions_app.context import clear_session_context, get_session_context, set_session_context
from sessions_app.manager import BotSessionManager
from sessions_app.models import Conversation, HistoryEntry, OutboundDelivery
from tests import zygote

ROOT = Path(__file__).resolve().parent.parent

HERE = {
    "from praisonai.bots import Bot": "from adapters.botos import Bot",
    "from praisonai.bots import BotOS": "from adapters.botos import BotOS",
    "from praisonai.bots import mirror_to_session": "from sessions_app.mirror import mirror_to_session",
    "from praisonaiagents import Agent": "from sessions_app.agents import Agent",
    "from praisonaiagents.session import FileIdentityResolver": "from identity.resolvers import FileIdentityResolver",
    "from praisonaiagents.session import IdentityResolverProtocol": (
        "from identity.resolvers import IdentityResolverProtocol"
    ),
    "from praisonaiagents.session import InMemoryIdentityResolver": (
        "from identity.resolvers import InMemoryIdentityResolver"
    ),
    "from praisonaiagents.session import get_session_context": "from sessions_app.context import get_session_context",
}

OVERVIEW = """\
from praisonai.bots import BotOS
from praisonaiagents import Agent
from praisonaiagents.session import FileIdentityResolver

agent = Agent(name="assistant", instructions="Be helpful.")

resolver = FileIdentityResolver()                        # ~/.praisonai/identity.json
resolver.link("telegram", "12345",       "alice")
resolver.link("discord",  "snowflake-1", "alice")

BotOS(
    agent=agent,
    platforms=["telegram", "discord"],
    identity_resolver=resolver,
).run()
"""

ONE_PLATFORM = """\
from praisonai.bots import Bot
from praisonaiagents import Agent

agent = Agent(name="assistant", instructions="Be helpful.")
bot = Bot("telegram", agent=agent)
await bot.start()
"""

TWO_PLATFORMS = """\
from praisonai.bots import BotOS
from praisonaiagents import Agent
from praisonaiagents.session import FileIdentityResolver

agent = Agent(name="assistant", instructions="Be helpful.")

resolver = FileIdentityResolver()
resolver.link("telegram", "12345", "alice")
resolver.link("discord", "snowflake-1", "alice")

botos = BotOS(
    agent=agent,
    platforms=["telegram", "discord"],
    identity_resolver=resolver,
)
await botos.start()
"""

EPHEMERAL = """\
from praisonai.bots import BotOS
from praisonaiagents import Agent
from praisonaiagents.session import InMemoryIdentityResolver

agent = Agent(name="assistant", instructions="Be helpful.")

resolver = InMemoryIdentityResolver()  # Ephemeral for tests
resolver.link("telegram", "12345", "alice")
resolver.link("discord", "snowflake-1", "alice")

botos = BotOS(
    agent=agent,
    platforms=["telegram", "discord"],
    identity_resolver=resolver,
)
"""

TOOL = """\
from praisonaiagents import Agent
from praisonaiagents.session import get_session_context

def whoami() -> str:
    ctx = get_session_context()
    return f"You are {ctx.user_name or ctx.user_id} on {ctx.platform}"

agent = Agent(name="assistant", instructions="Use whoami when asked.", tools=[whoami])
"""

MIRROR = """\
from praisonai.bots import mirror_to_session

# After sending a notification programmatically
mirror_to_session(
    session_mgr=bot._session,
    user_id="alice",
    message_text="Reminder: your standup is in 5 minutes.",
    source_label="cron",
)
"""

FILE_BY_DEFAULT = """\
from praisonaiagents.session import FileIdentityResolver

resolver = FileIdentityResolver()  # ~/.praisonai/identity.json
"""

CUSTOM = """\
from praisonaiagents.session import IdentityResolverProtocol

class DatabaseIdentityResolver:
    def resolve(self, platform: str, platform_user_id: str) -> str:
        # Query your database
        pass
    
    def link(self, platform: str, platform_user_id: str, unified_user_id: str) -> None:
        # Store in your database
        pass
"""  # noqa: W293 - verbatim

PAIR_FIRST = """\
# After DM verification succeeds
resolver.link("telegram", telegram_user_id, verified_unified_id)
resolver.link("discord", discord_user_id, verified_unified_id)
"""

CONTEXT_IN_TOOLS = """\
def get_user_platform() -> str:
    ctx = get_session_context()
    return ctx.platform  # Thread-safe, context-aware
"""


def translated(block: str) -> str:
    """The block with its import lines changed, and no other."""
    lines = block.splitlines()
    imports = [line for line in lines if line.startswith(("from ", "import "))]
    assert set(imports) <= set(HERE)
    return "\n".join(HERE.get(line, line) for line in lines)


def run(block: str, **known: Any) -> dict[str, Any]:
    """Run a block with the names that the page takes as known. What it defined."""
    names: dict[str, Any] = dict(known)
    exec(compile(translated(block), "page", "exec"), names)
    return names


def run_coroutine(block: str) -> dict[str, Any]:
    """Run a block that awaits, as the body of a coroutine."""
    body = textwrap.indent(translated(block), "    ")
    names = run("")
    exec(compile(f"async def main():\n{body}\n    return locals()", "page", "exec"), names)
    found: dict[str, Any] = async_to_sync(names["main"])()
    return found


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("PRAISONAI_IDENTITY_PATH", raising=False)
    return tmp_path


@pytest.fixture(autouse=True)
def _offline() -> Any:
    with override_settings(TELEGRAM_BOT_TOKEN="", DISCORD_BOT_TOKEN="", SLACK_BOT_TOKEN="", BOTOS_MODEL=""):
        yield


def links(home: Path) -> dict[str, str]:
    file = home / ".praisonai" / "identity.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    found: dict[str, str] = json.loads(file.read_text())["links"]
    return found


ALICE = {"telegram::12345": "alice", "discord::snowflake-1": "alice"}


@pytest.mark.django_db(transaction=True)
def test_one_platform() -> None:
    bot = run_coroutine(ONE_PLATFORM)["bot"]

    assert isinstance(bot, Bot)
    assert bot._botos is not None
    (health,) = bot._botos.health()
    assert health.state == State.NEEDS_CONFIGURATION
    assert "TELEGRAM_BOT_TOKEN" in health.detail


@pytest.mark.django_db(transaction=True)
def test_two_platforms(home: Path) -> None:
    botos = run_coroutine(TWO_PLATFORMS)["botos"]

    assert botos.list_bots() == ["telegram", "discord"]
    assert {health.state for health in botos.health()} == {State.NEEDS_CONFIGURATION}
    assert links(home) == ALICE


@pytest.mark.django_db(transaction=True)
def test_in_process() -> None:
    names = run(EPHEMERAL)
    botos, agent = names["botos"], names["agent"]
    assert isinstance(botos, BotOS)
    sessions = {name: botos.get_bot(name)._session for name in botos.list_bots()}  # type: ignore[union-attr]

    told = async_to_sync(sessions["telegram"].chat)(agent, "12345", "My favourite colour is octarine.")
    asked = async_to_sync(sessions["discord"].chat)(agent, "snowflake-1", "What's my favourite colour?")

    assert told.startswith("Got it!")
    assert asked == "Octarine."
    assert Conversation.objects.get().key == sessions["telegram"].storage_key("12345") == "alice"
    assert sessions["telegram"].history("12345") == sessions["discord"].history("snowflake-1")


@pytest.mark.django_db(transaction=True)
def test_a_tool_reads_who_is_asking() -> None:
    agent = run(TOOL)["agent"]
    manager = BotSessionManager("telegram")

    answers = [
        async_to_sync(manager.chat)(agent, "12345", "whoami", user_name="Alice"),
        async_to_sync(manager.chat)(agent, "777", "whoami"),
    ]

    assert [answer.splitlines()[0] for answer in answers] == ["You are Alice on telegram", "You are 777 on telegram"]


@pytest.mark.django_db(transaction=True)
def test_a_reminder_is_mirrored() -> None:
    botos = run(EPHEMERAL)["botos"]
    bot = botos.get_bot("telegram")
    async_to_sync(bot._session.chat)(Agent(), "12345", "hello")

    run(MIRROR, bot=bot)

    last = botos.get_bot("Discord")._session.history("snowflake-1")[-1]
    assert (last["role"], last["content"]) == ("assistant", "Reminder: your standup is in 5 minutes.")
    assert (last["mirror"], last["mirror_source"]) == (True, "cron")
    assert not OutboundDelivery.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_a_reminder_is_known_to_a_person_who_has_not_written_yet() -> None:
    bot = run(EPHEMERAL)["botos"].get_bot("Telegram")
    run(MIRROR, bot=bot)

    assert [line["content"] for line in bot._session.history("alice")] == ["Reminder: your standup is in 5 minutes."]
    assert HistoryEntry.objects.get().chat_id == ""


def test_links_are_in_a_file_by_default(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resolver = run(FILE_BY_DEFAULT)["resolver"]
    assert resolver.path == home / ".praisonai" / "identity.json"

    monkeypatch.setenv("PRAISONAI_IDENTITY_PATH", str(home / "elsewhere.json"))

    assert run(FILE_BY_DEFAULT)["resolver"].path == home / "elsewhere.json"
    assert FileIdentityResolver(home / "given.json").path == home / "given.json"


@pytest.mark.django_db(transaction=True)
def test_a_resolver_of_ones_own_needs_no_base_class() -> None:
    resolver = run(CUSTOM)["DatabaseIdentityResolver"]()
    assert isinstance(resolver, Resolves)
    botos = BotOS(agent=Agent(), platforms=["telegram"], identity_resolver=resolver)
    bot = botos.get_bot("telegram")
    assert bot is not None
    assert bot.identity_resolver is resolver

    # As it stands on the page it knows nobody, and a guess is worse than no answer.
    with pytest.raises(IdentityUnavailable):
        async_to_sync(bot._session.chat)(Agent(), "12345", "hello")
    assert not HistoryEntry.objects.exists()


@pytest.mark.parametrize("kind", [InMemoryIdentityResolver, FileIdentityResolver])
def test_links_are_made_after_pairing(kind: type[Any]) -> None:
    resolver = kind()

    run(
        PAIR_FIRST,
        resolver=resolver,
        telegram_user_id="12345",
        discord_user_id="snowflake-1",
        verified_unified_id="alice",
    )

    assert resolver.resolve("telegram", "12345") == resolver.resolve("discord", "snowflake-1") == "alice"
    assert resolver.resolve("slack", "U-A") == "slack:U-A"


def test_a_tool_reads_the_platform() -> None:
    tool = run(CONTEXT_IN_TOOLS, get_session_context=get_session_context)["get_user_platform"]

    token = set_session_context(platform="discord")
    try:
        assert tool() == "discord"
    finally:
        clear_session_context(token)
    assert tool() == ""


def test_a_plain_script_runs_once_there_are_tables(home: Path) -> None:
    script = home / "bot.py"
    script.write_text(f"import botos_project.setup\n{translated(OVERVIEW)}\n")

    too_early = _python(home, str(script))
    assert too_early.returncode != 0
    assert "run manage.py migrate" in too_early.stderr.splitlines()[-1]
    assert not (home / ".praisonai").exists()

    assert _python(home, str(ROOT / "manage.py"), "migrate", "--verbosity", "0").returncode == 0
    done = _python(home, str(script))

    assert done.returncode == 2, done.stderr
    assert "set TELEGRAM_BOT_TOKEN, DISCORD_BOT_TOKEN" in done.stderr
    assert "Traceback" not in done.stderr
    assert links(home) == ALICE


def _python(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "PYTHONPATH": str(ROOT),
        "BOTOS_ENV_FILE": "",
        "BOTOS_DATA_DIR": str(home),
        "SECRET_KEY": secrets.token_urlsafe(50),
    }
    return zygote.run(arguments, environment=environment, folder=home)
