"""An operator's invitation as it is shown: its code once, right after it was issued, and then its state."""

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
from identity.support import clock, platforms, qr
from identity.support.sanitize import harmless

State = Pairing.State
LIVE = (State.OFFERED, State.CLAIMED)


@dataclass(frozen=True, slots=True)
class Invitation:
    """What the person gets to see, derived when it is shown. Its repr shows no secret."""

    code: str = field(repr=False)
    deep_link: str = field(repr=False)  # opens `app` with the code; empty without such a link
    app: str
    text: str = field(repr=False)
    expires_at: datetime

    @property
    def qr(self) -> str:
        """The deep link as a picture, in a `data:` address; empty without a link."""
        return qr.picture(self.deep_link)


def shown(invitations: list[Pairing]) -> list[Invitation]:
    """Return what to show of invitations that were issued just now. Two queries for any number."""
    doors = {door.platform: door for door in BotProfile.objects.order_by("platform")}
    live = AccountLink.objects.live().filter(user__in={invitation.person_id for invitation in invitations})
    linked = set(live.values_list("user_id", flat=True))
    return [_shown(invitation, doors, has_accounts=invitation.person_id in linked) for invitation in invitations]


def _shown(pairing: Pairing, doors: dict[str, BotProfile], *, has_accounts: bool) -> Invitation:
    derived = secrets_of(pairing)
    code = codes.shown_code(derived.code)
    wanted = [door for door in doors.values() if pairing.platform in {"", door.platform}]
    links = [(door.platform, platforms.with_start(door.platform, door.url, derived.token)) for door in wanted]
    app, deep_link = next(((app, link) for app, link in links if link), ("", ""))
    values = {"code": code, "where": _where(wanted, pairing.platform), "app": labels.title(app), "link": deep_link}
    text = _text(pairing, values, has_accounts=has_accounts)
    return Invitation(code, deep_link, values["app"], text, pairing.expires_at)


def _where(doors: list[BotProfile], platform: str) -> str:
    named = [f"{labels.title(door.platform)} ({door.url or harmless(door.name)})" for door in doors]
    return _(" or ").join(named) or (labels.title(platform) if platform else _("the app that you use"))


def _text(pairing: Pairing, values: dict[str, str], *, has_accounts: bool) -> str:
    """The text that an operator passes on."""
    steps = [
        _("1. Open a private chat with the bot in %(where)s."),
        _("2. Send it this code: %(code)s"),
        *([_("   On %(app)s, this does both: %(link)s")] if values["link"] else []),
        _("3. It answers with a six-digit number. Type it in one of the chats that you already have with the bot.")
        if has_accounts
        else _("3. It answers with a six-digit number. Read it to me, in person or on a call that you started."),
        "",
        _("The code works once, until %(until)s. Don't send the number to anyone."),
    ]
    return "\n".join(steps) % (values | {"until": moment(pairing.expires_at)})


def moment(at: datetime) -> str:
    """Return a moment as text that means the same everywhere."""
    return f"{at:%Y-%m-%d %H:%M} UTC"


# --- Its state


@dataclass(frozen=True, slots=True)
class Status:
    """The state of a request, as a word and as a sentence. It contains no secret."""

    state: str
    text: str
    asks_operator: bool = False  # for the number that the person reads out

    @property
    def is_live(self) -> bool:
        return self.state in LIVE


def state_of(pairing: Pairing, now: datetime | None = None) -> str:
    """Return the state by the clock: a request that has run out is expired, even if its row does not say so yet.

    Lists read the clock once and pass `now`.
    """
    is_over = pairing.ended_at is None and pairing.expires_at <= (now or clock.read())
    return State.EXPIRED if is_over else State(pairing.state)


def status_of(invitation: Pairing) -> Status:
    """Return the status of an invitation. Reads `person` and `responder`."""
    state = state_of(invitation)
    who = labels.described(invitation.responder) if invitation.responder else _("nobody")
    if state == State.CLAIMED:
        return _claimed(invitation, who)
    texts = {
        State.OFFERED: _("Waiting for the code, until %(until)s."),
        State.LINKED: _("Done: %(who)s is linked."),
        State.EXPIRED: _("Nobody finished it in time. Nothing was linked."),
        State.CANCELLED: _("Withdrawn. Nothing was linked."),
        State.DENIED: _("One of the two sides said “Not me”. Nothing was linked."),
        State.LOCKED: _("Too many wrong numbers for %(who)s. Nothing was linked."),
        State.BURNED: _("The code was posted where others can read it, so it no longer works. Nothing was linked."),
        State.REFUSED: _(
            "Nothing was linked: the account that sent the code can't be linked to this person, or the person's "
            "accounts have changed since then."
        ),
    }
    return Status(state, texts[State(state)] % {"who": who, "until": moment(invitation.expires_at)})


def _claimed(invitation: Pairing, who: str) -> Status:
    others = linking.accounts_of(invitation.person) if invitation.person else []
    values = {"who": who, "until": moment(invitation.expires_at)}
    if others:
        chats = ", ".join(labels.described(other) for other in others)
        text = _(
            "%(who)s sent the code and got a number. The person must type it in one of these chats by %(until)s: "
            "%(chats)s. Nobody else can."
        )
        return Status(State.CLAIMED, text % (values | {"chats": chats}))
    text = _(
        "%(who)s sent the code and got a number. Have the person read it to you, in person or on a call that you "
        "know is with them, and type it here by %(until)s."
    )
    left = max(0, limits().number_tries - invitation.tries)
    tries = ngettext("%(left)d try left.", "%(left)d tries left.", left) % {"left": left}
    return Status(State.CLAIMED, f"{text % values} {tries}", asks_operator=True)


# --- Who takes part


def initiator_of(pairing: Pairing) -> str:
    """Return who began a request: an account, a browser or an operator. Reads both initiators."""
    return _party(pairing.initiator, pairing.initiator_browser) or pairing.operator


def responder_of(pairing: Pairing) -> str:
    """Return who claimed a request; empty if it is not claimed. Reads both responders."""
    return _party(pairing.responder, pairing.responder_browser)


def _party(account: PlatformAccount | None, browser: Browser | None) -> str:
    if account:
        return labels.described(account)
    return labels.described_browser(browser) if browser else ""


# --- Many at once


def rows(issued: list[Pairing]) -> list[list[str]]:
    """Return a row for each invitation that was issued just now: unified id, display name, code, deep link and end."""
    return [
        [
            pairing.person.unified_user_id,
            pairing.person.display_name,
            invitation.code,
            invitation.deep_link,
            invitation.expires_at.isoformat(),
        ]
        for pairing, invitation in zip(issued, shown(issued), strict=True)
        if pairing.person
    ]
