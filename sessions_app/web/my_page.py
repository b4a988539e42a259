"""What my page shows: accounts and what may be read of them, each with a constant number of queries."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from django.db.models.functions import Length
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from identity import labels
from identity.browsers import sessions as browser_sessions
from identity.flows import linking
from identity.models import AccountLink, Browser, PlatformAccount
from identity.support.sanitize import harmless
from sessions_app.history import export, window
from sessions_app.history.window import Page
from sessions_app.messages import Line
from sessions_app.models import Conversation, HistoryEntry

PAGE = 50
RECENT = 6
GROUPS = 50
MANY = 200  # entries with which an export may take more than one file

MADE: dict[str, Promise] = {
    "pairing": _("with a code and a number"),
    "operator": _("by an operator, with a code and a number"),
    "resolver": _("by a program"),
    "import": _("by an import"),
}


@dataclass(frozen=True, slots=True)
class Here:
    """A browser in which `accounts` may be read now; the page is that of `account`."""

    browser: Browser
    accounts: tuple[PlatformAccount, ...]
    account: PlatformAccount
    conversation: Conversation | None

    @property
    def tabs(self) -> list[tuple[PlatformAccount, str]]:
        return [(account, labels.described(account)) for account in self.accounts]


@dataclass(frozen=True, slots=True)
class Card:
    """An account of the person. made: how its link was made, empty for an account without a link."""

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
    """A conversation that may be read. last_at: the time of its newest entry."""

    pk: int
    title: str
    platform: str
    words: str
    last_at: datetime | None
    is_chosen: bool = False


@dataclass(frozen=True, slots=True)
class Shown:
    """An entry as a page shows it. begins: whether it is the first after `/new`, where the agent's view begins."""

    line: Line
    title: str
    begins: bool


def here(browser: Browser | None, wanted: str = "") -> Here | None:
    """The page of the account with the primary key `wanted`, or of the first account with "".

    None if that account may not be read here: no other account takes its place.
    """
    accounts = tuple(browser_sessions.readable(browser)) if browser else ()
    account = next((account for account in accounts if wanted in {"", str(account.pk)}), None)
    if browser is None or account is None:
        return None
    conversation = Conversation.objects.filter(account=account).select_related("account").first()
    return Here(browser, accounts, account, conversation)


def cards(here: Here) -> list[Card]:
    """All accounts of the person whose page this is, the oldest links first."""
    links = _links(here)
    if not links:
        words = labels.described(here.account)
        title = labels.title(here.account.platform)
        return [Card(here.account, title, words, None, "", is_here=True, may_end=False, is_own=True)]
    own_links = [link for link in links if link.account in here.accounts]
    return [
        Card(
            link.account,
            labels.title(link.account.platform),
            labels.described(link.account),
            link,
            MADE.get(link.method, ""),
            is_here=link.account in here.accounts,
            may_end=any(linking.may_end(own, link) for own in own_links),
            is_own=link.account_id == here.account.pk,
        )
        for link in links
    ]


def _links(here: Here) -> list[AccountLink]:
    live = AccountLink.objects.live()
    people = live.filter(account=here.account).values("user")
    return list(live.filter(user__in=people).select_related("account", "user").order_by("since", "pk"))


def acting(here: Here) -> PlatformAccount:
    """The account that ends links for this page: the one here with the oldest link, which may end the most."""
    return next((link.account for link in _links(here) if link.account in here.accounts), here.account)


def preferred(here: Here) -> PlatformAccount | None:
    """The account where the person wants messages that they did not ask for."""
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
    chats = []
    for pk, account_id, last in rows:
        account = accounts[account_id]
        title, words = labels.title(account.platform), labels.described(account)
        last_at = window.moment(last) if last else None
        chats.append(Chat(pk, title, account.platform, words, last_at, is_chosen=pk == chosen))
    return chats


def groups(here: Here, chosen: int | None = None) -> list[Chat]:
    """The groups in which the account of this page wrote. Only its own words there are shown."""
    return [
        Chat(
            group.conversation_id,
            labels.title(group.platform),
            group.platform,
            harmless(group.name) or str(_("a group")),
            group.last_at,
            is_chosen=group.conversation_id == chosen,
        )
        for group in window.groups_of(here.account, limit=GROUPS)
    ]


def is_long(here: Here) -> bool:
    """Whether an export may take more than one file: surely not with few and short entries. It reads few rows."""
    places = window.places(here.conversation) if here.conversation else []
    rows = HistoryEntry.objects.filter(conversation__in=[place.conversation_id for place in places])
    lengths = list(rows.values_list(Length("text"), flat=True)[: MANY + 1])
    return len(lengths) > min(MANY, export.MAX_ENTRIES) or sum(lengths) >= export.MAX_CHARACTERS


def entries(here: Here, *, limit: int = PAGE, before: str = "", only: int | None = None) -> Page:
    """A page of the readable entries, newest last."""
    if here.conversation is None:
        return Page(())
    return window.page(here.conversation, limit=limit, before=before, only=only)


def own_words(here: Here, group: int, before: str = "") -> Page:
    """A page of what the account of this page wrote in one group, newest last."""
    return window.own_words(here.account, limit=PAGE, before=before, only=group)


def shown(here: Here, lines: Iterable[Line], *, is_group: bool = False) -> list[Shown]:
    """These lines as a page shows them, marked where the last new conversation begins. A group has no such mark."""
    entries, was_hidden = [], False
    for line in lines:
        is_hidden = line.said_at <= here.account.window_from and not is_group
        entries.append(Shown(line, labels.title(line.platform), begins=was_hidden and not is_hidden))
        was_hidden = is_hidden
    return entries
