"""What my page shows: accounts, and what may be read of them, each in a constant number of queries."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from django.db.models import Count, Sum
from django.db.models.functions import Length
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from identity import labels
from identity.browsers import sessions as browser_sessions
from identity.flows import linking
from identity.models import AccountLink, Browser, PlatformAccount
from identity.support.sanitize import harmless
from sessions_app.history import export, window
from sessions_app.history.window import Group, Page
from sessions_app.messages import Line
from sessions_app.models import Conversation, HistoryEntry

PAGE = 50
RECENT = 6
GROUPS = 50

MADE: dict[str, Promise] = {
    "pairing": _("with a code and a number"),
    "operator": _("by an operator, with a code and a number"),
    "resolver": _("by a program"),
    "import": _("by an import"),
}


@dataclass(frozen=True, slots=True)
class Here:
    """A browser in which `accounts` may be read now, and the one of them whose page this is."""

    browser: Browser
    accounts: tuple[PlatformAccount, ...]
    account: PlatformAccount
    conversation: Conversation | None

    @property
    def tabs(self) -> list[tuple[PlatformAccount, str]]:
        return [(one, labels.described(one)) for one in self.accounts]


@dataclass(frozen=True, slots=True)
class Card:
    """An account of the person. `made`: how its link was made; empty for an account that is linked to nobody."""

    account: PlatformAccount
    title: str
    words: str
    link: AccountLink | None
    made: object
    is_here: bool
    may_end: bool
    is_own: bool

    @property
    def may_share(self) -> bool:
        return self.is_here and self.link is not None and not self.link.shares_past


@dataclass(frozen=True, slots=True)
class Chat:
    """A conversation that may be read. `last_at`: when something was said there last."""

    pk: int
    title: str
    platform: str
    words: str
    last_at: datetime | None
    is_chosen: bool = False


@dataclass(frozen=True, slots=True)
class Shown:
    """An entry as a page shows it. `begins`: `/new` was said before it, and the agent looks no further back."""

    line: Line
    title: str
    begins: bool


def here(browser: Browser | None, wanted: str = "") -> Here | None:
    """The page of the account that is wanted (a primary key), or of the first if none is. None if it may not be shown:
    nothing is shown of, or done to, an account that was not named.
    """
    accounts = tuple(browser_sessions.readable(browser)) if browser else ()
    account = next((one for one in accounts if wanted in {"", str(one.pk)}), None)
    if browser is None or account is None:
        return None
    conversation = Conversation.objects.filter(account=account).select_related("account").first()
    return Here(browser, accounts, account, conversation)


def cards(here: Here) -> list[Card]:
    """All accounts of the person whose page this is, those that came first before the others."""
    links = _links(here)
    if not links:
        words = labels.described(here.account)
        title = labels.title(here.account.platform)
        return [Card(here.account, title, words, None, "", is_here=True, may_end=False, is_own=True)]
    own = {link.account_id: link for link in links if link.account in here.accounts}
    return [_card(link, here, list(own.values())) for link in links]


def _links(here: Here) -> list[AccountLink]:
    live = AccountLink.objects.live()
    people = live.filter(account=here.account).values("user")
    return list(live.filter(user__in=people).select_related("account", "user").order_by("since", "pk"))


def _card(link: AccountLink, here: Here, own: Iterable[AccountLink]) -> Card:
    return Card(
        link.account,
        labels.title(link.account.platform),
        labels.described(link.account),
        link,
        MADE.get(link.method, ""),
        is_here=link.account in here.accounts,
        may_end=any(linking.may_end(mine, link) for mine in own),
        is_own=link.account_id == here.account.pk,
    )


def acting(here: Here) -> PlatformAccount:
    """The account that ends links for this page: of those here the one linked first, which may end the most."""
    return next((link.account for link in _links(here) if link.account in here.accounts), here.account)


def preferred(here: Here) -> PlatformAccount | None:
    """Where the person wants to be told what nobody asked for."""
    link = next((link for link in _links(here) if link.account_id == here.account.pk), None)
    return link.user.preferred if link and link.user.preferred_id else None


_CHATS = """
SELECT readable.id, readable.account_id, (
    SELECT MAX(e.said_at) FROM sessions_app_historyentry e
    WHERE e.conversation_id = readable.id AND e.said_at > readable.after)
FROM readable ORDER BY readable.id
"""


def chats(here: Here, chosen: int | None = None) -> list[Chat]:
    """The conversations that may be read on this page."""
    rows = window.select(here.conversation, _CHATS, {}) if here.conversation else []
    accounts = PlatformAccount.objects.in_bulk([account for _pk, account, _at in rows])
    return [_chat(pk, accounts[account], last, chosen) for pk, account, last in rows]


def _chat(pk: int, account: PlatformAccount, last: datetime | str | None, chosen: int | None) -> Chat:
    last_at = window.moment(last) if last else None
    title = labels.title(account.platform)
    return Chat(pk, title, account.platform, labels.described(account), last_at, is_chosen=pk == chosen)


def groups(here: Here, chosen: int | None = None) -> list[Chat]:
    """The groups in which the account of this page wrote, of which its own words are shown."""
    found = window.groups_of(here.account, limit=GROUPS)
    return [_group(one, is_chosen=one.conversation_id == chosen) for one in found]


def _group(group: Group, *, is_chosen: bool) -> Chat:
    words = harmless(group.name) or _("a group")
    return Chat(
        group.conversation_id, labels.title(group.platform), group.platform, str(words), group.last_at, is_chosen
    )


def is_long(here: Here) -> bool:
    """Whether an export may take more than one file. Looks no further than that."""
    places = window.places(here.conversation) if here.conversation else []
    rows = HistoryEntry.objects.filter(conversation__in=[place.conversation_id for place in places])
    found = rows[: export.MAX_ENTRIES + 1].aggregate(entries=Count("pk"), length=Sum(Length("text"), default=0))
    return bool(found["entries"] > export.MAX_ENTRIES or found["length"] >= export.MAX_CHARACTERS)


def entries(here: Here, *, limit: int = PAGE, before: str = "", only: int | None = None) -> Page:
    """A page of what may be read, newest last."""
    if here.conversation is None:
        return Page(())
    return window.page(here.conversation, limit=limit, before=before, only=only)


def own_words(here: Here, group: int, before: str = "") -> Page:
    """A page of what the account of this page wrote in one group, newest last."""
    return window.own_words(here.account, limit=PAGE, before=before, only=group)


def shown(here: Here, lines: Iterable[Line], *, is_group: bool = False) -> list[Shown]:
    """The same as a page shows it, with the place where the last new conversation begins, which no group has."""
    found, was_behind = [], False
    for line in lines:
        is_behind = line.said_at <= here.account.window_from and not is_group
        found.append(Shown(line, labels.title(line.platform), begins=was_behind and not is_behind))
        was_behind = is_behind
    return found
