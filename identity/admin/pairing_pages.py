"""Pages to pair an account with a person: they issue a code, show it once, and follow its request to the end.

GET changes nothing except which code is still to be shown: the operator's session holds the id of the last request,
never a code, until its page is shown for the first time.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect
from django.utils.translation import gettext as _
from django.views.decorators.debug import sensitive_post_parameters, sensitive_variables
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from identity import operators, wording
from identity.admin.base import address, may, need, page
from identity.flows import invitations
from identity.flows.invitations import Status
from identity.models import Pairing, UnifiedUser
from identity.pairing import requests as pairing_requests
from identity.pairing.requests import Outcome
from identity.web.forms import NumberForm, PairForm

JUST_ISSUED = "identity.just_issued"


@require_http_methods(["GET", "POST"])
def pair(request: HttpRequest, pk: int) -> HttpResponse:
    """Choose a platform, and issue a code."""
    operator = need(request, "pair_account")
    person = get_object_or_404(UnifiedUser, pk=pk)
    form = PairForm(person, request.POST or None)
    if form.is_valid():
        try:
            issued = operators.invite(person=person, operator=operator, platform=form.cleaned_data["platform"])
        except ValueError as error:
            form.add_error(None, str(error))
        else:
            request.session[JUST_ISSUED] = str(issued.pk)
            return redirect(address("pairing", "live", issued.pk))
    live = pairing_requests.live_invitations(person).select_related("person", "responder").order_by("created_at")
    return page(
        request,
        "pair",
        _("Pair an account with %(person)s") % {"person": person},
        person=person,
        form=form,
        is_available=operators.is_pairing_available(),
        earlier=[(address("pairing", "live", earlier.pk), invitations.status_of(earlier).text) for earlier in live],
        back=address("unifieduser", "change", pk),
    )


@sensitive_variables()
@require_GET
def live(request: HttpRequest, pk: UUID) -> HttpResponse:
    """Show the state of an invitation; the first time, to the operator who issued it, with its code."""
    operator = need(request, "pair_account")
    invitation, standing = _invitation(pk)
    shown = None
    if request.session.get(JUST_ISSUED) == str(invitation.pk):
        del request.session[JUST_ISSUED]
        if standing.state == Pairing.State.OFFERED and invitation.operator == operator:
            shown = invitations.shown([invitation])[0]
    return page(
        request,
        "live",
        _("An account for %(person)s") % {"person": invitation.person},
        invitation=invitation,
        shown=shown,
        status=standing,
        version=_version(standing),
        form=NumberForm() if standing.asks_operator else None,
        may_withdraw=standing.is_live and may(request, "withdraw_request"),
        back=address("unifieduser", "change", invitation.person_id),
        another=address("unifieduser", "pair", invitation.person_id),
    )


@require_GET
def status(request: HttpRequest, pk: UUID) -> JsonResponse:
    """Return `{version, text, live}` for the page's script: with another version it loads the page again."""
    need(request, "pair_account")
    standing = _invitation(pk)[1]
    return JsonResponse({"version": _version(standing), "text": standing.text, "live": standing.is_live})


@sensitive_post_parameters()
@sensitive_variables()
@require_POST
def number(request: HttpRequest, pk: UUID) -> HttpResponse:
    """Try the number that the person read out."""
    operator = need(request, "pair_account")
    invitation = _invitation(pk)[0]
    form = NumberForm(request.POST)
    try:
        outcome = operators.confirm(invitation=invitation, number=form.data.get("number", ""), operator=operator)
    except ValueError as error:
        messages.error(request, str(error))
    else:
        level = messages.SUCCESS if outcome == Outcome.LINKED else messages.ERROR
        messages.add_message(request, level, _answer(outcome, invitation))
    return redirect(address("pairing", "live", pk))


def _answer(outcome: Outcome, invitation: Pairing) -> str:
    if outcome == Outcome.WRONG:
        return wording.wrong_number(operators.tries_left(invitation))
    answers = {
        Outcome.LINKED: _("Linked. The person gets a notice and can undo it."),
        Outcome.LOCKED: _("Too many wrong numbers. Nothing was linked; issue a new code to start again."),
        Outcome.REFUSED: _("Nothing was linked: the account or the person was linked elsewhere in the meantime."),
        Outcome.OTHER_SIDE: _("The person has an account now, so they must type the number in one of their own chats."),
    }
    return answers.get(
        outcome, _("There is no number to type: the request has ended, or is still waiting for its code.")
    )


@require_http_methods(["GET", "POST"])
def withdraw(request: HttpRequest, pk: UUID) -> HttpResponse:
    """Ask, then end an invitation."""
    operator = need(request, "withdraw_request")
    invitation, standing = _invitation(pk)
    if may(request, "pair_account"):  # the nearest page that the operator may see
        back = address("pairing", "live", invitation.pk)
    else:
        back = address("pairing", "change" if may(request, "view_pairing") else "withdraw", invitation.pk)
    if request.method == "POST":
        done = operators.withdraw(invitation=invitation, operator=operator)
        text = _("Withdrawn: its code no longer works.") if done else _("This invitation had already ended.")
        messages.add_message(request, messages.SUCCESS if done else messages.WARNING, text)
        return redirect(back)
    question = f"{standing.text} " + _("Nobody can complete it after that.")
    return page(request, "confirm", _("Withdraw this invitation?"), question=question, act=_("Withdraw"), back=back)


def _invitation(pk: UUID) -> tuple[Pairing, Status]:
    """Return an invitation and its status. Requests that were started in a chat are not found."""
    invitations_only = Pairing.objects.filter(person__isnull=False).select_related("person", "responder")
    invitation = get_object_or_404(invitations_only, pk=pk)
    return invitation, invitations.status_of(invitation)


def _version(standing: Status) -> str:
    """Return a text that changes when the page must be loaded again, which a wrong try does not need."""
    words: list[Any] = [standing.state, "operator" if standing.asks_operator else "chat"]
    return "-".join(words)
