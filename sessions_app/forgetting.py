"""Forgetting somebody: asked for, confirmed by a number, then done step by step, each in a transaction of its own.

A step that fails is done again: housekeeping goes on with every request that was confirmed. Other people's rows stay.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from enum import StrEnum
from time import sleep
from uuid import UUID

from django.db import OperationalError, connection, transaction
from django.db.models import F, Q

from identity import audit, called, clock, codes, linking, locks, notices, wording
from identity import forgetting as identities
from identity.limits import limits
from identity.models import Browser, PlatformAccount
from identity.notices import Template
from sessions_app import forget_number, forgotten, outbox, texts, watermarks
from sessions_app.messages import Address
from sessions_app.models import Conversation, ForgetRequest, HistoryEntry, InboundEvent, OutboundDelivery

log = logging.getLogger(__name__)

State = ForgetRequest.State
UNDER_WAY = (State.CONFIRMED, State.ERASING, State.CLEANING)
ASKED_AN_HOUR = 5
AT_ONCE = 500  # rows of a kind that one transaction deletes
LAST_WORD_SECONDS = 600  # how long the farewell may take to be sent, before what it is sent to is deleted
_CHECKPOINTS, _PAUSE = 3, 0.2


class Outcome(StrEnum):
    """What came of a number."""

    CONFIRMED = "confirmed"
    WRONG = "wrong"
    LOCKED = "locked"
    ELSEWHERE = "elsewhere"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a number; with WRONG, how many tries are `left`."""

    outcome: Outcome
    left: int = 0


# --- Asking


@transaction.atomic
def ask(*, account: PlatformAccount, browser: Browser | None = None) -> ForgetRequest | None:
    """Send a number to the account's chat, to be typed there or in `browser`, and warn the others in its reach. None if
    that was asked for too often.
    """
    locks.lock_person(account.pk)
    mine = ForgetRequest.objects.filter(account=account)
    recent = mine.filter(created_at__gt=clock.seconds_from_now(-3600))
    if recent.count() >= ASKED_AN_HOUR or mine.filter(state__in=UNDER_WAY).exists():
        return None
    mine.filter(ended_at=None).update(state=State.ENDED, ended_at=clock.now())
    reached = linking.reach(account)
    request = ForgetRequest.objects.create(
        account=account,
        accounts=[one.pk for one in reached],
        browser=browser.pk if browser else None,
        expires_at=clock.seconds_from_now(limits().number_seconds),
    )
    outbox.queue_notice(account, forget_number.TEMPLATE, {"request": str(request.pk)})
    for other in (one for one in reached if one != account):
        notices.tell(other, Template.FORGET_ASKED, by=account.pk)
    audit.record(kind="forget_asked", actor=audit.actor(account), account=account)
    return request


def awaited(account: PlatformAccount) -> ForgetRequest | None:
    """The request of the account whose number may be typed now."""
    live = ForgetRequest.objects.filter(account=account, state=State.ASKED, expires_at__gt=clock.now())
    return live.select_related("account").first()


def awaits_number(account: PlatformAccount) -> bool:
    return awaited(account) is not None


@transaction.atomic
def confirm(*, account: PlatformAccount, number: str, browser: Browser | None = None) -> Answer:
    """A number was typed, in the account's chat or in a browser: only where it was asked for does it count."""
    locks.lock_person(account.pk)
    request = awaited(account)
    if request is None:
        return Answer(Outcome.NOTHING)
    if request.browser != (browser.pk if browser else None):
        return Answer(Outcome.ELSEWHERE)
    tries = limits().number_tries
    mine = ForgetRequest.objects.filter(pk=request.pk, state=State.ASKED)
    if not mine.filter(tries__lt=tries).update(tries=F("tries") + 1):  # counted before it is looked at
        return Answer(Outcome.NOTHING)
    if codes.is_same(number, forget_number.number_of(request)):
        return _confirm(request)
    left = tries - request.tries - 1
    if left > 0:
        return Answer(Outcome.WRONG, left)
    mine.update(state=State.ENDED, ended_at=clock.now())
    return Answer(Outcome.LOCKED)


def _confirm(request: ForgetRequest) -> Answer:
    """What has left the reach since it was asked for is not forgotten, and what came into it neither."""
    still = {one.pk for one in linking.reach(request.account)}
    accounts = [pk for pk in request.accounts if pk in still]
    mine = ForgetRequest.objects.filter(pk=request.pk, state=State.ASKED)
    mine.update(state=State.CONFIRMED, accounts=accounts, confirmed_at=clock.now())
    audit.record(kind="forget_confirmed", actor=audit.actor(request.account), account=request.account)
    return Answer(Outcome.CONFIRMED)


def words_for(answer: Answer) -> object:
    """The answer in a chat."""
    if answer.outcome == Outcome.WRONG:
        return wording.wrong_number(answer.left)
    said = {Outcome.CONFIRMED: texts.FORGETTING, Outcome.LOCKED: texts.FORGET_LOCKED}
    return said.get(answer.outcome, texts.FORGET_ENDED)


def say(account: PlatformAccount, text: object) -> None:
    """Something to the account's private chat."""
    chat = Conversation.objects.filter(account=account).first()
    if chat is not None:
        text = called.with_commands(str(text), on=chat.platform)
        outbox.queue(Address(chat.platform, chat.chat_id, chat.thread_id), text)


# --- Doing it


def go_on() -> int:
    """Do what was confirmed and is not done yet, and clean the files once for all. How many people are done."""
    open_ones = ForgetRequest.objects.filter(state__in=UNDER_WAY).order_by("confirmed_at")
    due = [request.pk for request in open_ones[:20] if not _waits_for_farewell(request)]
    for request_id in due:
        erase(request_id)
    if due and not clean_files():
        log.warning("somebody was forgotten, but what is deleted is still in the database's files: others hold them")
        return 0
    erased = ForgetRequest.objects.filter(pk__in=due, state=State.CLEANING)
    return erased.update(state=State.DONE, ended_at=clock.now())


def _waits_for_farewell(request: ForgetRequest) -> bool:
    oldest = clock.seconds_from_now(-LAST_WORD_SECONDS)
    is_young = ForgetRequest.objects.filter(pk=request.pk, confirmed_at__gt=oldest).exists()
    chats = Conversation.objects.filter(account=request.account_id).values_list("platform", "chat_id")
    waiting = OutboundDelivery.objects.filter(_at(list(chats)), settled_at=None)
    return is_young and request.browser is None and waiting.exists()


def erase(request_id: UUID) -> None:
    """Delete what a confirmed request names. The database's files are cleaned by housekeeping: nobody waits for it."""
    request = ForgetRequest.objects.select_related("account").get(pk=request_id)
    if request.state not in (State.CONFIRMED, State.ERASING):
        return
    accounts = _begin(request)
    while _forget_some(accounts):
        pass
    for account in PlatformAccount.objects.filter(pk__in=accounts).order_by("pk"):
        _forget_account(account)
    mine = ForgetRequest.objects.filter(pk=request.pk, state=State.ERASING)
    mine.update(state=State.CLEANING, accounts=[])


@transaction.atomic
def _begin(request: ForgetRequest) -> list[int]:
    """Whom it is about: of those that were named, whom the asker still reaches. Whoever was taken out of its reach
    meanwhile, or has taken it out, stays. They leave their person in the transaction that writes down who they are, so
    that whoever goes on after a crash goes on with the same.
    """
    left = identities.leave(request.account, request.accounts)
    ForgetRequest.objects.filter(pk=request.pk, state=State.CONFIRMED).update(state=State.ERASING, accounts=left)
    request.refresh_from_db(fields=["accounts"])
    return list(request.accounts)


@transaction.atomic
def _forget_some(accounts: list[int]) -> bool:
    """A few rows of each kind; what points to others goes before them. False if there was nothing left."""
    chats = Conversation.objects.filter(account__in=accounts)
    addresses = _at(list(chats.values_list("platform", "chat_id")))
    answers = Q(account__in=accounts) | Q(event__account__in=accounts) | Q(entry__author__in=accounts)
    deliveries = OutboundDelivery.objects.filter(answers | addresses)
    entries = HistoryEntry.objects.filter(Q(author__in=accounts) | Q(conversation__in=chats))
    events = list(InboundEvent.objects.filter(account__in=accounts).order_by("pk")[:AT_ONCE])
    forgotten.remember(events)
    gone = 0
    for rows in (deliveries, entries, InboundEvent.objects.filter(pk__in=[one.pk for one in events])):
        some = list(rows.order_by("pk").values_list("pk", flat=True)[:AT_ONCE])
        gone += rows.model.objects.filter(pk__in=some).delete()[0] if some else 0
    return gone > 0


def _at(addresses: list[tuple[str, str]]) -> Q:
    found = Q(pk__in=())
    for platform, chat_id in addresses:
        found |= Q(platform=platform, chat_id=chat_id)
    return found


@transaction.atomic
def _forget_account(account: PlatformAccount) -> None:
    """The account itself, with what it has said and joined meanwhile."""
    identities.leave(account, [account.pk])
    while _forget_some([account.pk]):
        pass
    for chat in Conversation.objects.filter(account=account):
        watermarks.forget(platform=chat.platform, chat_id=chat.chat_id)
    Conversation.objects.filter(account=account).delete()
    identities.make_nameless(account)


def clean_files() -> bool:
    """Bring what was deleted out of the database's files. False if others held them: try again.

    SQLite keeps deleted words in the parts of an index until these are merged, copies of rows in the gaps of its pages
    until all are written anew, and both in its log until that is cut off.
    """
    if connection.vendor != "sqlite":
        return True
    for attempt in range(_CHECKPOINTS):
        if attempt:
            sleep(_PAUSE)
        if _rewrite():
            return True
    return False


def _rewrite() -> bool:
    with connection.cursor() as cursor:
        try:
            cursor.execute("INSERT INTO sessions_app_entrysearch (sessions_app_entrysearch) VALUES ('optimize')")
            cursor.execute("VACUUM")
            cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except OperationalError:  # locked, or no room for a second copy
            return False
        is_busy = cursor.fetchone()[0]
    return not is_busy
