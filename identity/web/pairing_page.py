"""The content of the pairing page."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from identity import labels
from identity.browsers import attachments
from identity.flows import pair_in_browser
from identity.models import AccountLink, BotProfile, Browser, Pairing, PlatformAccount
from identity.pairing import codes
from identity.pairing.secrets import secrets_of
from identity.pairing.settings import limits
from identity.support import platforms, qr
from identity.support.sanitize import harmless

State = Pairing.State


@dataclass(frozen=True, slots=True)
class Door:
    """A bot on a platform; `url` opens it, with the code if the platform can do that. The repr shows no token."""

    platform: str
    title: str
    name: str
    url: str = field(repr=False)
    has_code: bool = False  # opening the address sends the code

    @property
    def qr(self) -> str:
        """The address as a QR code, in a `data:` address; empty without an address."""
        return qr.picture(self.url)


@dataclass(frozen=True, slots=True)
class Card:
    """An attached account. `linked_with` describes the other accounts of its person."""

    account: PlatformAccount
    title: str
    words: str
    linked_with: str


@dataclass(frozen=True, slots=True)
class Standing:
    """The state of the browser's handshake. Its repr shows no secret.

    `step` is begin, code, type (a number on the page), show (a number to type in the chat) or over.
    """

    step: str
    version: str
    until: datetime | None = None
    code: str = field(default="", repr=False)
    number: str = field(default="", repr=False)
    other: str = ""  # the other side, described
    tries_left: int = 0
    end: str = ""  # how the last request ended, as its state


def standing(browser: Browser | None) -> Standing:
    """Return the state of this browser's handshake."""
    pairing = pair_in_browser.current(browser) if browser else None
    if pairing is None:
        return Standing("begin", "begin")
    if not pair_in_browser.is_live(pairing):
        end = State.EXPIRED if pairing.ended_at is None else pairing.state
        return Standing("over", f"{pairing.pk}-{end}", end=end)
    version, until = f"{pairing.pk}-{pairing.state}", pairing.expires_at
    if pairing.state == State.OFFERED:
        return Standing("code", version, until, code=codes.shown_code(secrets_of(pairing).code))
    if pairing.initiator_browser_id and pairing.responder:
        left = limits().number_tries - pairing.tries
        return Standing("type", version, until, other=labels.described(pairing.responder), tries_left=left)
    other = labels.described(pairing.initiator) if pairing.initiator else ""
    return Standing("show", version, until, number=codes.shown_number(secrets_of(pairing).number), other=other)


def doors(browser: Browser | None) -> list[Door]:
    """Return all bots. While a code is offered, a link carries its token where the platform can do that."""
    pairing = pair_in_browser.current(browser) if browser else None
    waits = pairing is not None and pairing.state == State.OFFERED and pair_in_browser.is_live(pairing)
    token = secrets_of(pairing).token if pairing and waits else ""
    return [_door(bot, token) for bot in BotProfile.objects.order_by("platform")]


def _door(bot: BotProfile, token: str) -> Door:
    url = bot.url if bot.url.startswith("https://") else ""
    link = platforms.with_start(bot.platform, url, token) if token else ""
    title, name = labels.title(bot.platform), harmless(bot.name)
    return Door(bot.platform, title, name, link or url, has_code=bool(link))


def cards(browser: Browser) -> list[Card]:
    """Return the attached accounts, in a constant number of queries."""
    rows = attachments.live_attachments().filter(browser=browser).select_related("account")
    accounts = [row.account for row in rows.order_by("attached_at", "pk")]
    live = AccountLink.objects.live()
    people = dict(live.filter(account__in=accounts).values_list("account_id", "user_id"))
    links = list(live.filter(user__in=people.values()).select_related("account").order_by("since", "pk"))
    shown = []
    for account in accounts:
        person = people.get(account.pk)
        others = [link.account for link in links if link.user_id == person and link.account_id != account.pk]
        linked_with = ", ".join(map(labels.described, others))
        shown.append(Card(account, labels.title(account.platform), labels.described(account), linked_with))
    return shown


def undoable(browser: Browser) -> str:
    """Return the id of the last handshake whose links the browser may take back; empty if there is none."""
    live = AccountLink.objects.live()
    links = live.filter(pairing__attachments__browser=browser, pairing__attachments__ended_at=None)
    pairing_id = links.order_by("-since").values_list("pairing_id", flat=True).first()
    return str(pairing_id) if pairing_id else ""
