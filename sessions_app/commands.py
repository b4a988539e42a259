"""Commands, the same on every platform. A command is answered without the agent and is not part of the conversation."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from sessions_app import history, texts
from sessions_app.context import SessionContext
from sessions_app.models import Conversation

if TYPE_CHECKING:
    from sessions_app.inbox import Claim

_COMMAND = re.compile(r"[/!]([a-z]+)(?:@\w+)?(?:\s+(.*))?", re.DOTALL | re.IGNORECASE)
_LINES_OF_HISTORY = 10
_LONGEST_LINE = 300  # characters

# What platforms show in their menus: name and a line about it. An argument, where there is one, is free text.
COMMANDS: tuple[tuple[str, Promise], ...] = (
    ("link", _("Share this conversation with your other app")),
    ("accounts", _("Which accounts share this conversation")),
    ("unlink", _("Take this account, or the one of another app, out")),
    ("new", _("Start a new conversation")),
    ("history", _("The last things that were said")),
    ("whoami", _("Who I think you are")),
    ("help", _("What I can do")),
    ("cancel", _("Stop linking")),
)


def parse(text: str) -> tuple[str, str] | None:
    """Name, in lower case, and argument of `/name argument` or `!name argument`; None for any other text."""
    found = _COMMAND.fullmatch(text.strip())
    return (found[1].lower(), (found[2] or "").strip()) if found else None


def is_command(text: str) -> bool:
    """Whether `text` is a command that is answered in turn, without the agent."""
    return (parse(text) or ("",))[0] in _COMMANDS


def answer(claim: Claim, context: SessionContext) -> str:
    """What the claimed command says. Done again after a crash, so each must bear that."""
    name, _argument = parse(claim.head.text) or ("help", "")
    return _COMMANDS[name](claim, context)


def _start(claim: Claim, context: SessionContext) -> str:
    return str(texts.WELCOME)


def _help(claim: Claim, context: SessionContext) -> str:
    return str(texts.HELP)


def _new(claim: Claim, context: SessionContext) -> str:
    history.start_anew(claim.lease.conversation, at=claim.head.received_at)
    in_group = claim.lease.conversation.kind == Conversation.Kind.GROUP
    return str(texts.STARTED_ANEW_IN_GROUP if in_group else texts.STARTED_ANEW)


def _whoami(claim: Claim, context: SessionContext) -> str:
    account = claim.account
    name = account.display_name or account.username
    values = {"name": name, "platform": account.platform, "id": account.platform_user_id}
    return str(texts.WHOAMI) % (values | {"person": context.unified_user_id})


def _history(claim: Claim, context: SessionContext) -> str:
    lines = history.readable(claim.lease.conversation, limit=_LINES_OF_HISTORY)
    who = {"user": texts.YOU, "assistant": texts.ME}
    return "\n".join(f"{who[line.role]}: {_shortened(line.text)}" for line in lines) or str(texts.NO_HISTORY)


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_LINE else text[: _LONGEST_LINE - 1] + "…"


_COMMANDS: dict[str, Callable[[Claim, SessionContext], str]] = {
    "start": _start,
    "help": _help,
    "new": _new,
    "whoami": _whoami,
    "history": _history,
}
