"""My page: what may be read and done in this browser.

GET only reads. Each POST calls one function as an account that is attached here and was confirmed lately.
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
from sessions_app.privacy.forgetting import Outcome
from sessions_app.web import my_page
from sessions_app.web.my_page import Here

log = logging.getLogger(__name__)

View = Callable[[HttpRequest, Here], HttpResponse]
MAX_FOUND = 50
PORTIONS_ON_A_PAGE = 10  # portions of a deletion that a request waits for


def _for_reader(view: View) -> Callable[[HttpRequest], HttpResponse]:
    """Require an account whose chat has confirmed this browser lately. A POST keeps the confirmation fresh."""

    @wraps(view)
    def guarded(request: HttpRequest) -> HttpResponse:
        is_change = request.method == "POST"
        wanted = (request.POST if is_change else request.GET).get("as", "")
        browser = browser_sessions.of(request)
        here = my_page.here(browser, wanted)
        is_script = request.resolver_match is not None and request.resolver_match.url_name == "me-now"
        if is_script:
            browser_sessions.leave_cookie(request)
        if here is None and is_change:
            return redirect("me")
        if here is None:
            is_known = browser is not None and bool(browser_sessions.attached(browser))
            template = f"sessions_app/{'me_now' if is_script else 'confirm'}.html"
            return render(request, template, {"browser": browser, "is_known": is_known, "version": "-"})
        if is_change:
            browser_sessions.touch(here.browser)
        return view(request, here)

    return guarded


# --- Reading


@require_safe
@never_cache
@_for_reader
def me(request: HttpRequest, here: Here) -> HttpResponse:
    """Show an overview of the person."""
    return render(
        request, "sessions_app/me.html", _context(here) | {"after": live.position(), "is_long": my_page.is_long(here)}
    )


@require_safe
@never_cache
@_for_reader
def now(request: HttpRequest, here: Here) -> HttpResponse:
    """Return the part of the page that changes, for the script that updates it."""
    return render(request, "sessions_app/me_now.html", _context(here))


def _context(here: Here) -> dict[str, Any]:
    cards, recent = my_page.cards(here), my_page.entries(here, limit=my_page.RECENT)
    preferred = my_page.preferred(here)
    groups = my_page.groups(here)
    last_in_groups = max((group.last_at.isoformat() for group in groups if group.last_at), default="")
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
        "version": f"{here.account.pk}:{links}:{preferred.pk if preferred else ''}:{recent.end}:{last_in_groups}",
    }


@require_safe
@never_cache
@_for_reader
def history(request: HttpRequest, here: Here) -> HttpResponse:
    """Show history by pages, newest last; of a group, only what the account itself wrote there."""
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
    return _as_id(request.GET.get(name, "")) or None


def _as_id(text: str) -> int:
    """A primary key; 0, which is none, for any other text."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else 0


@require_http_methods(["GET", "HEAD", "POST"])
@never_cache
@_for_reader
def search_for(request: HttpRequest, here: Here) -> HttpResponse:
    """Show entries with some words. They are sent by POST, as URLs stay in logs and in the browser's history."""
    words = request.POST.get("words", "")
    hits = search.find(here.conversation, words, limit=MAX_FOUND) if here.conversation and words else []
    titled = [(hit, labels.title(hit.line.platform)) for hit in hits]
    values = {"here": here, "browser": here.browser, "words": words, "hits": titled}
    return render(request, "sessions_app/search.html", values)


# --- Changing


@require_POST
@never_cache
@_for_reader
def export_all(request: HttpRequest, here: Here) -> HttpResponse:
    """Return everything that may be read as a file."""
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
    """Show one part of a long export, and the link to the next older part."""
    before = request.GET.get("before", "")
    older = export.older_than(here.account, before)
    next_part = f"?{urlencode({'as': here.account.pk, 'before': older})}" if older else ""
    kinds = (("html", _("Export to read")), ("json", _("Export as JSON")))
    values = {"here": here, "browser": here.browser, "before": before, "older": next_part, "kinds": kinds}
    return render(request, "sessions_app/parts.html", values)


@require_POST
@never_cache
@_for_reader
def share(request: HttpRequest, here: Here) -> HttpResponse:
    """Let the person's other accounts read what this one said before it was linked."""
    wanted = request.POST.get("account", "")
    account = next((account for account in here.accounts if str(account.pk) == wanted), None)
    if account and linking.share_past(account=account, actor=audit.actor(account)):
        messages.success(request, _("Your other apps now share your earlier messages from this one."))
    else:
        messages.error(request, _("Nothing was changed: the page was out of date."))
    return _back(here)


@require_POST
@never_cache
@_for_reader
def unlink(request: HttpRequest, here: Here) -> HttpResponse:
    """End the link of an account."""
    link_id = _as_id(request.POST.get("link", ""))
    if linking.take_out(account=my_page.acting(here), link_id=link_id):
        messages.success(request, _("That account is no longer linked. Each app keeps its own messages."))
    else:
        messages.error(request, _too_new())
    return _back(here)


@require_POST
@never_cache
@_for_reader
def was_not_me(request: HttpRequest, here: Here) -> HttpResponse:
    """End the link of another person's account, and hide the entries of that time from agents."""
    link_id = _as_id(request.POST.get("link", ""))
    if linking.disown(account=my_page.acting(here), link_id=link_id or None):
        messages.success(
            request, _("That account is unlinked. Agents no longer look at messages from the time when it was linked.")
        )
    else:
        messages.error(request, _too_new())
    return _back(here)


def _too_new() -> str:
    return _("You can't do that from here: a new link can't change older ones for a day.")


@require_POST
@never_cache
@_for_reader
def prefer(request: HttpRequest, here: Here) -> HttpResponse:
    """Set the app for messages that the person did not ask for."""
    wanted = request.POST.get("account", "")
    preferred = next((card.account for card in my_page.cards(here) if str(card.account.pk) == wanted), None)
    if not preferred and wanted != "last":
        messages.error(request, _("Nothing was changed: the page was out of date."))
    elif linking.prefer(account=my_page.acting(here), preferred=preferred):
        messages.success(request, _("Saved."))
    else:
        messages.error(request, _too_new())
    return _back(here)


@require_POST
@never_cache
@_for_reader
def sign_out_everywhere(request: HttpRequest, here: Here) -> HttpResponse:
    """Sign these accounts out of this browser and all others."""
    for account in here.accounts:
        browser_sessions.sign_out_everywhere(account)
    request.session.flush()
    return redirect("home")


def _back(here: Here) -> HttpResponse:
    return redirect(f"{reverse('me')}?as={here.account.pk}")


# --- Deleting an account


@require_safe
@never_cache
@_for_reader
def forget(request: HttpRequest, here: Here) -> HttpResponse:
    """Show what would be deleted, and how."""
    asked = _asked(here)
    outlook = forget_report.look(asked or [here.account], browser=here.browser)
    report = outlook.before()
    values = {
        "here": here,
        "browser": here.browser,
        "report": report,
        "warns_others": len(report.deleted) > max(len(asked), 1),
        "always_kept": texts.ALWAYS_KEPT,
        "asked": [(account, labels.described(account)) for account in asked],
        "title": labels.title(here.account.platform),
        "may_ask_each": any(account.pk not in outlook.reached for account in here.accounts),
    }
    return render(request, "sessions_app/forget.html", values)


def _asked(here: Here) -> list[PlatformAccount]:
    """The accounts here whose numbers are awaited in this browser, that of the page first."""
    requests = forget_report.awaited(here.accounts)
    awaited = {request.account_id for request in requests if request.browser == here.browser.pk}
    return [account for account in _here_first(here) if account.pk in awaited]


def _here_first(here: Here) -> list[PlatformAccount]:
    return sorted(here.accounts, key=lambda account: account != here.account)


@require_POST
@never_cache
@_for_reader
def forget_ask(request: HttpRequest, here: Here) -> HttpResponse:
    """Send a number to the account's chat, or to the chat of each account that may be read here."""
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
    """Check the numbers that were sent to the chats. An account whose field is empty is kept."""
    fields = {account: "number" if account == here.account else f"number-{account.pk}" for account in here.accounts}
    typed = {account: request.POST.get(field, "").strip() for account, field in fields.items()}
    numbers = {account: codes.read_number(text) or "" for account, text in typed.items() if text}
    if not numbers or not all(numbers.values()):
        messages.error(request, _("The number must have six digits.") if _asked(here) else _("That request has ended."))
        return redirect(f"{reverse('me-forget')}?as={here.account.pk}")
    outlook = forget_report.look(numbers, browser=here.browser)
    answers = forgetting.confirm_each(numbers, browser=here.browser)
    confirmed = [answer.request for answer in answers.values() if answer.request]
    if confirmed:
        request.session.flush()
        erased = [_erase(asked) for asked in confirmed]  # all of them, also after one that takes longer
        deleted = {pk for asked in confirmed for pk in asked.accounts}
        report = outlook.after(deleted, untold=[account.pk for answer in answers.values() for account in answer.kept])
        values = {"is_done": all(erased), "report": report, "always_kept": texts.ALWAYS_KEPT}
        return render(request, "sessions_app/forgotten.html", values)
    for account, answer in answers.items():
        if answer.outcome == Outcome.RIGHT:
            continue
        if answer.outcome == Outcome.WRONG:
            problem = wording.wrong_number(answer.left)
        elif answer.outcome == Outcome.LOCKED:
            problem = _("Too many wrong numbers, so nothing was deleted.")
        else:
            problem = _("That request has ended.")
        about = f"{labels.described(account)}: " if len(answers) > 1 else ""
        messages.error(request, f"{about}{problem}")
    return redirect(f"{reverse('me-forget')}?as={here.account.pk}")


def _erase(asked: ForgetRequest) -> bool:
    """Delete some portions. True if that was all; else housekeeping continues. It updates `asked.accounts`."""
    try:
        is_done = forgetting.erase(asked.pk, portions_limit=PORTIONS_ON_A_PAGE)
    except Exception as error:  # noqa: BLE001 - housekeeping continues every confirmed request
        log.warning("delete an account failed: %s; housekeeping continues", type(error).__name__)
        is_done = False
    asked.refresh_from_db(fields=["accounts"])
    return is_done
