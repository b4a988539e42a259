"""The same runs with browsers: alice has two on her tables, bob and mallory have one each.

What a page does is one call, as the view makes it. A page that was left open keeps its session when that is over.
"""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule

from identity.browsers import sessions as browser_sessions
from identity.flows import pair_in_browser
from identity.models import Browser, BrowserAccount, Pairing, PlatformAccount
from identity.pairing.secrets import secrets_of
from tests.identity.handshakes import Handshakes, _account, accounts, requests
from tests.identity.pairing_model import Account, Page, Request, Session
from tests.sessions_app.talk import PLATFORMS

PAGES = [Page("alice", "laptop"), Page("alice", "phone"), Page("bob", "laptop"), Page("mallory", "laptop")]

pages = st.sampled_from(PAGES)
platforms = st.sampled_from(PLATFORMS)


class OnPages(Handshakes):
    """One run."""

    def __init__(self) -> None:
        super().__init__()
        self.browsers: dict[Session, Browser] = {}

    # --- What people do on pages

    @rule(page=pages)
    def show_a_code(self, page: Page) -> None:
        session = self.begin(page)
        known = len(self.model.requests)
        answer = pair_in_browser.offer(browser=self.browsers[session])
        self.compare(answer.outcome, self.model.show_a_code(session))
        for request in self.model.requests[known:]:
            self.rows[request] = Pairing.objects.filter(initiator_browser=self.browsers[session]).latest("created_at")
        assert len({row.pk for row in self.rows.values()}) == len(self.rows), "no new request was made"

    @rule(page=pages, nth=requests)
    def enter_a_code(self, page: Page, nth: int) -> None:
        session, request = self.begin(page), self.request(nth)
        browser, secret = self.browsers[session], self.code(request).replace("-", "")
        answer = pair_in_browser.claim(browser=browser, secret=secret, address=browser.address)
        self.compare(answer.outcome, self.model.enter_a_code(session, request))

    @rule(page=pages, nth=requests, knows=st.booleans())
    def type_on_a_page(self, page: Page, nth: int, knows: bool) -> None:
        request, session = self.request(nth), self.model.session_of(page)
        if session is not None:
            shown = request if knows and request and self.page_knows(page, request) else None
            text = secrets_of(self.rows[shown]).number if shown else self.wrong_number()
            outcome = pair_in_browser.confirm(browser=self.browsers[session], number=text)
            self.compare(outcome, self.model.type_on_page(session, shown))

    @rule(page=pages, state=st.sampled_from(["denied", "cancelled"]))
    def stop_on_a_page(self, page: Page, state: str) -> None:
        if session := self.model.session_of(page):
            step = {"denied": pair_in_browser.deny, "cancelled": pair_in_browser.cancel}[state]
            self.compare(step(browser=self.browsers[session]), self.model.stop_on_page(session, state))

    @rule(page=pages, platform=platforms)
    def attach_an_own_account(self, page: Page, platform: str) -> None:
        """What people mean to do, so that it happens often."""
        self.wait(31)
        self.attach(page, platform)

    @rule(page=pages, platform=platforms)
    def sign_in_with_an_own_account(self, page: Page, platform: str) -> None:
        """The other way: the chat has a code, and the page takes it."""
        self.wait(31)
        self.ask_for_a_code(Account(page.owner, platform))
        self.enter_a_code(page, 0)
        self.type_a_number(Account(page.owner, platform), 0, True)

    @rule(page=pages, one=accounts, other=accounts)
    def link_these_two(self, page: Page, one: Account, other: Account) -> None:
        session = self.model.session_of(page)
        if session is not None and self.exist(one, other):
            keys = [self.account(one).pk, self.account(other).pk]
            outcome = pair_in_browser.link_these_two(browser=self.browsers[session], accounts=keys)
            expected = self.model.link_these_two(session, one, other) if one != other else "nothing"
            self.compare(outcome, expected)

    @rule(page=pages, platforms=st.permutations(PLATFORMS))
    def attach_two_and_link_them(self, page: Page, platforms: list[str]) -> None:
        self.wait(31)
        for platform in platforms[:2]:
            self.attach(page, platform)
        self.link_these_two(page, *(Account(page.owner, platform) for platform in platforms[:2]))

    @rule(page=pages, nth=requests)
    def undo_on_a_page(self, page: Page, nth: int) -> None:
        request, session = self.request(nth), self.model.session_of(page)
        if session is not None and request is not None and self.model.is_alive(session):
            done = pair_in_browser.undo(browser=self.browsers[session], pairing_id=self.rows[request].pk)
            assert done == self.model.undo_on_page(session, request)
            self.model.pass_time(0.001)

    @rule(page=pages)
    def use_a_page(self, page: Page) -> None:
        if session := self.model.session_of(page):
            browser_sessions.touch(self.browsers[session])
            self.model.use(session)

    @rule(page=pages)
    def sign_out(self, page: Page) -> None:
        if session := self.model.session_of(page):
            assert browser_sessions.sign_out(self.browsers[session]) != session.has_ended
            self.model.sign_out(session)

    @rule(who=accounts)
    def sign_out_in_the_chat(self, who: Account) -> None:
        self.act(who, "/signout", self.model.sign_out_everywhere(who))

    # --- How it is done

    def attach(self, page: Page, platform: str) -> None:
        """The page shows a code, the chat sends it, the page takes the number."""
        self.show_a_code(page)
        self.send_a_code(Account(page.owner, platform), 0, "{}")
        self.type_on_a_page(page, 0, True)

    def begin(self, page: Page) -> Session:
        session = self.model.begin(page)
        if session in self.browsers:
            assert browser_sessions.alive([self.browsers[session].pk]), f"{page} has a session no more"
            browser_sessions.touch(self.browsers[session])
        else:
            self.browsers[session] = Browser.objects.create(name=page.name, address=f"home of {page.owner}")
        return session

    def compare(self, outcome: str, expected: str) -> None:
        self.model.pass_time(0.001)
        done = "nothing" if outcome == "ended" else str(outcome)
        assert done == expected, f"the page said {done}, not {expected}"

    def exist(self, *who: Account) -> bool:
        known = {_account(one) for one in PlatformAccount.objects.all()}
        return known.issuperset(who)

    def page_knows(self, page: Page, request: Request) -> bool:
        return request.responder is not None and (self.relays or request.responder.owner == page.owner)

    # --- What must be true after every step

    @invariant()
    def what_is_attached_is_the_models(self) -> None:
        for session, browser in self.browsers.items():
            assert [_account(one) for one in browser_sessions.attached(browser)] == self.model.attached(session)
            assert [_account(one) for one in browser_sessions.readable(browser)] == self.model.readable(session)
            assert bool(browser_sessions.alive([browser.pk])) == self.model.is_alive(session)

    @invariant()
    def nobody_reads_in_somebody_elses_browser(self) -> None:
        """Neither by what is attached, nor by what an open page is told of."""
        for session, browser in self.browsers.items() if not self.relays else ():
            owners = {one.platform_user_id for one in browser_sessions.attached(browser)}
            assert owners <= {session.owner}, f"{owners} in {session.page}"

    @invariant()
    def an_account_is_in_a_browser_once(self) -> None:
        live = list(BrowserAccount.objects.filter(ended_at=None).values_list("browser", "account"))
        assert len(set(live)) == len(live)

    def check_all(self) -> None:
        super().check_all()
        self.what_is_attached_is_the_models()
        self.nobody_reads_in_somebody_elses_browser()
        self.an_account_is_in_a_browser_once()


class RelayedOnPages(OnPages):
    """The same with numbers that people hand to strangers."""

    relays = True
