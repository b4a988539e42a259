"""Commands, the same on every platform. A command is answered without the agent and is not part of the conversation."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from django.conf import settings
from django.urls import reverse
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from identity import called, linking
from identity.models import AccountLink, PlatformAccount
from identity.names import literal
from identity.resolvers import Pair
from sessions_app import history, redrive, search, texts
from sessions_app.context import SessionContext
from sessions_app.messages import Line
from sessions_app.models import Conversation

if TYPE_CHECKING:
    from sessions_app.lanes import Claim

_COMMAND = re.compile(r"[/!]([a-z]+)(?:@\w+)?(?:\s+(.*))?", re.DOTALL | re.IGNORECASE)
_LINES_OF_HISTORY = 10
_QUOTING = {"history", "search", "whoami"}  # their answers are other people's words and names
_LONGEST_LINE = 300  # characters

# What platforms show in their menus: name and a line about it. An argument, where there is one, is free text.
COMMANDS: tuple[tuple[str, Promise], ...] = (
    ("link", _("Share this conversation with your other app")),
    ("accounts", _("Which accounts share this conversation")),
    ("unlink", _("Take this account, or the one of another app, out")),
    ("new", _("Start a new conversation")),
    ("retry", _("Ask again what I could not answer")),
    ("history", _("The last things that were said")),
    ("search", _("Find words in what was said")),
    ("prefer", _("Which app to write to when you have not asked")),
    ("export", _("Get all that was said as a file")),
    ("forget", _("Delete all that I know of you")),
    ("whoami", _("Who I think you are")),
    ("help", _("What I can do")),
    ("cancel", _("Stop linking")),
    ("signout", _("Sign out the browsers that read and write here")),
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
    said = _COMMANDS[name](claim, context)
    return said if name in _QUOTING else called.with_commands(said, on=claim.head.platform)


def _argument_of(claim: Claim) -> str:
    return (parse(claim.head.text) or ("", ""))[1]


def _speaker(claim: Claim) -> Pair:
    return claim.account.platform, claim.account.platform_user_id


def _start(claim: Claim, context: SessionContext) -> str:
    return str(texts.WELCOME)


def _help(claim: Claim, context: SessionContext) -> str:
    return str(texts.HELP)


def _new(claim: Claim, context: SessionContext) -> str:
    is_everywhere = history.start_anew(claim.lease.conversation, at=claim.head.received_at)
    if claim.lease.conversation.kind == Conversation.Kind.GROUP:
        return str(texts.STARTED_ANEW_IN_GROUP)
    return str(texts.STARTED_ANEW if is_everywhere else texts.STARTED_ANEW_HERE)


def _retry(claim: Claim, context: SessionContext) -> str:
    found = redrive.last_of(claim.lease.conversation, claim.account)
    return str(texts.ASKING_AGAIN if found else texts.NOTHING_TO_RETRY)


def _whoami(claim: Claim, context: SessionContext) -> str:
    account = claim.account
    name = account.display_name or account.username
    values = {"name": literal(name, claim.head.platform), "platform": account.platform, "id": account.platform_user_id}
    return str(texts.WHOAMI) % (values | {"person": context.unified_user_id})


def _history(claim: Claim, context: SessionContext) -> str:
    lines = history.readable(claim.lease.conversation, limit=_LINES_OF_HISTORY, speaker=_speaker(claim))
    who = {"user": texts.YOU, "assistant": texts.ME}
    return "\n".join(f"{who[line.role]}: {_shortened(line.text)}" for line in lines) or str(texts.NO_HISTORY)


def _search(claim: Claim, context: SessionContext) -> str:
    words = _argument_of(claim)
    if not words:
        return called.with_commands(str(texts.SEARCH_FOR_WHAT), on=claim.head.platform)
    hits = search.find(claim.lease.conversation, words, limit=_LINES_OF_HISTORY, speaker=_speaker(claim))
    return "\n".join(_found(hit.line, claim.head.platform) for hit in reversed(hits)) or str(texts.NOTHING_FOUND)


def _found(line: Line, on: str) -> str:
    values = {"day": f"{line.said_at:%Y-%m-%d}", "app": called.title(line.platform), "text": _shortened(line.text)}
    who = texts.YOU if line.role == "user" else texts.ME
    return str(texts.FOUND) % (values | {"who": literal(line.author, on) or who})


def _prefer(claim: Claim, context: SessionContext) -> str:
    """The new wish, or without one what is wished now."""
    wanted, account = _argument_of(claim).lower(), claim.account
    link = AccountLink.objects.live().filter(account=account).select_related("user__preferred").first()
    if claim.lease.conversation.account_id is None or link is None:
        return str(texts.NOTHING_TO_PREFER)
    theirs = {one.platform: one for one in linking.accounts_of(link.user)}
    if not wanted:
        kept = link.user.preferred
        return _preferring(kept if kept in theirs.values() else None, theirs)
    if wanted not in {"last", *theirs}:
        return str(texts.PREFER_WHAT) % {"apps": ", ".join([*theirs, "last"])}
    if not linking.prefer(account=account, preferred=theirs.get(wanted)):
        return str(texts.TOO_NEW_TO_PREFER)
    return _preferring(theirs.get(wanted), theirs)


def _preferring(account: PlatformAccount | None, theirs: Iterable[str]) -> str:
    values = {"app": called.title(account.platform) if account else "", "apps": ", ".join([*theirs, "last"])}
    return str(texts.PREFERRED if account else texts.PREFERRED_LAST) % values


def _export(claim: Claim, context: SessionContext) -> str:
    page = f"{settings.BOTOS_PUBLIC_URL}{reverse('me')}"
    return str(texts.EXPORT) % {"where": page if settings.BOTOS_PUBLIC_URL else texts.MY_PAGE}


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_LINE else text[: _LONGEST_LINE - 1] + "…"


_COMMANDS: dict[str, Callable[[Claim, SessionContext], str]] = {
    "start": _start,
    "help": _help,
    "new": _new,
    "retry": _retry,
    "whoami": _whoami,
    "history": _history,
    "search": _search,
    "prefer": _prefer,
    "export": _export,
}
