"""The protocol once more, in plain Python and without a database: what the real code is held against.

Nothing of the application is imported here. Times are seconds of a clock that only moves when told to. Every step gives
the words that the one who acts is told, as names of templates; None says that the text was an ordinary message.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import count

CODE, NUMBER, HANDSHAKE, TRIES = 600, 300, 900, 3
GUESSES, GUESS_WINDOW, LOCK, LOCK_AGAIN = 5, 900, 900, 3600
PAUSE, HOUR, DAY, STARTS_AN_HOUR, STARTS_A_DAY, STRIKES = 30, 3600, 86_400, 5, 20, 3
LIVE = ("offered", "claimed")

Words = set[str]


@dataclass(frozen=True)
class Account:
    owner: str
    platform: str


@dataclass(eq=False)
class Request:
    initiator: Account
    created: float
    expires: float
    last: float
    state: str = "offered"
    responder: Account | None = None
    tries: int = 0
    struck: Account | None = None
    claimed: float = 0.0
    ended: float = 0.0


@dataclass(eq=False)
class Link:
    account: Account
    person: int
    since: float
    request: Request
    ended: bool = False
    disowned: bool = False
    shares: bool = False


@dataclass
class Guesses:
    failures: int = 0
    since: float = -1e9
    locked_until: float = -1e9


@dataclass
class Model:
    now: float = 0.0
    requests: list[Request] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)
    guesses: dict[Account, Guesses] = field(default_factory=dict)
    people: Iterable[int] = field(default_factory=count)

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        for request in self.requests:
            if request.state in LIVE and request.expires <= self.now:
                request.state, request.ended = "expired", request.expires

    # --- The handshake

    def link(self, who: Account) -> Words:
        if self._must_wait(who):
            return {"wait_to_start"}
        for old in self._live(initiator=who):
            self._end(old, "cancelled")
        self.requests.append(Request(who, self.now, self.now + CODE, self.now + HANDSHAKE))
        return {"offer"}

    def claim(self, who: Account, request: Request | None) -> Words:
        guesses = self.guesses.setdefault(who, Guesses())
        if guesses.locked_until > self.now:
            return {"wait_to_guess"}
        if request is None or request.state != "offered":
            self._count_guess(guesses)
            return {"wrong_code"}
        if request.initiator == who:
            return {"own_code"}
        if self._forbids(request.initiator, who):
            self._end(request, "refused")
            return {"refused"}
        earlier = [one for one in self._live(responder=who) if one.state == "claimed"]
        for one in earlier:
            self._end(one, "denied")
        request.state, request.responder, request.claimed = "claimed", who, self.now
        request.expires = min(self.now + NUMBER, request.last)
        return {"number", "denied"} if earlier else {"number"}

    def number(self, who: Account, shown_for: Request | None) -> Words | None:
        """`shown_for`: whose number it is; None for a number that is nobody's."""
        asked = [one for one in self._live(initiator=who) if one.state == "claimed"]
        if not asked:
            return self._number_of_nothing(who, shown_for)
        request = asked[0]
        if request.responder is None:
            raise AssertionError("claimed by nobody")
        request.tries += 1
        if shown_for is request:
            return self._join(request, request.responder)
        if request.tries < TRIES:
            return {"wrong_number"}
        request.struck = who
        self._end(request, "locked")
        return {"locked"}

    def not_me(self, who: Account, request: Request | None) -> Words:
        if request is None or request.state not in LIVE or who not in (request.initiator, request.responder):
            return {"nothing_there"}
        request.struck = request.responder if who == request.initiator else request.initiator
        self._end(request, "denied")
        return {"denied"}

    def cancel(self, who: Account) -> Words:
        mine = [*self._live(initiator=who), *self._live(responder=who)]
        for request in mine:
            self._end(request, "cancelled")
        return {"cancelled"} if mine else {"nothing_there"}

    def post_in_group(self, who: Account, request: Request | None) -> Words:
        if request is None or request.state != "offered":
            return set()
        self._end(request, "burned")
        return {"burned"} if who == request.initiator else set()

    # --- Links

    def undo(self, who: Account, request: Request | None) -> Words:
        return self._take_out(who, [link for link in self._family(who) if link.request is request])

    def unlink(self, who: Account, platform: str = "") -> Words:
        def is_meant(link: Link) -> bool:
            return link.account.platform == platform if platform else link.account == who

        return self._take_out(who, [link for link in self._family(who) if is_meant(link)])

    def wasnt_me(self, who: Account) -> Words:
        others = [link for link in self._family(who) if link.account != who]
        return self._take_out(who, others[-1:], disowned=True)

    def share(self, who: Account) -> Words:
        closed = [link for link in self._family(who) if link.account == who and not link.shares]
        for link in closed:
            link.shares = True
        return {"past_shared"} if closed else {"nothing_there"}

    def live_links(self) -> list[Link]:
        return [link for link in self.links if not link.ended]

    def families(self) -> set[frozenset[Account]]:
        """The accounts of each person."""
        people = {link.person for link in self.live_links()}
        return {frozenset(link.account for link in self.live_links() if link.person == one) for one in people}

    # --- Rules

    def _must_wait(self, who: Account) -> bool:
        times = [self.now - request.created for request in self.requests if request.initiator == who]
        an_hour = 1 if self._strikes(who) >= STRIKES else STARTS_AN_HOUR
        most = ((PAUSE, 1), (HOUR, an_hour), (DAY, STARTS_A_DAY))
        return any(sum(ago < span for ago in times) >= allowed for span, allowed in most)

    def _strikes(self, who: Account) -> int:
        recent = [one for one in self.requests if one.struck == who and one.ended > self.now - DAY]
        return len({(one.initiator, one.responder) for one in recent})

    def _count_guess(self, guesses: Guesses) -> None:
        if guesses.since <= self.now - GUESS_WINDOW:
            guesses.failures, guesses.since = 0, self.now
        guesses.failures += 1
        if guesses.failures == GUESSES:
            again = guesses.locked_until > self.now - DAY
            guesses.failures, guesses.locked_until = 0, self.now + (LOCK_AGAIN if again else LOCK)

    def _number_of_nothing(self, who: Account, shown_for: Request | None) -> Words | None:
        family = {who, *(link.account for link in self._family(who))}
        claimed = [one for one in self.requests if one.state == "claimed"]
        if any(one.responder == who or one.initiator in family for one in claimed):
            return {"type_in_other_app"}
        if shown_for and who in (shown_for.initiator, shown_for.responder) and shown_for.claimed > self.now - DAY:
            return {"nothing_there"}
        return None

    def _join(self, request: Request, responder: Account) -> Words:
        sides = (request.initiator, responder)
        if self._forbids(*sides):
            self._end(request, "refused")
            return {"refused"}
        self._end(request, "linked")
        known = [link for side in sides for link in self._family(side)]
        person = known[0].person if known else next(iter(self.people))
        for side in sides:
            if not self._family(side):
                self.links.append(Link(side, person, self.now, request))
        return {"linked"}

    def _forbids(self, one: Account, other: Account) -> bool:
        ours, theirs = self._family(one), self._family(other)
        apps = {one.platform, *(link.account.platform for link in ours)}
        their_apps = {other.platform, *(link.account.platform for link in theirs)}
        return bool(ours and theirs) or bool(apps & their_apps)

    def _take_out(self, who: Account, wanted: list[Link], *, disowned: bool = False) -> Words:
        own = next((link for link in self._family(who) if link.account == who), None)
        may = [link for link in wanted if own and self._may_end(own, link)]
        if not may:
            return {"too_new"} if wanted else {"nothing_there"}
        for link in may:
            link.ended, link.disowned = True, disowned
        return {"unlinked"}

    def _may_end(self, own: Link, other: Link) -> bool:
        return other is own or other.since >= own.since or own.since + DAY <= self.now

    def _family(self, who: Account) -> list[Link]:
        """The live links of the account's person, in the order in which they came."""
        person = next((link.person for link in self.live_links() if link.account == who), None)
        return [link for link in self.live_links() if link.person == person]

    def _live(self, *, initiator: Account | None = None, responder: Account | None = None) -> list[Request]:
        live = [one for one in self.requests if one.state in LIVE]
        return [one for one in live if (initiator and one.initiator == initiator) or one.responder == (responder or "")]

    def _end(self, request: Request, state: str) -> None:
        request.state, request.ended = state, self.now
