"""Who may read what, said a second time: over plain lists, in the words of the rule, without the code it judges."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Said:
    """One entry. `place` is the account whose private chat it was said in, or the name of a group."""

    place: str
    text: str
    at: datetime


@dataclass(slots=True)
class Link:
    account: str
    person: str
    since: datetime
    ended: datetime | None = None
    shares_past: bool = False
    disowned: bool = False


@dataclass
class Oracle:
    """Everything that was said and done, in order. Places that are not in `groups` are accounts."""

    groups: frozenset[str]
    said: list[Said] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)
    behind: dict[str, datetime] = field(default_factory=dict)

    def say(self, place: str, text: str, at: datetime) -> None:
        self.said.append(Said(place, text, at))

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

    def start_anew(self, place: str, at: datetime) -> None:
        for one in {place, *self._accounts_of_the_person(place)}:
            self.behind[one] = max(at, self.behind.get(one, at))

    def live(self, account: str) -> Link | None:
        return next((link for link in self.links if link.account == account and link.ended is None), None)

    def readable(self, place: str, limit: int) -> list[str]:
        return _newest([said for said in self.said if self._may_be_read(place, said)], limit)

    def window(self, place: str, limit: int) -> list[str]:
        bound = self.behind.get(place)
        in_view = [said for said in self.said if self._may_be_read(place, said) and not self._is_disowned(said)]
        return _newest([said for said in in_view if bound is None or said.at > bound], limit)

    def _may_be_read(self, place: str, said: Said) -> bool:
        if said.place == place:
            return True
        if place in self.groups or said.place in self.groups:
            return False
        mine, theirs = self.live(place), self.live(said.place)
        if mine is None or theirs is None or mine.person != theirs.person:
            return False
        return theirs.shares_past or (said.at > mine.since and said.at > theirs.since)

    def _is_disowned(self, said: Said) -> bool:
        lived = [link for link in self.links if link.account == said.place and link.disowned]
        return any(link.since < said.at <= link.ended for link in lived if link.ended)

    def _accounts_of_the_person(self, account: str) -> list[str]:
        mine = self.live(account)
        return [link.account for link in self.links if mine and link.ended is None and link.person == mine.person]


def _newest(said: list[Said], limit: int) -> list[str]:
    in_order = sorted(said, key=lambda one: one.at)  # keeps the order of writing where moments are equal
    return [one.text for one in in_order[-limit:]]
