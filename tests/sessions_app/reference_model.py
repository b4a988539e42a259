"""Who may read what: the rule a second time, over plain lists, without the code that it judges."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry. `place` is the account whose private chat it was said in, whether a resolver was configured then or
    not, or the name of a group. An answer is `written` later than it is said `at`. No agent gets what is `withheld`.
    """

    place: str
    text: str
    at: datetime
    written: datetime
    is_withheld: bool = False


@dataclass(slots=True)
class Link:
    account: str
    person: str
    since: datetime
    ended: datetime | None = None
    shares_past: bool = False
    disowned: bool = False


@dataclass
class ReferenceModel:
    """Everything that was said and done, in order. Places that are not in `groups` are accounts."""

    groups: frozenset[str]
    entries: list[Entry] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)
    behind: dict[str, datetime] = field(default_factory=dict)

    def say(
        self, place: str, text: str, at: datetime, *, written: datetime | None = None, is_withheld: bool = False
    ) -> None:
        self.entries.append(Entry(place, text, at, written or at, is_withheld))

    def withhold(self, place: str, text: str) -> None:
        """What was said, and is kept from agents from now on."""
        said = [(entry.place, entry.text) for entry in self.entries].index((place, text))
        self.entries[said] = replace(self.entries[said], is_withheld=True)

    def link(self, account: str, person: str, at: datetime) -> None:
        live = self.live(account)
        if live and live.person == person:
            return
        if live:
            live.ended = at
        self.links.append(Link(account, person, at))

    def unlink(self, account: str, at: datetime, *, disown: bool) -> None:
        if live := self.live(account):
            live.ended, live.disowned = at, disown

    def share_past(self, account: str) -> None:
        if live := self.live(account):
            live.shares_past = True

    def reset_context(self, place: str, at: datetime, *, now: datetime) -> None:
        for one in {place, *self._accounts_that_follow(place, now)}:
            self.behind[one] = max(at, self.behind.get(one, at))

    def reset_context_alone(self, place: str, at: datetime) -> None:
        """Where no resolver is configured, nobody follows."""
        self.behind[place] = max(at, self.behind.get(place, at))

    def live(self, account: str) -> Link | None:
        return next((link for link in self.links if link.account == account and link.ended is None), None)

    def readable(self, place: str, limit: int) -> list[str]:
        return _newest([entry for entry in self.entries if self._may_be_read(place, entry)], limit)

    def places(self, place: str, known: Iterable[str]) -> dict[str, list[str]]:
        """The conversations that may be read, and what of each."""
        mine = self.live(place)
        listed = [one for one in known if one == place or self._are_one(mine, self.live(one))]
        visible = [entry for entry in self.entries if self._may_be_read(place, entry)]
        return {one: _newest([entry for entry in visible if entry.place == one], 10_000) for one in listed}

    def _are_one(self, mine: Link | None, theirs: Link | None) -> bool:
        return mine is not None and theirs is not None and mine.person == theirs.person

    def window(self, place: str, limit: int) -> list[str]:
        bound = self.behind.get(place)
        in_view = [entry for entry in self.entries if self._is_for_agents(place, entry)]
        return _newest([entry for entry in in_view if bound is None or entry.at > bound], limit)

    def _is_for_agents(self, place: str, entry: Entry) -> bool:
        return self._may_be_read(place, entry) and not self._is_disowned(entry) and not entry.is_withheld

    def _may_be_read(self, place: str, entry: Entry) -> bool:
        if entry.place == place:
            return True
        if place in self.groups or entry.place in self.groups:
            return False
        mine, theirs = self.live(place), self.live(entry.place)
        if mine is None or theirs is None or mine.person != theirs.person:
            return False
        return theirs.shares_past or (entry.at > mine.since and entry.at > theirs.since)

    def _is_disowned(self, entry: Entry) -> bool:
        """Whether it was said by anybody of a person while a link of that person lived that was disowned, or answered
        then.
        """
        theirs = [link for link in self.links if link.account == entry.place]
        wrong = [link for link in self.links if link.disowned]
        return any(
            _was_on_the_way(entry, max(mine.since, other.since), min(filter(None, (mine.ended, other.ended))))
            for mine in theirs
            for other in wrong
            if mine.person == other.person
        )

    def _accounts_that_follow(self, account: str, now: datetime) -> list[str]:
        """Those of the person; while the account's link is less than a day old, those that were linked after it."""
        mine = self.live(account)
        theirs = [link for link in self.links if mine and link.ended is None and link.person == mine.person]
        return [one.account for one in theirs if mine and (one.since > mine.since or now - mine.since >= DAY)]


def _was_on_the_way(entry: Entry, since: datetime, until: datetime) -> bool:
    """Whether it was said, written, or neither yet answered nor yet to be said within the span."""
    return since < until and entry.at <= until and entry.written > since


def _newest(entries: list[Entry], limit: int) -> list[str]:
    in_order = sorted(entries, key=lambda entry: entry.at)  # keeps the order of writing where moments are equal
    return [one.text for one in in_order[-limit:]]
