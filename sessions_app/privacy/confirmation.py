"""The number that confirms a deletion: computed when it is shown or compared, and never stored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from identity import labels, wording
from identity.models import PlatformAccount
from identity.pairing import codes
from identity.pairing.settings import limits
from identity.support import clock, keys
from identity.wording import Notice
from sessions_app import texts
from sessions_app.models import ForgetRequest
from sessions_app.privacy import forget_report

TEMPLATE = "forget_number"


def number_of(request: ForgetRequest) -> str:
    """The six digits of a request."""
    nonce = bytes(request.nonce)
    return codes.number(codes.purpose_key(keys.key_of(nonce), "forget"), request.pk, nonce)


def notice(account: PlatformAccount, subject: Mapping[str, Any]) -> Notice:
    """The text for the chat, as it is at the moment of sending."""
    request = ForgetRequest.objects.filter(pk=subject["request"], account=account, state="asked").first()
    if request is None or request.expires_at <= clock.read():
        return Notice(labels.with_commands(str(texts.FORGET_ENDED), on=account.platform))
    values = {
        "number": codes.shown_number(number_of(request)),
        "lasting": wording.lasting(limits().number_seconds),
    }
    report = forget_report.look([account], on=account.platform).before()
    text = texts.FORGET_NUMBER_ON_PAGE if request.browser else texts.FORGET_NUMBER
    return Notice(labels.with_commands(report.said(text, texts.FORGET_WARNED, **values), on=account.platform))
