"""The protocol once more, in plain Python and without a database: what the real code is held against.

Nothing of the application is imported here. Times are seconds of a clock that only moves when told to. Every step gives
the words that the one who acts is told, as names of templates; None says that the text was an ordinary message. What
browsers do is in browser_model.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import count

CODE, NUMBER, HANDSHAKE, TRIES = 600, 300, 900, 3
GUESSES, GUESS_WINDOW, LOCK, LOCK_AGAIN = 5, 900, 900, 3600
PAUSE, HOUR, DAY, STARTS_AN_HOUR, STARTS_A_DAY, REJECTIONS = 30, 3600, 86_400, 5, 20, 3
LIVE = ("offered", "claimed")

Words = set[str]


@dataclass(frozen=True)
class Account:
    owner: str
    platform: str


@dataclass(frozen=True)
class Page:
    """A browser on somebody's table. Its sessions come and go."""

    owner: str
    name: str


@dataclass(eq=False)
class Session:
    page: Page
    began: float
    seen: float
    has_ended: bool = False

    @property
    def owner(self) -> str:
        return self.page.owner


Party = Account | Session


@dataclass(eq=False)
class Request:
    initiator: Party
    created: float
    expires: float
    last: float
    state: str = "offered"
    responder: Party | None = None
    tries: int = 0
    rejected: Account | None = None
    claimed: float = 0.0
    ended: float = 0.0


@dataclass(eq=False)
class Link:
    account: Account
    person: int
    since: float
    request: Request
    ended: bool = False
    ended_at: float = 0.0
    disowned: bool = False
    shares: bool = False


@dataclass
class Guesses:
    times: list[float] = field(default_factory=list)
    locked_until: float = -1e9


@dataclass
class Model:
    now: float = 0.0
    requests: list[Request] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)
    guesses: dict[Account | str, Guesses] = field(default_factory=dict)
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
        if self._is_locked_out(who):
            return {"wait_to_guess"}
        if request is None or request.state != "offered":
            self._count_guess(who)
            return {"wrong_code"}
        if request.initiator == who:
            return {"own_code"}
        if self._forbids(request.initiator, who):
            self._end(request, "refused")
            return {"refused"}
        return {"number", "denied"} if self._take(request, who) else {"number"}

    def _take(self, request: Request, who: Party) -> list[Request]:
        """What `who` had claimed before ends by that."""
        earlier = [one for one in self._live(responder=who) if one.state == "claimed"]
        for one in earlier:
            self._end(one, "denied")
        request.state, request.responder, request.claimed = "claimed", who, self.now
        request.expires = min(self.now + NUMBER, request.last)
        return earlier

    def guess(self, who: Account, request: Request | None) -> Words | None:
        """Letters that may be a code: answered if they are one, and counted anyhow."""
        words = self.claim(who, request)
        return None if words == {"wrong_code"} else words

    def guess_beside(self, who: Account, request: Request | None) -> Words | None:
        """The code of a request, and a wrong one beside it."""
        found = 2 if request else 1
        if not self._is_locked_out(who) and found > max(1, GUESSES - self._recent_guesses(who) - 1):
            return {"just_the_code"}
        words = self.guess(who, request)  # which counts it, if it is wrong
        if request and words != {"wait_to_guess"}:
            self._count_guess(who)
        return words

    def number(self, who: Account, shown_for: Request | None) -> Words | None:
        """`shown_for`: whose number it is; None for a number that is nobody's."""
        asked = [one for one in self._live(initiator=who) if one.state == "claimed"]
        if not asked:
            return self._number_of_nothing(who, shown_for)
        return self._try_number(asked[0], shown_for)

    def _try_number(self, request: Request, shown_for: Request | None) -> Words:
        request.tries += 1
        if shown_for is request:
            return self._finish(request)
        if request.tries < TRIES:
            return {"wrong_number"}
        request.rejected = _account_of(request.initiator)
        self._end(request, "locked")
        return {"locked"}

    def _finish(self, request: Request) -> Words:
        one, other = request.initiator, request.responder
        if not isinstance(one, Account) or not isinstance(other, Account):
            raise AssertionError("not two chats")
        return self._join(request, one, other)

    def not_me(self, who: Account, request: Request | None) -> Words:
        if request is None or request.state not in LIVE or who not in (request.initiator, request.responder):
            return self._take_back(who, request)
        request.rejected = _account_of(request.responder if who == request.initiator else request.initiator)
        self._end(request, "denied")
        return {"denied"}

    def _take_back(self, who: Account, request: Request | None) -> Words:
        """What came of it, when it was too late to stop it."""
        words = self._sign_out_whom(who, request)
        beside = self._came_with(who, request)
        made = [link for link in self._family(who) if link.request in beside]
        if made:
            words |= self._take_out(who, made, disowns=lambda _, link: self._is_recent(link))
        return words or {"nothing_there"}

    def _came_with(self, who: Account, request: Request | None) -> list[Request | None]:
        """All that may have been made by whoever made this one."""
        return [request]

    def _sign_out_whom(self, who: Account, request: Request | None) -> Words:
        """The browser that came of it."""
        return set()

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
        mine = [one for one in self._live_or_lately() if one.account == who]
        own = next((one for one in mine if not one.ended or one.since > self.now - 7 * DAY), None)
        if own and own.ended:
            return self._disown_ended(own)
        theirs = [one for one in self._live_or_lately() if own and one.person == own.person and one.account != who]
        others = [one for one in theirs if own and (not one.ended or one.ended_at > own.since)]
        newest = max(others, key=lambda one: (one.since, self.links.index(one)), default=None)
        if own and newest and newest.ended and self._may_end(own, newest) and self._may_disown(own, newest):
            return self._disown_ended(newest)
        live = [link for link in self._family(who) if link.account != who]
        return self._take_out(who, live[-1:], disowns=self._may_disown)

    def _disown_ended(self, link: Link) -> Words:
        link.disowned = True
        return {"disowned"}

    def _live_or_lately(self) -> list[Link]:
        """Links that live, and then those that have ended in the last week, the latest end first."""
        ended = [one for one in self.links if one.ended and not one.disowned and one.ended_at > self.now - 7 * DAY]
        return [*self.live_links(), *sorted(ended, key=lambda one: -one.ended_at)]

    def share(self, who: Account) -> Words:
        closed = [link for link in self._family(who) if link.account == who and not link.shares]
        for link in closed:
            link.shares = True
        return {"past_shared"} if closed else {"nothing_there"}

    def meant_by(self, who: Account) -> set[Account]:
        """Whose windows `/new` moves."""
        family = self._family(who)
        own = next((link for link in family if link.account == who), None)
        return {who} | {
            link.account for link in family if own and (link.since > own.since or self._is_established(own))
        }

    def live_links(self) -> list[Link]:
        return [link for link in self.links if not link.ended]

    def families(self) -> set[frozenset[Account]]:
        """The accounts of each person."""
        people = {link.person for link in self.live_links()}
        return {frozenset(link.account for link in self.live_links() if link.person == one) for one in people}

    # --- Rules

    def _must_wait(self, who: Party) -> bool:
        mine = [request for request in self.requests if request.initiator == who]
        times = [self.now - request.created for request in mine]
        an_hour = 1 if self._rejections(who) >= REJECTIONS else STARTS_AN_HOUR
        is_too_often = any(
            sum(ago < span for ago in times) >= most for span, most in ((HOUR, an_hour), (DAY, STARTS_A_DAY))
        )
        return is_too_often or any(self.now - one.created < PAUSE for one in mine if not self._has_served(one))

    def _has_served(self, request: Request) -> bool:
        """A page that has attached one account goes on to the next."""
        return request.state == "attached" and not isinstance(request.initiator, Account)

    def _rejections(self, who: Party) -> int:
        mine = [one for one in self.requests if one.rejected == who == one.initiator]
        # Anybody has as many browsers as they like: all of them are one.
        return len({_account_of(one.responder) for one in mine if one.ended > self.now - DAY})

    def _is_locked_out(self, who: Account | str) -> bool:
        return self.guesses.setdefault(who, Guesses()).locked_until > self.now

    def _count_guess(self, who: Account | str) -> None:
        guesses = self.guesses[who]
        guesses.times.append(self.now)
        if self._recent_guesses(who) >= GUESSES:
            again = guesses.locked_until > self.now - DAY
            guesses.locked_until = self.now + (LOCK_AGAIN if again else LOCK)

    def _recent_guesses(self, who: Account | str) -> int:
        return sum(at > self.now - GUESS_WINDOW for at in self.guesses.setdefault(who, Guesses()).times)

    def _number_of_nothing(self, who: Account, shown_for: Request | None) -> Words | None:
        family = {who, *(link.account for link in self._family(who))}
        claimed = [one for one in self.requests if one.state == "claimed"]
        shown = [one for one in claimed if one.responder in family or one.initiator in family]
        if shown:
            newest = max(shown, key=lambda one: one.claimed)
            return {"type_in_browser" if isinstance(newest.initiator, Session) else "type_in_other_app"}
        if shown_for and family & {shown_for.initiator, shown_for.responder} and shown_for.claimed > self.now - DAY:
            return {"nothing_there"}
        return None

    def _join(self, request: Request, *sides: Account) -> Words:
        if self._forbids(*sides) or not self._knew_each_other(request, *sides):
            self._end(request, "refused")
            return {"refused"}
        self._end(request, "linked")
        self._link(request, *sides)
        return {"linked"}

    def _link(self, request: Request, *sides: Account) -> None:
        families = [self._family(side) for side in sides]
        staying = next((family for family in families if len(family) > 1), None) or families[0] or families[-1]
        person = staying[0].person if staying else next(iter(self.people))
        if len(staying) == 1:
            staying[0].shares = False
        for side in sides:
            mine = next((link for link in self._family(side) if link.account == side), None)
            if mine and mine.person != person:
                mine.ended, mine.ended_at = True, self.now
            if not mine or mine.person != person:
                self.links.append(Link(side, person, self.now, request))

    def _forbids(self, one: Party, other: Account) -> bool:
        if isinstance(one, Session):  # nobody's account
            return False
        ours, theirs = self._family(one), self._family(other)
        apps = {one.platform, *(link.account.platform for link in ours)}
        their_apps = {other.platform, *(link.account.platform for link in theirs)}
        is_one = bool(ours and theirs) and ours[0].person == theirs[0].person
        return is_one or min(len(ours), len(theirs)) > 1 or bool(apps & their_apps)

    def _knew_each_other(self, request: Request, *sides: Account) -> bool:
        """All who would be one person now were there when each side was shown the other."""
        return all(link.since <= request.claimed for side in sides for link in self._family(side))

    def _take_out(
        self, who: Account, wanted: list[Link], *, disowns: Callable[[Link, Link], bool] = lambda own, link: False
    ) -> Words:
        own = next((link for link in self._family(who) if link.account == who), None)
        may = [link for link in wanted if own and self._may_end(own, link)]
        if not may:
            return {"too_new"} if wanted else {"nothing_there"}
        for link in may:
            link.ended, link.ended_at, link.disowned = True, self.now, own is not None and disowns(own, link)
            self._has_left(link.account)
        return {"unlinked"}

    def _has_left(self, account: Account) -> None:
        """What else ends with a link."""

    def _may_end(self, own: Link, other: Link) -> bool:
        return other is own or other.since >= own.since or self._is_established(own)

    def _may_disown(self, own: Link, other: Link) -> bool:
        return other.since >= own.since or self._is_recent(other)

    def _is_recent(self, link: Link) -> bool:
        return link.since > self.now - 7 * DAY

    def _is_established(self, own: Link) -> bool:
        return own.since + DAY <= self.now

    def _family(self, who: Account) -> list[Link]:
        """The live links of the account's person, in the order in which they came."""
        person = next((link.person for link in self.live_links() if link.account == who), None)
        return [link for link in self.live_links() if link.person == person]

    def _live(self, *, initiator: Party | None = None, responder: Party | None = None) -> list[Request]:
        live = [one for one in self.requests if one.state in LIVE]
        return [one for one in live if (initiator and one.initiator == initiator) or one.responder == (responder or "")]

    def _end(self, request: Request, state: str) -> None:
        request.state, request.ended = state, self.now


def _account_of(party: Party | None) -> Account | None:
    return party if isinstance(party, Account) else None
