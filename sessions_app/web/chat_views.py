"""The chat in the browser. GET only reads. A message is a POST, and is stored before the page confirms it."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters, sensitive_variables
from django.views.decorators.http import require_POST, require_safe

from identity import live
from identity.browsers import sessions as browser_sessions
from sessions_app.models import new_nonce
from sessions_app.web import browser_chat, chat_page
from sessions_app.web.browser_chat import Answer

STATUS = {Answer.TOO_OFTEN: 429, Answer.ENDED: 403, Answer.UNCONFIRMED: 403, Answer.TOO_LONG: 413}


@sensitive_variables()
@require_safe
@never_cache
def chat(request: HttpRequest) -> HttpResponse:
    """Show the conversation and a field to write in."""
    return _page(request, request.GET.get("account", ""))


@sensitive_variables()
@require_safe
@never_cache
def now(request: HttpRequest) -> HttpResponse:
    """Return the part of the page that changes, for the script that updates it."""
    context = _context(request, request.GET.get("account", ""))
    browser_sessions.leave_cookie(request)
    return render(request, "sessions_app/chat_now.html", context)


@sensitive_post_parameters("text")
@sensitive_variables()
@require_POST
@never_cache
def say(request: HttpRequest) -> HttpResponse:
    """Store a message. A script gets the result as JSON; without one, the page is shown again."""
    browser, account, text = browser_sessions.of(request), request.POST.get("account", ""), request.POST.get("text", "")
    account_id = int(account) if account.isascii() and account.isdigit() and len(account) < 19 else 0
    answer = Answer.ENDED
    if browser:
        answer = browser_chat.say(browser=browser, account_id=account_id, text=text, key=request.POST.get("key", ""))
    words = _words(answer)
    if request.headers.get("Accept") == "application/json":
        return JsonResponse({"answer": answer, "words": words})
    if answer == Answer.SENT:
        return redirect(f"{reverse('chat')}?account={account_id}#end")
    kept = "" if answer == Answer.SECRET else text
    return _page(request, account, status=STATUS.get(answer, 400), problem=words, text=kept)


def _page(request: HttpRequest, wanted: str, *, status: int = 200, **more: Any) -> HttpResponse:
    after = live.position()  # before anything is read, so that no later event is missed
    context = _context(request, wanted) | {"after": after, "key": new_nonce()} | more
    return render(request, "sessions_app/chat.html", context, status=status)


def _context(request: HttpRequest, wanted: str) -> dict[str, Any]:
    browser = browser_sessions.of(request)
    return {"browser": browser, "chat": chat_page.chat(browser, wanted)}


def _words(answer: Answer) -> str:
    return {
        Answer.SENT: "",
        Answer.ENDED: _("This browser has been signed out. Nothing was sent."),
        Answer.UNCONFIRMED: _("First confirm in your app that this is you. Nothing was sent."),
        Answer.SECRET: _(
            "That is about linking. Send it in your app, or use the page “Link my accounts”. It was not saved."
        ),
        Answer.TOO_OFTEN: _("That was too fast. Wait a second, then send it again."),
        Answer.EMPTY: _("Write something first."),
        Answer.TOO_LONG: _("That is too long: the limit is 64 KiB. Nothing was sent."),
        Answer.UNACCEPTABLE: _("Your message has a character that can't be stored. Nothing was sent."),
    }[answer]
