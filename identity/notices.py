"""What must be said to whom about pairing and links. The words are in identity.wording.

A notice is a template and the ids of what it is about. It is handed to the sink that the application registers, inside
the transaction that causes it, and becomes words only when it is sent, so that a code or number is never stored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any

from identity.models import PlatformAccount

Subject = Mapping[str, Any]  # ids and counts, as JSON takes them


class Template(StrEnum):
    """What there is to say. The values are stored with deliveries."""

    OFFER = "offer"
    NUMBER = "number"
    CLAIMED = "claimed"
    LINKED = "linked"
    KNOWN = "known"
    ACCOUNT_ADDED = "account_added"
    REMINDED = "reminded"
    OWN_CODE = "own_code"
    WRONG_CODE = "wrong_code"
    OTHER_APP = "other_app"
    WAIT_TO_GUESS = "wait_to_guess"
    WAIT_TO_START = "wait_to_start"
    WRONG_NUMBER = "wrong_number"
    TYPE_IN_OTHER_APP = "type_in_other_app"
    TYPE_IN_BROWSER = "type_in_browser"
    BROWSER_ATTACHED = "browser_attached"
    SIGNED_OUT = "signed_out"
    JUST_THE_NUMBER = "just_the_number"
    JUST_THE_CODE = "just_the_code"
    LOCKED = "locked"
    DENIED = "denied"
    CANCELLED = "cancelled"
    BURNED = "burned"
    REFUSED = "refused"
    NOTHING_THERE = "nothing_there"
    UNLINKED = "unlinked"
    DISOWNED = "disowned"
    TOO_NEW = "too_new"
    PAST_SHARED = "past_shared"
    ACCOUNTS = "accounts"
    FORGET_ASKED = "forget_asked"
    IN_PRIVATE = "in_private"
    IN_PERSON = "in_person"
    TOO_LATE = "too_late"
    NOT_HERE = "not_here"


# What is still worth reading a day later: who shares a conversation, and who can read it. The others belong to a
# request that has ended since.
STILL_TRUE = frozenset(
    {
        Template.LINKED,
        Template.KNOWN,
        Template.ACCOUNT_ADDED,
        Template.REMINDED,
        Template.BROWSER_ATTACHED,
        Template.SIGNED_OUT,
        Template.UNLINKED,
        Template.DISOWNED,
        Template.PAST_SHARED,
    }
)

Sink = Callable[[PlatformAccount, Template, Subject], None]
_sinks: list[Sink] = []


def deliver_by(sink: Sink) -> None:
    """Register who takes notices to their accounts."""
    _sinks[:] = [sink]


def tell(account: PlatformAccount | None, template: Template, **subject: object) -> None:
    """Say something to an account, in its private chat, in this transaction. None is nobody."""
    if account is not None:
        for sink in _sinks:
            sink(account, template, subject)
