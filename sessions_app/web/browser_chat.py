"""What is said in a browser: by an account that is attached there, in that account's own private conversation.

A browser is a place and nobody's account, so it has a door of its own: what adapters hand to the inbox can never name
an account of another platform. The event says `web` and the browser's id, which is where its answer goes. The
conversation keeps the address of the app's own chat: notices, and everything about linking, never come here.
"""

from __future__ import annotations

from enum import StrEnum, auto
from functools import partial
from uuid import UUID

from django.db import transaction

from identity import live
from identity.browsers import attachments
from identity.browsers import sessions as browser_sessions
from identity.flows import pair_in_browser
from identity.models import Browser, PlatformAccount
from identity.resolvers import DatabaseIdentityResolver
from identity.support import clock, keys
from sessions_app import inbox
from sessions_app.commands import linking as linking_commands
from sessions_app.commands.intent import Intent, classify
from sessions_app.history import conversations
from sessions_app.messages import BROWSER, BROWSER_EVENT, Address, OutgoingMessage, Unacceptable, check_text
from sessions_app.models import InboundEvent, OutboundDelivery
from sessions_app.wakeups import local as local_wakeups

MAX_A_SECOND = 10
MAX_BYTES = 64 * 1024  # bytes of one message
MAX_KEY = 64


class Answer(StrEnum):
    """What came of saying something. Only SENT means that it was kept."""

    SENT = auto()
    ENDED = auto()  # the browser has signed out or run out
    UNCONFIRMED = auto()  # the account is not attached, or its chat has not confirmed lately
    SECRET = auto()  # it is about linking
    TOO_OFTEN = auto()
    EMPTY = auto()
    TOO_LONG = auto()
    UNACCEPTABLE = auto()


@transaction.atomic
def say(*, browser: Browser, account_id: int, text: str, key: str) -> Answer:
    """Store what somebody writes in a browser as `account_id`, the same words once for each `key` of that browser.

    Durable on return. One at a time of a browser, so the limit and the key hold however many tabs it has.
    """
    if not browser_sessions.hold(browser):
        return Answer.ENDED
    text = text.replace("\r\n", "\n").strip()
    native_key, *older = _native_keys(browser, key, text)
    if known := InboundEvent.objects.filter(platform=BROWSER, native_key__in=[native_key, *older]).first():
        return Answer.SECRET if known.kind == InboundEvent.Kind.PAIRING else Answer.SENT
    if _has_said_too_much(browser):
        return Answer.TOO_OFTEN
    browser_sessions.touch(
        browser
    )  # which holds what is attached, so that nobody is signed out between here and the commit
    account = next((one for one in browser_sessions.readable(browser) if one.pk == account_id), None)
    if account is None:
        return Answer.UNCONFIRMED
    return _problem_with(text) or _keep(browser, account, text, native_key)


def _native_keys(browser: Browser, key: str, text: str) -> list[str]:
    """With the words, since a page that comes back from the browser's memory may have new words under an old key. By
    a keyed hash: they may be a code, which nobody shall find by trying. Under each key, today's first.
    """
    words = keys.hashes("sessions_app.browser_chat", text.encode("utf-8", "surrogatepass"))
    return [f"{browser.pk.hex} {one[:32]} {key[:MAX_KEY]}" for one in words]


def _has_said_too_much(browser: Browser) -> bool:
    lately = {"platform": BROWSER, "chat_id": str(browser.pk), "received_at__gt": clock.seconds_from_now(-1)}
    return InboundEvent.objects.filter(**lately).count() >= MAX_A_SECOND


def _problem_with(text: str) -> Answer | None:
    if not text:
        return Answer.EMPTY
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        return Answer.TOO_LONG
    try:
        check_text(text)
    except Unacceptable:
        return Answer.UNACCEPTABLE
    return None


def _keep(browser: Browser, account: PlatformAccount, text: str, native_key: str) -> Answer:
    """Of what is about linking the key alone, as everywhere."""
    nowhere = Address(account.platform, "")  # which leaves the conversation's address as it is
    conversation = conversations.direct(account, nowhere, DatabaseIdentityResolver())
    intent = classify(text)
    is_secret = linking_commands.is_secret(intent, account) or _is_number_of_the_page(intent, browser)
    InboundEvent.objects.create(
        platform=BROWSER,
        native_key=native_key,
        conversation=conversation,
        account=account,
        chat_id=str(browser.pk),
        chat_name=browser.name,
        **inbox.decided() if is_secret else inbox.to_be_answered(intent),
    )
    if is_secret:
        return Answer.SECRET
    live.announce(live.topics(browsers=[browser.pk]), BROWSER_EVENT)
    transaction.on_commit(partial(local_wakeups.ring, conversation.pk), robust=True)
    return Answer.SENT


def _is_number_of_the_page(intent: Intent, browser: Browser) -> bool:
    """Whether it may be the number that this browser's own handshake shows or asks for."""
    request = pair_in_browser.current(browser) if intent.possible_numbers else None
    return request is not None and request.claimed_at is not None and pair_in_browser.is_live(request)


# --- The way back


def arrive(message: OutgoingMessage) -> bool:
    """Tell the browser's pages that something is there for them. False if nobody can ever see it.

    An answer that is in history is seen by whoever comes back, in whatever browser. The rest, what the bot itself says,
    is seen only where it was asked for.
    """
    browser = _named(message.address.chat_id)
    if browser is None:
        return False
    live.announce(live.topics(browsers=[browser]), BROWSER_EVENT)
    delivery = OutboundDelivery.objects.filter(nonce=message.nonce).select_related("event").first()
    if delivery is None or delivery.event is None:
        return False
    return delivery.entry_id is not None or _is_attached(browser, delivery.event.account_id)


def _named(chat_id: str) -> UUID | None:
    try:
        return UUID(chat_id)
    except ValueError:  # a deployer's own message, to somewhere else
        return None


def _is_attached(browser: UUID, account_id: int) -> bool:
    return attachments.live_attachments().filter(browser=browser, account=account_id).exists()
