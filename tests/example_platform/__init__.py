"""Notes, a platform written from docs/howto/add-a-platform.md alone.

People leave notes on a server, and the bot leaves answers.

`BOTOS_PLATFORMS=tests.example_platform.PLATFORM` adds it to BotOS.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from adapters.platform import Config, LocalServer, Platform, Setting, Transport

if TYPE_CHECKING:
    from tests.example_platform.adapter import NotesAdapter


def _build(config: Config) -> NotesAdapter:
    from tests.example_platform.adapter import NotesAdapter  # here, since the settings read this module

    return NotesAdapter(token=config["NOTES_TOKEN"], url=config["NOTES_URL"])


PLATFORM = Platform(
    name="notes",
    title="Notes",
    build=_build,
    text_limit=1000,
    settings=(
        Setting("NOTES_TOKEN", pattern=r"notes-.+", kind="a token of Notes", hint="copy it from the server's page."),
        Setting("NOTES_URL", is_secret=False, scheme="http"),
    ),
    transports=(Transport(needs=("NOTES_TOKEN", "NOTES_URL")),),
    command_prefix="!",
    handle_prefix="~",
    playground=LocalServer(path="tests.fakes.notes.NotesServer", user_id="writer-{}"),
)
