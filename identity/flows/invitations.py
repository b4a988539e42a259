"""An operator's invitation as it is seen: its code once, right after it was issued, and what becomes of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from identity import labels
from identity.flows import linking
from identity.models import AccountLink, BotProfile, Browser, Pairing, PlatformAccount
from identity.pairing import codes
from identity.pairing.secrets import secrets_of
from identity.pairing.settings import limits
from identity.support import clock, qr
from identity.support.sanitize import harmless

TELEGRAM = "telegram"
State = Pairing.State
LIVE = (State.OFFERED, State.CLAIMED)


@dataclass(frozen=True, slots=True)
class Invitation:
    """What the person gets to see, derived for the moment in which it is shown. Its repr says nothing of it."""

    code: str = field(repr=False)
    deep_link: str = field(repr=False)  # opens Telegram with the code; empty where that is no way
    text: str = field(repr=False)
    expires_at: datetime

    @property
    def qr(self) -> str:
        """The deep link as a picture, in a `data:` address; empty without one."""
        return qr.picture(self.deep_link)


def shown(invitations: list[Pairing]) -> list[Invitation]:
    """What to show of these, which must have been issued just now. Two queries for any number."""
    doors = {door.platform: door for door in BotProfile.objects.order_by("platform")}
    live = AccountLink.objects.live().filter(user__in={one.person_id for one in invitations})
    linked = set(live.values_list("user_id", flat=True))
    return [_shown(one, doors, has_accounts=one.person_id in linked) for one in invitations]


def _shown(pairing: Pairing, doors: dict[str, BotProfile], *, has_accounts: bool) -> Invitation:
    derived = secrets_of(pairing)
    code = codes.shown_code(derived.code)
    door = doors.get(TELEGRAM) if pairing.platform in {"", TELEGRAM} else None
    deep_link = f"{door.url}?start={derived.token}" if door and door.url else ""
    wanted = [one for one in doors.values() if pairing.platform in {"", one.platform}]
    text = _text(pairing, _where(wanted, pairing.platform), code, deep_link, has_accounts=has_accounts)
    return Invitation(code, deep_link, text, pairing.expires_at)


def _where(doors: list[BotProfile], platform: str) -> str:
    named = [f"{labels.title(door.platform)} ({door.url or harmless(door.name)})" for door in doors]
    return _(" or ").join(named) or (labels.title(platform) if platform else _("the app that you use"))


def _text(pairing: Pairing, where: str, code: str, deep_link: str, *, has_accounts: bool) -> str:
    """The words that an operator passes on."""
    steps = [
        _("1. Open a private chat with the bot in %(where)s."),
        _("2. Send it this code: %(code)s"),
        *([_("   On Telegram, this does both: %(link)s")] if deep_link else []),
        _("3. It answers with a number of six digits. Type it in one of the chats that you have with the bot already.")
        if has_accounts
        else _("3. It answers with a number of six digits. Read it to me, in person or on a call that you started."),
        "",
        _("The code works once, until %(until)s. Send the number to nobody."),
    ]
    values = {"where": where, "code": code, "link": deep_link, "until": moment(pairing.expires_at)}
    return "\n".join(steps) % values


def moment(at: datetime) -> str:
    """A moment in words that mean the same everywhere."""
    return f"{at:%Y-%m-%d %H:%M} UTC"


# --- What becomes of it


@dataclass(frozen=True, slots=True)
class Status:
    """Where a request stands, in a word and in a sentence. No secret is in it."""

    state: str
    text: str
    asks_operator: bool = False  # for the number that the person reads out

    @property
    def is_live(self) -> bool:
        return self.state in LIVE


def state_of(pairing: Pairing, now: datetime | None = None) -> str:
    """Its state by the clock: what has run out is over, whether or not somebody has noted it yet.

    Lists read the clock once and give `now`.
    """
    is_over = pairing.ended_at is None and pairing.expires_at <= (now or clock.read())
    return State.EXPIRED if is_over else State(pairing.state)


def status_of(invitation: Pairing) -> Status:
    """Where an invitation stands. Needs `person` and `responder`."""
    state, who = state_of(invitation), _who(invitation.responder)
    if state == State.CLAIMED:
        return _claimed(invitation, who)
    texts = {
        State.OFFERED: _("Waiting for the code, until %(until)s."),
        State.LINKED: _("Done: %(who)s is linked."),
        State.EXPIRED: _("Nobody finished it in time. Nothing was linked."),
        State.CANCELLED: _("Withdrawn. Nothing was linked."),
        State.DENIED: _("One of the two sides said that it was not them. Nothing was linked."),
        State.LOCKED: _("Too many wrong numbers for %(who)s. Nothing was linked."),
        State.BURNED: _("The code was posted where others read it, so it no longer works. Nothing was linked."),
        State.REFUSED: _(
            "Nothing was linked: the account that sent the code cannot become this person's, or another one of theirs "
            "has come or gone since."
        ),
    }
    return Status(state, texts[State(state)] % {"who": who, "until": moment(invitation.expires_at)})


def _who(account: PlatformAccount | None) -> str:
    return labels.described(account) if account else _("nobody")


def _claimed(invitation: Pairing, who: str) -> Status:
    others = linking.accounts_of(invitation.person) if invitation.person else []
    values = {"who": who, "until": moment(invitation.expires_at)}
    if others:
        chats = ", ".join(labels.described(other) for other in others)
        text = _(
            "%(who)s has sent the code and was shown a number. The person must type it in one of these chats, until "
            "%(until)s: %(chats)s. Nobody else can."
        )
        return Status(State.CLAIMED, text % (values | {"chats": chats}))
    text = _(
        "%(who)s has sent the code and was shown a number. Have the person read it to you, in person or on a call that "
        "you know to be theirs, and type it here until %(until)s."
    )
    left = max(0, limits().number_tries - invitation.tries)
    tries = ngettext("%(left)d try left.", "%(left)d tries left.", left) % {"left": left}
    return Status(State.CLAIMED, f"{text % values} {tries}", asks_operator=True)


# --- Who takes part


def initiator_of(pairing: Pairing) -> str:
    """Who began it: an account, a browser or an operator. Needs both initiators."""
    return _party(pairing.initiator, pairing.initiator_browser) or pairing.operator


def responder_of(pairing: Pairing) -> str:
    """Who has claimed it; empty if nobody has. Needs both responders."""
    return _party(pairing.responder, pairing.responder_browser)


def _party(account: PlatformAccount | None, browser: Browser | None) -> str:
    if account:
        return labels.described(account)
    return labels.described_browser(browser) if browser else ""


# --- Many at once


def rows(issued: list[Pairing]) -> list[list[str]]:
    """One row for each: unified id, display name, code, deep link and end. They must have been issued just now."""
    return [
        [
            pairing.person.unified_user_id,
            pairing.person.display_name,
            one.code,
            one.deep_link,
            one.expires_at.isoformat(),
        ]
        for pairing, one in zip(issued, shown(issued), strict=True)
        if pairing.person
    ]
