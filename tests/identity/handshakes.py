"""Alice, bob and mallory at random, in the real code and in the model of it at once.

Every text goes the whole way, through inbox.receive. Whoever acts may send any code that was ever issued: all are
taken to be leaked. A number is known to the one who was shown it; a person carries it to the own other side, or, if the
run says so, is talked into giving it away (then links between owners are what the model says, and no more).
"""

from __future__ import annotations

import itertools
import re
from datetime import timedelta
from time import monotonic

from django.db.models import F
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from identity.models import AccountLink, Browser, BrowserAccount, GuessLimit, Pairing, PlatformAccount
from identity.pairing.codes import shown_code
from identity.pairing.secrets import secrets_of
from identity.support import clock
from sessions_app import inbox
from sessions_app.history import window
from sessions_app.messages import Line
from sessions_app.models import Conversation, HistoryEntry, InboundEvent, OutboundDelivery
from sessions_app.outbox import queue as outbox_queue
from sessions_app.turns import lifecycle
from tests.identity import pairs
from tests.identity.browser_model import WithBrowsers
from tests.identity.pairing_model import Account, Request
from tests.sessions_app.talk import DATABASE, PLATFORMS, claim, message

OWNERS = ("alice", "bob", "mallory")
ACCOUNTS = [Account(owner, platform) for owner in OWNERS for platform in PLATFORMS]
BOGUS_CODE = "BBBB-BBBB"
_TIMES = {
    Pairing: ("created_at", "expires_at", "last_at", "claimed_at", "ended_at"),
    AccountLink: ("since", "ended_at", "remind_at"),
    HistoryEntry: ("said_at", "written_at"),
    InboundEvent: ("received_at",),
    PlatformAccount: ("window_from",),
    Browser: ("created_at", "seen_at"),
    BrowserAccount: ("attached_at", "confirmed_at"),
}

accounts = st.sampled_from(ACCOUNTS)
# Any request that there was, counted from the newest; the newest are the likeliest.
requests = st.integers(min_value=0, max_value=5)


class Handshakes(RuleBasedStateMachine):
    """One run. The database must be empty at its start and be emptied at its end."""

    relays = False

    def __init__(self) -> None:
        super().__init__()
        self.model = WithBrowsers()
        self.rows: dict[Request, Pairing] = {}
        self.in_step_at = monotonic()
        self.words = itertools.count()

    # --- What people do

    @rule(who=accounts)
    def ask_for_a_code(self, who: Account) -> None:
        known = len(self.model.requests)
        self.act(who, "/link", self.model.link(who))
        for request in self.model.requests[known:]:
            row = self.account(who).offers.latest("created_at")
            assert row not in self.rows.values(), "no new request was made"
            self.rows[request] = row

    @rule(who=accounts, nth=requests, form=st.sampled_from(["{}", "/link {}", "it is {}", "token"]))
    def send_a_code(self, who: Account, nth: int, form: str) -> None:
        request = self.request(nth)
        text = f"/start {self.token(request)}" if form == "token" and request else form.format(self.code(request))
        self.act(who, BOGUS_CODE if text == "token" else text, self.model.claim(who, request))

    @rule(who=accounts, nth=requests, form=st.sampled_from(["it is {}", "/whoami {}"]))
    def write_letters_like_a_code(self, who: Account, nth: int, form: str) -> None:
        request = self.request(nth)
        text = form.format(self.code(request).replace("-", " "))
        self.act(who, text, self.model.guess(who, request))

    @rule(who=accounts, nth=requests)
    def write_a_wrong_code_beside_one(self, who: Account, nth: int) -> None:
        request = self.request(nth)
        text = f"is it {self.code(request)} or {BOGUS_CODE}".replace("-", " ")
        self.act(who, text, self.model.guess_beside(who, request))

    @rule(who=accounts, platform=st.sampled_from(PLATFORMS))
    def pair_two_own_accounts(self, who: Account, platform: str) -> None:
        """What people mean to do, so that it happens often."""
        self.wait(31)
        self.ask_for_a_code(who)
        self.send_a_code(Account(who.owner, platform), 0, "{}")
        self.type_a_number(who, 0, True)

    @rule(who=accounts, nth=requests, knows=st.booleans())
    def type_a_number(self, who: Account, nth: int, knows: bool) -> None:
        request = self.request(nth)
        shown = request if knows and request and self.knows_number(who, request) else None
        text = secrets_of(self.rows[shown]).number if shown else self.wrong_number()
        self.act(who, f"{text[:3]} {text[3:]}", self.model.number(who, shown))

    @rule(who=accounts, nth=requests)
    def say_not_me(self, who: Account, nth: int) -> None:
        request = self.request(nth)
        self.act(who, f"/notme {self.pk(request)}", self.model.not_me(who, request))

    @rule(who=accounts)
    def cancel(self, who: Account) -> None:
        self.act(who, "/cancel", self.model.cancel(who))

    @rule(who=accounts, nth=requests)
    def post_a_code_in_a_group(self, who: Account, nth: int) -> None:
        request = self.request(nth)
        code = self.code(request)
        self.act(who, f"send {code} to the bot", self.model.post_in_group(who, request), group="friends")

    @rule(who=accounts, nth=requests)
    def undo(self, who: Account, nth: int) -> None:
        request = self.request(nth)
        self.act(who, f"/undo {self.pk(request)}", self.model.undo(who, request))

    @rule(who=accounts, platform=st.sampled_from(["", *PLATFORMS]))
    def unlink(self, who: Account, platform: str) -> None:
        self.act(who, f"/unlink {platform}", self.model.unlink(who, platform))

    @rule(who=accounts)
    def say_that_it_was_somebody_else(self, who: Account) -> None:
        self.act(who, "/wasntme", self.model.wasnt_me(who))

    @rule(who=accounts)
    def share_the_past(self, who: Account) -> None:
        self.act(who, "/share", self.model.share(who))

    @rule(who=accounts, group=st.sampled_from(["", "", "friends"]))
    def say_something(self, who: Account, group: str) -> None:
        self.act(who, f"{who.owner} says {self.something_new()}", None, group=group)

    @rule(who=accounts)
    def reset_context(self, who: Account) -> None:
        family = next((one for one in self.model.families() if who in one), {who})
        moved = self.model.meant_by(who)
        before = {account: self.newest_line(account) for account in family}
        self.act(who, "/new", None)
        for account in moved:
            assert self.newest_line(account) is None, f"{account} remembers"
        for account in family - moved - {who}:
            assert before[account] == self.newest_line(account), f"{account} forgot"

    def newest_line(self, who: Account) -> Line | None:
        """What the agent would read last."""
        conversation = Conversation.objects.filter(key=f"{who.platform}:{who.owner}").first()
        return next(iter(window.window_for(conversation, limit=1)), None) if conversation else None

    @rule(seconds=st.sampled_from([31, 31, 301, 601, 901, 3607, 86_413]))
    def wait(self, seconds: int) -> None:
        """Less what the machine itself has taken since the last time, or a slow one would run ahead of the model. Not
        much less, as what was written last has not waited: 31 seconds stay more than 30.
        """
        self.model.pass_time(seconds)
        moved = seconds - min(0.5, monotonic() - self.in_step_at)
        for model, names in _TIMES.items():
            model._default_manager.update(**{name: F(name) - timedelta(seconds=moved) for name in names})
        pairs.later(moved, GuessLimit.objects.all())
        self.in_step_at = monotonic()

    # --- How it is done

    def something_new(self) -> str:
        """A word that was not said before, and that neither a number nor a code is found in."""
        return "".join("bcdfghjklm"[int(digit)] + "a" for digit in str(next(self.words)))

    def act(self, who: Account, text: str, expected: set[str] | None, *, group: str = "") -> None:
        """Say `text`, and compare what comes back. `expected` is None for what the agent shall answer."""
        told_before = OutboundDelivery.objects.count()
        sent = message(who.owner, text, platform=who.platform, group=group and f"{group}-{who.platform}")
        waits = inbox.receive(sent, resolver=DATABASE)
        self.model.pass_time(0.001)  # so that no two things happen at once
        said = list(OutboundDelivery.objects.order_by("pk")[told_before:])
        told = {one.template for one in said if one.account == self.account(who)}
        assert told == (expected or set()), f"{who} wrote {text!r} and was told {told}, not {expected}"
        is_kept = InboundEvent.objects.latest("pk").kind != InboundEvent.Kind.PAIRING
        assert is_kept == (expected is None), f"{text!r} was {'kept' if is_kept else 'not kept'}"
        if waits is not None:
            self.answer(waits, text)

    def answer(self, conversation: int, text: str) -> None:
        claimed = claim(conversation)
        turn = lifecycle.begin(claimed, resolver=DATABASE)
        if claimed.head.kind == InboundEvent.Kind.COMMAND:
            lifecycle.answer_command(claimed, turn, limit=2000)
        else:
            lifecycle.finish(claimed, f"re: {text}", limit=outbox_queue.TEXT_LIMIT)

    def knows_number(self, who: Account, request: Request) -> bool:
        return request.responder is not None and (self.relays or request.responder.owner == who.owner)

    def wrong_number(self) -> str:
        """A number that no request has."""
        taken = {secrets_of(row).number for row in self.rows.values()}
        return next(one for one in map(str, range(100_000, 1_000_000)) if one not in taken)

    def request(self, nth: int) -> Request | None:
        return self.model.requests[-1 - nth] if nth < len(self.model.requests) else None

    def code(self, request: Request | None) -> str:
        return shown_code(secrets_of(self.rows[request]).code) if request else BOGUS_CODE

    def token(self, request: Request) -> str:
        return secrets_of(self.rows[request]).token

    def pk(self, request: Request | None) -> str:
        return str(self.rows[request].pk) if request else "00000000-0000-0000-0000-000000000000"

    def account(self, who: Account) -> PlatformAccount:
        return PlatformAccount.objects.get(platform=who.platform, platform_user_id=who.owner)

    # --- What must be true after every step

    @invariant()
    def links_are_the_models(self) -> None:
        links = AccountLink.objects.live().select_related("account")
        people: dict[int, set[Account]] = {}
        for link in links:
            people.setdefault(link.user_id, set()).add(_account(link.account))
        assert {frozenset(one) for one in people.values()} == self.model.families()
        shares = {_account(link.account) for link in links if link.shares_past}
        assert shares == {link.account for link in self.model.live_links() if link.shares}
        disowned = [_account(link.account) for link in AccountLink.objects.filter(disowned=True).order_by("pk")]
        assert disowned == [link.account for link in self.model.links if link.disowned]

    @invariant()
    def nobody_is_linked_to_somebody_else(self) -> None:
        """The one that all the others are for."""
        for one in () if self.relays else self.model.families() | _families():
            assert len({account.owner for account in one}) == 1, f"{one} are one person"

    @invariant()
    def a_person_has_one_account_on_each_platform(self) -> None:
        for one in _families():
            assert len({account.platform for account in one}) == len(one)

    @invariant()
    def requests_are_the_models(self) -> None:
        now, live = clock.read(), {"offered", "claimed"}
        found = {row.pk: row for row in Pairing.objects.select_related("responder", "strike")}
        assert len(found) == len(self.rows)
        for request, known in self.rows.items():
            row = found[known.pk]
            is_over = row.state in live and row.expires_at <= now  # not swept yet
            assert ("expired" if is_over else row.state) == request.state
            assert row.tries == request.tries <= 3
            assert (row.strike and _account(row.strike)) == request.rejected
            assert row.state in live or (row.code_hash, row.token_hash) == (None, None)

    @invariant()
    def at_most_one_request_lives_for_each_party(self) -> None:
        rows = Pairing.objects.filter(ended_at=None)
        initiators = list(rows.values_list("initiator", "initiator_browser"))
        responders = list(rows.filter(state="claimed").values_list("responder", "responder_browser"))
        assert len(set(initiators)) == len(initiators)
        assert len(set(responders)) == len(responders)

    @invariant()
    def every_window_is_the_oracles(self) -> None:
        everything = Everything()
        for conversation in Conversation.objects.select_related("account"):
            expected = everything.window_of(conversation)
            for limit in (100, 3):
                lines = [line.text for line in window.window_for(conversation, limit=limit)]
                assert lines == expected[-limit:], f"the window of {conversation}"

    @invariant()
    def nobody_reads_somebody_elses_words(self) -> None:
        for conversation in Conversation.objects.filter(kind="dm") if not self.relays else ():
            owner = conversation.key.partition(":")[2]
            for line in window.readable(conversation, limit=100):
                assert not re.search(rf"({'|'.join(set(OWNERS) - {owner})}) says", line.text)

    def check_all(self) -> None:
        """All invariants, for scenarios."""
        self.links_are_the_models()
        self.nobody_is_linked_to_somebody_else()
        self.a_person_has_one_account_on_each_platform()
        self.requests_are_the_models()
        self.at_most_one_request_lives_for_each_party()
        self.every_window_is_the_oracles()
        self.nobody_reads_somebody_elses_words()

    def secrets_are_not_kept(self) -> None:
        kept = [
            *InboundEvent.objects.values_list("text", flat=True),
            *HistoryEntry.objects.values_list("text", flat=True),
        ]
        for row in self.rows.values():
            secrets = secrets_of(row)
            for secret in (secrets.code, shown_code(secrets.code), secrets.token):
                assert not any(secret in text for text in kept)

    def teardown(self) -> None:
        self.secrets_are_not_kept()


def _account(row: PlatformAccount) -> Account:
    return Account(row.platform_user_id, row.platform)


def _families() -> set[frozenset[Account]]:
    people: dict[int, set[Account]] = {}
    for link in AccountLink.objects.filter(ended_at=None).select_related("account"):
        people.setdefault(link.user_id, set()).add(_account(link.account))
    return {frozenset(one) for one in people.values()}


class Everything:
    """All rows, and the rules of who may read what, entry by entry: the reference model of the windows."""

    def __init__(self) -> None:
        self.links = list(AccountLink.objects.all())
        self.entries = list(HistoryEntry.objects.select_related("conversation").order_by("said_at", "pk"))

    def window_of(self, conversation: Conversation) -> list[str]:
        reader = conversation.account
        behind = reader.window_from if reader else conversation.window_from
        mine = [one for one in self.entries if one.said_at > behind and self.is_readable(conversation, one)]
        return [one.text for one in mine if not self.is_disowned(one)]

    def is_readable(self, conversation: Conversation, entry: HistoryEntry) -> bool:
        if entry.conversation_id == conversation.pk:
            return True
        own = self.live_link(conversation.account_id)
        other = self.live_link(entry.conversation.account_id)
        if own is None or other is None or own.user_id != other.user_id:
            return False
        return other.shares_past or entry.said_at > max(own.since, other.since)

    def is_disowned(self, entry: HistoryEntry) -> bool:
        """Said or answered in any account of a person, while a link of that person lived that was not theirs."""
        mine = [link for link in self.links if link.account_id == entry.conversation.account_id]
        wrong = [link for link in self.links if link.disowned]
        return any(_in_both(one, other, entry) for one in mine for other in wrong if one.user_id == other.user_id)

    def live_link(self, account_id: int | None) -> AccountLink | None:
        if account_id is None:
            return None
        return next((one for one in self.links if one.account_id == account_id and one.ended_at is None), None)


def _in_both(one: AccountLink, other: AccountLink, entry: HistoryEntry) -> bool:
    """Whether the entry was said or answered while both links lived; the other has ended."""
    since = max(one.since, other.since)
    until = min(link.ended_at for link in (one, other) if link.ended_at)
    return since < until and entry.said_at <= until and entry.written_at > since


class Relayed(Handshakes):
    """The same with numbers that people hand to strangers."""

    relays = True
