"""What is deleted with an account, what is kept, and why: the same facts for the page and the chats, before and after.

`look` is called before anything is deleted: afterwards no account has a name.
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
    Why.NEW: _("its link to the account that is forgotten is less than a day old"),
    Why.UNTOLD: _("I could not write there, and nobody is forgotten without knowing it"),
    Why.LEFT: _("it was unlinked after the number was asked for"),
    Why.APART: _("it is not linked to the account that is forgotten"),
    Why.UNTYPED: _("its own number was not typed"),
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
    """Accounts, as they were called, that are deleted and that are not."""

    deleted: tuple[str, ...]
    kept: tuple[Kept, ...]

    def lines(self) -> list[str]:
        """What a chat is told of the accounts that are kept, and of what always is."""
        kept = [str(texts.KEPT) % {"account": one.words, "why": one.reason} for one in self.kept]
        always = [f"- {one}" for one in texts.ALWAYS_KEPT]
        return [*kept, "\n".join([str(texts.KEPT_ANYWAY), *always])]

    def said(self, text: object, also: object, **values: object) -> str:
        """A chat's message: `text` about the deleted accounts, `also` if there are several, and what is kept."""
        first = str(text) % {"accounts": ", ".join(self.deleted), **values}
        return "\n\n".join([f"{first} {also}" if len(self.deleted) > 1 else first, *self.lines()])


@dataclass(frozen=True, slots=True)
class Outlook:
    """The accounts around those that are asked to be forgotten, by primary key.

    `names`: all of them, in order, as they are called now. `linked`: those of the same people. `named`: those that the
    number was said to delete. `reached`: those of them that it still deletes. `untold`: those that cannot be warned.
    `awaited`: those whose own number is awaited in the browser.
    """

    names: dict[int, str]
    linked: frozenset[int]
    named: frozenset[int]
    reached: frozenset[int]
    untold: frozenset[int]
    awaited: frozenset[int]

    def before(self) -> Report:
        """What will be, as it stands now."""
        return self.after(self.reached - self.untold, untold=self.untold)

    def after(self, deleted: Collection[int], *, untold: Collection[int] = ()) -> Report:
        """What was: `deleted`, and of the others those that were `untold`. Nothing is kept that another request, of
        another browser or chat of the person, deletes at the same time.
        """
        gone = {*deleted, *_being_deleted()}
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
    """What stands around these accounts, and in the browser. `on` as in `labels.described`."""
    around = _related(accounts)
    linked = frozenset(one.pk for one in around)
    around += browser_sessions.attached(browser) if browser else []
    requests = {one.account_id: one for one in awaited(around)}
    named, reached, untold = set[int](), set[int](), set[int]()
    for one in accounts:
        theirs = {other.pk for other in linking.reach(one)}
        request = requests.get(one.pk)
        those = set(request.accounts) if request else theirs
        named |= those
        reached |= those & theirs
        untold |= unwarned(request, hopeless=True) if request else _without_chat(theirs)
    around += PlatformAccount.objects.filter(pk__in=named).order_by("pk")
    names = {one.pk: labels.described(one, on=on) for one in around}
    own = {one.pk for one in accounts}
    here = {pk for pk, one in requests.items() if browser and one.browser == browser.pk}
    return Outlook(names, linked, *map(frozenset, (named, reached, untold - own, here - own)))


def awaited(accounts: Iterable[PlatformAccount]) -> list[ForgetRequest]:
    """The requests of these accounts whose numbers may be typed now."""
    mine = ForgetRequest.objects.filter(account__in=[one.pk for one in accounts], state=ForgetRequest.State.ASKED)
    return list(mine.filter(expires_at__gt=clock.now()).select_related("account").order_by("created_at", "pk"))


def unwarned(request: ForgetRequest, *, hopeless: bool = False) -> set[int]:
    """The accounts of a request, besides the one that asks, that its warning has not reached, or that it cannot reach
    any more if `hopeless`.
    """
    warnings = OutboundDelivery.objects.filter(template=Template.FORGET_ASKED, created_at__gte=request.created_at)
    mine = warnings.filter(account__in=request.accounts, subject__by=request.account_id)
    told = mine.exclude(status=Status.DEAD) if hopeless else mine.filter(status=Status.SENT)
    return {*request.accounts} - {request.account_id, *told.values_list("account", flat=True)}


def _being_deleted() -> set[int]:
    """The accounts that requests delete now, or have just deleted: from here on none of them is kept."""
    begun = ForgetRequest.objects.filter(state__in=(ForgetRequest.State.ERASING, ForgetRequest.State.CLEANING))
    return {pk for accounts in begun.values_list("accounts", flat=True) for pk in accounts}


def _related(accounts: Collection[PlatformAccount]) -> list[PlatformAccount]:
    """These, and the accounts that are linked to them now."""
    live = AccountLink.objects.live()
    people = live.filter(account__in=[one.pk for one in accounts]).values("user")
    links = live.filter(user__in=people).select_related("account").order_by("since", "pk")
    return [*accounts, *(link.account for link in links)]


def _without_chat(accounts: Collection[int]) -> set[int]:
    """Those of them that have no private chat in which they can be warned."""
    chats = Conversation.objects.filter(account__in=accounts).exclude(chat_id="")
    return {*accounts} - {*chats.values_list("account", flat=True)}
