"""Pages to import people from a file, to download invitations, and to suspend a person."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.debug import sensitive_variables
from django.views.decorators.http import require_http_methods

from identity import labels, operators
from identity.admin.base import address, may, need, page
from identity.flows import linking
from identity.models import UnifiedUser
from identity.web import csv_files
from identity.web.csv_files import Problem, Table
from identity.web.forms import PeopleFileForm


@require_http_methods(["GET", "POST"])
def import_people(request: HttpRequest) -> HttpResponse:
    """Preview a file of people, then import it as it was shown: all of it or nothing."""
    operator = need(request, "import_people")
    form = PeopleFileForm(files=request.FILES or None)
    if "content" in request.POST:
        content = request.POST["content"].encode()
        table = csv_files.read_people(content)
        if not table.problems:
            try:
                count = operators.import_people(people=table.people, operator=operator)
            except ValueError as error:
                table.problems.append(Problem(0, str(error)))
            else:
                text = ngettext("%(count)d person was added.", "%(count)d people were added.", count)
                messages.success(request, text % {"count": count})
                return redirect(_list(request))
        return _preview(request, table, content)
    if request.method == "POST" and form.is_valid():
        content = form.cleaned_data["file"].read(csv_files.MAX_BYTES + 1)
        return _preview(request, csv_files.read_people(content), content)
    return page(request, "import", _("Import people"), form=form, most=operators.AT_ONCE, back=_list(request))


def _preview(request: HttpRequest, table: Table, content: bytes) -> HttpResponse:
    known = operators.known_ids(table.people)
    return page(
        request,
        "import",
        _("Import people"),
        form=PeopleFileForm(),
        most=operators.AT_ONCE,
        problems=table.problems,
        added=[person for person in table.people if person.unified_user_id not in known],
        known=sorted(known),
        content="" if table.problems else content.decode("utf-8-sig"),
        back=_list(request),
    )


def _list(request: HttpRequest) -> str:
    may_see = may(request, "view_unifieduser") or may(request, "change_unifieduser")
    return address("unifieduser", "changelist" if may_see else "import")


@sensitive_variables()
def download(rows: list[list[str]], name: str) -> HttpResponse:
    """Return invitations as a file, which is stored nowhere."""
    text = csv_files.write(csv_files.INVITATIONS, rows)
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return HttpResponse(text, content_type="text/csv; charset=utf-8", headers=headers)


@require_http_methods(["GET", "POST"])
def suspend(request: HttpRequest, pk: int) -> HttpResponse:
    """Ask for confirmation, then end all links of a person."""
    operator = need(request, "suspend_person")
    person = get_object_or_404(UnifiedUser, pk=pk)
    back = address("unifieduser", "change", pk)
    if request.method == "POST":
        count = operators.suspend(person=person, operator=operator)
        text = ngettext("Suspended: %(count)d link ended.", "Suspended: %(count)d links ended.", count)
        messages.success(request, text % {"count": count})
        return redirect(back)
    accounts = ", ".join(map(labels.described, linking.accounts_of(person))) or _("none")
    question = _(
        "This ends all links of %(person)s (%(accounts)s) and withdraws all invitations. Each account is unlinked "
        "and gets a notice. No messages are deleted."
    )
    values = {"person": person.unified_user_id, "accounts": accounts}
    return page(request, "confirm", _("Suspend this person?"), question=question % values, act=_("Suspend"), back=back)
