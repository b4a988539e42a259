"""Commands that BotOS answers with a text, the same on every platform."""

from __future__ import annotations

from django.conf import settings
from django.urls import reverse
from django.utils.translation import gettext_lazy as _

from identity import labels
from identity.flows import linking
from identity.models import AccountLink
from identity.resolvers import Pair
from identity.support.sanitize import literal
from sessions_app import dead_letters, texts
from sessions_app.commands import registry as command_registry
from sessions_app.commands.registry import Invocation, at_once, in_turn
from sessions_app.history import search, window
from sessions_app.models import Conversation

_LINES_OF_HISTORY = 10
_MAX_LINE = 300  # characters


def _speaker(asked: Invocation) -> Pair:
    return asked.account.platform, asked.account.platform_user_id


# In its turn: what was written before it belongs to the conversation that ends here.
@in_turn("new", _("Start a new conversation"))
def _new(asked: Invocation) -> str:
    is_everywhere = window.reset_context(asked.conversation, at=asked.event.received_at)
    if asked.conversation.kind == Conversation.Kind.GROUP:
        return str(texts.CONTEXT_RESET_IN_GROUP)
    return str(texts.CONTEXT_RESET if is_everywhere else texts.CONTEXT_RESET_HERE)


# In its turn: the message before it may be the one that fails just now.
@in_turn("retry", _("Try again to answer your last failed message"))
def _retry(asked: Invocation) -> str:
    is_retried = dead_letters.last_of(asked.conversation, asked.account)
    return str(texts.ASKING_AGAIN if is_retried else texts.NOTHING_TO_RETRY)


@at_once("history", _("Show the last ten messages"), quotes_people=True)
def _history(asked: Invocation) -> str:
    lines = window.readable(asked.conversation, limit=_LINES_OF_HISTORY, speaker=_speaker(asked))
    speakers = {"user": texts.YOU, "assistant": texts.ME}
    return "\n".join(f"{speakers[line.role]}: {_shortened(line.text)}" for line in lines) or str(texts.NO_HISTORY)


@at_once("search", _("Find words in your messages"), hint="words", takes=r".+", quotes_people=True)
def _search(asked: Invocation) -> str:
    words = asked.argument
    if not words:
        return labels.with_commands(str(texts.SEARCH_FOR_WHAT), on=asked.event.platform)
    hits = search.find(asked.conversation, words, limit=_LINES_OF_HISTORY, speaker=_speaker(asked))
    lines = []
    for line in (hit.line for hit in reversed(hits)):
        speaker = literal(line.author, asked.event.platform) or (texts.YOU if line.role == "user" else texts.ME)
        place = {"day": f"{line.said_at:%Y-%m-%d}", "app": labels.title(line.platform)}
        lines.append(str(texts.FOUND) % {**place, "who": speaker, "text": _shortened(line.text)})
    return "\n".join(lines) or str(texts.NOTHING_FOUND)


@in_turn("prefer", _("Choose where I write when you haven't asked"), hint="app", takes=r"\S+")
def _prefer(asked: Invocation) -> str:
    """Set the preferred app; without an argument, show it."""
    wanted, account = asked.argument.lower(), asked.account
    link = AccountLink.objects.live().filter(account=account).select_related("user__preferred").first()
    if asked.conversation.account_id is None or link is None:
        return str(texts.NOTHING_TO_PREFER)
    linked = {member.platform: member for member in linking.accounts_of(link.user)}
    apps = ", ".join([*linked, "last"])
    if not wanted:
        preferred = link.user.preferred if link.user.preferred in linked.values() else None
    elif wanted not in {"last", *linked}:
        return str(texts.PREFER_WHAT) % {"apps": apps}
    else:
        preferred = linked.get(wanted)
        if not linking.prefer(account=account, preferred=preferred):
            return str(texts.TOO_NEW_TO_PREFER)
    values = {"app": labels.title(preferred.platform) if preferred else "", "apps": apps}
    return str(texts.PREFERRED if preferred else texts.PREFERRED_LAST) % values


@at_once("export", _("Export everything as a file"))
def _export(asked: Invocation) -> str:
    page = f"{settings.BOTOS_PUBLIC_URL}{reverse('me')}"
    return str(texts.EXPORT) % {"where": page if settings.BOTOS_PUBLIC_URL else texts.MY_PAGE}


@at_once("whoami", _("Show who I think you are"), quotes_people=True)
def _whoami(asked: Invocation) -> str:
    account = asked.account
    name = account.display_name or account.username
    values = {"name": literal(name, asked.event.platform), "platform": account.platform, "id": account.platform_user_id}
    return str(texts.WHOAMI) % (values | {"person": asked.person()})


@at_once("start", drops=r"\S+")  # the payload of a deep link
def _start(asked: Invocation) -> str:
    return str(texts.WELCOME)


@at_once("help", _("Show what I can do"))
def _help(asked: Invocation) -> str:
    lines = [f"{command.usage} - {command.summary}" for command in command_registry.menu()]
    return "\n".join([str(texts.HELP), "", *lines])


def _shortened(text: str) -> str:
    return text if len(text) <= _MAX_LINE else text[: _MAX_LINE - 1] + "…"
