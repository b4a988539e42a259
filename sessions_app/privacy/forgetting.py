"""Forgetting somebody: asked for, confirmed by a number, then done step by step, each in a transaction of its own.

A step that fails is done again: housekeeping goes on with every request that was confirmed. Other people's rows stay.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import F, Q, QuerySet

from identity import audit, labels, notices, wording
from identity.flows import forget_identity as identities
from identity.flows import linking
from identity.links import locks
from identity.models import Browser, PlatformAccount
from identity.notices import Template
from identity.pairing import challenge
from identity.pairing.challenge import Verdict
from identity.pairing.settings import limits
from identity.support import clock, portions
from sessions_app import texts
from sessions_app.history import conversations
from sessions_app.messages import Address
from sessions_app.models import Conversation, ForgetRequest, HistoryEntry, InboundEvent, OutboundDelivery
from sessions_app.outbox import queue as outbox_queue
from sessions_app.privacy import confirmation, forget_report, sqlite_vacuum
from sessions_app.privacy.forget_report import Outlook
from sessions_app.receiving import tombstones, watermarks

log = logging.getLogger(__name__)

State = ForgetRequest.State
UNDER_WAY = (State.CONFIRMED, State.ERASING, State.CLEANING)
ASKED_AN_HOUR = 5
AT_ONCE = 500  # rows of a kind that one transaction deletes
ERASING, LATE = "erasing for a request to be forgotten", "erasing what came late"  # what may fail, for the log
LATEST_SECONDS = 60  # after which nothing is being received any more that began before somebody was erased
LAST_WORD_SECONDS = 600  # how long the farewell may take to be sent, before what it is sent to is deleted


class Outcome(StrEnum):
    """What came of a number."""

    CONFIRMED = "confirmed"
    RIGHT = "right"
    WRONG = "wrong"
    LOCKED = "locked"
    ELSEWHERE = "elsewhere"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a number; with WRONG, how many tries are `left`; with RIGHT, it was right, but another number that
    was typed with it was not; with CONFIRMED, the `request`, and which accounts are `kept`, as their chats could not be
    warned.
    """

    outcome: Outcome
    left: int = 0
    kept: tuple[PlatformAccount, ...] = ()
    request: ForgetRequest | None = field(default=None, compare=False)


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
    outbox_queue.queue_notice(account, confirmation.TEMPLATE, {"request": str(request.pk)})
    for other in (one for one in reached if one != account):
        notices.tell(other, Template.FORGET_ASKED, by=account.pk)
    audit.record(kind="forget_asked", actor=audit.actor(account), account=account)
    return request


def ask_each(*, accounts: Sequence[PlatformAccount], browser: Browser) -> int:
    """Ask for each account that none before it reaches: each gets a number of its own. How many could be asked."""
    covered, asked = set[int](), 0
    for one in accounts:
        if one.pk not in covered:
            covered |= {other.pk for other in linking.reach(one)}
            asked += ask(account=one, browser=browser) is not None
    return asked


def awaited(account: PlatformAccount) -> ForgetRequest | None:
    """The request of the account whose number may be typed now."""
    return next(iter(forget_report.awaited([account])), None)


def awaits_number(account: PlatformAccount) -> bool:
    return awaited(account) is not None


def confirm(*, account: PlatformAccount, number: str, browser: Browser | None = None) -> Answer:
    """A number was typed, in the account's chat or in a browser: only where it was asked for does it count."""
    return confirm_each({account: number}, browser=browser)[account]


@transaction.atomic
def confirm_each(
    numbers: Mapping[PlatformAccount, str], *, browser: Browser | None = None
) -> dict[PlatformAccount, Answer]:
    """The same for several accounts at once: if one of the numbers is not right nothing is confirmed, and the right
    ones have lost no try.
    """
    locks.lock_people(one.pk for one in numbers)
    requests = {one.account_id: one for one in forget_report.awaited(numbers)}
    answers = {one: _try(requests.get(one.pk), number, browser) for one, number in numbers.items()}
    right = [answer.request for answer in answers.values() if answer.request]
    if len(right) == len(answers):
        return {request.account: _confirm(request) for request in right}
    ForgetRequest.objects.filter(pk__in=[one.pk for one in right]).update(tries=F("tries") - 1)
    return {one: Answer(Outcome.RIGHT) if answer.request else answer for one, answer in answers.items()}


def _try(request: ForgetRequest | None, number: str, browser: Browser | None) -> Answer:
    if request is None:
        return Answer(Outcome.NOTHING)
    if request.browser != (browser.pk if browser else None):
        return Answer(Outcome.ELSEWHERE)
    pending = ForgetRequest.objects.filter(pk=request.pk, state=State.ASKED)
    check = challenge.check(number, confirmation.number_of(request), pending=pending, tries=request.tries)
    if check.verdict == Verdict.ENDED:
        return Answer(Outcome.NOTHING)
    if check.verdict == Verdict.RIGHT:
        return Answer(Outcome.RIGHT, request=request)
    if check.verdict == Verdict.WRONG:
        return Answer(Outcome.WRONG, check.left)
    pending.update(state=State.ENDED, ended_at=clock.now())
    return Answer(Outcome.LOCKED)


def _confirm(request: ForgetRequest) -> Answer:
    """What has left the reach since it was asked for is not forgotten, what came into it neither, nor who was not
    warned.
    """
    reached = [one for one in linking.reach(request.account) if one.pk in request.accounts]
    unaware = forget_report.unwarned(request)
    accounts = [one.pk for one in reached if one.pk not in unaware]
    mine = ForgetRequest.objects.filter(pk=request.pk, state=State.ASKED)
    mine.update(state=State.CONFIRMED, accounts=accounts, confirmed_at=clock.now())
    audit.record(kind="forget_confirmed", actor=audit.actor(request.account), account=request.account)
    request.refresh_from_db(fields=["state", "accounts"])
    return Answer(Outcome.CONFIRMED, kept=tuple(one for one in reached if one.pk in unaware), request=request)


def words_for(answer: Answer, outlook: Outlook | None = None) -> object:
    """The answer in a chat. `outlook`: what stood around the account before its number was looked at."""
    if answer.outcome == Outcome.WRONG:
        return wording.wrong_number(answer.left)
    if answer.request and outlook:
        report = outlook.after(answer.request.accounts, untold=[one.pk for one in answer.kept])
        return report.said(texts.FORGETTING, texts.FORGETTING_TOGETHER)
    return texts.FORGET_LOCKED if answer.outcome == Outcome.LOCKED else texts.FORGET_ENDED


def say(account: PlatformAccount, text: object) -> None:
    """Something to the account's private chat."""
    chat = Conversation.objects.filter(account=account).first()
    if chat is not None:
        text = labels.with_commands(str(text), on=chat.platform)
        outbox_queue.queue(Address(chat.platform, chat.chat_id, chat.thread_id), text)


# --- Doing it


def step() -> bool:
    """Do a little of what was confirmed: others' calls come between two steps. False if there is nothing to do now."""
    open_ones = ForgetRequest.objects.filter(state__in=(State.CONFIRMED, State.ERASING)).order_by("confirmed_at")
    due = next((one for one in portions.awake(ERASING, open_ones) if not _waits_for_farewell(one)), None)
    if due is None:
        return False
    portions.attempt(ERASING, due.pk, _erase_some, due.pk)
    return True  # also after a failure: the next one may be due


def _erase_some(request_id: UUID) -> bool:
    erase(request_id)
    return True


def clean() -> int:
    """Clean the files, once for all who were erased a while ago, and of what was being received then. How many people
    are done by that. It takes long: see `database_files`.
    """
    due = ForgetRequest.objects.filter(state=State.CLEANING, expires_at__lte=clock.now())
    erased = [
        request.pk
        for request in portions.awake(LATE, due)
        if portions.attempt(LATE, request.pk, _forget_late_ones, request.accounts)
    ]
    if not erased:
        return 0
    if trouble := sqlite_vacuum.clean():
        log.warning("somebody was forgotten, but what is deleted is still in the database's files: %s", trouble)
        return 0
    cleaned = ForgetRequest.objects.filter(pk__in=erased, state=State.CLEANING)
    return cleaned.update(state=State.DONE, accounts=[], ended_at=clock.now())


def stuck() -> int:
    """How many people have been waiting for more than an hour to be forgotten."""
    long_ago = clock.seconds_from_now(-3600)
    return ForgetRequest.objects.filter(state__in=UNDER_WAY, confirmed_at__lte=long_ago).count()


def _waits_for_farewell(request: ForgetRequest) -> bool:
    oldest = clock.seconds_from_now(-LAST_WORD_SECONDS)
    is_recent = ForgetRequest.objects.filter(pk=request.pk, state=State.CONFIRMED, confirmed_at__gt=oldest).exists()
    chats = Conversation.objects.filter(account=request.account_id).values_list("platform", "chat_id")
    waiting = OutboundDelivery.objects.filter(_at(list(chats)), settled_at=None)
    return is_recent and request.browser is None and waiting.exists()


def erase(request_id: UUID, *, most: int = 1) -> bool:
    """Delete what a confirmed request names, in at most so many portions. Whether nothing of it is left to read.

    The database's files are cleaned by housekeeping: nobody waits for it.
    """
    request = ForgetRequest.objects.select_related("account").get(pk=request_id)
    if request.state not in (State.CONFIRMED, State.ERASING):
        return True
    accounts = _begin(request) if request.state == State.CONFIRMED else list(request.accounts)
    if any(not _forget_some(accounts) for _ in range(most)):
        for account in PlatformAccount.objects.filter(pk__in=accounts).order_by("pk"):
            _forget_account(account)
        mine = ForgetRequest.objects.filter(pk=request.pk, state=State.ERASING)
        mine.update(state=State.CLEANING, expires_at=clock.seconds_from_now(LATEST_SECONDS))
        return True
    return False


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
def _forget_some(accounts: Sequence[int], *, is_theirs: bool = True) -> bool:
    """A few rows of one kind: what points to others goes before them. False if there was nothing left.

    `is_theirs`: nobody else has their chats by now, so all that is sent there goes too.
    Each question has an index of its own: asked at once, they would be answered by reading whole tables.
    """
    chats = list(conversations.of_accounts(accounts).values_list("pk", "platform", "chat_id"))
    events = list(InboundEvent.objects.filter(account__in=accounts)[:AT_ONCE])
    entries = _some(HistoryEntry.objects.all(), Q(author__in=accounts), Q(conversation__in=[pk for pk, _, _ in chats]))
    addresses = [Q(platform=platform, chat_id=chat_id) for _, platform, chat_id in chats if is_theirs]
    answers = [Q(account__in=accounts), Q(event__in=events), Q(entry__in=entries)]
    for model, ids in (
        (OutboundDelivery, _some(OutboundDelivery.objects.all(), *answers, *addresses)),
        (HistoryEntry, entries),
        (InboundEvent, [one.pk for one in events]),
    ):
        if ids:
            if model is InboundEvent:
                tombstones.remember(events)
            model.objects.filter(pk__in=ids).delete()
            return True
    return False


@transaction.atomic
def _forget_late_ones(accounts: Sequence[int]) -> bool:
    """What somebody stored who had looked an account up before it lost its name. By now a stranger may write there.

    Always True.
    """
    while _forget_some(accounts, is_theirs=False):
        pass
    conversations.of_accounts(accounts).delete()
    PlatformAccount.objects.filter(pk__in=accounts).update(display_name="", username="")
    return True


def _some(rows: QuerySet[Any], *conditions: Q) -> list[int]:
    """Primary keys of rows that meet one of the conditions: a portion for each."""
    found = [rows.filter(one).values_list("pk", flat=True)[:AT_ONCE] for one in conditions]
    return sorted({pk for some in found for pk in some})


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
    for chat in conversations.of_accounts([account.pk]):
        watermarks.forget(platform=chat.platform, chat_id=chat.chat_id)
    conversations.of_accounts([account.pk]).delete()
    identities.make_nameless(account)
