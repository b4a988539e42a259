"""Commands that are answered in their turn, the same on every platform."""

from __future__ import annotations

from collections.abc import Iterable

from django.conf import settings
from django.urls import reverse
from django.utils.translation import gettext_lazy as _

from identity import labels
from identity.flows import linking
from identity.models import AccountLink, PlatformAccount
from identity.resolvers import Pair
from identity.support.sanitize import literal
from sessions_app import dead_letters, texts
from sessions_app.commands import registry as command_registry
from sessions_app.commands.registry import Invocation, in_turn
from sessions_app.history import search, window
from sessions_app.messages import Line
from sessions_app.models import Conversation

_LINES_OF_HISTORY = 10
_MAX_LINE = 300  # characters


def _speaker(asked: Invocation) -> Pair:
    return asked.account.platform, asked.account.platform_user_id


@in_turn("new", _("Start a new conversation"))
def _new(asked: Invocation) -> str:
    is_everywhere = window.reset_context(asked.conversation, at=asked.event.received_at)
    if asked.conversation.kind == Conversation.Kind.GROUP:
        return str(texts.STARTED_ANEW_IN_GROUP)
    return str(texts.STARTED_ANEW if is_everywhere else texts.STARTED_ANEW_HERE)


@in_turn("retry", _("Try again to answer your last failed message"))
def _retry(asked: Invocation) -> str:
    found = dead_letters.last_of(asked.conversation, asked.account)
    return str(texts.ASKING_AGAIN if found else texts.NOTHING_TO_RETRY)


@in_turn("history", _("Show the last ten messages"), quotes_people=True)
def _history(asked: Invocation) -> str:
    lines = window.readable(asked.conversation, limit=_LINES_OF_HISTORY, speaker=_speaker(asked))
    who = {"user": texts.YOU, "assistant": texts.ME}
    return "\n".join(f"{who[line.role]}: {_shortened(line.text)}" for line in lines) or str(texts.NO_HISTORY)


@in_turn("search", _("Find words in your messages"), hint="words", quotes_people=True)
def _search(asked: Invocation) -> str:
    words = asked.argument
    if not words:
        return labels.with_commands(str(texts.SEARCH_FOR_WHAT), on=asked.event.platform)
    hits = search.find(asked.conversation, words, limit=_LINES_OF_HISTORY, speaker=_speaker(asked))
    return "\n".join(_found(hit.line, asked.event.platform) for hit in reversed(hits)) or str(texts.NOTHING_FOUND)


def _found(line: Line, on: str) -> str:
    values = {"day": f"{line.said_at:%Y-%m-%d}", "app": labels.title(line.platform), "text": _shortened(line.text)}
    who = texts.YOU if line.role == "user" else texts.ME
    return str(texts.FOUND) % (values | {"who": literal(line.author, on) or who})


@in_turn("prefer", _("Choose where I write when you haven't asked"), hint="app")
def _prefer(asked: Invocation) -> str:
    """The new wish, or without one what is wished now."""
    wanted, account = asked.argument.lower(), asked.account
    link = AccountLink.objects.live().filter(account=account).select_related("user__preferred").first()
    if asked.conversation.account_id is None or link is None:
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
    values = {"app": labels.title(account.platform) if account else "", "apps": ", ".join([*theirs, "last"])}
    return str(texts.PREFERRED if account else texts.PREFERRED_LAST) % values


@in_turn("export", _("Export everything as a file"))
def _export(asked: Invocation) -> str:
    page = f"{settings.BOTOS_PUBLIC_URL}{reverse('me')}"
    return str(texts.EXPORT) % {"where": page if settings.BOTOS_PUBLIC_URL else texts.MY_PAGE}


@in_turn("whoami", _("Show who I think you are"), quotes_people=True)
def _whoami(asked: Invocation) -> str:
    account = asked.account
    name = account.display_name or account.username
    values = {"name": literal(name, asked.event.platform), "platform": account.platform, "id": account.platform_user_id}
    return str(texts.WHOAMI) % (values | {"person": asked.context.unified_user_id})


@in_turn("start")
def _start(asked: Invocation) -> str:
    return str(texts.WELCOME)


@in_turn("help", _("Show what I can do"))
def _help(asked: Invocation) -> str:
    lines = [f"{command.usage} - {command.summary}" for command in command_registry.menu()]
    return "\n".join([str(texts.HELP), "", *lines])


def _shortened(text: str) -> str:
    return text if len(text) <= _MAX_LINE else text[: _MAX_LINE - 1] + "…"
