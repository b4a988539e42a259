"""How the tests pair: alice, bob and mallory on their platforms, what each is told, and time that is moved in rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from django.db.models import F, Model, QuerySet

from identity import notices, wording
from identity.flows import linking, pair_in_chat
from identity.models import AccountLink, Browser, BrowserAccount, GuessLimit, Pairing, PlatformAccount, UnifiedUser
from identity.notices import Subject, Template
from identity.pairing.requests import Outcome
from identity.pairing.secrets import secrets_of

_TIMES: dict[type[Model], tuple[str, ...]] = {
    Pairing: ("created_at", "expires_at", "last_at", "claimed_at", "ended_at"),
    GuessLimit: ("last_at", "locked_until"),
    AccountLink: ("since", "ended_at", "remind_at"),
    Browser: ("created_at", "seen_at"),
    BrowserAccount: ("attached_at", "confirmed_at"),
}


@dataclass
class Told:
    """What was said to whom, in order."""

    said: list[tuple[PlatformAccount, Template, Subject]] = field(default_factory=list)

    def __call__(self, account: PlatformAccount, template: Template, subject: Subject) -> None:
        self.said.append((account, template, subject))

    def to(self, account: PlatformAccount) -> list[Template]:
        """Everything that `account` was told, and forget it."""
        told = [template for one, template, _ in self.said if one == account]
        self.said = [notice for notice in self.said if notice[0] != account]
        return told

    def text(self, account: PlatformAccount) -> str:
        """The last words to `account`, as they are at this moment."""
        to, template, subject = next(notice for notice in reversed(self.said) if notice[0] == account)
        return wording.render(template, to, subject).text


@contextmanager
def listening() -> Iterator[Told]:
    """Notices are heard by a fake sink; the application's comes back afterwards."""
    before, told = list(notices._sinks), Told()
    notices.deliver_by(told)
    try:
        yield told
    finally:
        notices._sinks[:] = before


def account(who: str, platform: str = "telegram") -> PlatformAccount:
    made, _ = PlatformAccount.objects.get_or_create(
        platform=platform, platform_user_id=f"{who}-{platform}", defaults={"display_name": who.title(), "username": who}
    )
    return made


def offered(by: PlatformAccount) -> Pairing:
    assert pair_in_chat.offer(account=by) == Outcome.OFFERED
    return Pairing.objects.get(initiator=by, state="offered")


def claimed(by: PlatformAccount, of: PlatformAccount) -> Pairing:
    """`by` sends the code that `of` was given."""
    request = offered(of)
    assert pair_in_chat.claim(account=by, secret=code(request)) == Outcome.CLAIMED
    request.refresh_from_db()
    return request


def linked(one: PlatformAccount, other: PlatformAccount) -> Pairing:
    """A whole handshake, started by `one`, as if nobody had started one before."""
    later(86_400, Pairing.objects.filter(initiator=one))
    request = claimed(other, one)
    assert pair_in_chat.confirm(account=one, number=number(request)) == Outcome.LINKED
    request.refresh_from_db()
    return request


def code(request: Pairing) -> str:
    return secrets_of(request).code


def token(request: Pairing) -> str:
    return secrets_of(request).token


def number(request: Pairing) -> str:
    return secrets_of(request).number


def wrong(request: Pairing, nth: int = 1) -> str:
    """A number that is not the request's, another one for each `nth`."""
    return f"{(int(number(request)) + nth) % 1_000_000:06d}"


def later(seconds: float, *rows: QuerySet[Any]) -> None:
    """For these rows, `seconds` pass."""
    for some in rows:
        attempt_keys = list(some.values_list("pk", flat=True)) if some.model is GuessLimit else []
        some.update(**{name: F(name) - timedelta(seconds=seconds) for name in _TIMES[some.model]})
        for limit in GuessLimit.objects.filter(pk__in=attempt_keys):
            limit.times = [at - seconds for at in limit.times]
            limit.save(update_fields=["times"])


def everything_later(seconds: float) -> None:
    later(seconds, *(model._default_manager.all() for model in _TIMES))


def state(request: Pairing) -> str:
    return Pairing.objects.values_list("state", flat=True).get(pk=request.pk)


def owner(of: PlatformAccount) -> UnifiedUser | None:
    link = AccountLink.objects.live().filter(account=of).select_related("user").first()
    return link.user if link else None


def are_one(*accounts: PlatformAccount) -> bool:
    people = {owner(one) for one in accounts}
    return len(people) == 1 and None not in people


def live_link(of: PlatformAccount) -> AccountLink:
    return AccountLink.objects.live().get(account=of)


def person(name: str, *accounts: PlatformAccount) -> UnifiedUser:
    """A person as an operator makes one, with these accounts."""
    made, _ = UnifiedUser.objects.get_or_create(unified_user_id=name, defaults={"display_name": name.title()})
    for one in accounts:
        linking.link(
            platform=one.platform,
            platform_user_id=one.platform_user_id,
            unified_user_id=name,
            method="import",
            actor="operator",
        )
    return made


def dump(*models: type[Model]) -> str:
    """Every column of every row of these tables, as text."""
    return "\n".join(str(row) for model in models for row in model._default_manager.values_list())
