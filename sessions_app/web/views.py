"""My page: what may be read in this browser, and what may be done about it.

GET only looks. Each POST calls one function as an account that is attached here and was confirmed lately.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import wraps
from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters, sensitive_variables
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from identity import audit, labels, live, wording
from identity.browsers import sessions as browser_sessions
from identity.flows import linking
from identity.models import PlatformAccount
from identity.pairing import codes
from sessions_app import texts
from sessions_app.history import export, search
from sessions_app.models import ForgetRequest
from sessions_app.privacy import forget_report, forgetting
from sessions_app.privacy.forgetting import Answer, Outcome
from sessions_app.web import my_page
from sessions_app.web.my_page import Here

log = logging.getLogger(__name__)

View = Callable[[HttpRequest, Here], HttpResponse]
MAX_FOUND = 50
PORTIONS_ON_A_PAGE = 10  # of what somebody is to be forgotten with


def _for_reader(view: View) -> Callable[[HttpRequest], HttpResponse]:
    """Nothing is shown or done without an account whose chat has confirmed lately. POST is use, and keeps it fresh."""

    @wraps(view)
    def guarded(request: HttpRequest) -> HttpResponse:
        is_change = request.method == "POST"
        wanted = (request.POST if is_change else request.GET).get("as", "")
        browser = browser_sessions.of(request)
        here = my_page.here(browser, wanted)
        if _is_asked_by_script(request):
            browser_sessions.leave_cookie(request)
        if here is None:
            return redirect("me") if is_change else _confirm_first(request)
        if is_change:
            browser_sessions.touch(here.browser)
        return view(request, here)

    return guarded


def _is_asked_by_script(request: HttpRequest) -> bool:
    return request.resolver_match is not None and request.resolver_match.url_name == "me-now"


def _confirm_first(request: HttpRequest) -> HttpResponse:
    browser = browser_sessions.of(request)
    is_known = browser is not None and bool(browser_sessions.attached(browser))
    template = "me_now" if _is_asked_by_script(request) else "confirm"
    return render(request, f"sessions_app/{template}.html", {"browser": browser, "is_known": is_known, "version": "-"})


# --- Looking


@require_safe
@never_cache
@_for_reader
def me(request: HttpRequest, here: Here) -> HttpResponse:
    """Everything about the person, short."""
    return render(
        request, "sessions_app/me.html", _standing(here) | {"after": live.position(), "is_long": my_page.is_long(here)}
    )


@require_safe
@never_cache
@_for_reader
def now(request: HttpRequest, here: Here) -> HttpResponse:
    """The part of the page that changes, for the script that follows it."""
    return render(request, "sessions_app/me_now.html", _standing(here))


def _standing(here: Here) -> dict[str, Any]:
    cards, recent = my_page.cards(here), my_page.entries(here, limit=my_page.RECENT)
    preferred = my_page.preferred(here)
    groups = my_page.groups(here)
    group = max((one.last_at.isoformat() for one in groups if one.last_at), default="")
    links = "-".join(f"{card.link.pk}{card.link.shares_past:d}{card.may_end:d}" for card in cards if card.link)
    return {
        "here": here,
        "browser": here.browser,
        "cards": cards,
        "preferred": preferred,
        "chats": my_page.chats(here),
        "groups": groups,
        "recent": my_page.shown(here, recent.lines),
        "has_older": bool(recent.older),
        "version": f"{here.account.pk}:{links}:{preferred.pk if preferred else ''}:{recent.end}:{group}",
    }


@require_safe
@never_cache
@_for_reader
def history(request: HttpRequest, here: Here) -> HttpResponse:
    """What was said, by pages, newest last; of a group, what the account wrote there itself."""
    only, group, before = _number(request, "chat"), _number(request, "group"), request.GET.get("before", "")
    page = my_page.own_words(here, group, before) if group else my_page.entries(here, before=before, only=only)
    place = {"as": here.account.pk} | ({"chat": only} if only else {}) | ({"group": group} if group else {})
    values = {
        "here": here,
        "browser": here.browser,
        "chats": my_page.chats(here, only),
        "groups": my_page.groups(here, group),
        "is_all": not only and not group,
        "is_group": bool(group),
        "lines": my_page.shown(here, page.lines, is_group=bool(group)),
        "older": f"?{urlencode(place | {'before': page.older})}" if page.older else "",
        "newest": f"?{urlencode(place)}" if "before" in request.GET else "",
    }
    return render(request, "sessions_app/history.html", values)


def _number(request: HttpRequest, name: str) -> int | None:
    named = request.GET.get(name, "")
    return int(named) if named.isascii() and named.isdigit() and len(named) < 19 else None


@require_http_methods(["GET", "HEAD", "POST"])
@never_cache
@_for_reader
def search_for(request: HttpRequest, here: Here) -> HttpResponse:
    """Words are sent by POST: an address stays in logs and in the browser's history."""
    words = request.POST.get("words", "")
    found = search.find(here.conversation, words, limit=MAX_FOUND) if here.conversation and words else []
    hits = [(hit, labels.title(hit.line.platform)) for hit in found]
    values = {"here": here, "browser": here.browser, "words": words, "hits": hits}
    return render(request, "sessions_app/search.html", values)


# --- Doing


@require_POST
@never_cache
@_for_reader
def export_all(request: HttpRequest, here: Here) -> HttpResponse:
    """Everything as a file."""
    kind = "html" if request.POST.get("kind") == "html" else "json"
    text, older = export.export(here.account, kind, before=request.POST.get("before", ""))
    answer = HttpResponse(text, content_type="text/html" if kind == "html" else "application/json")
    answer["Content-Disposition"] = f'attachment; filename="botos.{kind}"'
    answer["X-Content-Type-Options"] = "nosniff"
    if older:
        answer["X-BotOS-Older"] = older
    return answer


@require_safe
@never_cache
@_for_reader
def export_parts(request: HttpRequest, here: Here) -> HttpResponse:
    """One part of a long export, and the way to the next older one."""
    before = request.GET.get("before", "")
    older = export.older_than(here.account, before)
    next_one = f"?{urlencode({'as': here.account.pk, 'before': older})}" if older else ""
    kinds = (("html", _("Export to read")), ("json", _("Export as JSON")))
    values = {"here": here, "browser": here.browser, "before": before, "older": next_one, "kinds": kinds}
    return render(request, "sessions_app/parts.html", values)


@require_POST
@never_cache
@_for_reader
def share(request: HttpRequest, here: Here) -> HttpResponse:
    """Let the other accounts read what this one said before it was linked."""
    named = request.POST.get("account", "")
    account = next((one for one in here.accounts if str(one.pk) == named), None)
    if account and linking.share_past(account=account, actor=audit.actor(account)):
        messages.success(request, _("Your other apps now share your earlier messages from this one."))
    else:
        messages.error(request, _("Nothing was changed: the page was out of date."))
    return _back(here)


@require_POST
@never_cache
@_for_reader
def unlink(request: HttpRequest, here: Here) -> HttpResponse:
    """Take an account out."""
    link_id = _link_id(request)
    if linking.take_out(account=my_page.acting(here), link_id=link_id):
        messages.success(request, _("That account is no longer linked. Each app keeps its own messages."))
    else:
        messages.error(request, _too_new())
    return _back(here)


@require_POST
@never_cache
@_for_reader
def was_not_me(request: HttpRequest, here: Here) -> HttpResponse:
    """Take an account out that is somebody else's, with what was said meanwhile."""
    link_id = _link_id(request)
    if linking.disown(account=my_page.acting(here), link_id=link_id or None):
        messages.success(
            request, _("That account is unlinked. Agents no longer look at messages from the time when it was linked.")
        )
    else:
        messages.error(request, _too_new())
    return _back(here)


def _link_id(request: HttpRequest) -> int:
    named = request.POST.get("link", "")
    return int(named) if named.isascii() and named.isdigit() and len(named) < 19 else 0


def _too_new() -> str:
    return _("You can't do that from here: a new link can't change older ones for a day.")


@require_POST
@never_cache
@_for_reader
def prefer(request: HttpRequest, here: Here) -> HttpResponse:
    """Say which app is written to when nobody has asked."""
    named = request.POST.get("account", "")
    wanted = next((card.account for card in my_page.cards(here) if str(card.account.pk) == named), None)
    if not wanted and named != "last":
        messages.error(request, _("Nothing was changed: the page was out of date."))
    elif linking.prefer(account=my_page.acting(here), preferred=wanted):
        messages.success(request, _("Saved."))
    else:
        messages.error(request, _too_new())
    return _back(here)


@require_POST
@never_cache
@_for_reader
def sign_out_everywhere(request: HttpRequest, here: Here) -> HttpResponse:
    """End this browser and all others with these accounts."""
    for account in here.accounts:
        browser_sessions.sign_out_everywhere(account)
    request.session.flush()
    return redirect("home")


def _back(here: Here) -> HttpResponse:
    return redirect(f"{reverse('me')}?as={here.account.pk}")


# --- Being forgotten


@require_safe
@never_cache
@_for_reader
def forget(request: HttpRequest, here: Here) -> HttpResponse:
    """What would be deleted, and how."""
    asked = _asked(here)
    outlook = forget_report.look(asked or [here.account], browser=here.browser)
    report = outlook.before()
    values = {
        "here": here,
        "browser": here.browser,
        "report": report,
        "warns_others": len(report.deleted) > max(len(asked), 1),
        "always_kept": texts.ALWAYS_KEPT,
        "asked": [(one, labels.described(one)) for one in asked],
        "title": labels.title(here.account.platform),
        "may_ask_each": any(one.pk not in outlook.reached for one in here.accounts),
    }
    return render(request, "sessions_app/forget.html", values)


def _asked(here: Here) -> list[PlatformAccount]:
    """The accounts here whose numbers are awaited in this browser, that of the page first."""
    awaited = {one.account_id for one in forget_report.awaited(here.accounts) if one.browser == here.browser.pk}
    return [one for one in _here_first(here) if one.pk in awaited]


def _here_first(here: Here) -> list[PlatformAccount]:
    return sorted(here.accounts, key=lambda one: one != here.account)


@require_POST
@never_cache
@_for_reader
def forget_ask(request: HttpRequest, here: Here) -> HttpResponse:
    """Send a number to the chat, or to each that is signed in and fresh here."""
    accounts = _here_first(here) if request.POST.get("each") else [here.account]
    if not forgetting.ask_each(accounts=accounts, browser=here.browser):
        messages.error(request, _("You've asked for that too often. Try again in an hour."))
    return redirect(f"{reverse('me-forget')}?as={here.account.pk}")


@sensitive_post_parameters()
@sensitive_variables()
@require_POST
@never_cache
@_for_reader
def forget_confirm(request: HttpRequest, here: Here) -> HttpResponse:
    """The numbers that the chats were sent. An account whose field is empty is kept."""
    typed = {one: request.POST.get(_field(one, here), "").strip() for one in here.accounts}
    numbers = {one: codes.read_number(text) or "" for one, text in typed.items() if text}
    if not numbers or not all(numbers.values()):
        messages.error(request, _("The number must have six digits.") if _asked(here) else _("That request has ended."))
        return redirect(f"{reverse('me-forget')}?as={here.account.pk}")
    outlook = forget_report.look(numbers, browser=here.browser)
    answers = forgetting.confirm_each(numbers, browser=here.browser)
    confirmed = [answer.request for answer in answers.values() if answer.request]
    if confirmed:
        request.session.flush()
        erased = [_erase(one) for one in confirmed]  # each, also after one that takes longer
        deleted = {pk for one in confirmed for pk in one.accounts}
        report = outlook.after(deleted, untold=[one.pk for answer in answers.values() for one in answer.kept])
        values = {"is_done": all(erased), "report": report, "always_kept": texts.ALWAYS_KEPT}
        return render(request, "sessions_app/forgotten.html", values)
    for account, answer in answers.items():
        if answer.outcome != Outcome.RIGHT:
            about = f"{labels.described(account)}: " if len(answers) > 1 else ""
            messages.error(request, f"{about}{_wrong(answer)}")
    return redirect(f"{reverse('me-forget')}?as={here.account.pk}")


def _field(account: PlatformAccount, here: Here) -> str:
    return "number" if account == here.account else f"number-{account.pk}"


def _erase(asked: ForgetRequest) -> bool:
    """Whether it is done: housekeeping goes on with what is not. `asked` then has the accounts that are deleted."""
    try:
        is_done = forgetting.erase(asked.pk, most=PORTIONS_ON_A_PAGE)
    except Exception as error:  # noqa: BLE001 - the request was confirmed, and its end does not depend on this page
        log.warning("forgetting goes on later: %s", type(error).__name__)
        is_done = False
    asked.refresh_from_db(fields=["accounts"])
    return is_done


def _wrong(answer: Answer) -> str:
    if answer.outcome == Outcome.WRONG:
        return wording.wrong_number(answer.left)
    if answer.outcome == Outcome.LOCKED:
        return _("Too many wrong numbers, so nothing was deleted.")
    return _("That request has ended.")
