"""Deletes accounts: requested, confirmed by a number, then carried out in steps, each in a transaction of its own.

Housekeeping repeats a step that failed, and continues every confirmed request. Other people's rows stay.
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
ERASING, LATE = "deleting an account", "deleting what arrived late"  # what may fail, for the log
LATEST_SECONDS = 60  # by then, no message is still being received that began before the deletion
LAST_WORD_SECONDS = 600  # how long the deletion waits for the last message to be sent


class Outcome(StrEnum):
    """The result of typing a number."""

    CONFIRMED = "confirmed"
    RIGHT = "right"
    WRONG = "wrong"
    LOCKED = "locked"
    ELSEWHERE = "elsewhere"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Answer:
    """The result of typing a number. RIGHT: this number is right, but another one that was typed with it is not.

    left: how many tries are left, with WRONG. request: what is confirmed, with CONFIRMED. kept: the accounts that are
    not deleted, as their chats could not be warned.
    """

    outcome: Outcome
    left: int = 0
    kept: tuple[PlatformAccount, ...] = ()
    request: ForgetRequest | None = field(default=None, compare=False)


# --- Asking


@transaction.atomic
def ask(*, account: PlatformAccount, browser: Browser | None = None) -> ForgetRequest | None:
    """Send a number to the account's chat, to type there or in `browser`, and warn the other accounts in its reach.

    Return None if the account asked too often, or is being deleted.
    """
    locks.lock_person(account.pk)
    requests = ForgetRequest.objects.filter(account=account)
    recent = requests.filter(created_at__gt=clock.seconds_from_now(-3600))
    if recent.count() >= ASKED_AN_HOUR or requests.filter(state__in=UNDER_WAY).exists():
        return None
    requests.filter(ended_at=None).update(state=State.ENDED, ended_at=clock.now())
    reached = linking.reach(account)
    request = ForgetRequest.objects.create(
        account=account,
        accounts=[member.pk for member in reached],
        browser=browser.pk if browser else None,
        expires_at=clock.seconds_from_now(limits().number_seconds),
    )
    outbox_queue.queue_notice(account, confirmation.TEMPLATE, {"request": str(request.pk)})
    for other in reached:
        if other != account:
            notices.tell(other, Template.FORGET_ASKED, by=account.pk)
    audit.record(kind="forget_asked", actor=audit.actor(account), account=account)
    return request


def ask_each(*, accounts: Sequence[PlatformAccount], browser: Browser) -> int:
    """Ask for each account that no earlier one reaches; each gets its own number. Return how many could be asked."""
    covered, asked = set[int](), 0
    for account in accounts:
        if account.pk not in covered:
            covered |= {member.pk for member in linking.reach(account)}
            asked += ask(account=account, browser=browser) is not None
    return asked


def awaited(account: PlatformAccount) -> ForgetRequest | None:
    """The request of the account whose number may be typed now."""
    return next(iter(forget_report.awaited([account])), None)


def awaits_number(account: PlatformAccount) -> bool:
    """Whether a number of the account may be typed now."""
    return awaited(account) is not None


def confirm(*, account: PlatformAccount, number: str, browser: Browser | None = None) -> Answer:
    """Check a number that was typed in the account's chat or in `browser`. It counts only where it was asked for."""
    return confirm_each({account: number}, browser=browser)[account]


@transaction.atomic
def confirm_each(
    numbers: Mapping[PlatformAccount, str], *, browser: Browser | None = None
) -> dict[PlatformAccount, Answer]:
    """Check the numbers of several accounts. If one is wrong, nothing is confirmed, and the right ones lose no try."""
    locks.lock_people(account.pk for account in numbers)
    requests = {request.account_id: request for request in forget_report.awaited(numbers)}
    answers = {account: _try(requests.get(account.pk), number, browser) for account, number in numbers.items()}
    right = [answer.request for answer in answers.values() if answer.request]
    if len(right) == len(answers):
        return {request.account: _confirm(request) for request in right}
    ForgetRequest.objects.filter(pk__in=[request.pk for request in right]).update(tries=F("tries") - 1)
    return {account: Answer(Outcome.RIGHT) if answer.request else answer for account, answer in answers.items()}


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
    """Confirm the deletion of the accounts that the request names, that its account still reaches, and whose chats
    were warned.
    """
    named = [account for account in linking.reach(request.account) if account.pk in request.accounts]
    unwarned = forget_report.unwarned(request)
    deleted = [account.pk for account in named if account.pk not in unwarned]
    kept = tuple(account for account in named if account.pk in unwarned)
    asked = ForgetRequest.objects.filter(pk=request.pk, state=State.ASKED)
    asked.update(state=State.CONFIRMED, accounts=deleted, confirmed_at=clock.now())
    request.refresh_from_db(fields=["state", "accounts"])
    audit.record(kind="forget_confirmed", actor=audit.actor(request.account), account=request.account)
    return Answer(Outcome.CONFIRMED, kept=kept, request=request)


def words_for(answer: Answer, outlook: Outlook | None = None) -> object:
    """The text that answers a number in a chat. outlook: that of the account before its number was checked."""
    if answer.outcome == Outcome.WRONG:
        return wording.wrong_number(answer.left)
    if answer.request and outlook:
        report = outlook.after(answer.request.accounts, untold=[account.pk for account in answer.kept])
        return report.said(texts.FORGETTING, texts.FORGETTING_TOGETHER)
    return texts.FORGET_LOCKED if answer.outcome == Outcome.LOCKED else texts.FORGET_ENDED


def say(account: PlatformAccount, text: object) -> None:
    """Queue a message to the account's private chat, if it has one."""
    chat = Conversation.objects.filter(account=account).first()
    if chat is not None:
        text = labels.with_commands(str(text), on=chat.platform)
        outbox_queue.queue(Address(chat.platform, chat.chat_id, chat.thread_id), text)


# --- Deletion


def step() -> bool:
    """Delete a portion for the oldest confirmed request that is due. False if none is due.

    Portions are small, so that other calls to the database run between them.
    """
    confirmed = ForgetRequest.objects.filter(state__in=(State.CONFIRMED, State.ERASING)).order_by("confirmed_at")
    for request in portions.awake(ERASING, confirmed):
        if not _waits_for_farewell(request):
            portions.attempt(ERASING, request.pk, erase, request.pk)
            return True  # also after a failure: another request may be due
    return False


def clean() -> int:
    """Delete what arrived late for accounts that were deleted a while ago, then clean the database's files once.

    Return how many requests are done. It may take long: see `sqlite_vacuum`.
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
        log.warning("clean the files failed: deleted rows are still in the database's files: %s", trouble)
        return 0
    cleaned = ForgetRequest.objects.filter(pk__in=erased, state=State.CLEANING)
    return cleaned.update(state=State.DONE, accounts=[], ended_at=clock.now())


def stuck() -> int:
    """How many confirmed requests have waited for more than an hour."""
    long_ago = clock.seconds_from_now(-3600)
    return ForgetRequest.objects.filter(state__in=UNDER_WAY, confirmed_at__lte=long_ago).count()


def _waits_for_farewell(request: ForgetRequest) -> bool:
    """Whether the answer to the number is still to be sent to the chat that is about to be deleted."""
    oldest = clock.seconds_from_now(-LAST_WORD_SECONDS)
    is_recent = ForgetRequest.objects.filter(pk=request.pk, state=State.CONFIRMED, confirmed_at__gt=oldest).exists()
    if request.browser is not None or not is_recent:
        return False
    chats = Conversation.objects.filter(account=request.account_id)
    return any(
        OutboundDelivery.objects.filter(platform=chat.platform, chat_id=chat.chat_id, settled_at=None).exists()
        for chat in chats
    )


def erase(request_id: UUID, *, portions_limit: int = 1) -> bool:
    """Delete what a confirmed request names, in at most `portions_limit` portions. True if nothing is left to read.

    Housekeeping cleans the database's files later.
    """
    request = ForgetRequest.objects.select_related("account").get(pk=request_id)
    if request.state not in (State.CONFIRMED, State.ERASING):
        return True
    accounts = _begin(request) if request.state == State.CONFIRMED else list(request.accounts)
    if any(not _forget_some(accounts) for _ in range(portions_limit)):
        for account in PlatformAccount.objects.filter(pk__in=accounts).order_by("pk"):
            _forget_account(account)
        erasing = ForgetRequest.objects.filter(pk=request.pk, state=State.ERASING)
        erasing.update(state=State.CLEANING, expires_at=clock.seconds_from_now(LATEST_SECONDS))
        return True
    return False


@transaction.atomic
def _begin(request: ForgetRequest) -> list[int]:
    """The accounts to delete: those that the request names and that its account still reaches.

    They leave their person in the transaction that stores this list, so that the deletion continues with the same
    accounts after a crash.
    """
    left = identities.leave(request.account, request.accounts)
    ForgetRequest.objects.filter(pk=request.pk, state=State.CONFIRMED).update(state=State.ERASING, accounts=left)
    request.refresh_from_db(fields=["accounts"])
    return list(request.accounts)


@transaction.atomic
def _forget_some(accounts: Sequence[int], *, is_theirs: bool = True) -> bool:
    """Delete a portion of one table's rows, referring rows before those that they refer to. False if none is left.

    is_theirs: whether the chats still belong to these accounts, so that everything sent there is deleted too. Each
    condition has an index of its own: one query for all of them would read whole tables.
    """
    chats = list(conversations.of_accounts(accounts).values_list("pk", "platform", "chat_id"))
    events = list(InboundEvent.objects.filter(account__in=accounts)[:AT_ONCE])
    entries = _some(HistoryEntry.objects.all(), Q(author__in=accounts), Q(conversation__in=[pk for pk, _, _ in chats]))
    addresses = [Q(platform=platform, chat_id=chat_id) for _, platform, chat_id in chats if is_theirs]
    answers = [Q(account__in=accounts), Q(event__in=events), Q(entry__in=entries)]
    for model, ids in (
        (OutboundDelivery, _some(OutboundDelivery.objects.all(), *answers, *addresses)),
        (HistoryEntry, entries),
        (InboundEvent, [event.pk for event in events]),
    ):
        if ids:
            if model is InboundEvent:
                tombstones.remember(events)
            model.objects.filter(pk__in=ids).delete()
            return True
    return False


@transaction.atomic
def _forget_late_ones(accounts: Sequence[int]) -> bool:
    """Delete what was stored by receivers that read the account before its deletion. Return True.

    By now the chats may belong to other people.
    """
    while _forget_some(accounts, is_theirs=False):
        pass
    conversations.of_accounts(accounts).delete()
    PlatformAccount.objects.filter(pk__in=accounts).update(display_name="", username="")
    return True


def _some(rows: QuerySet[Any], *conditions: Q) -> list[int]:
    """Primary keys of rows that meet one of the conditions: a portion for each."""
    portions_of_keys = [rows.filter(condition).values_list("pk", flat=True)[:AT_ONCE] for condition in conditions]
    return sorted({pk for keys in portions_of_keys for pk in keys})


@transaction.atomic
def _forget_account(account: PlatformAccount) -> None:
    """Delete the account itself, with what it has said and joined meanwhile."""
    # First wait for messages that are stored together (see receiving.group): they hold the account until they are
    # there to be deleted. No others are stored for it from here on.
    list(PlatformAccount.objects.select_for_update().filter(pk=account.pk))
    identities.leave(account, [account.pk])
    while _forget_some([account.pk]):
        pass
    for chat in conversations.of_accounts([account.pk]):
        watermarks.forget(platform=chat.platform, chat_id=chat.chat_id)
    conversations.of_accounts([account.pk]).delete()
    identities.make_nameless(account)
