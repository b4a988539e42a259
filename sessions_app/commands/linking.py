"""Linking in a chat: commands, bare codes and numbers, decided in the transaction that receives them.

What is heard here is not a turn: its words are not stored, no agent sees them, and it does not wait for one.
"""

from __future__ import annotations

import logging
import re
import time
from datetime import timedelta
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
from sessions_app.commands.registry import ReceiptHandler as Step
from sessions_app.commands.registry import at_receipt, find, parse
from sessions_app.messages import InboundMessage, MessageEdit
from sessions_app.models import Conversation, InboundEvent
from sessions_app.outbox import queue as outbox_queue
from sessions_app.privacy import forget_report, forgetting

log = logging.getLogger(__name__)

WARN_EVERY = 3600.0  # seconds between two warnings about clocks
_warned_at: float | None = None  # on the monotonic clock
_DEEP_LINK = re.compile(rf"start=({codes.TOKEN_PREFIX}[A-Za-z0-9_-]{{22}})(?![A-Za-z0-9_-])")


def hear(message: InboundMessage, account: PlatformAccount, *, is_available: bool) -> bool:
    """Decide what `message` does to links and requests. True if it was about them: then its words are not kept.

    `is_available`: whether the database decides who is who. If not, the person is told that linking is not to be had.
    """
    if not message.is_private:
        return _hear_in_public(message, account)
    step = _step_of(message.text)
    if not is_available:
        return step is not None and step is not _number and _answer_not_here(message, account, step)
    if step is _number:
        step = _step_of_number(account)
    step = step or _claim_within(message.text)
    is_here_and_now = _is_typed_here_and_now(message)
    if step and not is_here_and_now:
        return _say(account, _why_not(message))
    # A number is just a message if what it was for has ended meanwhile: then it is looked at like one.
    if step and step(account, message.text.strip()):
        return True
    return _guess(message.text, account, takes=is_here_and_now) or _hide_number(message, account, is_here_and_now)


def hear_edit(change: MessageEdit) -> bool:
    """Decide what new words for a message do to codes. True if nothing may keep them.

    They were not written here and now: in private a live code is left alone, and a wrong one counted. In a group others
    read them, as what is posted there.
    """
    text = change.text
    if not (_step_of(text) or codes.secrets_within(text) or codes.numbers_within(text)):
        return False
    place = {"platform": change.address.platform, "chat_id": change.address.chat_id}
    chat = Conversation.objects.filter(**place, kind=Conversation.Kind.DM).select_related("account").first()
    if chat is None:
        edited = InboundEvent.objects.filter(**place, message_id=change.message_id)
        return burn_in(text) or is_secret(text, PlatformAccount.objects.filter(events__in=edited).first())
    if chat.account:
        _guess(text, chat.account, takes=False)
    return is_secret(text, chat.account)


def burn_in(text: str) -> bool:
    """Spend every live code in something that others can read. Whether there was one."""
    found = codes.secrets_within(text)
    return bool(found) and pair_in_chat.burn(secrets=found)


def is_secret(text: str, author: PlatformAccount | None) -> bool:
    """Whether a text is about linking, or has a code or a number in it that may be live: nothing else may keep it."""
    if _step_of(text) is not None or codes.secrets_within(text):
        return True
    return author is not None and _number_within(text, author) is not None


def is_for_the_app(text: str, account: PlatformAccount) -> bool:
    """Whether a text that `account` wrote in a browser is about linking. There it counts as typed by nobody, whether
    the code is right or wrong: only the app's own private chat shows who types.
    """
    step = _step_of(text)
    if step is not None and step is not _number:
        return True
    return bool(codes.secrets_within(text)) or _number_within(text, account) is not None


def _step_of(text: str) -> Step | None:
    """What a private text asks for; None for an ordinary message."""
    text = text.strip()
    if codes.read_code(text) or codes.read_token(text):
        return _claim
    if codes.read_number(text):
        return _number
    name, argument = parse(text) or ("", "")
    if name == "start":
        return _claim_argument if codes.read_token(argument) else None
    command = find(text)
    return command.at_receipt if command else None


def _step_of_number(account: PlatformAccount) -> Step | None:
    """What six digits are for: whoever is to type a number elsewhere may still type one that is asked for here."""
    if pair_in_chat.awaits_number(account):
        return _number
    if forgetting.awaits_number(account):
        return _forget_number
    return _number if pair_in_chat.is_party_to_number(account) else None


def _argument(text: str) -> str:
    return (parse(text) or ("", ""))[1]


def _is_typed_here_and_now(message: InboundMessage) -> bool:
    if message.sent_at is None:
        return message.is_firsthand
    late, most = clock.read() - message.sent_at, timedelta(seconds=limits().message_seconds)
    if abs(late) > most and not message.is_from_history:
        _warn_of_clocks(message.address.platform, late)
    return message.is_firsthand and late <= most


def _why_not(message: InboundMessage) -> Template:
    """What to say to what does not count. Whoever typed it is not to blame for the time that it took."""
    return Template.TOO_LATE if message.is_firsthand else Template.IN_PERSON


def _warn_of_clocks(platform: str, late: timedelta) -> None:
    """At most once an hour in each process. Only a message from the future shows for sure that a clock is wrong."""
    global _warned_at  # noqa: PLW0603 - one for the process, as its log is
    now = time.monotonic()
    if _warned_at is not None and now - _warned_at < WARN_EVERY:
        return
    _warned_at = now
    minutes = round(abs(late).total_seconds() / 60)
    log.warning(
        "a message of %s is %d minutes %s the clock of the database: %s, and /link and its codes may not work "
        "(manage.py doctor --online compares the clocks)",
        platform,
        minutes,
        "ahead of" if late < timedelta(0) else "behind",
        "the clock is wrong" if late < timedelta(0) else "it came late, or the clock is wrong",
    )


# --- In a group


def _hear_in_public(message: InboundMessage, account: PlatformAccount) -> bool:
    """A live code that is posted in a group is spent. The group learns nothing."""
    command = find(message.text)
    is_command = command is not None and command.private_only
    if burn_in(message.text) or codes.hyphenated_code_within(message.text):
        return True  # also a code that does not live: or else the bot's silence would tell which one does
    is_number = _number_within(message.text, account) is not None
    return (is_command or is_number) and _say(account, Template.IN_PRIVATE)


# --- In private


def _claim_within(text: str) -> Step | None:
    """A code as it is shown, or a deep link, inside a longer text counts as typed, and is answered like it."""
    if within := codes.hyphenated_code_within(text) or _token_within(text):
        return lambda account, text: _claim(account, within)
    return None


def _token_within(text: str) -> str | None:
    """The link token of a deep link."""
    found = _DEEP_LINK.search(text)
    return found[1] if found else None


def _guess(text: str, account: PlatformAccount, *, takes: bool) -> bool:
    """Letters that may be a code are tried, and counted if they are none, as looking at them for free would let anybody
    try as many as they like.
    """
    found = codes.secrets_within(text)
    return bool(found) and pair_in_chat.try_codes(account=account, secrets=found, takes=takes) != Outcome.NOTHING


def _hide_number(message: InboundMessage, account: PlatformAccount, is_here_and_now: bool) -> bool:
    answer = _number_within(message.text, account)
    return answer is not None and _say(account, answer if is_here_and_now else _why_not(message))


def _number_within(text: str, account: PlatformAccount) -> Template | None:
    """What to answer to a text with a number in it that is asked for just now, or was until lately."""
    numbers = codes.numbers_within(text)
    if numbers and _awaits_number(account):
        return Template.JUST_THE_NUMBER
    return Template.NOTHING_THERE if numbers and pair_in_chat.is_spent_number(account, numbers) else None


def _awaits_number(account: PlatformAccount) -> bool:
    return pair_in_chat.is_party_to_number(account) or forgetting.awaits_number(account)


def _answer_not_here(message: InboundMessage, account: PlatformAccount, step: Step) -> bool:
    """Where another resolver decides who is who, accounts have no private chat of their own: answer in this one."""
    not_here = wording.render(Template.NOT_HERE, account, {}).text
    outbox_queue.queue(message.address, texts.FORGET_NOT_HERE if step is _forget else not_here)
    return True


def _claim(account: PlatformAccount, text: str) -> bool:
    pair_in_chat.claim(account=account, secret=codes.read_code(text) or text)
    return True


def _claim_argument(account: PlatformAccount, text: str) -> bool:
    return _claim(account, _argument(text))


def _number(account: PlatformAccount, text: str) -> bool:
    """Six digits are a number only while somebody waits for one, else they are just what was said."""
    return pair_in_chat.confirm(account=account, number=codes.read_number(text) or "") != Outcome.NOTHING


@at_receipt("link", _("Link another app, so that both share one conversation"), hint="code")
def _link(account: PlatformAccount, text: str) -> bool:
    if _argument(text):
        return _claim_argument(account, text)
    pair_in_chat.offer(account=account)
    return True


@at_receipt("accounts", _("List the accounts that share this conversation"))
def _accounts(account: PlatformAccount, text: str) -> bool:
    return _say(account, Template.ACCOUNTS)


@at_receipt("unlink", _("Unlink this account, or the one on another app"), hint="app")
def _unlink(account: PlatformAccount, text: str) -> bool:
    linking.leave(account=account, platform=_argument(text).lower())
    return True


@at_receipt("signout", _("Sign this account out of all browsers"))
def _sign_out(account: PlatformAccount, text: str) -> bool:
    notices.tell(account, Template.SIGNED_OUT, browsers=browser_sessions.sign_out_everywhere(account))
    return True


@at_receipt("cancel", _("Cancel linking"))
def _cancel(account: PlatformAccount, text: str) -> bool:
    pair_in_chat.cancel(account=account)
    return True


@at_receipt("forget", _("Delete everything I know about you"))
def _forget(account: PlatformAccount, text: str) -> bool:
    if forgetting.ask(account=account) is None:
        forgetting.say(account, texts.FORGET_NOT_NOW)
    return True


@at_receipt("notme")
def _not_me(account: PlatformAccount, text: str) -> bool:
    request = _uuid(_argument(text))
    if request is None:
        return _say(account, Template.NOTHING_THERE)
    pair_in_chat.deny(account=account, pairing_id=request)
    return True


@at_receipt("undo")
def _undo(account: PlatformAccount, text: str) -> bool:
    request = _uuid(_argument(text))
    if request is None:
        return _say(account, Template.NOTHING_THERE)
    linking.undo(account=account, pairing_id=request)
    return True


@at_receipt("wasntme")
def _was_not_me(account: PlatformAccount, text: str) -> bool:
    named = _argument(text)
    linking.disown(account=account, link_id=int(named) if re.fullmatch(r"[0-9]{1,18}", named) else None)
    return True


@at_receipt("share")
def _share(account: PlatformAccount, text: str) -> bool:
    if not linking.share_past(account=account, actor=audit.actor(account)):
        notices.tell(account, Template.NOTHING_THERE)
    return True


def _forget_number(account: PlatformAccount, text: str) -> bool:
    outlook = forget_report.look([account], on=account.platform)
    answer = forgetting.confirm(account=account, number=codes.read_number(text) or "")
    if answer.outcome == forgetting.Outcome.ELSEWHERE:
        return _say(account, Template.TYPE_IN_BROWSER)
    forgetting.say(account, forgetting.words_for(answer, outlook))
    return True


def _say(account: PlatformAccount, template: Template) -> bool:
    notices.tell(account, template)
    return True


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
