"""What is deleted with an account, what is kept, and why. The page and the chats show the same facts, before and after.

`look` runs before the deletion, as a deleted account has no name.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from identity import labels
from identity.browsers import sessions as browser_sessions
from identity.flows import linking
from identity.models import AccountLink, Browser, PlatformAccount
from identity.notices import Template
from identity.support import clock
from sessions_app import texts
from sessions_app.models import Conversation, ForgetRequest, OutboundDelivery

Status = OutboundDelivery.Status


class Why(StrEnum):
    """Why an account is kept."""

    NEW = "new"
    UNTOLD = "untold"
    LEFT = "left"
    APART = "apart"
    UNTYPED = "untyped"


WORDS: dict[Why, Promise] = {
    Why.NEW: _("It was linked to the deleted account less than a day ago."),
    Why.UNTOLD: _("I couldn't send a warning there, and I never delete an account without one."),
    Why.LEFT: _("It was unlinked after you asked for the number."),
    Why.APART: _("It isn't linked to the deleted account."),
    Why.UNTYPED: _("Its own number wasn't typed."),
}


@dataclass(frozen=True, slots=True)
class Kept:
    """An account that is not deleted."""

    words: str
    why: Why

    @property
    def reason(self) -> Promise:
        return WORDS[self.why]


@dataclass(frozen=True, slots=True)
class Report:
    """The accounts that are deleted and those that are kept, by their labels before the deletion."""

    deleted: tuple[str, ...]
    kept: tuple[Kept, ...]

    def lines(self) -> list[str]:
        """The lines for a chat about the accounts that are kept, and about what is always kept."""
        lines = [str(texts.KEPT) % {"account": kept.words, "why": kept.reason} for kept in self.kept]
        always = [f"- {item}" for item in texts.ALWAYS_KEPT]
        return [*lines, "\n".join([str(texts.KEPT_ANYWAY), *always])]

    def said(self, text: object, also: object, **values: object) -> str:
        """The message for a chat: `text` about the deleted accounts, `also` if there are several, and what is kept."""
        first = str(text) % {"accounts": ", ".join(self.deleted), **values}
        return "\n\n".join([f"{first} {also}" if len(self.deleted) > 1 else first, *self.lines()])


@dataclass(frozen=True, slots=True)
class Outlook:
    """The accounts around those whose deletion is asked for, by primary key.

    names: the current labels of all, in order. linked: those of the same people. named: those that the request names.
    reached: those of them that it can still delete. untold: those that cannot be warned. awaited: those whose own
    number is awaited in the browser.
    """

    names: dict[int, str]
    linked: frozenset[int]
    named: frozenset[int]
    reached: frozenset[int]
    untold: frozenset[int]
    awaited: frozenset[int]

    def before(self) -> Report:
        """The report of a deletion that happens now."""
        return self.after(self.reached - self.untold, untold=self.untold)

    def after(self, deleted: Collection[int], *, untold: Collection[int] = ()) -> Report:
        """The report of a deletion of the accounts `deleted`, when those in `untold` were not warned.

        Accounts that another request deletes at the same time count as deleted.
        """
        under_way = (ForgetRequest.State.ERASING, ForgetRequest.State.CLEANING)
        others = ForgetRequest.objects.filter(state__in=under_way).values_list("accounts", flat=True)
        gone = {*deleted, *(pk for accounts in others for pk in accounts)}
        kept = [Kept(words, self._why(pk, untold)) for pk, words in self.names.items() if pk not in gone]
        return Report(tuple(words for pk, words in self.names.items() if pk in gone), tuple(kept))

    def _why(self, pk: int, untold: Collection[int]) -> Why:
        if pk in untold and pk in self.reached:
            return Why.UNTOLD
        if pk in self.named:
            return Why.LEFT
        if pk in self.awaited:
            return Why.UNTYPED
        return Why.NEW if pk in self.linked else Why.APART


def look(accounts: Collection[PlatformAccount], *, browser: Browser | None = None, on: str = "") -> Outlook:
    """The outlook for these accounts and those attached to the browser. on: as in `labels.described`."""
    own = {account.pk for account in accounts}
    live = AccountLink.objects.live()
    people = live.filter(account__in=own).values("user")
    links = live.filter(user__in=people).select_related("account").order_by("since", "pk")
    around = [*accounts, *(link.account for link in links)]
    linked = frozenset(account.pk for account in around)
    around += browser_sessions.attached(browser) if browser else []
    requests = {request.account_id: request for request in awaited(around)}
    named, reached, untold = set[int](), set[int](), set[int]()
    for account in accounts:
        reach = {member.pk for member in linking.reach(account)}
        if request := requests.get(account.pk):
            named |= {*request.accounts}
            reached |= {*request.accounts} & reach
            untold |= unwarned(request, hopeless=True)
        else:
            named |= reach
            reached |= reach
            warnable = Conversation.objects.filter(account__in=reach).exclude(chat_id="")
            untold |= reach - {*warnable.values_list("account", flat=True)}
    around += PlatformAccount.objects.filter(pk__in=named).order_by("pk")
    names = {account.pk: labels.described(account, on=on) for account in around}
    here = {pk for pk, request in requests.items() if browser and request.browser == browser.pk}
    return Outlook(names, linked, *map(frozenset, (named, reached, untold - own, here - own)))


def awaited(accounts: Iterable[PlatformAccount]) -> list[ForgetRequest]:
    """The requests of these accounts whose numbers may be typed now."""
    ids = [account.pk for account in accounts]
    asked = ForgetRequest.objects.filter(account__in=ids, state=ForgetRequest.State.ASKED)
    return list(asked.filter(expires_at__gt=clock.now()).select_related("account").order_by("created_at", "pk"))


def unwarned(request: ForgetRequest, *, hopeless: bool = False) -> set[int]:
    """The accounts that a request names, except its own, that have not got its warning.

    hopeless: only those that will never get it.
    """
    warnings = OutboundDelivery.objects.filter(template=Template.FORGET_ASKED, created_at__gte=request.created_at)
    own = warnings.filter(account__in=request.accounts, subject__by=request.account_id)
    warned = own.exclude(status=Status.DEAD) if hopeless else own.filter(status=Status.SENT)
    return {*request.accounts} - {request.account_id, *warned.values_list("account", flat=True)}
