"""What browsers do in the protocol, in plain Python: see pairing_model.py.

Steps in a browser give how they ended, in a word. In a chat everything is as it was, but for /signout.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from tests.identity.pairing_model import (
    CODE,
    HANDSHAKE,
    LIVE,
    Account,
    Model,
    Page,
    Request,
    Session,
    Words,
)

IDLE, OLDEST, FRESH, TOGETHER = 1800, 8 * 3600, 900, 900


@dataclass(eq=False)
class Attachment:
    session: Session
    account: Account
    request: Request
    at: float
    confirmed: float
    has_ended: bool = False


@dataclass
class WithBrowsers(Model):
    sessions: list[Session] = field(default_factory=list)
    attachments: list[Attachment] = field(default_factory=list)

    # --- Sessions

    def session_of(self, page: Page) -> Session | None:
        """The newest one, whether it lives or not."""
        return next((one for one in reversed(self.sessions) if one.page == page), None)

    def begin(self, page: Page) -> Session:
        """The one that lives, in use now, or a new one."""
        known = self.session_of(page)
        if known and self.is_alive(known):
            self.use(known)
            return known
        self.sessions.append(Session(page, self.now, self.now))
        return self.sessions[-1]

    def is_alive(self, session: Session) -> bool:
        return not session.has_ended and session.seen > self.now - IDLE and session.began > self.now - OLDEST

    def use(self, session: Session) -> None:
        if self.is_alive(session):
            session.seen = self.now
        for one in self._attached_to(session):
            if self.is_fresh(one):
                one.confirmed = self.now

    def attached(self, session: Session) -> list[Account]:
        return [one.account for one in self._attached_to(session)]

    def readable(self, session: Session) -> list[Account]:
        return [one.account for one in self._attached_to(session) if self.is_fresh(one)]

    def is_fresh(self, one: Attachment) -> bool:
        lives = not one.has_ended and not one.session.has_ended
        return lives and one.confirmed > self.now - FRESH and one.at > self.now - OLDEST

    def _attached_to(self, session: Session) -> list[Attachment]:
        return [one for one in self.attachments if one.session is session and not one.has_ended]

    # --- The handshake

    def show_a_code(self, session: Session) -> str:
        if self._must_wait(session):
            return "wait"
        for old in self._live(initiator=session):
            self._end(old, "cancelled")
        self.requests.append(Request(session, self.now, self.now + CODE, self.now + HANDSHAKE))
        return "offered"

    def enter_a_code(self, session: Session, request: Request | None) -> str:
        """Whoever guesses is not the browser, of which there are as many as one likes, but where it stands."""
        home = f"home of {session.owner}"
        if self._is_locked_out(home):
            return "wait"
        if request is None or request.state != "offered" or isinstance(request.initiator, Session):
            self._count_guess(home)
            return "wrong"
        self._take(request, session)
        return "claimed"

    def type_on_page(self, session: Session, shown_for: Request | None) -> str:
        asked = [one for one in self._live(initiator=session) if one.state == "claimed"]
        if not asked or not self.is_alive(session):
            return "nothing"
        words = self._try_number(asked[0], shown_for)
        return {"wrong_number": "wrong", "browser_attached": "attached"}.get(*words, *words)

    def stop_on_page(self, session: Session, state: str) -> str:
        mine = [*self._live(initiator=session), *self._live(responder=session)] if self.is_alive(session) else []
        for request in mine:
            other = request.responder if request.initiator is session else request.initiator
            if state == "denied" and isinstance(other, Account):
                request.rejected = other
            self._end(request, state)
        return state if mine else "nothing"

    def _finish(self, request: Request) -> Words:
        parties = (request.initiator, request.responder)
        session = next((one for one in parties if isinstance(one, Session)), None)
        account = next((one for one in parties if isinstance(one, Account)), None)
        if session is None or account is None:
            return super()._finish(request)
        if not self.is_alive(session):
            self._end(request, "cancelled")
            return {"cancelled"}
        self._end(request, "attached")
        for old in self._attached_to(session):
            old.has_ended = old.has_ended or old.account == account
        self.attachments.append(Attachment(session, account, request, self.now, self.now))
        return {"browser_attached"}

    # --- What is attached

    def link_these_two(self, session: Session, one: Account, other: Account) -> str:
        lately = [it for it in self._attached_to(session) if it.at > self.now - TOGETHER]
        two = [it for it in lately if it.account in (one, other)]
        if len(two) != 2 or not self.is_alive(session):
            return "nothing"
        if self._forbids(one, other):
            return "refused"
        self._link(two[1].request, one, other)
        return "linked"

    def undo_on_page(self, session: Session, request: Request | None) -> bool:
        return any("unlinked" in self.undo(one, request) for one in self.readable(session))

    def _has_left(self, account: Account) -> None:
        for one in self.attachments:
            one.has_ended = one.has_ended or one.account == account

    # --- Signing out

    def sign_out(self, session: Session) -> list[Request]:
        """The requests that end with it."""
        session.has_ended = True
        for one in self._attached_to(session):
            one.has_ended = True
        ended = [one for one in self.requests if one.state in LIVE and session in (one.initiator, one.responder)]
        for request in ended:
            self._end(request, "cancelled")
        return ended

    def sign_out_everywhere(self, who: Account) -> Words:
        """`/signout` in the chat of an account: everywhere that it is attached, with all else that is there."""
        theirs = {one.session for one in self.attachments if one.account == who and not one.has_ended}
        return self._sign_out_all(who, theirs)

    def _sign_out_whom(self, who: Account, request: Request | None) -> Words:
        its = [one for one in self.attachments if one.request is request and one.account == who]
        theirs = {one.session for one in its if not one.has_ended}
        return self._sign_out_all(who, theirs) if theirs else set()

    def _came_with(self, who: Account, request: Request | None) -> list[Request | None]:
        its = {one.session for one in self.attachments if one.request is request and one.account == who}
        return [request, *(one.request for one in self.attachments if one.session in its)]

    def _sign_out_all(self, who: Account, sessions: Iterable[Session]) -> Words:
        ended = [request for session in sessions for request in self.sign_out(session)]
        is_party = any(who in (request.initiator, request.responder) for request in ended)
        return {"signed_out", "cancelled"} if is_party else {"signed_out"}
