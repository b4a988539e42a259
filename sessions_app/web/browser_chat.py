"""Messages that are written in a browser, by an attached account, in that account's own private conversation.

A browser is a place, not an account, so it does not use the adapters' inbox, which never accepts an account of another
platform. The event names `web` and the browser's id, which is where its answer goes. The conversation keeps the address
of the app's own chat, so notices and messages about linking never appear in the browser.
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
from sessions_app.messages import BROWSER, BROWSER_EVENT, MAX_TEXT, Address, OutgoingMessage, Unacceptable, check_text
from sessions_app.models import InboundEvent, OutboundDelivery
from sessions_app.wakeups import local as local_wakeups

MAX_A_SECOND = 10
MAX_BYTES = 64 * 1024  # bytes of one message
MAX_KEY = 64


class Answer(StrEnum):
    """The result of writing a message. Only SENT means that it is stored."""

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
    """Store a message of the account `account_id` in a browser, durably on return.

    The same text is stored once for each `key`. A lock on the browser keeps the limit and the key exact, however many
    tabs it has.
    """
    if not browser_sessions.hold(browser):
        return Answer.ENDED
    text = text.replace("\r\n", "\n").strip()
    native_key, *older = _native_keys(browser, key, text)
    if known := InboundEvent.objects.filter(platform=BROWSER, native_key__in=[native_key, *older]).first():
        return Answer.SECRET if known.kind == InboundEvent.Kind.PAIRING else Answer.SENT
    recent = {"platform": BROWSER, "chat_id": str(browser.pk), "received_at__gt": clock.seconds_from_now(-1)}
    if InboundEvent.objects.filter(**recent).count() >= MAX_A_SECOND:
        return Answer.TOO_OFTEN
    browser_sessions.touch(browser)  # it locks the attachments, so that nobody is signed out before the commit
    account = next((account for account in browser_sessions.readable(browser) if account.pk == account_id), None)
    if account is None:
        return Answer.UNCONFIRMED
    return _problem_with(text) or _keep(browser, account, text, native_key)


def _native_keys(browser: Browser, key: str, text: str) -> list[str]:
    """The message's keys, one for each secret key, today's first.

    They include the text, as a page that the browser restores may have a new text under an old key. The text is hashed
    with a secret key, as it may be a code that nobody may find by trying.
    """
    hashes = keys.hashes("sessions_app.browser_chat", text.encode("utf-8", "surrogatepass"))
    return [f"{browser.pk.hex} {text_hash[:32]} {key[:MAX_KEY]}" for text_hash in hashes]


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
    """Store the message; of one about linking, only its key. Codes count as typed only in the app's own chat."""
    nowhere = Address(account.platform, "")  # leaves the conversation's address as it is
    resolver = DatabaseIdentityResolver()
    conversation = conversations.direct(account, nowhere, resolver)
    intent = classify(text)
    is_secret = linking_commands.is_secret(intent, account) or _is_number_of_the_page(intent, browser)
    event = InboundEvent(
        platform=BROWSER,
        native_key=native_key,
        conversation=conversation,
        account=account,
        chat_id=str(browser.pk),
        chat_name=browser.name,
    )
    waits = inbox.store_event(event, None if is_secret else intent, resolver=resolver, limit=MAX_TEXT)
    if is_secret:
        return Answer.SECRET
    live.announce(live.topics(browsers=[browser.pk]), BROWSER_EVENT)
    notify = partial(local_wakeups.notify, conversation.pk) if waits else local_wakeups.notify_delivery_workers
    transaction.on_commit(notify, robust=True)
    return Answer.SENT


def _is_number_of_the_page(intent: Intent, browser: Browser) -> bool:
    """Whether the text may hold the number that this browser's own handshake shows or asks for."""
    request = pair_in_browser.current(browser) if intent.possible_numbers else None
    return request is not None and request.claimed_at is not None and pair_in_browser.is_live(request)


# --- The way back


def arrive(message: OutgoingMessage) -> bool:
    """Notify the browser's pages of a message. False if nobody can ever see it.

    An answer in history can be read in any browser. The bot's other messages can be seen only in the browser that they
    answer.
    """
    try:
        browser = UUID(message.address.chat_id)
    except ValueError:  # a deployer's own message, to somewhere else
        return False
    live.announce(live.topics(browsers=[browser]), BROWSER_EVENT)
    delivery = OutboundDelivery.objects.filter(nonce=message.nonce).select_related("event").first()
    if delivery is None or delivery.event is None:
        return False
    attached = attachments.live_attachments().filter(browser=browser, account=delivery.event.account_id)
    return delivery.entry_id is not None or attached.exists()
