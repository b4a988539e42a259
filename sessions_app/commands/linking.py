"""Linking and deletion in a chat: commands, codes and numbers, decided in the transaction that receives them.

Such a text is no turn: it is not stored, no agent sees it, and it waits for no other turn.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from uuid import UUID

from django.utils.translation import gettext_lazy as _

from identity import audit, notices, wording
from identity.browsers import sessions as browser_sessions
from identity.flows import linking, pair_in_chat
from identity.models import PlatformAccount
from identity.notices import Template
from identity.pairing import codes
from identity.pairing.requests import Outcome
from identity.pairing.settings import limits
from identity.support import clock
from sessions_app import texts
from sessions_app.commands.intent import Intent, Kind, classify
from sessions_app.commands.registry import at_receipt
from sessions_app.messages import InboundMessage, MessageEdit
from sessions_app.models import Conversation, InboundEvent
from sessions_app.outbox import queue as outbox_queue
from sessions_app.privacy import forget_report, forgetting

log = logging.getLogger(__name__)

WARN_EVERY = 3600.0  # seconds between two warnings about clocks
_warned_at: float | None = None  # on the monotonic clock

# Handles an intent that is typed in private. False if the text turns out to be an ordinary message.
_Handler = Callable[[PlatformAccount, Intent], bool]


def handle(message: InboundMessage, intent: Intent, account: PlatformAccount, *, is_available: bool) -> bool:
    """Decide what `message` does to links, requests and deletions. True if it was about them: its text is not stored.

    intent: that of the message's text. is_available: whether the database decides who is who. If not, people are told
    that linking is not available.
    """
    if not message.is_private:
        return _handle_in_group(intent, account)
    if not is_available:
        return intent.kind in {Kind.COMMAND, Kind.CODE} and _answer_unavailable(message, intent, account)
    is_current = _is_current(message)
    # What arrives late is not its author's mistake, what is forwarded is.
    refusal = Template.TOO_LATE if message.is_firsthand else Template.IN_PERSON
    handler = _number_handler(account) if intent.kind is Kind.NUMBER else _HANDLERS.get(intent.kind)
    if handler and not is_current:
        notices.tell(account, refusal)
        return True
    if handler and handler(account, intent):
        return True
    # Looking codes up for free would let anybody try as many as they like: each that is wrong counts as a guess.
    if intent.possible_codes and _try_codes(account, intent, takes=is_current) != Outcome.NOTHING:
        return True
    if reply := _reply_to_number(intent, account):
        notices.tell(account, reply if is_current else refusal)
    return reply is not None


def handle_edit(change: MessageEdit) -> bool:
    """Decide what the new text of a message does to codes. True if it may not be stored.

    An edit is not typed here and now: in private, a live code stays valid and a wrong one counts. In a group others
    read the text, so a live code is spent.
    """
    intent = classify(change.text)
    if intent.kind is Kind.MESSAGE and not intent.possible_codes and not intent.possible_numbers:
        return False
    place = {"platform": change.address.platform, "chat_id": change.address.chat_id}
    chat = Conversation.objects.filter(**place, kind=Conversation.Kind.DM).select_related("account").first()
    if chat is None:
        edited = InboundEvent.objects.filter(**place, message_id=change.message_id)
        author = PlatformAccount.objects.filter(events__in=edited).first()
        is_burned = burn(intent)
    else:
        author, is_burned = chat.account, False
        if author and intent.possible_codes:
            _try_codes(author, intent, takes=False)
    return is_burned or intent.kind is Kind.NUMBER or is_secret(intent, author)


def burn(intent: Intent) -> bool:
    """Spend every live code in a text that others can read. True if there was one."""
    return bool(intent.possible_codes) and pair_in_chat.burn(secrets=intent.possible_codes)


def is_secret(intent: Intent, author: PlatformAccount | None) -> bool:
    """Whether a private text is about linking, or holds what may be a live code or number: it may not be stored."""
    if intent.kind not in {Kind.MESSAGE, Kind.NUMBER} or intent.possible_codes:
        return True
    return author is not None and _reply_to_number(intent, author) is not None


def _handle_in_group(intent: Intent, account: PlatformAccount) -> bool:
    """Spend a live code. The answer is the same for a code that does not live, so that nobody learns which one does."""
    if burn(intent) or intent.shown_code:
        return True
    if intent.kind is Kind.COMMAND or _reply_to_number(intent, account):
        notices.tell(account, Template.IN_PRIVATE)
        return True
    return False


def _answer_unavailable(message: InboundMessage, intent: Intent, account: PlatformAccount) -> bool:
    """Answer in the chat of the message: under another resolver, accounts have no private chat of their own."""
    is_forget = intent.command is not None and intent.command.name == "forget"
    not_here = texts.FORGET_NOT_HERE if is_forget else wording.render(Template.NOT_HERE, account, {}).text
    outbox_queue.queue(message.address, not_here)
    return True


def _is_current(message: InboundMessage) -> bool:
    """Whether its author typed the message here, within the last minutes."""
    if message.sent_at is None:
        return message.is_firsthand
    now, limit = clock.read(), timedelta(seconds=limits().message_seconds)
    compare_clocks(message, now)
    return message.is_firsthand and now - message.sent_at <= limit


def compare_clocks(message: InboundMessage, now: datetime) -> None:
    """Warn if a private message seems to come from another time than `now`, by the database's clock."""
    if message.sent_at is None or message.is_from_history:
        return
    delay = now - message.sent_at
    if abs(delay) > timedelta(seconds=limits().message_seconds):
        _warn_of_clocks(message.address.platform, delay)


def _warn_of_clocks(platform: str, delay: timedelta) -> None:
    """Log at most once an hour in each process. Only a message from the future proves that a clock is wrong."""
    global _warned_at  # noqa: PLW0603 - one for the process, as its log is
    now = time.monotonic()
    if _warned_at is not None and now - _warned_at < WARN_EVERY:
        return
    _warned_at = now
    is_ahead = delay < timedelta(0)
    log.warning(
        "%s: a message is %d minutes %s the database clock: %s; /link and its codes may not work "
        "(manage.py doctor --online compares the clocks)",
        platform,
        round(abs(delay).total_seconds() / 60),
        "ahead of" if is_ahead else "behind",
        "the clock is wrong" if is_ahead else "it arrived late, or the clock is wrong",
    )


def _try_codes(account: PlatformAccount, intent: Intent, *, takes: bool) -> Outcome:
    return pair_in_chat.try_codes(account=account, secrets=intent.possible_codes, takes=takes)


def _reply_to_number(intent: Intent, account: PlatformAccount) -> Template | None:
    """What to answer to a text that may hold a number which is awaited now or was until lately; None without one."""
    if not intent.possible_numbers:
        return None
    if pair_in_chat.is_party_to_number(account) or forgetting.awaits_number(account):
        return Template.JUST_THE_NUMBER
    return Template.NOTHING_THERE if pair_in_chat.is_spent_number(account, intent.possible_numbers) else None


def _number_handler(account: PlatformAccount) -> _Handler | None:
    """What six digits from `account` are for. A number that is awaited here precedes one that is typed elsewhere."""
    if pair_in_chat.awaits_number(account):
        return _confirm_link
    if forgetting.awaits_number(account):
        return _confirm_forget
    return _confirm_link if pair_in_chat.is_party_to_number(account) else None


def _run_command(account: PlatformAccount, intent: Intent) -> bool:
    if intent.command and intent.command.at_receipt:
        intent.command.at_receipt(account, intent.argument)
    return True


def _claim(account: PlatformAccount, intent: Intent) -> bool:
    pair_in_chat.claim(account=account, secret=intent.secret)
    return True


def _confirm_link(account: PlatformAccount, intent: Intent) -> bool:
    """False if the request has ended meanwhile: then the digits are a message."""
    return pair_in_chat.confirm(account=account, number=intent.secret) != Outcome.NOTHING


def _confirm_forget(account: PlatformAccount, intent: Intent) -> bool:
    outlook = forget_report.look([account], on=account.platform)
    answer = forgetting.confirm(account=account, number=intent.secret)
    if answer.outcome == forgetting.Outcome.ELSEWHERE:
        notices.tell(account, Template.TYPE_IN_BROWSER)
    else:
        forgetting.say(account, forgetting.words_for(answer, outlook))
    return True


_HANDLERS: dict[Kind, _Handler] = {
    Kind.COMMAND: _run_command,
    Kind.CODE: _claim,
    Kind.CODE_IN_TEXT: _claim,
}


# --- The commands


@at_receipt("link", _("Link another app, so that both share one conversation"), hint="code", takes=r"\S+|\w{4}\s\w{4}")
def _link(account: PlatformAccount, argument: str) -> None:
    if argument:
        pair_in_chat.claim(account=account, secret=codes.read_code(argument) or argument)
    else:
        pair_in_chat.offer(account=account)


@at_receipt("accounts", _("List the accounts that share this conversation"))
def _accounts(account: PlatformAccount, argument: str) -> None:
    notices.tell(account, Template.ACCOUNTS)


@at_receipt("unlink", _("Unlink this account, or the one on another app"), hint="app", takes=r"\S+")
def _unlink(account: PlatformAccount, argument: str) -> None:
    linking.leave(account=account, platform=argument.lower())


@at_receipt("signout", _("Sign this account out of all browsers"))
def _sign_out(account: PlatformAccount, argument: str) -> None:
    notices.tell(account, Template.SIGNED_OUT, browsers=browser_sessions.sign_out_everywhere(account))


@at_receipt("cancel", _("Cancel linking"))
def _cancel(account: PlatformAccount, argument: str) -> None:
    pair_in_chat.cancel(account=account)


@at_receipt("forget", _("Delete everything I know about you"))
def _forget(account: PlatformAccount, argument: str) -> None:
    if forgetting.ask(account=account) is None:
        forgetting.say(account, texts.FORGET_NOT_NOW)


@at_receipt("notme", takes=r"\S+")
def _not_me(account: PlatformAccount, argument: str) -> None:
    if request := _uuid(argument):
        pair_in_chat.deny(account=account, pairing_id=request)
    else:
        notices.tell(account, Template.NOTHING_THERE)


@at_receipt("undo", takes=r"\S+")
def _undo(account: PlatformAccount, argument: str) -> None:
    if request := _uuid(argument):
        linking.undo(account=account, pairing_id=request)
    else:
        notices.tell(account, Template.NOTHING_THERE)


@at_receipt("wasntme", takes=r"\S+")
def _was_not_me(account: PlatformAccount, argument: str) -> None:
    link_id = int(argument) if re.fullmatch(r"[0-9]{1,18}", argument) else None
    linking.disown(account=account, link_id=link_id)


@at_receipt("share")
def _share(account: PlatformAccount, argument: str) -> None:
    if not linking.share_past(account=account, actor=audit.actor(account)):
        notices.tell(account, Template.NOTHING_THERE)


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
