"""What a browser's chat shows now: history above the input, messages that wait for their turn, and the bot's notes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime

from django.db.models import Q

from identity import labels
from identity.browsers import sessions as browser_sessions
from identity.models import Browser, PlatformAccount
from sessions_app.history import window
from sessions_app.messages import BROWSER, Line
from sessions_app.models import Conversation, HistoryEntry, InboundEvent, OutboundDelivery

LINES = 50
NOTES = 20  # lines that are not history: commands, their answers, and failures

Kind, Status = InboundEvent.Kind, InboundEvent.Status


@dataclass(frozen=True, slots=True)
class ChatLine:
    """One line of the chat.

    key: the same as long as the line is shown, for the script that updates the page. role: user, assistant, assistant
    draft, or note. label: who sent a message in the bot's name.
    """

    key: str
    role: str
    text: str
    said_at: datetime
    platform: str
    label: str = ""

    @property
    def app(self) -> str:
        return labels.title(self.platform)


@dataclass(frozen=True, slots=True)
class Choice:
    """An account to write as."""

    account: PlatformAccount
    words: str


@dataclass(frozen=True, slots=True)
class Chat:
    """The chat of a browser. state: begin (no account is attached), confirm (the confirmation is old), or open.

    Only an open chat has lines.
    """

    state: str
    account: PlatformAccount | None = None
    choices: tuple[Choice, ...] = ()
    lines: tuple[ChatLine, ...] = ()
    is_answering: bool = False

    @property
    def version(self) -> str:
        """A hash of everything that is shown."""
        return hashlib.sha256(repr((self.state, self.lines, self.is_answering)).encode()).hexdigest()[:16]


def chat(browser: Browser | None, wanted: str = "") -> Chat:
    """The chat of the account with the id `wanted`, if it may be read here now; with "", of the one attached last."""
    accounts = browser_sessions.readable(browser) if browser else []
    account = next((account for account in reversed(accounts) if wanted in {"", str(account.pk)}), None)
    if browser is None or account is None:
        return Chat("confirm" if browser and browser_sessions.attached(browser) else "begin")
    choices = tuple(Choice(choice, labels.described(choice)) for choice in accounts)
    events = InboundEvent.objects.filter(platform=BROWSER, chat_id=str(browser.pk), account=account)
    place = {"event__platform": BROWSER, "event__chat_id": str(browser.pk), "event__account": account}
    deliveries = OutboundDelivery.objects.filter(**place, entry=None)
    # Waiting events come before history: one that is answered in between is read twice then, and not missed.
    waiting = [_event_line(event) for event in events.filter(done_at=None).order_by("id")]
    drafts = [
        ChatLine(_key("assistant", draft.created_at), "assistant draft", draft.text, draft.created_at, BROWSER)
        for draft in deliveries.filter(status=OutboundDelivery.Status.DRAFTING, settled_at=None)
    ]
    unrecorded = events.filter(Q(kind=Kind.COMMAND) | Q(status=Status.QUARANTINED)).order_by("-id")
    notes = [_event_line(event) for event in unrecorded[:NOTES]]
    sent = deliveries.exclude(status=OutboundDelivery.Status.DRAFTING).order_by("-id")
    notes += [ChatLine(f"note-{note.pk}", "note", note.text, note.created_at, BROWSER) for note in sent[:NOTES]]
    conversation = Conversation.objects.filter(account=account).first()
    history = [_history_line(line) for line in window.readable(conversation, limit=LINES)] if conversation else []
    if len(history) == LINES:
        notes = [note for note in notes if note.said_at >= history[0].said_at]
    lines = {line.key: line for line in (*notes, *waiting, *drafts, *history)}
    in_order = sorted(lines.values(), key=lambda line: (line.said_at, line.role != "user"))
    return Chat("open", account, choices, tuple(in_order), is_answering=bool(waiting))


def _event_line(event: InboundEvent) -> ChatLine:
    return ChatLine(_key("user", event.received_at), "user", event.text, event.received_at, BROWSER)


def _history_line(line: Line) -> ChatLine:
    key = _key(line.role if line.source != HistoryEntry.Source.MIRROR else line.source, line.said_at)
    return ChatLine(key, line.role, line.text, line.said_at, line.platform, line.source_label)


def _key(role: str, said_at: datetime) -> str:
    """A key of role and time. A turn's entries have the times of its events, so a line keeps its key when answered."""
    return f"{role}-{said_at.astimezone(UTC):%Y%m%d%H%M%S%f}"
