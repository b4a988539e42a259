"""Browsers that chat: accounts attached by a whole handshake, as on the pairing page."""

from __future__ import annotations

import itertools

from identity.flows import pair_in_browser, pair_in_chat
from identity.models import Browser, Pairing, PlatformAccount
from identity.pairing.requests import Outcome
from sessions_app.models import Conversation, InboundEvent
from sessions_app.outbox import queue as outbox_queue
from sessions_app.turns import leases, lifecycle
from sessions_app.turns.leases import Claim
from sessions_app.web import browser_chat
from sessions_app.web.browser_chat import Answer
from tests.identity import pairs
from tests.sessions_app.talk import say

_keys = itertools.count(1)


def account(who: str = "alice", platform: str = "telegram") -> PlatformAccount:
    """Somebody who has written in the app's chat and was answered."""
    found = PlatformAccount.objects.filter(platform=platform, platform_user_id=who).first()
    if found is None:
        say(who, "hello from the app", platform=platform, answer="hello to the app")
        found = PlatformAccount.objects.get(platform=platform, platform_user_id=who)
    return found


def browser_of(*accounts: PlatformAccount) -> Browser:
    """A browser in which these have proven to be there, in this order."""
    made = Browser.objects.create(name="Firefox on Linux", address="home")
    for one in accounts:
        attach(made, one)
    return made


def attach(browser: Browser, one: PlatformAccount) -> None:
    pairs.later(31, Pairing.objects.filter(initiator_browser=browser))
    assert pair_in_browser.offer(browser=browser).outcome == Outcome.OFFERED
    request = pair_in_browser.current(browser)
    assert request is not None
    assert pair_in_chat.claim(account=one, secret=pairs.code(request)) == Outcome.CLAIMED
    assert pair_in_browser.confirm(browser=browser, number=pairs.number(request)) == Outcome.ATTACHED


def write(browser: Browser, one: PlatformAccount, text: str, *, key: str = "") -> Answer:
    return browser_chat.say(browser=browser, account_id=one.pk, text=text, key=key or f"key-{next(_keys)}")


def conversation_of(one: PlatformAccount) -> Conversation:
    return Conversation.objects.get(account=one)


def claim(one: PlatformAccount) -> Claim:
    """Take what waits for the person, from wherever it came."""
    pk = conversation_of(one).pk
    (claimed,) = leases.claim([pk], owner="test", platforms=("telegram", "discord", "slack", "web")).claims
    return claimed


def converse(browser: Browser, one: PlatformAccount, text: str, answer: str) -> None:
    """A whole turn, begun in the browser."""
    assert write(browser, one, text) == Answer.SENT
    lifecycle.finish(claim(one), answer, limit=outbox_queue.TEXT_LIMIT)


def events() -> list[InboundEvent]:
    """What came from browsers."""
    return list(InboundEvent.objects.filter(platform="web").order_by("id"))
