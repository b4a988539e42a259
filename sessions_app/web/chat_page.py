"""What a browser's chat shows at this moment: history above the input, what waits for its turn, what the bot says."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from django.db.models import Q, QuerySet

from identity import labels
from identity.browsers import sessions as browser_sessions
from identity.models import Browser, PlatformAccount
from sessions_app.history import window
from sessions_app.messages import BROWSER, Line
from sessions_app.models import Conversation, HistoryEntry, InboundEvent, OutboundDelivery

LINES = 50
NOTES = 20  # of what is not history: commands, their answers, and what went wrong

Kind, Status = InboundEvent.Kind, InboundEvent.Status


@dataclass(frozen=True, slots=True)
class Said:
    """One line. `role` is user, assistant, assistant draft or note; `key` stays the same while the line does, for
    whoever follows.
    """

    key: str
    role: str
    text: str
    said_at: datetime
    platform: str
    label: str = ""  # of what somebody else sent in the bot's name

    @property
    def app(self) -> str:
        return labels.title(self.platform)


@dataclass(frozen=True, slots=True)
class Choice:
    """An account to talk as."""

    account: PlatformAccount
    words: str


@dataclass(frozen=True, slots=True)
class Chat:
    """`state`: begin (nothing is attached), confirm (its confirmation is old) or open. Without words unless open."""

    state: str
    account: PlatformAccount | None = None
    choices: tuple[Choice, ...] = ()
    lines: tuple[Said, ...] = ()
    is_answering: bool = False

    @property
    def version(self) -> str:
        """Another one whenever something else is to be seen."""
        return hashlib.sha256(repr((self.state, self.lines, self.is_answering)).encode()).hexdigest()[:16]


def chat(browser: Browser | None, wanted: str = "") -> Chat:
    """The chat as the account with the id `wanted`, if it may be read here now; as the one attached last if none is."""
    accounts = browser_sessions.readable(browser) if browser else []
    account = next((one for one in reversed(accounts) if wanted in {"", str(one.pk)}), None)
    if browser is None or account is None:
        return Chat("confirm" if browser and browser_sessions.attached(browser) else "begin")
    choices = tuple(Choice(one, labels.described(one)) for one in accounts)
    # What waits is read before history: what is answered in between is there twice then, and not missing.
    waiting = list(_events(browser, account).filter(done_at=None).order_by("id"))
    open_ones = [*_written(waiting), *_drafted(browser, account)]
    shown = _together(_noted(browser, account), open_ones, _remembered(account))
    return Chat("open", account, choices, shown, is_answering=bool(waiting))


def _events(browser: Browser, account: PlatformAccount) -> QuerySet[InboundEvent]:
    """What the account wrote in this browser."""
    return InboundEvent.objects.filter(platform=BROWSER, chat_id=str(browser.pk), account=account)


def _written(events: Iterable[InboundEvent]) -> list[Said]:
    return [Said(_key("user", one.received_at), "user", one.text, one.received_at, BROWSER) for one in events]


def _noted(browser: Browser, account: PlatformAccount) -> list[Said]:
    """What was said here and is not history: commands, what was put aside, and the bot's own words about either."""
    events = _events(browser, account).filter(Q(kind=Kind.COMMAND) | Q(status=Status.QUARANTINED)).order_by("-id")
    told = _told(browser, account).exclude(status=OutboundDelivery.Status.DRAFTING).order_by("-id")
    notes = [Said(f"note-{one.pk}", "note", one.text, one.created_at, BROWSER) for one in told[:NOTES]]
    return [*_written(events[:NOTES]), *notes]


def _told(browser: Browser, account: PlatformAccount) -> QuerySet[OutboundDelivery]:
    """What was said in this browser to the account and is not history."""
    theirs = {"event__platform": BROWSER, "event__chat_id": str(browser.pk), "event__account": account}
    return OutboundDelivery.objects.filter(**theirs, entry=None)


def _drafted(browser: Browser, account: PlatformAccount) -> list[Said]:
    """Answers as far as they have come, each at the place and under the key that it will have."""
    drafts = _told(browser, account).filter(status=OutboundDelivery.Status.DRAFTING, settled_at=None)
    return [
        Said(_key("assistant", one.created_at), "assistant draft", one.text, one.created_at, BROWSER) for one in drafts
    ]


def _remembered(account: PlatformAccount) -> list[Said]:
    conversation = Conversation.objects.filter(account=account).first()
    lines = window.readable(conversation, limit=LINES) if conversation else ()
    return [_said(line) for line in lines]


def _said(line: Line) -> Said:
    key = _key(line.role if line.source != HistoryEntry.Source.MIRROR else line.source, line.said_at)
    return Said(key, line.role, line.text, line.said_at, line.platform, line.source_label)


def _key(role: str, said_at: datetime) -> str:
    """A turn's entries have the time of the events that they answer, so a line keeps its key when it is answered."""
    return f"{role}-{said_at.astimezone(UTC):%Y%m%d%H%M%S%f}"


def _together(notes: list[Said], waiting: list[Said], remembered: list[Said]) -> tuple[Said, ...]:
    """In order, each once; no notes from before the first line that is shown."""
    first = remembered[0].said_at if len(remembered) == LINES else None
    lately = [one for one in notes if first is None or one.said_at >= first]
    each = {one.key: one for one in (*lately, *waiting, *remembered)}
    return tuple(sorted(each.values(), key=lambda one: (one.said_at, one.role != "user")))
