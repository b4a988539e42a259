"""Compares what the platforms saw with what the database holds. Knows nothing of the product but its tables."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

REPEATED = "(sent again after an interruption)"  # how a reply on Telegram says that it may be a second one
MARGIN = 1.0  # seconds between the moment that a row names and its commit
Rows = Callable[[str], list[tuple[Any, ...]]]
Replies = Mapping[tuple[str, str], Sequence[str]]
EVENTS = """
    SELECT e.id, e.platform, a.platform_user_id, e.text, e.status, e.received_at, e.failures, e.reason
    FROM sessions_app_inboundevent e JOIN identity_platformaccount a ON a.id = e.account_id ORDER BY e.id
"""
ENTRIES = """
    SELECT h.id, h.role, h.text, h.event_id, h.platform, a.platform_user_id
    FROM sessions_app_historyentry h LEFT JOIN identity_platformaccount a ON a.id = h.author_id ORDER BY h.id
"""
OPEN = "SELECT COUNT(*) FROM sessions_app_outbounddelivery WHERE status <> 'sent'"


@dataclass(frozen=True, slots=True)
class Message:
    """One message as its platform took it. Its words begin with `m` and the number. `said_at`: seconds since 1970."""

    number: int
    platform: str
    user_id: str
    chat: str
    lane: str
    said_at: float
    id: str


@dataclass(frozen=True, slots=True)
class Event:
    id: int
    account: tuple[str, str]
    numbers: tuple[int, ...]
    status: str
    received_at: float
    failures: int
    reason: str


@dataclass(frozen=True, slots=True)
class Entry:
    id: int
    role: str
    numbers: tuple[int, ...]
    event: int | None
    account: tuple[str, str]


@dataclass
class Verdict:
    """What went wrong, as message numbers and lanes. `repeats` are marked as such, and `missed` was never told.

    missed: said on Discord while nobody listened, by somebody of whom nothing was ever heard before: no process knows
    of the chat, so that none can read it back.
    aside: ended processes too often and was put aside at first. broken: a rule of the tables that does not hold.
    given_up: expected to end with an apology, and did.
    """

    messages: int
    lost: list[int] = field(default_factory=list)
    twice_in_history: list[int] = field(default_factory=list)
    twice_replied: list[int] = field(default_factory=list)
    disordered: list[str] = field(default_factory=list)
    order: list[str] = field(default_factory=list)  # what stood where, for each disordered lane
    undelivered: list[int] = field(default_factory=list)
    missed: list[int] = field(default_factory=list)
    aside: list[int] = field(default_factory=list)
    given_up: list[int] = field(default_factory=list)
    repeats: int = 0
    broken: list[str] = field(default_factory=list)

    def disorder(self, lane: str, evidence: str) -> None:
        """Note a lane once, and all that speaks against it."""
        if lane not in self.disordered:
            self.disordered.append(lane)
        self.order.append(f"{lane}: {evidence}")

    @property
    def duplicated(self) -> list[int]:
        return sorted({*self.twice_in_history, *self.twice_replied})

    @property
    def is_clean(self) -> bool:
        return not (self.lost or self.duplicated or self.disordered or self.undelivered or self.broken)


def judge(
    said: Sequence[Message],
    replies: Replies,
    rows: Rows,
    *,
    aside: Collection[int] = frozenset(),
    hopeless: Collection[int] = frozenset(),
) -> Verdict:
    """`replies`: what the bot said by platform and chat, in order. `rows` runs a query.

    aside: messages that ended processes, were put aside and brought back, and so have left their place in the order.
    hopeless: messages that the agent fails at every time. Each is given up, and has one apology in place of an answer.
    """
    events, entries = _events(rows), _entries(rows)
    verdict = Verdict(len(said), aside=sorted(aside))
    apologies = {entry.event for entry in entries if entry.role == "assistant" and not entry.numbers}
    given_up = {n for event in events if event.status == "given up" and event.id in apologies for n in event.numbers}
    verdict.given_up = sorted(given_up.intersection(hopeless))
    verdict.broken += [f"m{number:05d} was not given up" for number in sorted(set(hopeless) - given_up)]
    _account_for(verdict, said, events, entries)
    _count_replies(verdict, said, replies)
    _check_order(verdict, said, events, entries)
    failed = {number for event in events if event.failures for number in event.numbers}  # later ones have passed them
    for lane, numbers in _orders_of_replies(said, replies):
        if not _grows([number for number in numbers if number not in failed.union(aside)]):
            verdict.disorder(lane, f"replies {numbers}")
    verdict.broken += _broken(events, entries, rows)
    return verdict


def _events(rows: Rows) -> list[Event]:
    return [Event(r[0], (r[1], r[2]), numbers_in(r[3]), r[4], _seconds(r[5]), r[6], r[7]) for r in rows(EVENTS)]


def _entries(rows: Rows) -> list[Entry]:
    return [Entry(r[0], r[1], numbers_in(r[2]), r[3], (r[4], r[5])) for r in rows(ENTRIES)]


def numbers_in(text: str) -> tuple[int, ...]:
    """The messages that a text names."""
    return tuple(map(int, re.findall(r"\bm(\d{5})\b", text)))


def _seconds(moment: datetime | str) -> float:
    """SQLite has text, PostgreSQL moments."""
    if isinstance(moment, datetime):
        return moment.timestamp()
    return datetime.fromisoformat(moment).replace(tzinfo=UTC).timestamp()


def _account_for(verdict: Verdict, said: Sequence[Message], events: list[Event], entries: list[Entry]) -> None:
    """Every message once: received, entered as the account's own words, and answered by one entry."""
    received = {number for event in events for number in event.numbers}
    own = Counter((entry.account, number) for entry in entries if entry.role == "user" for number in entry.numbers)
    answers = Counter(number for entry in entries if entry.role == "assistant" for number in entry.numbers)
    known: set[tuple[str, str]] = set()  # platforms and chats of which something was heard
    for message in said:
        if message.number in received:
            known.add((message.platform, message.chat))
        entered = own[(message.platform, message.user_id), message.number]
        if entered > 1 or answers[message.number] > 1:
            verdict.twice_in_history.append(message.number)
        if entered and not answers[message.number] and message.number not in verdict.given_up:
            verdict.broken.append(f"m{message.number:05d} has no answer in history")
        if not entered:
            was_missed = message.platform == "discord" and (message.platform, message.chat) not in known
            (verdict.missed if was_missed else verdict.lost).append(message.number)


def _count_replies(verdict: Verdict, said: Sequence[Message], replies: Mapping[tuple[str, str], Sequence[str]]) -> None:
    plain: Counter[tuple[str, str, int]] = Counter()
    marked: Counter[tuple[str, str, int]] = Counter()
    for (platform, chat), texts in replies.items():
        for text in texts:
            is_marked = platform == "telegram" and text.startswith(REPEATED)
            (marked if is_marked else plain).update((platform, chat, number) for number in numbers_in(text))
    gone = {*verdict.missed, *verdict.lost, *verdict.given_up}
    for message in said:
        key = (message.platform, message.chat, message.number)
        verdict.repeats += max(0, marked[key] - (not plain[key]))
        if plain[key] > 1:
            verdict.twice_replied.append(message.number)
        if not plain[key] + marked[key] and message.number not in gone:
            verdict.undelivered.append(message.number)
    places = {(message.platform, message.chat, message.number) for message in said}
    verdict.broken += [f"m{key[2]:05d} was answered in another chat" for key in {*plain, *marked} - places]


def _check_order(verdict: Verdict, said: Sequence[Message], events: list[Event], entries: list[Entry]) -> None:
    """History has each account's words in the order of saying, and a lane's in the order of arrival."""
    message_of = {message.number: message for message in said}
    arrived = {number: event.received_at for event in reversed(events) for number in event.numbers}
    lanes: dict[str, list[Message]] = defaultdict(list)
    for entry in entries:
        for number in entry.numbers if entry.role == "user" else ():
            if number in message_of and number not in verdict.aside:
                lanes[message_of[number].lane].append(message_of[number])
    for lane, messages in lanes.items():
        by_account: dict[str, list[int]] = defaultdict(list)
        for message in messages:
            by_account[message.platform].append(message.number)
        in_order = all(_grows(_first(numbers)) for numbers in by_account.values())
        if not in_order or _overtakes(messages, arrived):
            verdict.disorder(lane, f"history {[message.number for message in messages]}")


def _overtakes(messages: Sequence[Message], arrived: Mapping[int, float]) -> bool:
    """Whether one stands before another that had been taken in when it was said."""
    earliest = float("inf")
    for message in reversed(messages):
        if earliest + MARGIN < message.said_at:
            return True
        earliest = min(earliest, arrived[message.number])
    return False


def _orders_of_replies(said: Sequence[Message], replies: Replies) -> Iterable[tuple[str, list[int]]]:
    lane_of = {(message.platform, message.chat): message.lane for message in said}
    for place, texts in replies.items():
        if place in lane_of:
            yield lane_of[place], _first(number for text in texts for number in numbers_in(text))


def _first(numbers: Iterable[int]) -> list[int]:
    """Each number where it comes first."""
    return list(dict.fromkeys(numbers))


def _grows(numbers: Sequence[int]) -> bool:
    return all(before < after for before, after in pairwise(numbers))


def _broken(events: list[Event], entries: list[Entry], rows: Rows) -> list[str]:
    """What must hold in the tables alone, when all is quiet."""
    waiting = [event.id for event in events if event.status == "pending"]
    entered = Counter(entry.event for entry in entries if entry.role == "user")
    answered = Counter(entry.event for entry in entries if entry.role == "assistant" and entry.event)
    found = [f"event {event} still waits" for event in waiting]
    unanswered = [event for event in events if event.status in ("given up", "quarantined")]
    found += [f"event {event.id} ended without an answer or a reason" for event in unanswered if not event.reason]
    found += [f"event {event} has {count} user entries" for event, count in entered.items() if count != 1]
    found += [f"event {event} has {count} answers" for event, count in answered.items() if count != 1]
    turns = Counter(number for entry in entries if entry.role == "assistant" for number in set(entry.numbers))
    found += [f"m{number:05d} is in {count} turns" for number, count in turns.items() if count != 1]
    [[unsent]] = rows(OPEN)
    return [*found, *([f"{unsent} deliveries were not sent"] if unsent else [])]
