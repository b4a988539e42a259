"""Browsers that chat: accounts attached by a whole handshake, as on the pairing page."""

from __future__ import annotations

import itertools

from identity import browser_pairing, pairing
from identity.models import Browser, Pairing, PlatformAccount
from identity.pairing_rows import Outcome
from sessions_app import browser_chat, lanes, outbox, turns
from sessions_app.browser_chat import Answer
from sessions_app.lanes import Claim
from sessions_app.models import Conversation, InboundEvent
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
    assert browser_pairing.offer(browser=browser).outcome == Outcome.OFFERED
    request = browser_pairing.current(browser)
    assert request is not None
    assert pairing.claim(account=one, secret=pairs.code(request)) == Outcome.CLAIMED
    assert browser_pairing.confirm(browser=browser, number=pairs.number(request)) == Outcome.ATTACHED


def write(browser: Browser, one: PlatformAccount, text: str, *, key: str = "") -> Answer:
    return browser_chat.say(browser=browser, account_id=one.pk, text=text, key=key or f"key-{next(_keys)}")


def conversation_of(one: PlatformAccount) -> Conversation:
    return Conversation.objects.get(account=one)


def claim(one: PlatformAccount) -> Claim:
    """Take what waits for the person, from wherever it came."""
    pk = conversation_of(one).pk
    (claimed,) = lanes.claim([pk], owner="test", platforms=("telegram", "discord", "slack", "web")).claims
    return claimed


def converse(browser: Browser, one: PlatformAccount, text: str, answer: str) -> None:
    """A whole turn, begun in the browser."""
    assert write(browser, one, text) == Answer.SENT
    turns.finish(claim(one), answer, limit=outbox.TEXT_LIMIT)


def events() -> list[InboundEvent]:
    """What came from browsers."""
    return list(InboundEvent.objects.filter(platform="web").order_by("id"))
