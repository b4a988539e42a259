"""Every text about pairing and links, in one place. Read one aloud before you change it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from django.conf import settings
from django.db.models import Q
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_noop, ngettext

from identity import labels
from identity.models import AccountLink, BotProfile, Browser, Pairing, PlatformAccount
from identity.notices import Subject, Template
from identity.pairing import codes
from identity.pairing.requests import number_seconds
from identity.pairing.secrets import secrets_of
from identity.pairing.settings import limits
from identity.support import clock, platforms
from identity.support.buttons import Button
from identity.support.sanitize import literal


@dataclass(frozen=True, slots=True)
class Notice:
    """A notice in words. `copy` is what a copy button, where there is one, puts on the clipboard."""

    text: str
    buttons: tuple[Button, ...] = ()
    copy: str = ""


def render(template: Template, account: PlatformAccount, subject: Subject) -> Notice:
    """The words for `account`, of this moment: what has ended since is not shown any more."""
    notice = _RENDERERS[template](account, subject)
    return replace(notice, text=labels.with_commands(notice.text, on=account.platform))


# --- Words


def _offer(account: PlatformAccount, subject: Subject) -> Notice:
    pairing = _pairing(subject)
    if pairing.state != Pairing.State.OFFERED or pairing.expires_at <= clock.read():
        return Notice(_("That code no longer works. Send /link for a new one."))
    code = codes.shown_code(secrets_of(pairing).code)
    text = _(
        "Link another app to this chat.\n"
        "1) Open me there: %(doors)s\n"
        "2) Send me this code there: %(code)s\n\n"
        "It works once, for %(lasting)s. Did someone ask you for a code? Then press Cancel."
    )
    values = {"doors": _doors(account.platform), "code": code, "lasting": lasting(limits().code_seconds)}
    text = text % values
    if settings.BOTOS_PUBLIC_URL:
        page = f"{settings.BOTOS_PUBLIC_URL}{reverse('pair')}"
        text += "\n" + _("Or enter it in a browser, at %(page)s.") % {"page": page}
    return Notice(text, (Button(_("Cancel"), "/cancel"),), copy=code)


def _number(account: PlatformAccount, subject: Subject) -> Notice:
    pairing = _pairing(subject)
    is_live = pairing.state == Pairing.State.CLAIMED and pairing.expires_at > clock.read()
    if not is_live or pairing.responder_id != account.pk:
        return Notice(_("That request has ended. You need a new code."))
    number = codes.shown_number(secrets_of(pairing).number)
    values = {
        "who": _initiating_side(pairing, account.platform),
        "app": labels.title(account.platform),
        "number": number,
        "lasting": lasting(number_seconds(pairing)),
    }
    text = _number_text(pairing) % values
    if note := platforms.of(account.platform).privacy_note:
        text += f" {note}"
    return Notice(text, (_not_me(pairing),))


def _number_text(pairing: Pairing) -> str:
    if pairing.initiator_browser_id:
        return _(
            "%(who)s wants to read and write as this %(app)s account. If it is yours, go back to that page and type "
            "%(number)s (%(lasting)s). Anyone who types it can read this conversation and write in it. Never send it "
            "to anyone."
        )
    if pairing.initiator_id:
        return _(
            "%(who)s wants to share one conversation with this %(app)s account. If both are yours, go back to that "
            "chat and type %(number)s (%(lasting)s). Anyone who types it can read what you write here from now on. "
            "Never send it to anyone."
        )
    if _accounts_of(pairing):
        return _(
            "%(who)s wants to share one conversation with this %(app)s account. If all are yours, go to one of those "
            "chats and type %(number)s (%(lasting)s). Anyone who types it can read what you write here from now on. "
            "Never send it to anyone."
        )
    return _(
        "%(who)s wants to add this %(app)s account. If you asked them to, read them this number, in person or on a "
        "call that you started: %(number)s (%(lasting)s). Never send it to anyone else."
    )


def _claimed(account: PlatformAccount, subject: Subject) -> Notice:
    pairing = _pairing(subject)
    responder = _responding_side(pairing, account.platform)
    if pairing.state != Pairing.State.CLAIMED or pairing.expires_at <= clock.read() or not responder:
        return Notice(_("That request has ended."))
    used = _("%(who)s used your code. Yours? Type the 6-digit number it shows.")
    if pairing.person_id:
        used = _("%(who)s was invited to join this conversation. Yours? Type the 6-digit number it shows.")
    text = used % {"who": responder}
    if pairing.responder_browser_id:
        return Notice(text + " " + _("The browser can then read and write here."), (_not_me(pairing),))
    others = [labels.described(other, on=account.platform) for other in _accounts_of(pairing) if other.pk != account.pk]
    if others:
        text += "\n" + _("It would share the conversation with these too: %(others)s.") % {"others": ", ".join(others)}
    return Notice(text, (_not_me(pairing),))


def _linked(account: PlatformAccount, subject: Subject) -> Notice:
    text = _("Linked. From now on these chats share one conversation. Earlier messages stay separate.")
    pairing = _pairing(subject)
    if pairing.initiator_browser_id or pairing.responder_browser_id:  # no chat has shown who the others are
        others = [labels.described(one, on=account.platform) for one in _beside(account)]
        if others:
            text += "\n" + _("This link was made in a browser, with: %(others)s.") % {"others": ", ".join(others)}
    share = Button(_("Share my earlier messages from this app"), "/share")
    return Notice(text, (share, _undo(subject)))


def _known(account: PlatformAccount, subject: Subject) -> Notice:
    return Notice(_("I now know that this chat is yours. Send /link to link another app."), (_undo(subject),))


def _undo(subject: Subject) -> Button:
    return Button(_("Undo"), f"/undo {subject['pairing']}")


def _browser_attached(account: PlatformAccount, subject: Subject) -> Notice:
    browser = Browser.objects.get(pk=subject["browser"])
    text = _("%(who)s can now read and write here.") % {"who": labels.described_browser(browser, on=account.platform)}
    return Notice(text, () if browser.ended_at else (Button(_("Sign it out"), "/signout"),))


def _signed_out(account: PlatformAccount, subject: Subject) -> Notice:
    browsers = int(subject["browsers"])
    if not browsers:
        return Notice(_("No browser is signed in with this account."))
    text = ngettext("Signed out of %(n)d browser.", "Signed out of %(n)d browsers.", browsers)
    return Notice(text % {"n": browsers})


def _account_added(account: PlatformAccount, subject: Subject) -> Notice:
    return _about_link(_("%(who)s now shares this conversation. If you didn't link it, say so."), account, subject)


def _reminded(account: PlatformAccount, subject: Subject) -> Notice:
    return _about_link(
        _("A reminder: %(who)s shares this conversation. If you didn't link it, say so."), account, subject
    )


def _about_link(text: str, account: PlatformAccount, subject: Subject) -> Notice:
    link = AccountLink.objects.select_related("account").get(pk=subject["link"])
    return Notice(
        text % {"who": labels.described(link.account, on=account.platform)},
        (_wasnt_me(link),) if link.ended_at is None else (),
    )


def _wasnt_me(link: AccountLink) -> Button:
    return Button(_("That wasn't me"), f"/wasntme {link.pk}")


def _unlinked(account: PlatformAccount, subject: Subject) -> Notice:
    link = AccountLink.objects.select_related("account").get(pk=subject["link"])
    if link.account_id == account.pk:
        return Notice(_("This account is no longer linked. Each app keeps its own messages."))
    text = _("%(who)s no longer shares this conversation.") % {
        "who": labels.described(link.account, on=account.platform)
    }
    return Notice(text, () if link.disowned else (Button(_("It was never mine"), f"/wasntme {link.pk}"),))


def _past_shared(account: PlatformAccount, subject: Subject) -> Notice:
    link = AccountLink.objects.select_related("account").get(pk=subject["link"])
    if link.account_id == account.pk:
        return Notice(_("Your other apps now share your earlier messages from this one."))
    return Notice(
        _("%(who)s now shares its earlier messages here too.")
        % {"who": labels.described(link.account, on=account.platform)}
    )


def _accounts(account: PlatformAccount, subject: Subject) -> Notice:
    live = AccountLink.objects.live()
    mine = live.filter(user__in=live.filter(account=account).values("user")).select_related("account").order_by("since")
    if not mine:
        return Notice(_("This account isn't linked to any other. Send /link to link another app."))
    lines = [f"{labels.described(link.account, on=account.platform)}, {link.since:%Y-%m-%d}" for link in mine]
    hint = _(
        "Send /link to link another app, /unlink to unlink this one, or for example /unlink discord to unlink "
        "another one."
    )
    return Notice("\n".join([_("These accounts share one conversation:"), *lines, "", hint]))


def _forget_asked(account: PlatformAccount, subject: Subject) -> Notice:
    asker = PlatformAccount.objects.get(pk=subject["by"])
    if asker not in _beside(account):
        return Notice(_("That request has ended."))
    text = _(
        "%(who)s asked me to delete this account too: all our messages here, your name and your ID. I will do that "
        "once the number that I sent there is typed. To prevent it, send /unlink %(app)s."
    )
    values = {"who": labels.described(asker, on=account.platform), "app": asker.platform}
    unlink = Button(_("Unlink %(app)s") % {"app": labels.title(asker.platform)}, f"/unlink {asker.platform}")
    return Notice(text % values, (unlink,))


def _refused(account: PlatformAccount, subject: Subject) -> Notice:
    reasons = {
        "both_linked": _(
            "Both accounts already share a conversation with other accounts. Use /unlink on one of them first."
        ),
        "named": _("An operator has named the owner of one of these accounts. Use /unlink on that account first."),
        "same_person": _("These two accounts already share one conversation."),
        "same_platform": _(
            "This conversation already has an account on that app, and it can have only one on each app."
        ),
        "platform": _("That invitation is for another app."),
        "changed": _("The accounts on one side have changed since the code was used. Start again with /link."),
    }
    return Notice(reasons[subject["reason"]])


def _wait_to_guess(account: PlatformAccount, subject: Subject) -> Notice:
    minutes = int(subject["minutes"])
    text = ngettext(
        "Too many wrong codes. Wait %(minutes)d minute.",
        "Too many wrong codes. Wait %(minutes)d minutes.",
        minutes,
    )
    return Notice(text % {"minutes": minutes})


def _wait_to_start(account: PlatformAccount, subject: Subject) -> Notice:
    seconds = int(subject["seconds"])
    if seconds <= 120:
        text = ngettext("Wait %(n)d second, then send /link.", "Wait %(n)d seconds, then send /link.", seconds)
        return Notice(text % {"n": seconds})
    minutes = -(-seconds // 60)
    return Notice(_("You've asked for a lot of codes. Send /link again in %(n)d minutes.") % {"n": minutes})


def _wrong_number(account: PlatformAccount, subject: Subject) -> Notice:
    return Notice(wrong_number(int(subject["left"])))


def wrong_number(left: int) -> str:
    """The same in a chat and on a page, whatever the number is for. `left`: tries."""
    text = ngettext(
        "That's not the right number. %(left)d try left.", "That's not the right number. %(left)d tries left.", left
    )
    return text % {"left": left}


def _own_code(account: PlatformAccount, subject: Subject) -> Notice:
    return Notice(_("That code is from this chat: send it in your other app."))


def _wrong_code(account: PlatformAccount, subject: Subject) -> Notice:
    return Notice(
        _("That code doesn't work. Codes work once, for %(lasting)s. Send /link in your other app for a new one.")
        % {"lasting": lasting(limits().code_seconds)}
    )


def lasting(seconds: int) -> str:
    """How long something holds, as people say it and no longer than it does: "5 minutes", "24 hours"."""
    minutes = max(1, seconds // 60)
    if minutes >= 120 and minutes % 60 == 0:
        return ngettext("%(n)d hour", "%(n)d hours", minutes // 60) % {"n": minutes // 60}
    return ngettext("%(n)d minute", "%(n)d minutes", minutes) % {"n": minutes}


def _says(text: str) -> Callable[[PlatformAccount, Subject], Notice]:
    """A notice that is the same for everybody; `text` is marked for translation where it stands."""
    return lambda account, subject: Notice(_(text))


_RENDERERS: dict[Template, Callable[[PlatformAccount, Subject], Notice]] = {
    Template.OFFER: _offer,
    Template.NUMBER: _number,
    Template.CLAIMED: _claimed,
    Template.LINKED: _linked,
    Template.KNOWN: _known,
    Template.ACCOUNT_ADDED: _account_added,
    Template.REMINDED: _reminded,
    Template.OWN_CODE: _own_code,
    Template.WRONG_CODE: _wrong_code,
    Template.WAIT_TO_GUESS: _wait_to_guess,
    Template.WAIT_TO_START: _wait_to_start,
    Template.WRONG_NUMBER: _wrong_number,
    Template.UNLINKED: _unlinked,
    Template.BROWSER_ATTACHED: _browser_attached,
    Template.SIGNED_OUT: _signed_out,
    Template.PAST_SHARED: _past_shared,
    Template.ACCOUNTS: _accounts,
    Template.FORGET_ASKED: _forget_asked,
    Template.REFUSED: _refused,
    Template.OTHER_APP: _says(gettext_noop("That code is for another app.")),
    Template.TYPE_IN_OTHER_APP: _says(gettext_noop("Type this in your other app, in the chat where you started.")),
    Template.TYPE_IN_BROWSER: _says(gettext_noop("Type this in your browser, on the page where you started.")),
    Template.JUST_THE_NUMBER: _says(gettext_noop("If you mean the number, send it alone, without other words.")),
    Template.JUST_THE_CODE: _says(
        gettext_noop(
            "That message may contain many codes, so I didn't keep it. If you mean one of them, send it alone."
        )
    ),
    Template.LOCKED: _says(gettext_noop("Too many wrong numbers, so nothing was linked. You need a new code.")),
    Template.DENIED: _says(gettext_noop('Nothing was linked: one of the two accounts said "Not me".')),
    Template.CANCELLED: _says(gettext_noop("Cancelled. Nothing was linked.")),
    Template.BURNED: _says(
        gettext_noop(
            "Your code was posted in a group, so it no longer works. Send /link for a new one, and keep it to yourself."
        )
    ),
    Template.NOTHING_THERE: _says(gettext_noop("You have no pending request or link like that.")),
    Template.DISOWNED: _says(
        gettext_noop("That link has already ended. I no longer look at messages from the time when it was active.")
    ),
    Template.TOO_NEW: _says(
        gettext_noop(
            "This account was linked less than a day ago, so it can't unlink older ones yet. Use one of those instead."
        )
    ),
    Template.IN_PRIVATE: _says(gettext_noop("Send me that in a private chat.")),
    Template.IN_PERSON: _says(
        gettext_noop("Please type that yourself, here and now. Forwarded, edited or old messages don't count.")
    ),
    Template.TOO_LATE: _says(
        gettext_noop(
            "Your message seems to have taken very long to reach me, so I did nothing. Please send it again. If this "
            "happens again, it's not your mistake: my clock may be wrong, and the operator can correct it."
        )
    ),
    Template.NOT_HERE: _says(gettext_noop("Accounts are linked outside this bot, so you can't link them here.")),
}


# --- What they are about


def _pairing(subject: Subject) -> Pairing:
    return Pairing.objects.select_related(
        "initiator", "initiator_browser", "responder", "responder_browser", "person"
    ).get(pk=subject["pairing"])


def _not_me(pairing: Pairing) -> Button:
    return Button(_("Not me"), f"/notme {pairing.pk}")


def _responding_side(pairing: Pairing, on: str) -> str:
    if pairing.responder_browser:
        return labels.described_browser(pairing.responder_browser, on=on)
    if pairing.responder is None:
        return ""
    return ", ".join(labels.described(one, on=on) for one in (pairing.responder, *_beside(pairing.responder)))


def _initiating_side(pairing: Pairing, on: str) -> str:
    if pairing.initiator_browser:
        return labels.described_browser(pairing.initiator_browser, on=on)
    accounts = _accounts_of(pairing)
    if accounts:
        return ", ".join(labels.described(one, on=on) for one in accounts)
    return _("The operator of this bot")


def _accounts_of(pairing: Pairing) -> list[PlatformAccount]:
    """The initiating side: the account that started, and all others of the same person."""
    if pairing.initiator:
        return [pairing.initiator, *_beside(pairing.initiator)]
    return _linked_with(Q(user=pairing.person_id)) if pairing.person_id else []


def _beside(account: PlatformAccount) -> list[PlatformAccount]:
    """The other accounts of the same person."""
    people = AccountLink.objects.live().filter(account=account).values("user")
    return [one for one in _linked_with(Q(user__in=people)) if one != account]


def _linked_with(whose: Q) -> list[PlatformAccount]:
    links = AccountLink.objects.live().filter(whose).select_related("account").order_by("since", "pk")
    return [link.account for link in links]


def _doors(platform: str) -> str:
    """Where to find the bot on the other platforms."""
    others = BotProfile.objects.exclude(platform=platform).order_by("platform")
    doors = [f"{labels.title(one.platform)} ({one.url or literal(one.name, platform)})" for one in others]
    return ", ".join(doors) or _("in your other app")
