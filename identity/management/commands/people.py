"""`manage.py people`: the same as the admin's pages about people."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from django.db.models import Q

from identity import operators
from identity.flows import invitations, linking
from identity.management.printing import OperatorCommand, named, operator, person_named
from identity.models import AccountLink, UnifiedUser
from identity.operators import NewPerson
from identity.pairing import requests as pairing_requests
from identity.web import csv_files


class Command(OperatorCommand):
    help = "People: list, show, add, invite, suspend, import."

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        people = self.list_step(self.list, "List people.")
        people.add_argument("--platform", default="", help="only people with an account on this platform")
        id_help = "the unified id, for example alice"
        self.step("show", self.show_person, "Show one person.").add_argument("person_id", metavar="id", help=id_help)
        add = self.step("add", self.add, "Add a person.")
        add.add_argument("person_id", metavar="id", help=id_help)
        add.add_argument("--name", default="", help="a name for the person")
        invite = self.step("invite", self.invite, "Issue a code, shown once, for another account of each person.")
        invite.add_argument("people", metavar="id", nargs="+", help=id_help)
        invite.add_argument("--platform", default="", help="accept only an account on this platform (default: any)")
        self.step("suspend", self.suspend, "End all links of a person.").add_argument(
            "person_id", metavar="id", help=id_help
        )
        text = "Add the people in a CSV file (unified_user_id,display_name): all of them or none."
        self.step("import", self.import_people, text).add_argument("file", type=Path, metavar="FILE.csv")

    def list(self, *, search: str, limit: int, platform: str) -> None:
        live = AccountLink.objects.live()
        people = UnifiedUser.objects.order_by("-pk")
        if search:
            by_account = live.filter(account__platform_user_id=search).values("user")
            words = Q(unified_user_id__icontains=search) | Q(display_name__icontains=search)
            people = people.filter(words | Q(pk__in=by_account))
        if platform:
            people = people.filter(pk__in=live.filter(account__platform=platform).values("user"))
        listed = list(people[:limit])
        platforms: dict[int, list[str]] = {}
        for link in live.filter(user__in=listed).select_related("account").order_by("since", "pk"):
            platforms.setdefault(link.user_id, []).append(link.account.platform)
        self.show_all([_row(person) | {"accounts": platforms.get(person.pk, [])} for person in listed])

    def show_person(self, *, person_id: str) -> None:
        person = person_named(person_id)
        accounts = [str(account) for account in linking.accounts_of(person)]
        live = pairing_requests.live_invitations(person).select_related("person", "responder").order_by("created_at")
        requests = [f"{request.pk} {invitations.state_of(request)}" for request in live]
        self.show(_row(person) | {"accounts": accounts, "invitations": requests})

    def add(self, *, person_id: str, name: str) -> None:
        person = operators.add_person(person=NewPerson(person_id, name), operator=operator())
        person.refresh_from_db()
        self.show(_row(person), f"Added {person.unified_user_id}.")

    def invite(self, *, people: Sequence[str], platform: str) -> None:
        invited = [person_named(person_id) for person_id in dict.fromkeys(people)]
        issued = operators.invite_all(people=invited, platform=platform, operator=operator())
        rows = [
            {
                "person": request.person.unified_user_id if request.person else None,
                "request": request.pk,
                "code": invitation.code,
                "deep_link": invitation.deep_link,
                "expires_at": invitation.expires_at,
                "invitation": invitation.text,
            }
            for request, invitation in zip(issued, invitations.shown(issued), strict=True)
        ]
        texts = ["For {person}:\n{invitation}\n\nRequest {request}.".format_map(row) for row in rows]
        self.show_each(rows, "\n\n".join([*texts, "Codes are shown only once."]))

    def suspend(self, *, person_id: str) -> None:
        count = operators.suspend(person=person_named(person_id), operator=operator())
        self.show({"unified_user_id": person_id, "links_ended": count}, f"Suspended {person_id}: {count} links ended.")

    def import_people(self, *, file: Path) -> None:
        try:
            table = csv_files.read_people(file.read_bytes())
        except OSError as error:
            raise ValueError(f"{file} cannot be read: {error.strerror}.") from error
        if table.problems:
            raise ValueError("\n".join(["Nothing was imported.", *map(str, table.problems)]))
        count = operators.import_people(people=table.people, operator=operator())
        known = len(table.people) - count
        self.show({"added": count, "known": known}, f"{count} added, {known} already there.")


def _row(person: UnifiedUser) -> dict[str, Any]:
    return {
        "unified_user_id": person.unified_user_id,
        "display_name": named(person),
        "created_at": person.created_at,
    }
