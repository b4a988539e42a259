"""The public pages: the home page, and linking from a browser.

GET changes nothing. Each POST calls one function and redirects to the page, which shows the new state.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters, sensitive_variables
from django.views.decorators.http import require_POST, require_safe

from identity import labels, live, wording
from identity.browsers import sessions as browser_sessions
from identity.flows import pair_in_browser
from identity.flows.pair_in_browser import Answer
from identity.models import Browser
from identity.operators import is_pairing_available
from identity.pairing import codes
from identity.pairing.requests import Outcome
from identity.pairing.settings import limits
from identity.support import client_address
from identity.web import pairing_page


@require_safe
@never_cache
def home(request: HttpRequest) -> HttpResponse:
    """Show what BotOS is, in one sentence, and where the bots are."""
    return render(
        request, "identity/home.html", {"browser": browser_sessions.of(request), "doors": pairing_page.doors(None)}
    )


@sensitive_variables()
@require_safe
@never_cache
def pair(request: HttpRequest) -> HttpResponse:
    """Show the state of linking in this browser."""
    return render(request, "identity/pair.html", _standing(request) | {"after": live.position()})


@sensitive_variables()
@require_safe
@never_cache
def pair_now(request: HttpRequest) -> HttpResponse:
    """Show the part of the page that changes, for the page's script."""
    standing = _standing(request)
    browser_sessions.leave_cookie(request)
    return render(request, "identity/pair_now.html", standing)


def _standing(request: HttpRequest) -> dict[str, Any]:
    browser = browser_sessions.of(request)
    cards = pairing_page.cards(browser) if browser else []
    standing = pairing_page.standing(browser)
    pairs = pair_in_browser.linkable(browser) if browser else []
    linked = "-".join(f"{card.account.pk}{'+' if card.linked_with else ''}" for card in cards)
    return {
        "browser": browser,
        "is_available": is_pairing_available(),
        "standing": standing,
        "version": f"{standing.version}:{linked}",
        "cards": cards,
        "pairs": [[(account.pk, labels.title(account.platform)) for account in pair] for pair in pairs],
        "undoable": pairing_page.undoable(browser) if browser else "",
        "doors": pairing_page.doors(browser),
    }


@require_POST
@never_cache
def start(request: HttpRequest) -> HttpResponse:
    """Begin a request, whose code the page shows."""
    browser = _begun(request)
    if browser:
        _say(request, pair_in_browser.offer(browser=browser))
    return redirect("pair")


@sensitive_post_parameters()
@sensitive_variables()
@require_POST
@never_cache
def code(request: HttpRequest) -> HttpResponse:
    """Try a code that a chat was given. The session key changes now, since the number is typed in the chat."""
    browser = _begun(request)
    if browser:
        secret = codes.read_code(request.POST.get("code", "")) or ""
        answer = pair_in_browser.claim(browser=browser, secret=secret, address=client_address.hash_of(request.META))
        browser_sessions.rotate(request)
        _say(request, answer)
    return redirect("pair")


@sensitive_post_parameters()
@sensitive_variables()
@require_POST
@never_cache
def number(request: HttpRequest) -> HttpResponse:
    """Try the number that the chat was shown."""
    browser, digits = _in_use(request), codes.read_number(request.POST.get("number", ""))
    if browser and digits is None:
        messages.error(request, _("The number must have six digits."))
    elif browser and digits:
        outcome = pair_in_browser.confirm(browser=browser, number=digits)
        if outcome == Outcome.ATTACHED:
            browser_sessions.rotate(request)
        _say(request, Answer(outcome), left=pairing_page.standing(browser).tries_left)
    return redirect("pair")


@require_POST
@never_cache
def cancel(request: HttpRequest) -> HttpResponse:
    """End the browser's requests."""
    if browser := _in_use(request):
        pair_in_browser.cancel(browser=browser)
    return redirect("pair")


@require_POST
@never_cache
def not_me(request: HttpRequest) -> HttpResponse:
    """Deny the browser's requests: the other side is someone else."""
    if browser := _in_use(request):
        pair_in_browser.deny(browser=browser)
    return redirect("pair")


@require_POST
@never_cache
def link_two(request: HttpRequest) -> HttpResponse:
    """Link two attached accounts."""
    typed = request.POST.getlist("account")
    accounts = [int(text) for text in typed if text.isascii() and text.isdigit() and len(text) < 19]
    if browser := _in_use(request):
        _say(request, Answer(pair_in_browser.link_these_two(browser=browser, accounts=accounts)))
    return redirect("pair")


@require_POST
@never_cache
def undo(request: HttpRequest) -> HttpResponse:
    """Take back what the browser linked."""
    browser = _in_use(request)
    try:
        pairing_id = UUID(request.POST.get("pairing", ""))
    except ValueError:
        return redirect("pair")
    if browser and pair_in_browser.undo(browser=browser, pairing_id=pairing_id):
        messages.success(request, _("Undone. The apps are no longer linked, and they are signed out here."))
    return redirect("pair")


@require_POST
@never_cache
def sign_out(request: HttpRequest) -> HttpResponse:
    """End this browser."""
    if browser := browser_sessions.of(request):
        browser_sessions.sign_out(browser)
    request.session.flush()
    return redirect("home")


def _in_use(request: HttpRequest) -> Browser | None:
    """Return the request's browser, and note that it is in use: it does not end for idleness between two steps."""
    browser = browser_sessions.of(request)
    if browser:
        browser_sessions.touch(browser)
    return browser


def _begun(request: HttpRequest) -> Browser | None:
    """Return the request's browser, and begin one if needed; None, with a message, if there can be none."""
    if not is_pairing_available():
        messages.error(request, _("Accounts are linked outside this bot, so you can't link them here."))
        return None
    try:
        return browser_sessions.start(request)
    except browser_sessions.TooMany as error:
        _say(request, Answer(Outcome.WAIT, error.seconds))
        return None


def _say(request: HttpRequest, answer: Answer, *, left: int = 0) -> None:
    """Add a message about the answer, where the page does not show it by itself."""
    if answer.seconds <= 120:
        wait = ngettext("Wait %(n)d second, then try again.", "Wait %(n)d seconds, then try again.", answer.seconds)
        wait %= {"n": answer.seconds}
    else:
        wait = _("You've tried too often. Try again in %(n)d minutes.") % {"n": -(-answer.seconds // 60)}
    wrong_code = _("That code doesn't work. Codes work once, for %(lasting)s. Send /link in your app for a new one.")
    wrong_code %= {"lasting": wording.lasting(limits().code_seconds)}
    good = {
        Outcome.ATTACHED: _("Signed in. Add another app, or link two of the apps below."),
        Outcome.LINKED: _("Linked. From now on these chats share one conversation. Earlier messages stay separate."),
    }
    bad = {
        Outcome.WAIT: wait,
        Outcome.WRONG: wording.wrong_number(left) if left else wrong_code,
        Outcome.ENDED: _("That request has ended."),
        Outcome.NOTHING: _("Nothing was changed: the request or the accounts are no longer here."),
        Outcome.REFUSED: _(
            "These two can't be linked: one of them must have no link yet, and a person can have only one account on "
            "each app."
        ),
    }
    if answer.outcome in good:
        messages.success(request, good[answer.outcome])
    elif answer.outcome in bad:
        messages.error(request, bad[answer.outcome])
