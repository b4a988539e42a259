"""Linking in a chat: commands, bare codes and numbers, decided in the transaction that receives them.

What is heard here is not a turn: its words are not stored, no agent sees them, and it does not wait for one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from uuid import UUID

from identity import audit, clock, codes, linking, notices, pairing
from identity.limits import limits
from identity.models import PlatformAccount
from identity.notices import Template
from identity.pairing import Outcome
from sessions_app import outbox
from sessions_app.commands import parse
from sessions_app.messages import InboundMessage

_TOKEN_WITHIN = re.compile(rf"\b{codes.TOKEN_PREFIX}[A-Za-z0-9_-]{{22}}(?![A-Za-z0-9_-])")
_DEEP_LINK = re.compile(rf"start=({codes.TOKEN_PREFIX}[A-Za-z0-9_-]{{22}})(?![A-Za-z0-9_-])")


def hear(message: InboundMessage, account: PlatformAccount, *, is_available: bool) -> bool:
    """Decide what `message` does to links and requests. True if it was about them: then its words are not kept.

    `is_available`: whether the database decides who is who. If not, the person is told that linking is not to be had.
    """
    if not message.is_private:
        return _hear_in_public(message, account)
    step = _step_of(message.text)
    if not is_available:
        return step is not None and step is not _number and _answer_not_here(message, account)
    if step is None or (step is _number and not pairing.is_party_to_number(account)):
        step = _hide_secrets(message.text, account)
    if step is None:
        return False
    if not _is_typed_here_and_now(message):
        return _say(account, Template.IN_PERSON)
    return step(account, message.text.strip())


def burn_in(text: str) -> bool:
    """Spend every live code in something that others can read. Whether there was one."""
    found = _secrets_within(text)
    return bool(found) and pairing.burn(found=found)


def is_secret(text: str, author: PlatformAccount | None) -> bool:
    """Whether a text is about linking, or has a code or a number in it that may be live: nothing else may keep it."""
    if _step_of(text) is not None or _secrets_within(text):
        return True
    return bool(author and codes.numbers_within(text) and pairing.is_party_to_number(author))


Step = Callable[[PlatformAccount, str], bool]


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
    return _STEPS.get(name)


def _argument(text: str) -> str:
    return (parse(text) or ("", ""))[1]


def _is_typed_here_and_now(message: InboundMessage) -> bool:
    oldest = clock.read() - timedelta(seconds=limits().message_seconds)
    return message.is_firsthand and (message.sent_at is None or message.sent_at >= oldest)


# --- In a group


def _hear_in_public(message: InboundMessage, account: PlatformAccount) -> bool:
    """A live code that is posted in a group is spent. The group learns nothing."""
    is_command = (parse(message.text) or ("",))[0] in _STEPS
    if burn_in(message.text) or codes.hyphenated_code_within(message.text):
        return True  # also a code that does not live: or else the bot's silence would tell which one does
    is_number = _hides_number(message.text, account) is not None
    return (is_command or is_number) and _say(account, Template.IN_PRIVATE)


def _secrets_within(text: str) -> list[str]:
    alone = codes.read_code(text)
    return [*([alone] if alone else []), *codes.codes_within(text), *_TOKEN_WITHIN.findall(text)]


# --- In private


def _hide_secrets(text: str, account: PlatformAccount) -> Step | None:
    """A code or number inside a longer text is not kept either. It counts as typed: looking at it for free would let
    anybody try as many as fit into a message.
    """
    if within := codes.hyphenated_code_within(text) or _token_within(text):
        return lambda account, text: _claim(account, within)
    return _hides_number(text, account)


def _token_within(text: str) -> str | None:
    """The link token of a deep link."""
    found = _DEEP_LINK.search(text)
    return found[1] if found else None


def _hides_number(text: str, account: PlatformAccount) -> Step | None:
    """What to answer to a text with a number in it that is asked for just now, or was until lately."""
    numbers = codes.numbers_within(text)
    if numbers and pairing.is_party_to_number(account):
        return lambda account, text: _say(account, Template.JUST_THE_NUMBER)
    if numbers and pairing.is_spent_number(account, numbers):
        return lambda account, text: _say(account, Template.NOTHING_THERE)
    return None


def _answer_not_here(message: InboundMessage, account: PlatformAccount) -> bool:
    """Where another resolver decides who is who, accounts have no private chat of their own: answer in this one."""
    outbox.queue(message.address, notices.render(Template.NOT_HERE, account, {}).text)
    return True


def _claim(account: PlatformAccount, text: str) -> bool:
    pairing.claim(account=account, secret=codes.read_code(text) or text)
    return True


def _claim_argument(account: PlatformAccount, text: str) -> bool:
    return _claim(account, _argument(text))


def _number(account: PlatformAccount, text: str) -> bool:
    """Six digits are a number only while somebody waits for one, else they are just what was said."""
    return pairing.confirm(account=account, number=codes.read_number(text) or "") != Outcome.NOTHING


def _link(account: PlatformAccount, text: str) -> bool:
    if _argument(text):
        return _claim_argument(account, text)
    pairing.offer(account=account)
    return True


def _cancel(account: PlatformAccount, text: str) -> bool:
    pairing.cancel(account=account)
    return True


def _not_me(account: PlatformAccount, text: str) -> bool:
    request = _uuid(_argument(text))
    if request is None:
        return _say(account, Template.NOTHING_THERE)
    pairing.deny(account=account, pairing_id=request)
    return True


def _undo(account: PlatformAccount, text: str) -> bool:
    request = _uuid(_argument(text))
    if request is None:
        return _say(account, Template.NOTHING_THERE)
    linking.undo(account=account, pairing_id=request)
    return True


def _was_not_me(account: PlatformAccount, text: str) -> bool:
    named = _argument(text)
    linking.disown(account=account, link_id=int(named) if re.fullmatch(r"[0-9]{1,18}", named) else None)
    return True


def _share(account: PlatformAccount, text: str) -> bool:
    if not linking.share_past(account=account, actor=audit.actor(account)):
        notices.tell(account, Template.NOTHING_THERE)
    return True


def _unlink(account: PlatformAccount, text: str) -> bool:
    linking.leave(account=account, platform=_argument(text).lower())
    return True


def _accounts(account: PlatformAccount, text: str) -> bool:
    return _say(account, Template.ACCOUNTS)


def _say(account: PlatformAccount, template: Template) -> bool:
    notices.tell(account, template)
    return True


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


_STEPS: dict[str, Step] = {
    "link": _link,
    "cancel": _cancel,
    "notme": _not_me,
    "undo": _undo,
    "wasntme": _was_not_me,
    "share": _share,
    "unlink": _unlink,
    "accounts": _accounts,
}
